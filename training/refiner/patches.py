"""Which patches of a coarse mask are trained on, and how they are cut out (Tang et al. 2021, section 3.1).

All of it works on one window of the picture that holds the mask, never on the whole picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Boxes = NDArray[np.int64]


def boundary_scores(mask: Mask, border: bool = True) -> NDArray[np.float64]:
    """How balanced the 3x3 surrounding of every pixel is: min(9 - s, s) / 4.5 with s its foreground pixels; 0 away from the boundary.

    Args:
        mask: (H, W) uint8, 0 or 1.
        border: outside counts as background; otherwise the mask goes on there as it is at the edge.
    """
    outside = cv2.BORDER_CONSTANT if border else cv2.BORDER_REPLICATE
    count = cv2.boxFilter(mask, cv2.CV_16S, (3, 3), normalize=False, borderType=outside)
    return np.asarray(np.minimum(9 - count, count) / 4.5, np.float64)


def pick_centres(scores: NDArray[np.float64], patch: int, threshold: float) -> Boxes:
    """Centres (P, 2) xy of the patches that are left after NMS over one candidate box per boundary pixel.

    All boxes have one size, so their IoU is a function of the distance of their centres. Of equal scores the first pixel in row-major
    order wins.

    Args:
        scores: (H, W), as `boundary_scores` gives them.
        patch: side of the boxes, pixels.
        threshold: a box whose IoU with a kept one is above this is suppressed.
    """
    ys, xs = np.nonzero(scores)
    order = np.argsort(-scores[ys, xs], kind="stable")
    x, y = xs[order].astype(np.int64), ys[order].astype(np.int64)
    kept: list[tuple[int, int]] = []
    while len(x):
        kept.append((int(x[0]), int(y[0])))
        common = np.maximum(0, patch - np.abs(x - x[0])) * np.maximum(0, patch - np.abs(y - y[0]))
        left = common <= threshold * (2 * patch * patch - common)
        left[0] = False
        x, y = x[left], y[left]
    return np.array(kept, np.int64).reshape(-1, 2)


def boxes_inside(centres: Boxes, side: int, shape: tuple[int, int]) -> Boxes:
    """Boxes (P, 4) xyxy of ``side`` pixels around centres, moved into a picture of ``shape`` (h, w).

    A picture smaller than the side keeps the box at its origin; `cut` fills up what is outside with zeros.
    """
    corners = centres - side // 2
    limit = np.maximum(0, np.array([shape[1] - side, shape[0] - side]))
    corners = np.clip(corners, 0, limit)
    return np.concatenate([corners, corners + side], 1)


def cut(array: NDArray[np.uint8], box: NDArray[np.int64], origin: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
    """The part of an array inside a box, zeros outside the array.

    Args:
        array: (H, W) or (H, W, C), a window of a picture.
        box: x1, y1, x2, y2, pixels of the picture.
        origin: x, y of the window in the picture.
    """
    x1, y1, x2, y2 = (int(v) for v in box - np.array([*origin, *origin]))
    result = np.zeros((y2 - y1, x2 - x1, *array.shape[2:]), array.dtype)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, array.shape[1]), min(y2, array.shape[0])
    if left < right and top < bottom:
        result[top - y1 : bottom - y1, left - x1 : right - x1] = array[top:bottom, left:right]
    return result

"""Which patches of a coarse mask are trained on, and how they are cut out (Tang et al. 2021, section 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.ops import MaskCrops, boundary_patches
from training.refiner.config import PatchConfig, RefinerConfig

Mask = NDArray[np.uint8]
Boxes = NDArray[np.int64]


def centres_of(coarse: Mask, origin: tuple[int, int], shape: tuple[int, int], config: RefinerConfig, picks: PatchConfig) -> Boxes:
    """Centres (P, 2) xy, pixels of the picture, of the patches that inference would take of a coarse mask.

    Args:
        coarse: (h, w) uint8, 0 or 1, a window of the picture.
        origin: x, y of the window in the picture.
        shape: (H, W) of the picture.
        config: side of a patch.
        picks: threshold of the NMS, and whether the picture's edge counts as boundary.
    """
    x, y = origin
    box = np.array([[x, y, x + coarse.shape[1], y + coarse.shape[0]]], np.int32)
    crops = MaskCrops(box, np.array([0, coarse.size], np.int64), np.ascontiguousarray(coarse).ravel())
    found = boundary_patches(crops, shape, size=config.patch, threshold=picks.nms_threshold, frame=picks.border)
    return found.boxes[:, :2].astype(np.int64) + config.patch // 2


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

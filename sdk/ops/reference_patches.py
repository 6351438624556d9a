"""What the patch operators mean, in slow NumPy on full-size masks: the tests compare every implementation with these.

Written from `docs/operators.md` (Tang et al., CVPR 2021, "Look Closer to Segment Better: Boundary Patch Refinement"), patch by patch, in
float64 unless a contract says float32. Arguments are taken to be valid.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdk.ops.reference import Array, Floats, triangle_matrix

Box = tuple[int, int, int, int]  # x1, y1, x2, y2, pixels, x2 and y2 excluded
Scored = tuple[Box, float]


# -- extraction ---------------------------------------------------------------------------------------------------------------------


def boundary_patches(
    mask: Array,
    *,
    size: int = 64,
    threshold: float = 0.25,
    scheme: str = "dense",
    enlarge: float = 0.0,
    frame: bool = True,
    pad_small: bool = False,
) -> list[Scored]:
    """The patches of one mask (H, W) with their scores; see `sdk.ops.boundary_patches`."""
    mask = np.asarray(mask, bool)
    if not mask.any():
        return []
    if scheme == "instance":
        return [_instance_patch(mask, enlarge)]
    if min(mask.shape) < size and not pad_small:
        return []
    found = _dense(mask, size, threshold, frame) if scheme == "dense" else _grid(mask, size)
    return found


def balance(mask: Array, frame: bool) -> Floats:
    """How evenly the 3 x 3 pixels around each pixel are split: min(foreground, background) / 4.5, (H, W).

    Args:
        mask: (H, W) bool.
        frame: What lies outside the picture counts as background; otherwise it does not count.
    """
    height, width = mask.shape
    foreground, present = np.pad(mask, 1).astype(int), np.pad(np.ones(mask.shape, int), 1, constant_values=int(frame))
    windows = [(slice(dy, dy + height), slice(dx, dx + width)) for dy in range(3) for dx in range(3)]
    inside = sum(foreground[window] for window in windows)
    total = sum(present[window] for window in windows)
    score: Floats = np.minimum(inside, total - inside) / 4.5
    return score


def _dense(mask: Array, size: int, threshold: float, frame: bool) -> list[Scored]:
    """A box around every boundary pixel, thinned by non-maximum suppression and moved inside the picture."""
    score = balance(mask, frame)
    ys, xs = np.nonzero(score)  # row-major
    order = np.argsort(-score[ys, xs], kind="stable")
    kept: list[tuple[int, int]] = []  # pixels in order of suppression
    for y, x in zip(ys[order].tolist(), xs[order].tolist(), strict=True):
        if not any(overlap_too_much(abs(x - other_x), abs(y - other_y), size, threshold) for other_x, other_y in kept):
            kept.append((x, y))
    found: dict[Box, float] = {}
    for x, y in kept:
        x1, y1 = (max(min(centre - size // 2, extent - size), 0) for centre, extent in zip((x, y), mask.shape[::-1], strict=True))
        found.setdefault((x1, y1, x1 + size, y1 + size), float(score[y, x]))  # boxes that became equal: the first stays
    return list(found.items())


@functools.cache
def overlap_too_much(dx: int, dy: int, size: int, threshold: float) -> bool:
    """Whether two squares this far apart suppress each other: the rule of `sdk.ops.nms`, float32."""
    shared = max(size - dx, 0) * max(size - dy, 0)
    return bool(np.float32(shared) > np.float32(threshold) * np.float32(2 * size**2 - shared))


def _grid(mask: Array, size: int) -> list[Scored]:
    """The cells of a grid from (0, 0) that hold both labels; the last column and row are moved inside the picture."""
    height, width = mask.shape
    found = []
    for top in range(0, height, size):
        for left in range(0, width, size):
            y1, x1 = max(min(top, height - size), 0), max(min(left, width - size), 0)
            cell = mask[y1 : y1 + size, x1 : x1 + size]
            if 0 < cell.sum() < cell.size:
                found.append(((x1, y1, x1 + size, y1 + size), _evenness(cell)))
    return found


def _instance_patch(mask: Array, enlarge: float) -> Scored:
    """The tight box, enlarged on every side by a part of its own width and height, cut to the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    more_x, more_y = int((x2 - x1) * enlarge + 0.5), int((y2 - y1) * enlarge + 0.5)
    box = (max(x1 - more_x, 0), max(y1 - more_y, 0), min(x2 + more_x, mask.shape[1]), min(y2 + more_y, mask.shape[0]))
    return box, _evenness(mask[box[1] : box[3], box[0] : box[2]])


def _evenness(cell: Array) -> float:
    inside = int(cell.sum())
    return 2 * min(inside, cell.size - inside) / cell.size


# -- network input ------------------------------------------------------------------------------------------------------------------


def cut_patch(
    image: Array, mask: Array | None, box: Box, *, padding: int, input_size: int, mean: Sequence[float], std: Sequence[float]
) -> Floats:
    """One patch of a picture (H, W, 3) and a mask (H, W) or none: (4 or 3, S, S); see `sdk.ops.cut_patches`."""
    outer = (box[0] - padding, box[1] - padding, box[2] + padding, box[3] + padding)
    pixels = _window(np.asarray(image, np.float64), outer)
    down, across = (triangle_matrix(extent, input_size, False) for extent in pixels.shape[:2])
    resized = np.einsum("yi,xj,ijc->cyx", down, across, pixels, optimize=True)
    channels = [(resized - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))]
    if mask is not None:
        labels = _window(np.asarray(mask, bool), outer)
        rows, columns = (_nearest(extent, input_size) for extent in labels.shape)
        channels.append(np.where(labels[np.ix_(rows, columns)], 1.0, -1.0)[None])
    return np.concatenate(channels)


def _window(values: Array, box: Box) -> Array:
    """The pixels of a box; zeros outside the picture."""
    result = np.zeros((box[3] - box[1], box[2] - box[0], *values.shape[2:]), values.dtype)
    for y in range(max(box[1], 0), min(box[3], values.shape[0])):
        for x in range(max(box[0], 0), min(box[2], values.shape[1])):
            result[y - box[1], x - box[0]] = values[y, x]
    return result


def _nearest(extent: int, input_size: int) -> NDArray[np.int64]:
    """The input pixel in which the centre of each output pixel lies; (i + .5) extent / input_size, rounded down."""
    positions: NDArray[np.int64] = (2 * np.arange(input_size) + 1) * extent // (2 * input_size)
    return positions


# -- reassembly ---------------------------------------------------------------------------------------------------------------------


def merge_patches(
    mask: Array, boxes: Sequence[Box], values: Array, *, padding: int = 0, logits: bool = False
) -> tuple[Floats, NDArray[np.bool_]]:
    """Mean probability of every pixel over the patches of one mask that cover it; see `sdk.ops.merge_patches`.

    Args:
        mask: (H, W) bool.
        boxes: P patches of this mask.
        values: (P, S, S).
        padding: ring around the boxes that the network saw, pixels.
        logits: `values` are logits.

    Returns:
        (H, W) float64, the mask's own 0 or 1 where no patch lies; (H, W) bool, where a patch lies.
    """
    total, count = np.zeros(mask.shape), np.zeros(mask.shape, int)
    for (x1, y1, x2, y2), grid in zip(boxes, np.asarray(values, np.float64), strict=True):
        down, across = (triangle_matrix(grid.shape[0], extent + 2 * padding, False) for extent in (y2 - y1, x2 - x1))
        resized = (down @ grid @ across.T)[padding : padding + y2 - y1, padding : padding + x2 - x1]
        if logits:
            resized = 1 / (1 + np.exp(-resized))
        inside = resized[: mask.shape[0] - y1, : mask.shape[1] - x1]  # a patch may reach over a small picture's border
        total[y1:y2, x1:x2] += inside
        count[y1:y2, x1:x2] += 1
    return np.where(count > 0, total / np.maximum(count, 1), mask), count > 0


# -- uncertainty --------------------------------------------------------------------------------------------------------------------


def patch_uncertainty(box: Box, mask_logits: Array, mask_box: Array) -> float:
    """Mean of 1 - |2 p - 1| on 16 x 16 points of a patch, p as in `paste_masks`; see `sdk.ops.patch_uncertainty`."""
    probabilities = np.pad(1 / (1 + np.exp(-np.asarray(mask_logits, np.float64))), 1)
    x1, y1, x2, y2 = np.asarray(mask_box, np.float64).tolist()
    total = 0.0
    if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1:
        return total
    for i in range(16):
        for j in range(16):
            px, py = box[0] + (j + 0.5) / 16 * (box[2] - box[0]), box[1] + (i + 0.5) / 16 * (box[3] - box[1])
            gx, gy = (px - x1) / (x2 - x1) * mask_logits.shape[1] - 0.5, (py - y1) / (y2 - y1) * mask_logits.shape[0] - 0.5
            if -1 < gx < mask_logits.shape[1] and -1 < gy < mask_logits.shape[0]:
                column, row = int(np.floor(gx)), int(np.floor(gy))
                fx, fy = gx - column, gy - row
                corners = probabilities[row + 1 : row + 3, column + 1 : column + 3]
                p = np.array([1 - fy, fy]) @ corners @ np.array([1 - fx, fx])
                total += 1 - abs(2 * p - 1)
    return float(total / 256)

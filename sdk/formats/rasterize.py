"""COCO polygons to bitmaps, pixel for pixel as pycocotools does it (its rleFrPoly), so that a dataset means the same here as there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SCALE = 5  # pycocotools walks the boundary on a grid this many times finer
_FARTHEST = 1e5  # pixels; the walk takes time and memory by the length of the edges


def polygon_mask(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Rasterises the union of polygons.

    Args:
        polygons: each a flat list x0, y0, x1, y1, ... of at least three points, pixels.
        shape: height and width of the picture, pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: see `polygon_points`.
    """
    mask = np.zeros(shape, np.bool_)
    for polygon in polygons:
        _fill(mask, polygon_points(polygon))
    return mask


def polygon_points(polygon: Sequence[float]) -> NDArray[np.float64]:
    """The points of a COCO polygon: (n, 2), x and y in pixels.

    Raises:
        ValueError: fewer than three points, an odd number of values, values that are no numbers, or points beyond 100,000 pixels.
    """
    try:
        values = np.asarray(polygon)
        if values.size and values.dtype.kind not in "iuf":  # numpy would read text as numbers
            raise TypeError(f"got {values.ravel()[0]!r:.40} among them")
        points = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a polygon is a flat list of numbers ({error})") from error
    if points.ndim != 1 or points.size < 6 or points.size % 2 or not (np.abs(points) <= _FARTHEST).all():
        raise ValueError(f"a polygon is a flat list of at least three finite x, y pairs, each from {-_FARTHEST:g} to {_FARTHEST:g} pixels")
    return points.reshape(-1, 2)


def _fill(mask: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
    height, width = mask.shape
    grid = np.trunc(_SCALE * points + 0.5).astype(np.int64)  # C's conversion to int cuts towards zero
    grid = np.concatenate([grid, grid[:1]])
    walk = np.concatenate([_edge(*grid[i], *grid[i + 1]) for i in range(len(points))])
    u, v = walk[:, 0], walk[:, 1]
    turns = np.flatnonzero(u[1:] != u[:-1]) + 1  # steps that cross from one fine column to the next
    x = (np.where(u[turns] < u[turns - 1], u[turns], u[turns] - 1) + 0.5) / _SCALE - 0.5
    y = (np.minimum(v[turns], v[turns - 1]) + 0.5) / _SCALE - 0.5
    inside = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)  # only crossings of a pixel column's centre line count
    columns = x[inside].astype(np.int64)
    rows = np.ceil(np.clip(y[inside], 0, height)).astype(np.int64)
    if not len(columns):
        return
    first, last = columns.min(), columns.max() + 1
    # The run lengths toggle at every crossing; runs go on from the foot of a column to the head of the next, as in COCO's format.
    toggles = np.zeros((last - first) * height + 1, np.int64)
    np.add.at(toggles, (columns - first) * height + rows, 1)
    filled = (np.cumsum(toggles[:-1]) & 1).astype(np.bool_).reshape(last - first, height)
    mask[:, first:last] |= filled.T


def _edge(xs: int, ys: int, xe: int, ye: int) -> NDArray[np.int64]:
    """The fine grid points from one vertex to the next, both included: (n, 2)."""
    dx, dy = abs(xe - xs), abs(ye - ys)
    flip = (dx >= dy and xs > xe) or (dx < dy and ys > ye)
    if flip:  # always walk in the positive direction, so that a shared edge rounds alike from both sides
        xs, ys, xe, ye = xe, ye, xs, ys
    steps = np.arange(max(dx, dy) + 1)
    if flip:
        steps = steps[::-1]
    if dx >= dy:
        slope = (ye - ys) / dx if dx else 0.0
        return np.stack([steps + xs, np.trunc(ys + slope * steps + 0.5).astype(np.int64)], axis=1)
    slope = (xe - xs) / dy
    return np.stack([np.trunc(xs + slope * steps + 0.5).astype(np.int64), steps + ys], axis=1)

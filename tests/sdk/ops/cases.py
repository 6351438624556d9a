"""Inputs that several operator tests (and the benchmarks) share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.ops import MaskCrops, dense_to_crops

# Boxes that break naive code: no area, inverted, outside, over the border, enormous, not finite.
DEGENERATE_BOXES = np.array(
    [
        [5, 5, 5, 9],
        [5, 5, 9, 5],
        [9, 9, 5, 5],
        [9, 2, 5, 12],
        [-40, -40, -20, -20],
        [500, 500, 520, 530],
        [-6, -3, 9, 7],
        [20, 15, 90, 80],
        [-50, -60, 200, 150],
        [-1e9, -1e9, 1e9, 1e9],
        [-3e38, -3e38, 3e38, 3e38],
        [3, 3, 3 + 1e-6, 20],
        [3, 3, 3.25, 3.25],
        [10.5, 10.5, 10.5 + 1e-3, 30],
        [np.nan, 0, 10, 10],
        [0, 0, np.nan, 10],
        [-np.inf, 0, 10, 10],
        [0, 0, np.inf, np.inf],
        [np.inf, 0, np.inf, 10],
    ],
    np.float32,
)


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int], margin: float = 0.2) -> NDArray[np.float32]:
    """(count, 4) boxes with an area, of all scales, some over the border of a picture of `size` = (h, w)."""
    h, w = size
    centres = rng.uniform(-margin, 1 + margin, (count, 2)) * [w, h]
    extents = np.exp(rng.uniform(np.log(0.5), np.log(1.5 * max(h, w)), (count, 2)))
    return np.concatenate([centres - extents / 2, centres + extents / 2], axis=1).astype(np.float32)


def random_masks(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(count, H, W) masks of many kinds: noise of every density, empty, full, one pixel, stripes, blobs with holes."""
    masks = np.zeros((count, *shape), bool)
    for n in range(count):
        masks[n] = _random_mask(rng, int(rng.integers(7)), shape)
    return masks


def _random_mask(rng: np.random.Generator, kind: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    if kind == 0:
        return np.zeros(shape, bool)
    if kind == 1:
        return np.ones(shape, bool)
    if kind == 2:
        mask = np.zeros(shape, bool)
        mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
        return mask
    if kind == 3:
        return np.broadcast_to(rng.random(shape[1]) < 0.5, shape).copy()
    if kind == 4:
        return np.broadcast_to(rng.random((shape[0], 1)) < 0.5, shape).copy()
    if kind == 5:
        return rng.random(shape) < rng.random()
    coarse = rng.random((shape[0] // 4 + 2, shape[1] // 4 + 2)) < 0.6
    return np.kron(coarse, np.ones((4, 4), bool))[: shape[0], : shape[1]]


def random_crops(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> MaskCrops:
    """`random_masks` as crops."""
    return dense_to_crops(random_masks(rng, count, shape))


def feature_pyramid(rng: np.random.Generator, batch: int, channels: int, sizes: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
    """Feature maps (batch, channels, h, w) of the given sizes."""
    return [rng.standard_normal((batch, channels, *size), np.float32) for size in sizes]

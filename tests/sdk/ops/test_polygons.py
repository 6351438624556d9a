from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sdk.ops import MaskCrops, dense_to_crops, polygons, reference
from tests.sdk.ops.cases import random_masks


def _signed_area(ring: np.ndarray) -> float:
    x, y = ring.T.astype(np.int64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _assert_simple(ring: np.ndarray) -> None:
    """No vertex twice, edges along the axes that turn at every vertex, and no two edges that meet elsewhere."""
    assert len({tuple(p) for p in ring.tolist()}) == len(ring)
    steps = np.roll(ring, -1, axis=0) - ring
    assert ((steps == 0).sum(axis=1) == 1).all()
    horizontal = steps[:, 0] != 0
    assert (horizontal != np.roll(horizontal, 1)).all()
    passed = [
        (int(x), int(y))
        for (x, y), (dx, dy) in zip(ring, steps, strict=True)
        for x, y in [(x + np.sign(dx) * k, y + np.sign(dy) * k) for k in range(max(abs(dx), abs(dy)))]
    ]
    assert len(set(passed)) == len(passed)  # every lattice point of the ring is passed once


def _assert_right(masks: np.ndarray, found: list[list[list[np.ndarray]]]) -> None:
    assert len(found) == len(masks)
    for mask, parts in zip(masks, found, strict=True):
        labels, count = ndimage.label(mask)  # 4-connected
        assert len(parts) == count
        firsts = []
        for rings in parts:
            outer, holes = rings[0], rings[1:]
            for ring in rings:
                assert ring.dtype == np.int32
                _assert_simple(ring)
                assert tuple(ring[0]) == min(map(tuple, ring.tolist()), key=lambda p: (p[1], p[0]))
            assert _signed_area(outer) > 0
            assert all(_signed_area(hole) < 0 for hole in holes)
            filled = reference.fill_rings(rings, mask.shape)
            component = labels == labels[np.unravel_index(filled.argmax(), mask.shape)]
            np.testing.assert_array_equal(filled, component)
            assert sum(map(_signed_area, rings)) == component.sum()
            # Holes lie inside the outer ring and not inside each other.
            inside = reference.fill_rings([outer], mask.shape)
            stacked = sum((reference.fill_rings([hole], mask.shape).astype(int) for hole in holes), np.zeros(mask.shape, int))
            assert (stacked <= inside).all()
            firsts.append(int(component.argmax()))
        assert firsts == sorted(firsts)


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (6, 6), (14, 19), (25, 22)])
def test_rings_give_the_mask_back(shape: tuple[int, int]) -> None:
    masks = random_masks(np.random.default_rng(shape[0]), 70, shape)
    _assert_right(masks, polygons(dense_to_crops(masks)))


def test_every_mask_of_three_by_three_pixels() -> None:
    """All 512 masks of 3 x 3 pixels, on a frame of foreground and on one of background: every way to touch at corners."""
    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    inner = bits.reshape(-1, 3, 3).astype(bool)
    masks = np.concatenate([np.pad(inner, ((0, 0), (1, 1), (1, 1)), constant_values=value) for value in (False, True)])
    _assert_right(masks, polygons(dense_to_crops(masks)))


def test_a_ring_that_meets_itself_is_split() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    ((outer, hole),) = polygons(dense_to_crops(mask[None]))[0]
    assert outer.tolist() == [[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3]]
    assert hole.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    parts = polygons(dense_to_crops(np.eye(2, dtype=bool)[None]))[0]
    assert [[ring.tolist() for ring in part] for part in parts] == [[[[0, 0], [1, 0], [1, 1], [0, 1]]], [[[1, 1], [2, 1], [2, 2], [1, 2]]]]


def test_an_island_in_a_hole_is_a_part_of_its_own() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    parts = polygons(dense_to_crops(mask[None]))[0]
    assert [len(part) for part in parts] == [2, 1]


def test_coordinates_are_those_of_the_picture_and_crops_need_not_be_tight() -> None:
    data = np.zeros((4, 5), np.uint8)
    data[1:3, 2:4] = 255
    crops = MaskCrops(np.array([[100, 50, 105, 54]], np.int32), np.array([0, 20]), data.reshape(-1))
    assert polygons(crops)[0][0][0].tolist() == [[102, 51], [104, 51], [104, 53], [102, 53]]


def test_nothing() -> None:
    assert polygons(MaskCrops.empty()) == []
    assert polygons(dense_to_crops(np.zeros((2, 4, 4), bool))) == [[], []]


def test_a_large_checkerboard_and_a_large_sieve() -> None:
    """Thousands of parts, and one part with thousands of holes that all meet at corners."""
    board = np.indices((101, 103)).sum(axis=0) % 2 == 0
    assert len(polygons(dense_to_crops(board[None]))[0]) == board.sum()
    sieve = np.pad(np.ones((100, 100), bool), 2)
    sieve[2:-2:2, 2:-2:2] = False
    (part,) = polygons(dense_to_crops(sieve[2:-2, 2:-2][None]))[0]
    assert sum(map(_signed_area, part)) == sieve[2:-2, 2:-2].sum()

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import MaskCrops, crops_to_dense, dense_to_crops
from tests.sdk.ops.cases import random_masks

SHAPE = (23, 31)


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    return random_masks(np.random.default_rng(0), 60, SHAPE)


def test_dense_and_back(masks: np.ndarray) -> None:
    crops = dense_to_crops(masks)
    np.testing.assert_array_equal(crops_to_dense(crops, SHAPE), masks)
    for n, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert crops.boxes[n].tolist() == tight


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_pictures_of_almost_nothing(shape: tuple[int, int]) -> None:
    masks = np.ones((3, *shape), bool)
    np.testing.assert_array_equal(crops_to_dense(dense_to_crops(masks), shape), masks)


def test_no_masks() -> None:
    for crops in (MaskCrops.empty(), MaskCrops.concatenate([]), dense_to_crops(np.zeros((0, 4, 4), bool))):
        assert len(crops) == 0
        assert crops.areas().shape == (0,)
        assert crops_to_dense(crops, (4, 4)).shape == (0, 4, 4)


def test_areas_and_crops(masks: np.ndarray) -> None:
    crops = dense_to_crops(masks)
    np.testing.assert_array_equal(crops.areas(), masks.sum(axis=(1, 2)))
    for n, crop in enumerate(crops):
        x1, y1, x2, y2 = crops.boxes[n]
        np.testing.assert_array_equal(crop, masks[n, y1:y2, x1:x2])
        assert np.shares_memory(crop, crops.data) or crop.size == 0
    np.testing.assert_array_equal(crops.crop(-1), crops.crop(len(crops) - 1))
    for n in (len(crops), -len(crops) - 1):
        with pytest.raises(InputError, match=f"n: expected an index of {len(crops)} masks, got {n}"):
            crops.crop(n)


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(3, 40, 7),
        slice(None, None, -1),
        slice(5, 5),
        np.array([4, 4, 0, -1]),
        np.array([2], np.uint8),
        [1, 3],
        [],
        np.zeros(0, np.int64),
        np.arange(60) % 3 == 0,
        np.zeros(60, bool),
    ],
    ids=str,
)
def test_indexing_equals_indexing_the_dense_masks(masks: np.ndarray, index: Any) -> None:
    chosen = dense_to_crops(masks)[index]
    expected = masks[np.asarray(index, np.int64) if isinstance(index, list) else index]
    np.testing.assert_array_equal(crops_to_dense(chosen, SHAPE), expected)


@pytest.mark.parametrize("index", [[60], [-61], np.zeros(59, bool), np.zeros((2, 2), int), [0.5], 3])
def test_a_wrong_index_is_named(masks: np.ndarray, index: Any) -> None:
    with pytest.raises(InputError, match=r"index: expected a slice, \(60,\) bool or indices below 60, got"):
        dense_to_crops(masks)[index]


def test_concatenate(masks: np.ndarray) -> None:
    crops = dense_to_crops(masks)
    joined = MaskCrops.concatenate([crops[40:], MaskCrops.empty(), crops[:5], crops[7:8]])
    np.testing.assert_array_equal(crops_to_dense(joined, SHAPE), np.concatenate([masks[40:], masks[:5], masks[7:8]]))
    assert joined.boxes.dtype == np.int32
    assert joined.offsets.dtype == np.int64


def test_fields_cannot_be_replaced() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MaskCrops.empty().data = np.zeros(0, np.uint8)  # type: ignore[misc]


def _fields(**change: Any) -> dict[str, Any]:
    good = {"boxes": np.array([[1, 2, 3, 5], [0, 0, 0, 0]], np.int32), "offsets": np.array([0, 6, 6]), "data": np.ones(6, np.uint8)}
    return {**good, **change}


def test_any_nonzero_value_is_foreground() -> None:
    crops = MaskCrops(**_fields(data=np.array([0, 2, 255, 0, 1, 0], np.uint8)))
    assert crops.areas().tolist() == [3, 0]
    dense = crops_to_dense(crops, (5, 3))
    assert dense.view(np.uint8).max() == 1
    assert dense.sum() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.array([[1, 2, 3, 5]], np.int32)}, r"offsets: expected int64 array of shape \(N\+1=2,\), got .*\(3,\)"),
        ({"boxes": np.array([[1, 2, 3, 5], [0, 0, 0, 0]])}, "boxes: expected int32 .* got int64"),
        ({"boxes": np.array([[3, 2, 1, 5], [0, 0, 0, 0]], np.int32)}, r"boxes\[0\]: expected 0 <= x1 <= x2"),
        ({"boxes": np.array([[-1, 2, 1, 5], [0, 0, 0, 0]], np.int32)}, r"boxes\[0\]: .* got \(-1, 2, 1, 5\)"),
        ({"offsets": np.array([0, 5, 6])}, r"offsets\[1\]: expected 6, got 5"),
        ({"offsets": np.array([1, 7, 7])}, "offsets: expected to begin with 0, got 1"),
        ({"data": np.ones(7, np.uint8)}, "data: expected 6 values, got 7"),
        ({"data": np.ones(6, bool)}, "data: expected uint8"),
    ],
)
def test_arrays_that_do_not_agree_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MaskCrops(**_fields(**change))


def test_a_crop_outside_the_picture_is_named() -> None:
    with pytest.raises(InputError, match=r"boxes\[0\]: expected to lie inside 3 x 4 pixels, got \(1, 2, 3, 5\)"):
        crops_to_dense(MaskCrops(**_fields()), (4, 3))


def test_wrong_masks_are_named() -> None:
    with pytest.raises(InputError, match=r"masks: expected bool array of shape \(N, H, W\), got uint8"):
        dense_to_crops(np.zeros((2, 3, 3), np.uint8))  # type: ignore[arg-type]

"""Patches as the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import MaskCrops, Patches, boundary_patches, crops_to_dense, cut_patches, dense_to_crops, reference_patches
from tests.sdk.ops.cases import random_masks

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TOLERANCE = 1e-3 / min(STD)


def _image(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def _expected(image: np.ndarray, masks: MaskCrops | None, patches: Patches, input_size: int) -> np.ndarray:
    dense = crops_to_dense(masks, patches.shape) if masks else None
    options = {"padding": patches.padding, "input_size": input_size, "mean": MEAN, "std": STD}
    rows = zip(patches.boxes.tolist(), patches.instance.tolist(), strict=True)
    cut = [reference_patches.cut_patch(image, dense[n] if dense is not None else None, tuple(box), **options) for box, n in rows]
    return np.array(cut).reshape(len(patches), 4 if masks else 3, input_size, input_size)


def _assert_close(image: np.ndarray, masks: MaskCrops | None, patches: Patches, input_size: int) -> np.ndarray:
    got = cut_patches(image, masks, patches, input_size=input_size, mean=MEAN, std=STD)
    want = _expected(image, masks, patches, input_size)
    assert got.shape == want.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
    if masks:
        np.testing.assert_array_equal(got[:, 3], want[:, 3])
    return got


def _random_patches(rng: np.random.Generator, count: int, shape: tuple[int, int], masks: int, padding: int) -> Patches:
    """Boxes of any size that begin inside; some end far outside."""
    low = rng.integers(0, shape[::-1], (count, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 60, (count, 2))], axis=1).astype(np.int32)
    return Patches(boxes, rng.integers(0, masks, count, np.int32), np.zeros(count, np.float32), shape, padding)


def test_random_patches_equal_the_definition() -> None:
    """Grown and shrunk, over the border, one pixel wide, of odd sizes."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        shape = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        masks = dense_to_crops(random_masks(rng, 3, shape))
        patches = _random_patches(rng, 4, shape, 3, int(rng.choice([0, 1, 5, 40])))
        _assert_close(_image(rng, shape), masks, patches, int(rng.integers(1, 40)))


@pytest.mark.parametrize(
    ("size", "padding", "input_size"), [(64, 0, 128), (64, 5, 128), (32, 0, 64), (96, 0, 128), (64, 0, 64), (64, 0, 32)]
)
def test_the_sizes_of_the_paper(size: int, padding: int, input_size: int) -> None:
    rng = np.random.default_rng(1)
    image, shape = _image(rng, (120, 150)), (120, 150)
    masks = dense_to_crops(random_masks(np.random.default_rng(6), 3, shape))
    patches = boundary_patches(masks, shape, size=size, padding=padding, threshold=0.1)
    assert len(patches) > 2
    _assert_close(image, masks, patches[:: max(1, len(patches) // 6)], input_size)


def test_a_patch_at_its_own_size_is_the_picture() -> None:
    rng = np.random.default_rng(2)
    image = _image(rng, (40, 50))
    mask = rng.random((1, 40, 50)) < 0.5
    patches = Patches(np.array([[7, 9, 23, 25]], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), (40, 50))
    got = cut_patches(image, dense_to_crops(mask), patches, input_size=16, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_array_equal(got[0, :3], image[9:25, 7:23].transpose(2, 0, 1))
    np.testing.assert_array_equal(got[0, 3], np.where(mask[0, 9:25, 7:23], 1, -1))


def test_without_masks_there_are_three_channels() -> None:
    rng = np.random.default_rng(3)
    got = _assert_close(_image(rng, (60, 70)), None, _random_patches(rng, 5, (60, 70), 9, 2), 24)
    assert got.shape == (5, 3, 24, 24)


def test_any_strides_grey_pictures_and_swapped_channels() -> None:
    rng = np.random.default_rng(4)
    image, patches = _image(rng, (50, 60)), _random_patches(rng, 6, (50, 60), 1, 3)
    expected = cut_patches(image, None, patches, input_size=20, mean=MEAN, std=STD)

    def equal(view: np.ndarray, **options: Any) -> None:
        np.testing.assert_array_equal(cut_patches(view, None, patches, input_size=20, mean=MEAN, std=STD, **options), expected)

    bgr = image[:, :, ::-1]
    equal(bgr, swap_channels=True)
    equal(np.ascontiguousarray(bgr), swap_channels=True)
    equal(np.ascontiguousarray(image[::-1])[::-1])
    equal(np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0))
    grey = np.repeat(image[:, :, :1], 3, axis=2)
    expected = cut_patches(grey, None, patches, input_size=20, mean=MEAN, std=STD)
    equal(grey[:, :, 0])
    equal(np.ascontiguousarray(grey[:, :, :1]))


def test_chunks_into_a_kept_output() -> None:
    rng = np.random.default_rng(5)
    image, masks = _image(rng, (90, 90)), dense_to_crops(random_masks(rng, 4, (90, 90)))
    patches = _random_patches(rng, 11, (90, 90), 4, 0)
    whole = cut_patches(image, masks, patches, input_size=16, mean=MEAN, std=STD)
    out = np.empty((4, 4, 16, 16), np.float32)
    parts = []
    for chunk in patches.chunks(4):
        part = cut_patches(image, masks, chunk, input_size=16, mean=MEAN, std=STD, out=out[: len(chunk)])
        assert part.base is out or part is out
        parts.append(part.copy())
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_no_patches() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    patches = boundary_patches(MaskCrops.empty(), (10, 10))
    assert cut_patches(image, MaskCrops.empty(), patches, input_size=8, mean=MEAN, std=STD).shape == (0, 4, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((10, 11, 3), np.uint8)}, r"image: expected the patches' height and width \(10, 10\), got uint8 array of shape"),
        ({"image": np.zeros((10, 10, 3), np.uint16)}, "image: expected uint8 .* got uint16"),
        ({"image": np.zeros((10, 10, 4), np.uint8)}, "image: expected uint8"),
        ({"masks": MaskCrops.empty()}, r"instance\[0\]: expected an index of 0 masks, got 0"),
        ({"input_size": 0}, "input_size: expected 1 to 1024, got 0"),
        ({"std": (1, 0, 1)}, "std: expected positive"),
        ({"mean": (1, float("nan"), 1)}, "mean: expected finite"),
        ({"out": np.empty((1, 3, 8, 8), np.float32)}, r"out: expected float32 array of shape \(P=1, 4, 8, 8\)"),
        ({"out": np.empty((1, 4, 8, 16), np.float32)[..., ::2]}, "out: expected a C-contiguous"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "image": np.zeros((10, 10, 3), np.uint8),
        "masks": dense_to_crops(np.ones((1, 10, 10), bool)),
        "patches": Patches(np.array([[0, 0, 8, 8]], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), (10, 10)),
        "input_size": 8,
        "mean": MEAN,
        "std": STD,
    }
    assert cut_patches(**arguments).shape == (1, 4, 8, 8)
    with pytest.raises(InputError, match=message):
        cut_patches(**{**arguments, **change})

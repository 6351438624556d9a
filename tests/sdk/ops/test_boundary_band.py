"""The boundary band: its reference against pooling, morphology and the convolution that defines it, the operator against the reference."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import InputError
from sdk.ops import reference
from sdk.ops.reference import boundary_band
from tests.sdk.ops import cases

Mask = NDArray[np.bool_]


def example() -> Mask:
    mask = np.zeros((6, 7), bool)
    mask[2:5, 0:4] = True
    return mask


def test_worked_example() -> None:
    """The foreground touches the left border, which is marked: outside is background."""
    rows = ["0000000", "1111100", "1111100", "1001100", "1111100", "1111100"]
    for min_frac in (0.0, 0.1):
        assert ["".join(str(int(v)) for v in row) for row in boundary_band(example(), 1, min_frac)] == rows
    strict, code = boundary_band(example(), 2), boundary_band(example(), 2, 0.1)
    assert (strict.sum(), code.sum()) == (36, 32)
    assert strict[:, :6].all()
    assert not strict[:, 6].any()
    assert np.argwhere(strict & ~code).tolist() == [[0, 4], [0, 5], [1, 5], [5, 5]]
    assert not (code & ~strict).any()


def convolved(mask: Mask, width: int, min_frac: float) -> Mask:
    """The definition: a kernel of -1 with (2w+1)^2 - 1 at the centre over the padded mask, and over its inverse."""
    side = 2 * width + 1
    kernel = -np.ones((side, side))
    kernel[width, width] = side**2 - 1
    padded = np.pad(mask, width).astype(np.float64)
    result = np.zeros(mask.shape, bool)
    for values in (padded, 1 - padded):
        windows = np.lib.stride_tricks.sliding_window_view(values, (side, side))
        result |= np.einsum("yxij,ij->yx", windows, kernel) > min_frac * side**2
    return result


def random_masks(count: int) -> list[Mask]:
    rng = np.random.default_rng(7)
    masks = []
    for n in range(count):
        shape = tuple(rng.integers(1, 24, 2))
        noise = rng.random(shape)
        masks.append((cv2.blur(noise, (5, 5)) > 0.5) if n % 2 else noise < rng.choice([0.02, 0.5, 0.98]))
    return masks


@pytest.mark.parametrize("width", [1, 2, 3])
def test_equal_to_pooling_morphology_and_the_convolution(width: int) -> None:
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    for mask in random_masks(300):
        strict = boundary_band(mask, width)
        padded = np.pad(mask, width)
        windows = np.lib.stride_tricks.sliding_window_view(padded, square.shape)
        np.testing.assert_array_equal(strict, windows.max(axis=(2, 3)) != windows.min(axis=(2, 3)))
        padded = np.pad(mask, 2 * width).astype(np.uint8)
        differs = (cv2.dilate(padded, square) ^ cv2.erode(padded, square)) > 0
        np.testing.assert_array_equal(strict, differs[2 * width : -2 * width, 2 * width : -2 * width])
        for min_frac in (0.0, 0.1):
            np.testing.assert_array_equal(boundary_band(mask, width, min_frac), convolved(mask, width, min_frac))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_full_and_empty_masks(width: int) -> None:
    full = boundary_band(np.ones((12, 15), bool), width)
    frame = np.ones((12, 15), bool)
    frame[width:-width, width:-width] = False
    np.testing.assert_array_equal(full, frame)
    assert not boundary_band(np.zeros((12, 15), bool), width).any()


def test_the_operator_equals_the_reference() -> None:
    rng = np.random.default_rng(8)
    for case in range(120):
        shape = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        width, min_frac = int(rng.choice([1, 2, 3, 7])), float(rng.choice([0.0, 0.1, 0.4, 0.99]))
        masks = cases.random_masks(rng, 3, shape)
        bands = ops.boundary_band(ops.dense_to_crops(masks), shape, width=width, min_frac=min_frac)
        for mask, band in zip(masks, ops.crops_to_dense(bands, shape), strict=True):
            np.testing.assert_array_equal(band, reference.boundary_band(mask, width, min_frac), err_msg=f"case {case}")


def test_the_widest_band_of_the_operator() -> None:
    mask = np.ones((1, 300, 300), bool)
    mask[0, 150, 150] = False
    band = ops.crops_to_dense(ops.boundary_band(ops.dense_to_crops(mask), (300, 300), width=127), (300, 300))[0]
    expected = np.ones((300, 300), bool)
    expected[127:-127, 127:-127] = False
    expected[23:278, 23:278] = True
    np.testing.assert_array_equal(band, expected)


def test_no_masks_have_no_bands() -> None:
    assert len(ops.boundary_band(ops.MaskCrops.empty(), (5, 5))) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width: expected 1 to 127, got 0"),
        ({"width": 128}, "width"),
        ({"min_frac": 1.0}, "min_frac"),
        ({"min_frac": float("nan")}, "min_frac"),
        ({"shape": (5, 4)}, r"boxes\[0\]: expected to lie inside 4 x 5 pixels"),
    ],
)
def test_wrong_arguments_of_the_operator_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"masks": ops.dense_to_crops(np.ones((1, 5, 5), bool)), "shape": (5, 5)}
    with pytest.raises(InputError, match=message):
        ops.boundary_band(**{**arguments, **change})

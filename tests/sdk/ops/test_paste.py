from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import crops_to_dense, paste_masks, paste_rle, reference, rle_encode
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes


def _assert_exact(logits: np.ndarray, boxes: np.ndarray, shape: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    crops = paste_masks(logits, boxes, shape, threshold=threshold)
    dense = crops_to_dense(crops, shape)
    np.testing.assert_array_equal(dense, reference.paste_masks(logits, boxes, shape, threshold=threshold))
    assert paste_rle(logits, boxes, shape, threshold=threshold) == rle_encode(crops, shape)
    return dense


def _logits(rng: np.random.Generator, kind: int, shape: tuple[int, ...]) -> np.ndarray:
    if kind == 0:
        return (3 * rng.standard_normal(shape)).astype(np.float32)
    if kind == 1:  # exactly on the threshold in many places
        return rng.integers(-1, 2, shape).astype(np.float32)
    if kind == 2:  # within rounding of it everywhere
        return (1e-6 * rng.standard_normal(shape)).astype(np.float32)
    if kind == 3:  # smooth, as a network's
        y, x = np.mgrid[-1 : 1 : shape[-2] * 1j, -1 : 1 : shape[-1] * 1j]
        return np.broadcast_to(8 * (0.7 - np.hypot(x, y)), shape).astype(np.float32)
    return np.full(shape, rng.choice([-200.0, 0.0, 200.0]), np.float32)


def test_a_thousand_random_cases_equal_the_definition_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for case in range(1000):
        shape = (int(rng.integers(1, 50)), int(rng.integers(1, 50)))
        grid = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))
        boxes = random_boxes(rng, 1, shape) if case % 10 else DEGENERATE_BOXES[[case // 10 % len(DEGENERATE_BOXES)]]
        if case % 3 == 0:
            boxes = np.round(boxes)
        threshold = 0.5 if case % 2 else float(rng.uniform(0.05, 1.0))
        _assert_exact(_logits(rng, case % 5, (1, *grid)), boxes, shape, threshold)


def test_many_masks_of_a_picture() -> None:
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 30, (200, 300))
    dense = _assert_exact(_logits(rng, 3, (30, 28, 28)), boxes, (200, 300))
    assert dense.any(axis=(1, 2)).sum() > 15


def test_every_degenerate_box() -> None:
    logits = np.full((len(DEGENERATE_BOXES), 7, 7), 5, np.float32)
    _assert_exact(logits, DEGENERATE_BOXES, (40, 60))
    crops = paste_masks(logits, DEGENERATE_BOXES, (40, 60))
    x1, y1, x2, y2 = DEGENERATE_BOXES.T
    empty = ~(np.isfinite(DEGENERATE_BOXES).all(axis=1) & (x2 > x1) & (y2 > y1))
    assert not crops.boxes[empty].any()


def test_the_crop_is_what_the_grid_reaches() -> None:
    # A 4 x 4 grid over 8 x 8 pixels: each node covers 2, so values reach half a node (1 pixel) beyond the box.
    crops = paste_masks(np.full((2, 4, 4), 9, np.float32), np.array([[4, 6, 12, 14], [-2, -2, 6, 6]], np.float32), (20, 10))
    assert crops.boxes.tolist() == [[3, 5, 10, 15], [0, 0, 7, 7]]


def test_a_uniform_half_is_foreground_where_no_zero_mixes_in() -> None:
    dense = _assert_exact(np.zeros((1, 4, 4), np.float32), np.array([[4, 4, 12, 12]], np.float32), (16, 16))
    expected = np.zeros((16, 16), bool)
    expected[5:11, 5:11] = True  # between the centres of the outer nodes
    np.testing.assert_array_equal(dense[0], expected)


def test_paste_inverts_crop() -> None:
    """Logits cut from a mask on whole pixels, one node a pixel, give the mask back."""
    rng = np.random.default_rng(2)
    mask = rng.random((9, 13)) < 0.5
    logits = np.where(mask, 8.0, -8.0).astype(np.float32)[None]
    dense = _assert_exact(logits, np.array([[5, 3, 18, 12]], np.float32), (20, 25))
    np.testing.assert_array_equal(dense[0, 3:12, 5:18], mask)


def test_logits_that_are_not_finite() -> None:
    logits = np.full((1, 5, 5), 3, np.float32)
    logits[0, 2, 2], logits[0, 0, 0], logits[0, 4, 4] = np.nan, np.inf, -np.inf
    _assert_exact(logits, np.array([[2, 2, 30, 30]], np.float32), (32, 32))


def test_no_masks() -> None:
    crops = paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (10, 10))
    assert len(crops) == 0
    assert crops.offsets.tolist() == [0]
    assert paste_rle(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (10, 10)) == []


def test_a_picture_of_one_pixel_and_of_none() -> None:
    logits = np.full((2, 3, 3), 4, np.float32)
    boxes = np.array([[0, 0, 1, 1], [-5, -5, 5, 5]], np.float32)
    assert _assert_exact(logits, boxes, (1, 1)).all()
    assert _assert_exact(logits, boxes, (0, 7)).shape == (2, 0, 7)


@pytest.mark.parametrize("call", [paste_masks, paste_rle])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mask_logits": np.zeros((3, 28, 28), np.float32)},
            r"mask_logits: expected float32 array of shape \(N=2, Hm, Wm\), got .*\(3, 28, 28\)",
        ),
        ({"mask_logits": np.zeros((2, 28, 28), np.float16)}, "mask_logits: .* got float16"),
        ({"mask_logits": np.zeros((2, 0, 28), np.float32)}, "mask_logits: expected Hm and Wm of at least 1"),
        ({"boxes": np.zeros((2, 4))}, "boxes: .* got float64"),
        ({"shape": (-1, 5)}, "shape: expected"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.01}, "threshold"),
    ],
)
def test_wrong_arguments_are_named(call: Any, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"mask_logits": np.zeros((2, 28, 28), np.float32), "boxes": np.zeros((2, 4), np.float32), "shape": (10, 10)}
    with pytest.raises(InputError, match=message):
        call(**{**arguments, **change})

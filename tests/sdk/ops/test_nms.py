from __future__ import annotations

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import nms, reference
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes


def _crowd(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes on a coarse grid with few distinct scores: many exact overlaps and ties."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (count, 2)) * 2
    boxes = np.concatenate([corner, corner + rng.integers(0, 9, (count, 2)) * 2], axis=1).astype(np.float32)
    return boxes, (rng.integers(0, 6, count) / 8).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition_with_ties_and_groups(seed: int, threshold: float) -> None:
    boxes, scores = _crowd(seed, 150)
    groups = np.random.default_rng(seed).integers(-1, 3, 150)
    np.testing.assert_array_equal(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))
    np.testing.assert_array_equal(nms(boxes, scores, threshold, groups), reference.nms(boxes, scores, threshold, groups))


def test_equals_the_definition_on_boxes_of_all_scales() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 400, (60, 90)), rng.random(400, np.float32)
    np.testing.assert_array_equal(nms(boxes, scores, 0.4), reference.nms(boxes, scores, 0.4))


def test_degenerate_boxes_are_kept_and_suppress_nothing() -> None:
    boxes = np.concatenate([DEGENERATE_BOXES, DEGENERATE_BOXES])
    scores = np.linspace(1, 0, len(boxes), dtype=np.float32)
    with np.errstate(all="ignore"):
        expected = reference.nms(boxes, scores, 0.5)
    kept = nms(boxes, scores, 0.5)
    np.testing.assert_array_equal(kept, expected)
    assert set(range(4)) <= set(kept.tolist())  # the four without area, ...
    assert {len(DEGENERATE_BOXES) + i for i in range(4)} <= set(kept.tolist())  # ... and their twins


def test_an_overlap_equal_to_the_threshold_is_no_reason_to_drop() -> None:
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)  # IoU exactly 0.5
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, np.nextafter(np.float32(0.5), np.float32(0))).tolist() == [0]


def test_equal_scores_keep_the_lower_index_and_signed_zeros_are_equal() -> None:
    boxes = np.tile(np.array([[0, 0, 4, 4]], np.float32), (3, 1))
    assert nms(boxes, np.array([0.0, -0.0, 0.0], np.float32), 0.5).tolist() == [0]
    assert nms(boxes, np.array([-0.0, 0.0, -0.0], np.float32), 0.5).tolist() == [0]


def test_nan_scores_come_last_and_infinite_ones_in_order() -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(4)], np.float32)
    assert nms(boxes, np.array([np.nan, -np.inf, 0, np.inf], np.float32), 0.5).tolist() == [3, 2, 1, 0]


def test_nothing_in_nothing_out() -> None:
    kept = nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


def test_arrays_of_any_stride_are_accepted() -> None:
    boxes, scores = _crowd(3, 60)
    wide = np.zeros((120, 8), np.float32)
    wide[::2, ::2] = boxes
    np.testing.assert_array_equal(nms(wide[::2, ::2], scores[::-1][::-1], 0.5), nms(boxes, scores, 0.5))


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "groups", "message"),
    [
        (
            np.zeros((2, 5), np.float32),
            np.zeros(2, np.float32),
            0.5,
            None,
            r"boxes: expected float32 array of shape \(N, 4\), got float32 .*\(2, 5\)",
        ),
        (np.zeros((2, 4)), np.zeros(2, np.float32), 0.5, None, "boxes: expected float32 .* got float64"),
        (
            np.zeros((2, 4), np.float32),
            np.zeros(3, np.float32),
            0.5,
            None,
            r"scores: expected float32 array of shape \(N=2,\), got .*\(3,\)",
        ),
        ([[0, 0, 1, 1]], np.zeros(1, np.float32), 0.5, None, "boxes: .* got list"),
        (np.zeros((2, 4), np.float32), np.zeros(2, np.float32), 1.5, None, "iou_threshold: expected 0 to 1, got 1.5"),
        (np.zeros((2, 4), np.float32), np.zeros(2, np.float32), float("nan"), None, "iou_threshold"),
        (np.zeros((2, 4), np.float32), np.zeros(2, np.float32), 0.5, np.zeros(2, np.int32), "groups: expected int64"),
    ],
)
def test_wrong_arguments_are_named(boxes: object, scores: object, threshold: float, groups: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nms(boxes, scores, threshold, groups)  # type: ignore[arg-type]

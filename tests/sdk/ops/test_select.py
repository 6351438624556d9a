from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import reference, select_detections
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes

RULE: dict[str, Any] = {"coder_weights": (10, 10, 5, 5), "score_threshold": 0.05, "nms_threshold": 0.5, "max_detections": 100}


def _head(seed: int, count: int, classes: int, size: tuple[int, int] = (60, 80), *, class_agnostic: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    powers = np.exp(2 * rng.standard_normal((count, classes + 1), np.float32))
    return {
        "scores": (powers / powers.sum(1, keepdims=True))[:, :classes].copy(),
        "box_deltas": rng.standard_normal((count, 4 if class_agnostic else 4 * classes), np.float32),
        "proposals": random_boxes(rng, count, size),
        "size": size,
    }


def _assert_equal(head: dict[str, Any], **rule: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, scores, labels = select_detections(**head, **{**RULE, **rule})
    with np.errstate(all="ignore"):
        want_boxes, want_scores, want_labels = reference.select_detections(**head, **{**RULE, **rule})
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_array_equal(scores, want_scores)
    np.testing.assert_allclose(boxes, want_boxes, atol=1e-3, rtol=1e-5)
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    return boxes, scores, labels


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("rule", [{}, {"score_threshold": 0.0}, {"max_detections": 7}, {"nms_threshold": 0.0}, {"nms_threshold": 1.0}])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_equals_the_definition(classes: int, rule: dict[str, Any], class_agnostic: bool) -> None:
    _assert_equal(_head(classes, 60, classes, class_agnostic=class_agnostic), **rule)


def test_more_rows_than_a_thread_takes_at_once() -> None:
    _assert_equal(_head(7, 300, 2), max_detections=1000)


def test_one_delta_for_all_classes_is_that_delta_for_each() -> None:
    head = _head(1, 50, 3, class_agnostic=True)
    each = head | {"box_deltas": np.tile(head["box_deltas"], 3)}
    for shared, repeated in zip(select_detections(**head, **RULE), select_detections(**each, **RULE), strict=True):
        np.testing.assert_array_equal(shared, repeated)


def test_scores_come_out_as_they_went_in() -> None:
    """They need not sum to one (sigmoids), nor stay below it by a rounding."""
    head = _head(1, 3, 2)
    head["scores"] = np.array([[0.9, 0.8], [0.0, 1.0000001], [0.06, 1.0]], np.float32)
    head["proposals"] = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [50, 5, 70, 30]], np.float32)
    head["box_deltas"] = np.zeros_like(head["box_deltas"])
    _, scores, labels = _assert_equal(head)
    assert labels.tolist() == [1, 1, 0, 1, 0]
    assert scores.tolist() == np.float32([1.0000001, 1.0, 0.9, 0.8, 0.06]).tolist()


def test_ties_go_to_the_lower_proposal_then_the_lower_class() -> None:
    head = _head(2, 4, 3)
    head["scores"] = np.full((4, 3), 0.25, np.float32)
    head["box_deltas"] = np.zeros((4, 12), np.float32)
    head["proposals"] = np.array([[i * 15, 0, i * 15 + 10, 10] for i in range(4)], np.float32)
    boxes, _, labels = _assert_equal(head, max_detections=7)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert boxes[:, 0].tolist() == [0, 0, 0, 15, 15, 15, 30]


def test_the_score_threshold_is_strict() -> None:
    head = _head(3, 1, 1)
    head["scores"] = np.full((1, 1), 0.5, np.float32)
    head["proposals"] = np.array([[0, 0, 10, 10]], np.float32)
    head["box_deltas"] = np.zeros((1, 4), np.float32)
    assert len(select_detections(**head, **{**RULE, "score_threshold": 0.5})[0]) == 0
    assert len(select_detections(**head, **{**RULE, "score_threshold": 0.499})[0]) == 1


def test_values_that_are_not_finite_drop_their_candidate_only() -> None:
    head = _head(4, 40, 3)
    head["scores"][5, 1] = np.nan
    head["scores"][6] = np.nan
    head["scores"][7, 2] = np.inf
    head["scores"][8, 2] = -np.inf
    head["box_deltas"][9, 4:8] = np.nan
    head["box_deltas"][10, 2] = np.inf  # clamped like any large growth
    head["box_deltas"][11, 0] = -np.inf
    head["proposals"][12] = np.nan
    boxes, scores, _ = _assert_equal(head, max_detections=1000)
    assert np.isfinite(boxes).all()
    assert np.isfinite(scores).all()


def test_degenerate_proposals() -> None:
    head = _head(5, len(DEGENERATE_BOXES), 2)
    head["proposals"] = DEGENERATE_BOXES
    boxes, _, _ = _assert_equal(head)
    assert ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).all()


@pytest.mark.parametrize("seed", range(30))
def test_any_input_of_the_right_shape(seed: int) -> None:
    """Whatever bits the arrays hold, results are sound and those of the definition."""
    rng = np.random.default_rng(seed)
    classes, count = int(rng.integers(1, 5)), int(rng.integers(0, 60))
    head = _head(seed, count, classes, class_agnostic=bool(seed % 2))
    for name in ("scores", "box_deltas", "proposals"):
        values = head[name].reshape(-1)
        wild = rng.random(values.size) < 0.1
        values[wild] = rng.integers(0, 1 << 32, int(wild.sum()), np.uint32).view(np.float32)
    boxes, scores, labels = _assert_equal(head, score_threshold=0.01)
    assert (np.diff(scores) <= 0).all()
    assert (scores > 0.01).all()
    assert ((boxes >= 0) & (boxes <= [80, 60, 80, 60])).all()
    assert ((labels >= 0) & (labels < classes)).all()


def test_nothing_in_nothing_out() -> None:
    boxes, scores, labels = _assert_equal(_head(6, 0, 4))
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert len(_assert_equal(_head(6, 20, 4), max_detections=0)[0]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"box_deltas": np.zeros((4, 9), np.float32)},
            r"box_deltas: expected 4 or 4K=8 columns, got float32 array of shape \(4, 9\)",
        ),
        ({"box_deltas": np.zeros((4, 0), np.float32)}, "box_deltas: expected 4 or 4K=8 columns"),
        ({"box_deltas": np.zeros((5, 4), np.float32)}, r"box_deltas: expected .*N=4, 4K or 4\)"),
        ({"scores": np.zeros((4, 0), np.float32)}, "scores: expected at least one class"),
        ({"scores": np.zeros((5, 2), np.float32)}, "scores: expected .*N=4"),
        ({"scores": np.zeros((4, 2), np.float64)}, "scores: expected float32 .* got float64"),
        ({"proposals": np.zeros((4, 4), np.int64)}, "proposals: expected float32 .* got int64"),
        ({"coder_weights": (10, 10, 0, 5)}, "coder_weights"),
        ({"coder_weights": (10, 10, float("nan"), 5)}, "coder_weights"),
        ({"score_threshold": 2.0}, "score_threshold: expected 0 to 1, got 2"),
        ({"max_detections": -1}, "max_detections"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_detections(**{**_head(0, 4, 2), **RULE, **change})

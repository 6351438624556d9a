from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import reference, select_detections
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes

RULE: dict[str, Any] = {"coder_weights": (10, 10, 5, 5), "score_threshold": 0.05, "nms_threshold": 0.5, "max_detections": 100}


def _head(seed: int, count: int, classes: int, size: tuple[int, int] = (60, 80)) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "class_logits": 2 * rng.standard_normal((count, classes + 1), np.float32),
        "box_deltas": rng.standard_normal((count, 4 * classes), np.float32),
        "proposals": random_boxes(rng, count, size),
        "size": size,
    }


def _assert_equal(head: dict[str, Any], **rule: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, scores, labels = select_detections(**head, **{**RULE, **rule})
    with np.errstate(all="ignore"):
        want_boxes, want_scores, want_labels = reference.select_detections(**head, **{**RULE, **rule})
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_allclose(scores, want_scores, rtol=2e-6, atol=1e-9)
    np.testing.assert_allclose(boxes, want_boxes, atol=1e-3, rtol=1e-5)
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    return boxes, scores, labels


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("rule", [{}, {"score_threshold": 0.0}, {"max_detections": 7}, {"nms_threshold": 0.0}, {"nms_threshold": 1.0}])
def test_equals_the_definition(classes: int, rule: dict[str, Any]) -> None:
    _assert_equal(_head(classes, 60, classes), **rule)


def test_more_rows_than_a_thread_takes_at_once() -> None:
    _assert_equal(_head(7, 300, 2), max_detections=1000)


def test_scores_are_a_softmax_over_extreme_logits() -> None:
    head = _head(1, 3, 2)
    head["class_logits"] = np.array([[1000, -1000, 999], [-3e38, 3e38, 0], [-np.inf, 2, 2]], np.float32)
    head["proposals"] = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [50, 5, 70, 30]], np.float32)
    head["box_deltas"] = np.zeros_like(head["box_deltas"])
    _, scores, labels = select_detections(**head, **RULE)
    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(scores, [1, 1 / (1 + np.exp(-1)), 0.5], rtol=1e-6)


def test_ties_go_to_the_lower_proposal_then_the_lower_class() -> None:
    head = _head(2, 4, 3)
    head["class_logits"] = np.zeros((4, 4), np.float32)
    head["box_deltas"] = np.zeros((4, 12), np.float32)
    head["proposals"] = np.array([[i * 15, 0, i * 15 + 10, 10] for i in range(4)], np.float32)
    boxes, _, labels = _assert_equal(head, max_detections=7)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert boxes[:, 0].tolist() == [0, 0, 0, 15, 15, 15, 30]


def test_the_score_threshold_is_strict() -> None:
    head = _head(3, 1, 1)
    head["class_logits"] = np.zeros((1, 2), np.float32)
    head["proposals"] = np.array([[0, 0, 10, 10]], np.float32)
    head["box_deltas"] = np.zeros((1, 4), np.float32)
    assert len(select_detections(**head, **{**RULE, "score_threshold": 0.5})[0]) == 0
    assert len(select_detections(**head, **{**RULE, "score_threshold": 0.499})[0]) == 1


def test_values_that_are_not_finite_drop_their_candidate_only() -> None:
    head = _head(4, 40, 3)
    head["class_logits"][5, 1] = np.nan
    head["class_logits"][6, 0] = np.nan
    head["class_logits"][7, 3] = np.inf
    head["class_logits"][8, 2] = -np.inf
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


def test_nothing_in_nothing_out() -> None:
    boxes, scores, labels = _assert_equal(_head(6, 0, 4))
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert len(_assert_equal(_head(6, 20, 4), max_detections=0)[0]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"box_deltas": np.zeros((4, 9), np.float32)},
            r"box_deltas: expected float32 array of shape \(N=4, 4K=8\), got float32 array of shape \(4, 9\)",
        ),
        ({"class_logits": np.zeros((4, 1), np.float32)}, "class_logits: expected at least one class and the background"),
        ({"class_logits": np.zeros((5, 3), np.float32)}, "class_logits: expected .*N=4"),
        ({"proposals": np.zeros((4, 4), np.int64)}, "proposals: expected float32 .* got int64"),
        ({"coder_weights": (10, 10, 0, 5)}, "coder_weights"),
        ({"score_threshold": 2.0}, "score_threshold: expected 0 to 1, got 2"),
        ({"max_detections": -1}, "max_detections"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_detections(**{**_head(0, 4, 2), **RULE, **change})

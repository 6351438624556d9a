from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import proposals, reference

STRIDES = [4.0, 8.0, 16.0]


def _heads(rng: np.random.Generator, sizes: list[tuple[int, int]], anchors: int) -> dict[str, Any]:
    base = [_anchors(stride * 4, anchors) for stride in STRIDES[: len(sizes)]]
    return {
        "objectness": [rng.standard_normal((anchors, *size), np.float32) for size in sizes],
        "deltas": [0.4 * rng.standard_normal((4 * anchors, *size), np.float32) for size in sizes],
        "anchors": base,
        "strides": STRIDES[: len(sizes)],
        "size": (sizes[0][0] * 4 - 3, sizes[0][1] * 4 - 2),
    }


def _anchors(side: float, count: int) -> np.ndarray:
    ratios = np.array([0.5, 1.0, 2.0])[:count]
    w, h = side / np.sqrt(ratios), side * np.sqrt(ratios)
    return np.stack([-w / 2, -h / 2, w / 2, h / 2], axis=1).astype(np.float32)


def _assert_equal(heads: dict[str, Any], **rule: Any) -> np.ndarray:
    boxes, scores = proposals(**heads, **rule)
    want_boxes, want_scores = reference.proposals(**heads, **rule)
    assert boxes.shape == want_boxes.shape
    np.testing.assert_allclose(boxes, want_boxes, atol=2e-3, rtol=1e-5)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-6)
    assert boxes.dtype == scores.dtype == np.float32
    return boxes


RULES = [
    {"pre_nms": 1000, "post_nms": 1000, "nms_threshold": 0.7},
    {"pre_nms": 50, "post_nms": 40, "nms_threshold": 0.7},
    {"pre_nms": 37, "post_nms": 1000, "nms_threshold": 0.3, "min_size": 9.0},
    {"pre_nms": 1, "post_nms": 1, "nms_threshold": 1.0},
    {"pre_nms": 0, "post_nms": 10, "nms_threshold": 0.5},
    {"pre_nms": 10, "post_nms": 0, "nms_threshold": 0.5},
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("anchors", [1, 3])
def test_equals_the_definition(rule: dict[str, Any], anchors: int) -> None:
    heads = _heads(np.random.default_rng(1), [(13, 17), (7, 9), (4, 5)], anchors)
    _assert_equal(heads, **rule)


def test_ties_go_to_the_lower_level_then_the_lower_candidate() -> None:
    heads = _heads(np.random.default_rng(2), [(9, 8), (5, 4)], 3)
    heads["objectness"] = [np.round(o) for o in heads["objectness"]]  # few distinct logits, across the cut of pre_nms too
    for pre_nms in (5, 20, 60):
        _assert_equal(heads, pre_nms=pre_nms, post_nms=30, nms_threshold=0.7)


def test_all_logits_equal() -> None:
    heads = _heads(np.random.default_rng(3), [(6, 7)], 3)
    heads["objectness"] = [np.zeros_like(o) for o in heads["objectness"]]
    _assert_equal(heads, pre_nms=25, post_nms=10, nms_threshold=0.9)


def test_candidates_that_are_not_finite_are_dropped() -> None:
    rng = np.random.default_rng(4)
    heads = _heads(rng, [(8, 8), (4, 4)], 3)
    bad = [np.nan, np.inf, -np.inf]
    for level in range(2):
        objectness, deltas = heads["objectness"][level], heads["deltas"][level]
        objectness.reshape(-1)[rng.choice(objectness.size, 12, replace=False)] = np.resize(bad, 12)
        deltas.reshape(-1)[rng.choice(deltas.size, 20, replace=False)] = np.resize(bad, 20)
    boxes = _assert_equal(heads, pre_nms=200, post_nms=200, nms_threshold=0.8)
    assert len(boxes) > 0
    assert np.isfinite(boxes).all()


def test_huge_deltas_are_clamped_and_clipped() -> None:
    heads = _heads(np.random.default_rng(5), [(8, 8)], 1)
    heads["deltas"][0][2:] = 50  # exp(50) would be 5e21
    heads["deltas"][0][:2] = 0
    boxes = _assert_equal(heads, pre_nms=10, post_nms=10, nms_threshold=1.0)
    h, w = heads["size"]
    assert (boxes >= 0).all()
    assert (boxes <= [w, h, w, h]).all()


def test_one_cell_levels_and_empty_levels() -> None:
    heads = _heads(np.random.default_rng(6), [(1, 1), (1, 1)], 3)
    _assert_equal(heads, pre_nms=10, post_nms=10, nms_threshold=0.5)
    empty = _heads(np.random.default_rng(6), [(0, 5), (2, 2)], 3)
    empty["size"] = (8, 8)
    _assert_equal(empty, pre_nms=10, post_nms=10, nms_threshold=0.5)


def test_no_levels() -> None:
    boxes, scores = proposals([], [], [], [], (10, 10), pre_nms=5, post_nms=5, nms_threshold=0.5)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deltas": [np.zeros((11, 4, 4), np.float32)]}, r"deltas\[0\]: expected float32 array of shape \(4A=12, H=4, W=4\), got"),
        ({"anchors": []}, "levels: expected as many"),
        ({"anchors": [np.zeros((2, 4), np.float32)]}, r"objectness\[0\]: expected .*A=2"),
        ({"strides": [0.0]}, "strides"),
        ({"size": (-1, 5)}, "size"),
        ({"nms_threshold": -0.1}, "nms_threshold"),
        ({"pre_nms": -1}, "pre_nms: expected at least 0, got -1"),
        ({"min_size": float("nan")}, "min_size"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {
        "objectness": [np.zeros((3, 4, 4), np.float32)],
        "deltas": [np.zeros((12, 4, 4), np.float32)],
        "anchors": [np.zeros((3, 4), np.float32)],
        "strides": [4.0],
        "size": (16, 16),
        "pre_nms": 5,
        "post_nms": 5,
        "nms_threshold": 0.5,
    }
    with pytest.raises(InputError, match=message):
        proposals(**{**arguments, **change})  # type: ignore[arg-type]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import decode_boxes, reference, select_detections
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes

SIZE = (60, 80)
WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0), (1.0, 1.0, 1.0, 1.0))


def _assert_sound(decoded: np.ndarray, count: int) -> None:
    assert (decoded.dtype, decoded.shape) == (np.float32, (count, 4))
    assert np.isfinite(decoded).all()
    assert ((decoded >= 0) & (decoded <= [80, 60, 80, 60])).all()


def _assert_equal(deltas: np.ndarray, boxes: np.ndarray, weights: Any = WEIGHTS[0]) -> np.ndarray:
    decoded = decode_boxes(deltas, boxes, SIZE, coder_weights=weights)
    np.testing.assert_allclose(decoded, reference.decode_boxes(deltas, boxes, SIZE, coder_weights=weights), rtol=1e-6, atol=1e-5)
    _assert_sound(decoded, len(boxes))
    return decoded


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("count", [0, 1, 60, 1500])
def test_equals_the_definition(count: int, weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(count)
    _assert_equal(3 * rng.standard_normal((count, 4), np.float32), random_boxes(rng, count, SIZE), weights)


def test_by_hand() -> None:
    boxes = np.float32([[10, 20, 30, 40]])
    assert decode_boxes(np.float32([[5, 0, 0, 0]]), boxes, SIZE, coder_weights=WEIGHTS[0]).tolist() == [[20, 20, 40, 40]]
    wide = decode_boxes(np.float32([[0, 0, 5 * np.log(2), 0]]), boxes, SIZE, coder_weights=WEIGHTS[0])
    np.testing.assert_allclose(wide, [[0, 20, 40, 40]], atol=1e-5)
    assert decode_boxes(np.float32([[90, 0, 0, 0]]), boxes, SIZE, coder_weights=WEIGHTS[0]).tolist() == [
        [80, 20, 80, 40]
    ]  # left the picture


def test_every_row_stays_and_empty_ones_are_harmless() -> None:
    deltas = np.zeros((len(DEGENERATE_BOXES), 4), np.float32)
    decoded = _assert_equal(deltas, DEGENERATE_BOXES)
    unsound = ~np.isfinite(DEGENERATE_BOXES).all(1)
    assert (decoded[unsound] == 0).all()
    scores = np.ones((len(decoded), 1), np.float32)
    rule: dict[str, Any] = {"coder_weights": WEIGHTS[0], "score_threshold": 0.5, "nms_threshold": 1.0, "max_detections": 100}
    kept = select_detections(scores, deltas, decoded, SIZE, **rule)[0]
    assert len(kept) == ((decoded[:, 2] > decoded[:, 0]) & (decoded[:, 3] > decoded[:, 1])).sum() > 0


def test_any_bits_give_sound_boxes() -> None:
    """Not compared with the definition: of boxes 1e30 pixels away, rounding decides what is left inside the picture."""
    rng = np.random.default_rng(0)
    boxes, deltas = (rng.integers(0, 1 << 32, (4000, 4), np.uint32).view(np.float32) for _ in range(2))
    _assert_sound(decode_boxes(deltas, boxes, SIZE, coder_weights=(10, 10, 5, 5)), 4000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"deltas": np.zeros((3, 8), np.float32)},
            r"deltas: expected float32 array of shape \(N=3, 4\), got float32 array of shape \(3, 8\)",
        ),
        ({"deltas": np.zeros((2, 4), np.float32)}, "deltas: expected .*N=3"),
        ({"boxes": np.zeros((3, 4))}, "boxes: expected float32 .* got float64"),
        ({"boxes": None}, "boxes: expected float32 .* got NoneType"),
        ({"size": (-1, 5)}, "size"),
        ({"coder_weights": (1, 1, 0, 1)}, "coder_weights"),
        ({"coder_weights": (1, 1, 1, float("inf"))}, "coder_weights"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "deltas": np.zeros((3, 4), np.float32),
        "boxes": np.zeros((3, 4), np.float32),
        "size": SIZE,
        "coder_weights": (1, 1, 1, 1),
    }
    with pytest.raises(InputError, match=message):
        decode_boxes(**{**arguments, **change})

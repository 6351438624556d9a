"""Predictions leave resident memory flat: buffers are reused, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdk.segmenter import Segmenter
from tests.sdk import tiny

psutil = pytest.importorskip("psutil", reason="psutil is not installed")

MARGIN = 4 << 20  # bytes; one leaked network input of these pictures per prediction would be 40 times that


def growth(action: Callable[[int], object], count: int) -> float:
    """Median resident memory of the last third of the calls minus that of the first, bytes."""
    process = psutil.Process()
    used = []
    for i in range(count):
        action(i)
        used.append(process.memory_info().rss)
    third = count // 3
    return float(np.median(used[-third:]) - np.median(used[:third]))


def test_a_thousand_predictions_leave_memory_flat(tiny_engine: Path) -> None:
    segmenter = Segmenter(tiny_engine, color="rgb")
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 400, (16, 2))
    pictures = [np.tile(tiny.squares(), (4, 4, 1))[: size[0], : size[1]] for size in sizes]

    def predict(i: int) -> None:
        found = segmenter.predict(pictures[i % len(pictures)], conf=0.1)
        assert len(found.rle()) == len(found) > 0
        assert len(found.polygons()) == len(found)

    for i in range(2 * len(pictures)):  # every size twice, so that the buffers have grown
        predict(i)
    assert growth(predict, 1000) < MARGIN


def test_the_measurement_sees_a_leak() -> None:
    kept = []
    assert growth(lambda i: kept.append(np.ones(5_000_000)), 8) > MARGIN  # 40 MB a call: always fresh pages, never a hole that others left

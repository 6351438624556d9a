"""Detections from the box head's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import _core


def select_detections(
    scores: NDArray[np.float32],
    box_deltas: NDArray[np.float32],
    proposals: NDArray[np.float32],
    size: tuple[int, int],
    *,
    coder_weights: Sequence[float] | NDArray[np.floating[Any]],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Decodes and suppresses the classified proposals of one picture.

    Every (proposal, class) whose score exceeds the threshold is decoded, clipped to the picture and kept if it has an area; NMS inside
    each class; the best over all classes (ties: lower proposal, then lower class). Scores and boxes that are not finite are dropped.

    Args:
        scores: (N, K) float32, probabilities; the background has no column.
        box_deltas: (N, 4K) float32, four per class: dx, dy, dw, dh; or (N, 4), the same for every class. dw and dh are clamped to
            log(1000/16) after the division.
        proposals: (N, 4) float32, xyxy, pixels.
        size: (h, w) of the picture for clipping, pixels.
        coder_weights: 4 positive divisors of dx, dy, dw, dh.
        score_threshold: Scores must be strictly greater, 0 to 1.
        nms_threshold: IoU above which the lower box of a class is dropped, 0 to 1.
        max_detections: D at most.

    Returns:
        boxes: (D, 4) float32, xyxy, pixels; scores descend.
        scores: (D,) float32.
        labels: (D,) int64, 0 to K-1.

    Raises:
        InputError: wrong dtypes or shapes, a parameter out of range.
    """
    return _core.select_detections(scores, box_deltas, proposals, size, coder_weights, score_threshold, nms_threshold, max_detections)

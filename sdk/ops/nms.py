"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk import _core


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    iou_threshold: float,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Keeps the best boxes that do not overlap a better one of their group too much.

    A box is dropped when `intersection > iou_threshold * union` (float32) with a kept box. Boxes without area overlap nothing. NaN scores
    come last.

    Args:
        boxes: (N, 4) float32, xyxy, pixels.
        scores: (N,) float32.
        iou_threshold: 0 to 1.
        groups: (N,) int64; only boxes of one group compete. None: all do.

    Returns:
        (M,) int64, indices of the kept boxes by descending score (ties: lower index first).

    Raises:
        InputError: wrong dtypes or shapes, threshold out of range.

    Example:
        >>> import numpy as np
        >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10]], np.float32)
        >>> nms(boxes, np.array([0.8, 0.9, 0.7], np.float32), 0.5)
        array([1, 2])
    """
    return _core.nms(boxes, scores, iou_threshold, groups)

"""Region proposals: the best boxes of a feature pyramid's heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdk import _core


def proposals(
    objectness: Sequence[NDArray[np.float32]],
    deltas: Sequence[NDArray[np.float32]],
    anchors: Sequence[NDArray[np.float32]],
    strides: Sequence[float],
    size: tuple[int, int],
    *,
    pre_nms: int,
    post_nms: int,
    nms_threshold: float,
    min_size: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decodes the best candidates of every level of one picture and suppresses overlaps inside each level.

    Per level: the `pre_nms` best finite logits (ties: the lower candidate in (y, x, a) order), decoded against the anchors
    `anchors[l][a] + (x s, y s, x s, y s)`, clipped to the picture, small ones dropped, NMS. Then the `post_nms` best of all levels by
    logit (ties: lower level, then lower candidate). A candidate whose box is not finite is dropped.

    Args:
        objectness: L arrays (A, H_l, W_l) float32, logits.
        deltas: L arrays (4A, H_l, W_l) float32, channel 4a + c; c = dx, dy, dw, dh with weights 1. dw and dh are clamped to log(1000/16).
        anchors: L arrays (A, 4) float32, xyxy around the origin, pixels.
        strides: L cell sizes, pixels.
        size: (h, w) of the resized picture without padding, pixels.
        pre_nms: Candidates per level that enter NMS.
        post_nms: Boxes returned at most.
        nms_threshold: IoU above which the lower box is dropped, 0 to 1.
        min_size: Boxes with width or height up to this are dropped, pixels.

    Returns:
        boxes: (N, 4) float32, xyxy, pixels of the resized picture, best first.
        scores: (N,) float32, sigmoid of the logits.

    Raises:
        InputError: levels that do not fit each other, wrong dtypes or shapes, a parameter out of range.
    """
    return _core.proposals(list(objectness), list(deltas), list(anchors), strides, size, pre_nms, post_nms, nms_threshold, min_size)

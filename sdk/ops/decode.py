"""Boxes from a box head's deltas, one for each source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import _core


def decode_boxes(
    deltas: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    *,
    coder_weights: Sequence[float] | NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """Decodes class-agnostic deltas and cuts the boxes to the picture: what one stage of a cascade hands to the next.

    Row n of the result belongs to row n of the sources, always: a box that ends up empty stays (it pools zeros and is no detection), one
    that is not finite becomes (0, 0, 0, 0). Cai & Vasconcelos, "Cascade R-CNN" (2018), section 3.1.

    Args:
        deltas: (N, 4) float32: dx, dy, dw, dh; dw and dh are clamped to log(1000/16) after the division.
        boxes: (N, 4) float32, xyxy, pixels; what the deltas refer to.
        size: (h, w) of the picture for clipping, pixels.
        coder_weights: 4 positive divisors of dx, dy, dw, dh.

    Returns:
        (N, 4) float32, xyxy, pixels.

    Raises:
        InputError: wrong dtypes or shapes, a weight that is not positive.
    """
    return _core.decode_boxes(deltas, boxes, size, coder_weights)

"""Picture to network input: resize, normalise and pad in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import _core


def preprocess(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    padded: tuple[int, int],
    mean: Sequence[float] | NDArray[np.floating[Any]],
    std: Sequence[float] | NDArray[np.floating[Any]],
    *,
    swap_channels: bool = False,
    antialias: bool = True,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Resizes a picture, normalises it and pads it with zeros on the right and at the bottom.

    Separable triangle filter with half-pixel centres. When an axis shrinks and `antialias` is set, the filter is widened by the factor
    (what PIL and torch call antialiased bilinear); otherwise plain bilinear with clamped edges. Nothing is rounded to uint8 on the way.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3) uint8, any strides. One channel is repeated three times.
        size: (h, w) of the resized picture, pixels.
        padded: (Hp, Wp) of the result, at least `size`.
        mean: 3 grey levels (0 to 255), in the order of the result's channels.
        std: 3 grey levels, positive.
        swap_channels: Reverse the three channels (a BGR picture for an RGB model).
        antialias: Widen the filter when shrinking.
        out: (3, Hp, Wp) float32, C-contiguous: written and returned instead of a new array.

    Returns:
        (3, Hp, Wp) float32, `(value - mean) / std`; padding is 0. Within 1e-3 grey levels of the float64 definition.

    Raises:
        InputError: wrong dtype or shape, an empty picture, `padded` smaller than `size`, `std` not positive.
    """
    return _core.preprocess(image, size, padded, mean, std, swap_channels, antialias, out)

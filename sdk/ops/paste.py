"""Mask logits inside boxes to pixels of the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk import _core
from sdk.ops.crops import MaskCrops


def paste_masks(
    mask_logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> MaskCrops:
    """Resamples every mask to the picture's pixels and thresholds it, inside its box only.

    The pixel centre (x + .5, y + .5) has the grid coordinate `(x + .5 - x1) / (x2 - x1) * Wm - .5` (y alike). The sigmoids of the logits
    are interpolated bilinearly with zeros outside the grid, along x first; foreground where the value is at least the threshold. The
    result equals this definition in float64 exactly.

    Args:
        mask_logits: (N, Hm, Wm) float32.
        boxes: (N, 4) float32, xyxy, pixels of the picture.
        shape: (H, W) of the picture.
        threshold: Probability, more than 0 and at most 1.

    Returns:
        N crops. A crop holds the pixels that can be foreground (-1 < grid coordinate < Wm), cut to the picture; a box that is empty, not
        finite or outside gives an empty crop.

    Raises:
        InputError: wrong dtypes or shapes, an empty grid, threshold out of range.
    """
    return MaskCrops(*_core.paste_masks(mask_logits, boxes, shape, threshold))


def paste_rle(
    mask_logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    shape: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> list[bytes]:
    """COCO run lengths of `paste_masks`, without making the crops.

    Args:
        mask_logits: (N, Hm, Wm) float32.
        boxes: (N, 4) float32, xyxy, pixels of the picture.
        shape: (H, W) of the picture, fewer than 2^32 pixels.
        threshold: Probability, more than 0 and at most 1.

    Returns:
        N compressed counts, equal to `rle_encode(paste_masks(...), shape)`.

    Raises:
        InputError: as `paste_masks`, or too many pixels.
    """
    return _core.paste_rle(mask_logits, boxes, shape, threshold)

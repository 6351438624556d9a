"""How well RefineMask's convolutional boundary band fits the exact one: the measurement of its Table 12."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sdk import ops
from sdk.errors import InputError
from sdk.evaluate.boundary import Mask, check_mask, dilate, disk
from sdk.evaluate.inputs import Truth
from sdk.ops.reference import boundary_band

SIZES = (28, 56, 112)  # sides of RefineMask's masks, pixels
WIDTHS = (1, 2, 3)  # pixels
RULES = {"strict": 0.0, "0.1": 0.1}  # the paper's rule, and that of its code: the part of the window that must have the other label


def exact_band(mask: Mask, width: int) -> Mask:
    """Pixels at most `width` (Euclidean, centre to centre) from a pixel of the other label; outside the mask is background.

    Args:
        mask: (H, W) bool.
        width: pixels, at least 1.

    Returns:
        (H, W) bool.

    Raises:
        InputError: a wrong dtype or shape, or a width below 1.
    """
    check_mask("mask", mask)
    if width < 1:
        raise InputError(f"width must be at least 1 pixel, got {width}")
    padded = np.pad(mask, width).astype(np.uint8)
    kernel = disk(width)
    near = dilate(padded, kernel) & dilate(1 - padded, kernel)
    band: Mask = near[width:-width, width:-width] > 0
    return band


def band_iou(masks: Sequence[Mask], width: int, min_frac: float = 0.0) -> float:
    """Mean IoU of the exact band and the convolutional one (Zhang et al., RefineMask, CVPR 2021, table 12).

    Args:
        masks: each (H, W) bool.
        width: of both bands, pixels.
        min_frac: see `sdk.ops.reference.boundary_band`.

    Returns:
        The mean over the masks that have a band, or NaN.
    """
    values = []
    for mask in masks:
        exact, convolved = exact_band(mask, width), boundary_band(mask, width, min_frac)
        union = int((exact | convolved).sum())
        if union:
            values.append(int((exact & convolved).sum()) / union)
    return float(np.mean(values)) if values else math.nan


def mask_crops(truth: Truth, size: int) -> Iterator[Mask]:
    """Every object that is no crowd region and not empty, cut to its box and scaled to (size, size): foreground where half is."""
    import cv2

    for image, index in truth.objects.by_image().items():
        chosen = [i for i in index.tolist() if not truth.objects.crowd[i]]
        for crop in ops.rle_decode([truth.objects.counts[i] for i in chosen], truth.shapes[image]):
            if crop.size:
                # Shrinking means over the pixels that a cell covers, enlarging is bilinear; each axis for itself.
                rows = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_LINEAR
                columns = cv2.INTER_AREA if crop.shape[1] > size else cv2.INTER_LINEAR
                tall = cv2.resize(crop.astype(np.float32), (crop.shape[1], size), interpolation=rows)
                yield cv2.resize(tall, (size, size), interpolation=columns) >= 0.5


def band_table(truth: Truth) -> dict[str, Any]:
    """`band_iou` of all objects for every mask size, width and rule.

    Returns:
        `rows`: for example "w=2 strict" -> mask size -> IoU; `masks`, how many.
    """
    rows: dict[str, dict[str, float]] = {f"w={width} {rule}": {} for width in WIDTHS for rule in RULES}
    count = 0
    for size in SIZES:
        masks = list(mask_crops(truth, size))
        count = len(masks)
        for width in WIDTHS:
            for rule, min_frac in RULES.items():
                rows[f"w={width} {rule}"][str(size)] = band_iou(masks, width, min_frac)
    return {"rows": rows, "masks": count}

"""Boundary bands of masks: the pixels near the outline, on both sides. They carry no gradient.

With ``D`` the convolution of a zero-padded mask with a square of side 2w+1 that sums to zero (centre (2w+1)^2 - 1, all others -1),
a foreground pixel has as many background pixels in its window as ``D`` says, a background pixel as many foreground pixels as ``-D``
says. Outside of the mask everything is background, so an object that is cut off has an outline there and an empty mask has none.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_RULES = ("fraction", "strict", "exact", "inner")


@torch.no_grad()
def boundary_band(masks: Tensor, width: int, min_frac: float = 0.0) -> Tensor:
    """Pixels whose window holds more than a share of pixels of the other label (Zhang et al. 2021, section 3.3).

    Args:
        masks: (N, H, W) in {0, 1}, any dtype.
        width: w, pixels; the window has side 2w+1.
        min_frac: share of the window, 0..1. 0, the paper's rule, marks every pixel with Chebyshev distance <= w to the other label;
            0.1, the released code's, is closer to the Euclidean band.

    Returns:
        (N, H, W) bool.
    """
    m = (masks > 0.5).float()
    window = m.new_ones((1, 1, 2 * width + 1, 2 * width + 1))
    other = window.numel() * m - _count(m, window)  # N, H, W: D
    return other.abs() > min_frac * window.numel()


@torch.no_grad()
def exact_band(masks: Tensor, width: int) -> Tensor:
    """Pixels (N, H, W), bool, with Euclidean distance <= ``width`` to the centre of a pixel of the other label."""
    m = (masks > 0.5).float()
    offset = torch.arange(-width, width + 1, device=m.device) ** 2
    disc = (offset[:, None] + offset[None, :] <= width**2).float()[None, None]
    return (disc.sum() * m - _count(m, disc)).abs() > 0


@torch.no_grad()
def inner_band(masks: Tensor, width: int) -> Tensor:
    """Foreground pixels (N, H, W), bool, that ``width`` erosions with a 3x3 square remove."""
    return boundary_band(masks, width) & (masks > 0.5)


def band(masks: Tensor, width: int, rule: str, min_frac: float) -> Tensor:
    """The band (N, H, W), bool, by one of :data:`BAND_RULES`; ``min_frac`` belongs to the rule ``fraction``."""
    if rule == "exact":
        return exact_band(masks, width)
    if rule == "inner":
        return inner_band(masks, width)
    return boundary_band(masks, width, min_frac if rule == "fraction" else 0.0)


def _count(masks: Tensor, window: Tensor) -> Tensor:
    """Foreground pixels (N, H, W) under a window (1, 1, k, k) around each pixel: whole numbers, float32 (bfloat16 ends at 256)."""
    kind = masks.device.type
    with contextlib.nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # meta tensors know no autocast
        return F.conv2d(masks[:, None], window, padding=window.shape[-1] // 2)[:, 0]

"""Mask losses per RoI, so that RoIs can be weighted; boundary-region cross-entropy of BRefine (BRank&Sort) among them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.band import inner_band
from training.losses.dice import dice_per_mask

MASK_LOSSES = ("ce", "dice", "focal", "ce_dice", "brce")


def erosions(height: int, width: int, ratio: float = 0.02) -> int:
    """Erosions that give a boundary region: a share of the mask's diagonal, rounded, at least 1 (as Boundary IoU, Cheng et al. 2021).

    >>> [erosions(s, s) for s in (14, 28, 56, 112)]
    [1, 1, 2, 3]
    """
    return max(1, round(ratio * math.hypot(height, width)))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy (N,): mean over the pixels of each mask."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean((1, 2))


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (N,): mean over the pixels of each mask (Lin et al. 2017, equation 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    p = torch.sigmoid(logits.float())
    wrong = torch.where(targets > 0.5, 1 - p, p)
    balance = torch.where(targets > 0.5, alpha, 1 - alpha)
    return (balance * wrong**gamma * entropy).mean((1, 2))


def boundary_region_cross_entropy(logits: Tensor, targets: Tensor, weight: float, steps: int) -> Tensor:
    """Cross-entropy (N,) in which the object's rim counts ``1 + weight`` times: mean over the pixels of each mask.

    Args:
        logits: (N, H, W).
        targets: (N, H, W) in {0, 1}, float32.
        weight: lambda; 0 is plain cross-entropy.
        steps: erosions with a 3x3 square that make the rim.
    """
    entropy = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return ((1 + weight * inner_band(targets, steps)) * entropy).mean((1, 2))


def mask_loss(kind: str, logits: Tensor, targets: Tensor, *, band_weight: float, steps: int) -> Tensor:
    """The loss (N,) of :data:`MASK_LOSSES` called ``kind``."""
    if kind == "brce":
        return boundary_region_cross_entropy(logits, targets, band_weight, steps)
    if kind == "focal":
        return focal(logits, targets)
    if kind == "ce":
        return cross_entropy(logits, targets)
    dice = dice_per_mask(logits, targets, "squared")
    return dice if kind == "dice" else dice + cross_entropy(logits, targets)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Sum(w loss) / sum(w) of losses (N,); ``weights`` None counts all alike. 0 with gradient 0 for no losses or no weight."""
    if len(losses) == 0:
        return losses.sum() * 0
    if weights is None:
        return losses.mean()
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)

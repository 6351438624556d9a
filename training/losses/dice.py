"""Dice loss and its sum with binary cross-entropy, over masks (Deng et al. 2018; Cheng et al. 2020, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DICE_FORMS = ("linear", "squared")


def dice_per_mask(logits: Tensor, targets: Tensor, form: str = "linear", epsilon: float = 1.0) -> Tensor:
    """1 - (2 sum(p y) + e) / (denominator + e) of each mask, p the probability.

    Args:
        logits: (N, H, W).
        targets: (N, H, W) in {0, 1}.
        form: denominator ``linear``: sum(p) + sum(y), as the released BMask R-CNN; ``squared``: sum(p^2) + sum(y^2), as its paper.
        epsilon: e; a mask without foreground and without prediction then costs nothing.

    Returns:
        (N,) float32.
    """
    p, y = torch.sigmoid(logits.float()).flatten(1), targets.float().flatten(1)
    size = p + y if form == "linear" else p * p + y * y
    return 1 - (2 * (p * y).sum(1) + epsilon) / (size.sum(1) + epsilon)


def dice_loss(logits: Tensor, targets: Tensor, form: str = "linear", epsilon: float = 1.0) -> Tensor:
    """Mean of :func:`dice_per_mask`, a scalar; 0 with gradient 0 for no masks."""
    return dice_per_mask(logits, targets, form, epsilon).mean() if len(logits) else logits.sum() * 0


def balanced_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in which, per mask, either class weighs as the other class is frequent (Xie & Tu 2015, equation 2): mean."""
    if len(logits) == 0:
        return logits.sum() * 0
    background = 1 - targets.float().mean((1, 2), keepdim=True)  # N, 1, 1
    weight = torch.where(targets > 0, background, 1 - background)
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), weight)


def dice_bce(logits: Tensor, targets: Tensor, *, bce_weight: float = 1.0, form: str = "linear", epsilon: float = 1.0) -> Tensor:
    """Dice plus ``bce_weight`` times the mean binary cross-entropy (Cheng et al. 2020, equation 3)."""
    if len(logits) == 0:
        return logits.sum() * 0
    return dice_loss(logits, targets, form, epsilon) + bce_weight * F.binary_cross_entropy_with_logits(logits.float(), targets.float())

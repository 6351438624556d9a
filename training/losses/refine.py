"""Masks that are refined only near the outline, and the losses that match (RefineMask, Zhang et al. 2021, section 3.3).

A stage's mask is kept where it is sure, away from its own outline, and the next, finer stage decides the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Band = Callable[[Tensor], Tensor]  # masks (N, S, S) in {0, 1} -> their boundary band (N, S, S) bool


def enlarge(x: Tensor, size: int) -> Tensor:
    """Bilinear, corners aligned: (N, S, S) -> (N, size, size)."""
    return F.interpolate(x[:, None], (size, size), mode="bilinear", align_corners=True)[:, 0]


def refine_step(coarse: Tensor, fine: Tensor, near: Tensor) -> Tensor:
    """Logits (N, 2S, 2S): ``fine`` inside the band ``near`` (N, S, S) of the coarse mask, else ``coarse`` (N, S, S) enlarged.

    Enlarged band values are never exactly one half (2S-1 is odd), so it does not matter on which side a tie would fall.
    """
    size = fine.shape[-1]
    return torch.where(enlarge(near.to(fine.dtype), size) >= 0.5, fine, enlarge(coarse, size))


def compose(logits: list[Tensor], start: int, band: Band) -> Tensor:
    """The mask of inference, logits at the last stage's size.

    Args:
        logits: per stage (N, S_k, S_k), S_k doubling.
        start: the stage, from 0, that is taken whole; earlier ones are not used.
        band: region that the next stage decides.
    """
    mask = logits[start]
    for fine in logits[start + 1 :]:
        mask = refine_step(mask, fine, band(mask >= 0))  # a probability of one half is a logit of zero
    return mask


def stage_losses(logits: list[Tensor], targets: list[Tensor], start: int, train_band: Band, infer_band: Band) -> list[Tensor]:
    """One binary cross-entropy per stage: of all pixels up to stage ``start``, then of the pixels near the outline.

    Near is what lies in the band of the truth or of the mask so far, both at the stage before. Like the released code, the mask so
    far is made of two stages at a time: the raw stage before, replaced by this one in its band.

    Args:
        logits: per stage (N, S_k, S_k), float32; N may be 0.
        targets: per stage (N, S_k, S_k) in {0, 1}.
        start: last stage, from 0, that learns all pixels.
        train_band: band of the loss.
        infer_band: band of the composition.

    Returns:
        Scalars, the mean over the pixels that count, of all RoIs together.
    """
    if len(logits[0]) == 0:
        return [x.sum() * 0 for x in logits]
    losses = []
    mask = logits[0] >= 0
    for k, (x, y) in enumerate(zip(logits, targets, strict=True)):
        if k <= start:
            losses.append(F.binary_cross_entropy_with_logits(x, y))
            mask = x >= 0
            continue
        near = train_band(mask) | train_band(targets[k - 1])
        region = (enlarge(near.to(x.dtype), x.shape[-1]) >= 0.5).to(x.dtype)
        loss = F.binary_cross_entropy_with_logits(x, y, region, reduction="sum")
        losses.append(loss / region.sum().clamp(min=1))
        mask = refine_step(logits[k - 1].detach(), x.detach(), infer_band(mask)) >= 0
    return losses

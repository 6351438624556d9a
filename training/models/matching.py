"""Matching of boxes to ground truth and the balanced sampling that both stages share (Ren et al. 2015, section 3.1.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.models.ops import box_iou

IGNORED = -2
BACKGROUND = -1


def match(boxes: Tensor, truth: Tensor, low: float, high: float, *, allow_low_quality: bool) -> Tensor:
    """Index (N,) of the ground truth (G, 4) that each box (N, 4) belongs to, or BACKGROUND, or IGNORED.

    IoU >= ``high`` is a match, < ``low`` is background, between them is ignored. With ``allow_low_quality`` every box that reaches some
    ground truth's best IoU matches too, so that no ground truth stays without an anchor.
    """
    if len(truth) == 0:
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    iou = box_iou(truth, boxes)  # G, N
    best, index = iou.max(0)
    matched = torch.where(best >= high, index, torch.where(best < low, BACKGROUND, IGNORED))
    if allow_low_quality:
        best_of_truth = iou.max(1, keepdim=True).values
        reaches = ((iou == best_of_truth) & (best_of_truth > 0)).any(0)
        matched = torch.where(reaches, index, matched)
    return matched


def sample(matched: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Random indices of at most ``count`` boxes: (positives, negatives), at most the given fraction positive."""
    positive = torch.nonzero(matched >= 0).squeeze(1)
    negative = torch.nonzero(matched == BACKGROUND).squeeze(1)
    positive = choose(positive, int(count * positive_fraction))
    return positive, choose(negative, count - len(positive))


def choose(index: Tensor, count: int) -> Tensor:
    """At most ``count`` random entries of ``index``; all of them, in their order, where they are no more."""
    if len(index) <= count:
        return index
    return index[torch.randperm(len(index), device=index.device)[:count]]

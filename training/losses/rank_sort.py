"""Rank & Sort loss: positives above negatives, and positives among themselves by the quality of their boxes (Oksuz et al. 2021).

The gradient is not the derivative of the value. It is the paper's identity update (section 3.3): the error of a positive pulls it up
by as much as it pushes down those who caused it. So it is written by hand. BRank&Sort (Cao et al. 2023) uses it in both stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.losses.giou import giou_loss, paired_iou

IGNORED = -1.0
CHUNK = 1 << 22  # pairs of a positive and another example that are held at once, 16 MB in float32
TINY = 1e-6  # least quality of a positive: at 0 it would count as a negative; also the least loss that balancing divides by


@dataclass(frozen=True)
class _Terms:
    """Errors of a run of positives, and what they do to the logits of all positives and negatives."""

    rank: Tensor  # (n,)
    sort: Tensor  # (n,)
    own: Tensor  # (n,) gradient of the positive itself
    positives: Tensor  # (P,) gradient of those sorted wrongly
    negatives: Tensor  # (Q,) gradient of those ranked above


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """A / b, and 0 where b is 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, torch.ones_like(b)), torch.zeros_like(a))


def _terms(x: Tensor, t: Tensor, all_x: Tensor, all_t: Tensor, negative: Tensor, delta: float) -> _Terms:
    """Terms of the positives ``x``, ``t`` (n,) against all positives (P,) and the negatives (Q,); equations 4 to 9 of the paper."""
    above = _step(all_x - x[:, None], delta)  # n, P: how much each positive is ranked above each of ours
    false = _step(negative - x[:, None], delta)  # n, Q
    rank_positive, false_positive = above.sum(1), false.sum(1)
    rank_error = false_positive / (rank_positive + false_positive)

    better = all_t >= t[:, None]  # n, P: those who may be above
    error = above * (1 - all_t)
    sorted_error = (error * better).sum(1) / (above * better).sum(1)  # includes the positive itself, so never 0 / 0
    sort_error = error.sum(1) / rank_positive - sorted_error
    misplaced = above * ~better
    blame = misplaced.sum(1)
    return _Terms(
        rank=rank_error,
        sort=sort_error,
        own=-rank_error - sort_error * (blame > 0),  # the rank error is 0 where no negative is above
        positives=_divide(sort_error, blame) @ misplaced,
        negatives=_divide(rank_error, false_positive) @ false,
    )


def _step(difference: Tensor, delta: float) -> Tensor:
    """The smoothed unit step H: 0 below -delta, 1 above delta, linear between."""
    return (difference / (2 * delta) + 0.5).clamp(0, 1)


def rank_sort_terms(logits: Tensor, targets: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean rank error, mean sort error and the gradient (M,) of :func:`rank_sort`; without positives all are 0.

    Only negatives within ``delta`` of the lowest positive or above it matter; the others are dropped first. Positives are taken in
    chunks, so that memory is bounded however many pairs there are.
    """
    gradient = torch.zeros_like(logits)
    positive = torch.nonzero(targets > 0).squeeze(1)
    if len(positive) == 0:
        return logits.new_zeros(()), logits.new_zeros(()), gradient
    x, t = logits[positive], targets[positive]
    negative = torch.nonzero((targets == 0) & (logits >= x.min() - delta)).squeeze(1)
    rank, sort = torch.zeros_like(x), torch.zeros_like(x)
    own, moved, pushed = torch.zeros_like(x), torch.zeros_like(x), logits.new_zeros(len(negative))
    rows = max(1, CHUNK // (len(positive) + len(negative)))
    for start in range(0, len(positive), rows):
        part = slice(start, start + rows)
        terms = _terms(x[part], t[part], x, t, logits[negative], delta)
        rank[part], sort[part], own[part] = terms.rank, terms.sort, terms.own
        moved += terms.positives
        pushed += terms.negatives
    gradient[positive] = (own + moved) / len(positive)
    gradient[negative] = pushed / len(positive)
    return rank.mean(), sort.mean(), gradient


class _RankSort(torch.autograd.Function):
    """Both values; the gradient of both together belongs to the first of them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, delta: float) -> tuple[Tensor, Tensor]:
        rank, sort, gradient = rank_sort_terms(logits, targets, delta)
        ctx.save_for_backward(gradient)
        return rank, sort

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None


def rank_sort(logits: Tensor, targets: Tensor, delta: float = 0.5) -> tuple[Tensor, Tensor]:
    """Rank & Sort loss of one vector of logits.

    Args:
        logits: (M,) scores, any float type; the computation is float32.
        targets: (M,) quality in (0, 1] of a positive (IoU of its box), 0 for a negative, -1 for an example that does not count.
        delta: half width of the step's smoothing, in logits.

    Returns:
        Rank error and sort error, scalars, each the mean over the positives. The gradient of both arrives through the **rank** error;
        the sort error has none of its own, so add both with the same weight. Without positives both are 0, with a gradient of 0.
    """
    with torch.autocast(logits.device.type, enabled=False):  # its matrix products would round the gradient
        rank, sort = _RankSort.apply(logits.float(), targets.float(), delta)  # type: ignore[no-untyped-call]
    return rank, sort


@dataclass(frozen=True)
class RankedLosses:
    """Losses of one stage, balanced and ready to be added."""

    rank: Tensor
    sort: Tensor
    box: Tensor

    @property
    def reference(self) -> Tensor:
        """Rank and sort error together, without gradient: what other losses of the stage are scaled to."""
        return (self.rank + self.sort).detach()


def balance_factor(loss: Tensor, reference: Tensor) -> Tensor:
    """What brings ``loss`` to the value of ``reference``; it has no gradient (self-balancing, section 3.4 of the paper)."""
    return reference.detach() / loss.detach().clamp(min=TINY)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of ``values`` (N,) by ``weights`` (N,) >= 0; 0 with gradient 0 for none."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-10)


def ranked_losses(
    logits: Tensor, targets: Tensor, positive: Tensor, boxes: Tensor, truth: Tensor, weights: Tensor, *, delta: float, balance: bool
) -> RankedLosses:
    """Rank & Sort over all examples of a stage, and GIoU over its positives, balanced against it.

    Args:
        logits: (M,) all examples of the batch in one vector.
        targets: (M,) 0 for negatives, -1 for what does not count; the entries of ``positive`` are replaced by their IoU.
        positive: (F,) index into ``logits``.
        boxes: (F, 4) predicted boxes of the positives, with gradient.
        truth: (F, 4) their ground truth.
        weights: (F,) importance of each box, without gradient.
        delta: see :func:`rank_sort`.
        balance: scale the box loss to the value of rank and sort error.
    """
    with torch.no_grad():
        quality = paired_iou(boxes.float(), truth.float())[0].clamp(min=TINY, max=1.0)
        targets = targets.float().index_copy(0, positive, quality)
    rank, sort = rank_sort(logits, targets, delta)
    box = weighted_mean(giou_loss(boxes, truth), weights)
    if balance:
        box = box * balance_factor(box, rank + sort)
    return RankedLosses(rank=rank, sort=sort, box=box)

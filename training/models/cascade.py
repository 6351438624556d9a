"""The box stages of training and of inference: one (Girshick 2015), or a cascade of them (Cai & Vasconcelos 2018).

What the paper leaves open follows Detectron2:

* Every stage after the first takes **all** boxes of the one before, refined and cut to the picture, without sampling again and without
  the ground truth added again; in training, boxes that came out empty are dropped. It labels them by its own IoU.
* All stages weigh the same; the gradient into the features is divided by the number of stages.
* At test the scores are the mean of all stages' probabilities, each from its own boxes; the boxes are the last stage's.
* Masks are trained in the foreground RoIs of the **first** stage, and predicted in the boxes of the last. ``train_on_pred_boxes`` trains
  them in the boxes that the last stage gives those RoIs instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.config import ModelConfig
from training.models.box_head import (
    BoxHead,
    SampledRois,
    box_losses,
    label_rois,
    own_deltas,
    ranked_box_losses,
    sample_rois,
    select_detections,
)
from training.models.ops import decode_boxes
from training.models.targets import Target

Pool = Callable[[Tensor, Tensor], Tensor]  # boxes (N, 4) and their pictures (N,) -> features (N, C, 7, 7)


@dataclass(frozen=True, kw_only=True)
class BoxOutcome:
    """What training of the box stages leaves for the mask head."""

    losses: dict[str, Tensor]
    rois: SampledRois  # of the first stage
    predicted: Tensor  # (N, 4) for each of them the last stage's box of its true class, no gradient; empty where it got lost
    weights: Tensor | None  # (N,) importance of each of them; None = all equal
    reference: Tensor | None  # value that the masks' losses are scaled to; None = they stay as they are


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, with its gradient multiplied by ``factor`` on the way back."""
    scaled: Tensor = _ScaleGradient.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled


def solid(boxes: Tensor) -> Tensor:
    """Which boxes (N, 4) have a width and a height, (N,) bool."""
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)


@torch.no_grad()
def refine(deltas: Tensor, boxes: Tensor, batch: Tensor, sizes: Sequence[tuple[int, int]], labels: Tensor, head: BoxHead) -> Tensor:
    """Boxes (N, 4) that a stage makes of its RoIs, cut to their pictures of ``sizes`` (h, w).

    ``labels`` (N,) choose the class of a class-specific head; for the background, which has no box, it is the last one.
    """
    index = torch.arange(len(boxes), device=boxes.device)
    classes = max(1, deltas.shape[1] // 4)
    own = own_deltas(deltas, index, labels.clamp(max=classes - 1)).float()
    limits = torch.tensor([(w, h, w, h) for h, w in sizes], device=boxes.device, dtype=boxes.dtype)[batch]  # N, 4
    return torch.minimum(decode_boxes(own, boxes, head.config.coder_weights).clamp(min=0), limits)


def train_stages(
    heads: Sequence[BoxHead],
    pool: Pool,
    proposals: list[Tensor],
    targets: list[Target],
    sizes: Sequence[tuple[int, int]],
    config: ModelConfig,
) -> BoxOutcome:
    """Losses of all box stages, named ``box_...``, ``box2_...`` and so on."""
    truths, labels, classes = [t.boxes for t in targets], [t.labels for t in targets], len(config.class_names)
    rank_sort = config.rank_sort if config.detection_loss == "rs_giou" else None
    first = rois = sample_rois(proposals, truths, labels, heads[0].config, classes, sampled=rank_sort is None)
    origin = torch.arange(len(first.boxes), device=first.boxes.device)  # entry of ``first`` that each RoI comes from
    predicted = torch.zeros_like(first.boxes)
    losses: dict[str, Tensor] = {}
    weights: Tensor | None = None
    reference: Tensor | None = None
    for stage, head in enumerate(heads):
        if stage > 0:
            kept = torch.nonzero(solid(predicted[origin])).squeeze(1)
            batch, origin = rois.batch[kept], origin[kept]
            rois = label_rois(predicted[origin], batch, truths, labels, head.config, classes)
        logits, deltas = head(scale_gradient(pool(rois.boxes, rois.batch), 1 / len(heads)))
        if rank_sort is None:
            found = box_losses(logits, deltas, rois, truths, head.config)
        else:
            ranked, stage_weights = ranked_box_losses(logits, deltas, rois, truths, head.config, rank_sort)
            found = {"rank": ranked.rank, "sort": ranked.sort, "regression": ranked.box}
            if stage == 0:
                weights, reference = stage_weights, ranked.reference if rank_sort.balance else None
        prefix = f"box{stage + 1}" if stage else "box"
        losses.update({f"{prefix}_{name}": value for name, value in found.items()})
        predicted = torch.zeros_like(predicted).index_copy(0, origin, refine(deltas, rois.boxes, rois.batch, sizes, rois.labels, head))
    return BoxOutcome(losses=losses, rois=first, predicted=predicted, weights=weights, reference=reference)


@torch.no_grad()
def detect(heads: Sequence[BoxHead], pool: Pool, proposals: Tensor, image: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (D, 4), scores (D,) and labels (D,) of picture ``image`` from its proposals (N, 4), through all stages."""
    boxes, scores = proposals, []
    batch = torch.full((len(proposals),), image, device=proposals.device)
    nothing = torch.zeros_like(batch)
    for stage, head in enumerate(heads):
        logits, deltas = head(pool(boxes, batch))
        scores.append(head.probabilities(logits.float()))  # N, K
        if stage + 1 < len(heads):
            boxes = refine(deltas, boxes, nothing, [size], nothing, head)
    return select_detections(torch.stack(scores).mean(0), deltas, boxes, size, heads[-1].config)

"""The two-stage detector: backbone, FPN, RPN, box head and one mask head (Mask R-CNN, He et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk.manifest import PoolSpec
from training.config import ModelConfig
from training.heads import HEADS, MaskOutput
from training.losses.rank_sort import balance_factor
from training.models.backbones import build_backbone
from training.models.box_head import BoxHead
from training.models.cascade import BoxOutcome, Pool, detect, solid, train_stages
from training.models.fpn import FPN
from training.models.mask_scoring import MaskScoring
from training.models.matching import choose
from training.models.ops import multilevel_roi_align
from training.models.rpn import RPN, STRIDES
from training.models.targets import MaskTargets, Target


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What the detector found in one picture, in input pixels."""

    boxes: Tensor  # (D, 4)
    scores: Tensor  # (D,)
    labels: Tensor  # (D,)
    mask_logits: Tensor  # (D, S, S)


class Detector(nn.Module):
    """Pictures in, losses (training) or detections out.

    ``images`` are normalised and padded, (B, 3, H, W) with sides that are multiples of 32; ``sizes`` are their (h, w) before padding.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        classes = len(config.class_names)
        self.config = config
        self.backbone = build_backbone(config.backbone, config.width, config.norm)
        self.fpn = FPN(self.backbone.channels, config.fpn_channels)
        ranked = config.detection_loss == "rs_giou"
        self.rpn = RPN(config.rpn, config.fpn_channels, config.rank_sort if ranked else None)
        stages = [BoxHead(stage, config.fpn_channels, classes, "sigmoid" if ranked else "softmax") for stage in config.box_stages()]
        self.box_head = stages[0]
        self.later_box_heads = nn.ModuleList(stages[1:])
        self.mask_head = HEADS[config.head.name](config.head, config.fpn_channels, classes)
        self.mask_scoring = None if config.scoring is None else MaskScoring(config.scoring, self.mask_head, classes)

    @property
    def box_heads(self) -> list[BoxHead]:
        """The box head of every stage: one, or as many as the cascade has."""
        return [self.box_head, *(head for head in self.later_box_heads if isinstance(head, BoxHead))]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """P2 .. P6."""
        return self.fpn(self.backbone(images))

    def pool(self, pyramid: list[Tensor], boxes: Tensor, batch: Tensor, spec: PoolSpec) -> Tensor:
        """One RoI input (N, C, S, S) from the pyramid."""
        return multilevel_roi_align(pyramid[:4], boxes, batch, spec.size, STRIDES[:4], spec.sampling_ratio, spec.level, spec.aligned)

    def mask_inputs(self, pyramid: list[Tensor], maps: dict[str, Tensor], boxes: Tensor, batch: Tensor) -> list[Tensor]:
        """What the mask head wants pooled, from the pyramid and from the ``maps`` that it made of it."""
        inputs = []
        for spec in self.mask_head.pools:
            if spec.feature == "pyramid":
                inputs.append(self.pool(pyramid, boxes, batch, spec))
            else:
                stride, maps_of_one = (float(spec.stride or 1),), [maps[spec.feature]]
                inputs.append(multilevel_roi_align(maps_of_one, boxes, batch, spec.size, stride, spec.sampling_ratio, aligned=spec.aligned))
        return inputs

    def box_pool(self) -> PoolSpec:
        box = self.config.box
        return PoolSpec(size=box.pool_size, sampling_ratio=box.sampling_ratio, aligned=box.aligned)

    def box_input(self, pyramid: list[Tensor]) -> Pool:
        """Pools what a box stage looks at."""
        return lambda boxes, batch: self.pool(pyramid, boxes, batch, self.box_pool())

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """All losses of a batch by name; their sum is what training minimises."""
        pyramid = self.pyramid(images)
        logits, deltas, anchors = self.rpn(pyramid)
        losses = self.rpn.losses(logits, deltas, anchors, [t.boxes for t in targets])
        proposals = self.rpn.propose(logits, deltas, anchors, sizes)
        outcome = train_stages(self.box_heads, self.box_input(pyramid), proposals, targets, sizes, self.config)
        losses.update(outcome.losses)
        losses.update(self.mask_losses(pyramid, self.mask_targets(outcome, targets), outcome.reference))
        return losses

    @torch.no_grad()
    def mask_targets(self, outcome: BoxOutcome, targets: list[Target]) -> MaskTargets:
        """The foreground RoIs that masks are trained in, with what they should become."""
        rois, chosen, boxes = outcome.rois, outcome.rois.foreground(), outcome.rois.boxes
        if self.config.box.train_on_pred_boxes:
            boxes = outcome.predicted
            chosen = chosen[solid(boxes[chosen])]
        if outcome.weights is not None:  # nothing was sampled, so there may be any number
            chosen = choose(chosen, self.config.rank_sort.mask_cap)
        return MaskTargets(
            pictures=targets,
            boxes=boxes[chosen],
            batch=rois.batch[chosen],
            truth=rois.truth[chosen],
            labels=rois.labels[chosen],
            weights=None if outcome.weights is None else outcome.weights[chosen],
        )

    def mask_losses(self, pyramid: list[Tensor], targets: MaskTargets, reference: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of the mask head, all scaled by one factor so that together they are worth ``reference``; and of Mask Scoring."""
        maps = self.mask_head.maps(pyramid)
        inputs = self.mask_inputs(pyramid, maps, targets.boxes, targets.batch)
        losses, output = self.mask_head.losses(maps, inputs, targets)
        if reference is not None:
            factor = balance_factor(torch.stack(list(losses.values())).sum(), reference)
            losses = {name: loss * factor for name, loss in losses.items()}
        if self.mask_scoring is not None:
            losses["mask_scoring"] = self.mask_scoring.loss(output, targets)
        return losses

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of every picture; masks stay in their boxes."""
        pyramid = self.pyramid(images)
        maps = self.mask_head.maps(pyramid)
        results = []
        for image, proposals in enumerate(self.rpn.propose(*self.rpn(pyramid), sizes)):
            boxes, scores, labels = detect(self.box_heads, self.box_input(pyramid), proposals, image, sizes[image])
            batch = torch.full((len(boxes),), image, device=boxes.device)
            output = self.mask_head(self.mask_inputs(pyramid, maps, boxes, batch), labels)
            results.append(self.score_masks(Detections(boxes=boxes, scores=scores, labels=labels, mask_logits=output.logits), output))
        return results

    def score_masks(self, found: Detections, output: MaskOutput) -> Detections:
        """The same detections with Mask Scoring's scores, in their order; without Mask Scoring as they are."""
        if self.mask_scoring is None:
            return found
        scores, order = torch.sort(found.scores * self.mask_scoring.quality(output, found.labels), descending=True, stable=True)
        return Detections(boxes=found.boxes[order], scores=scores, labels=found.labels[order], mask_logits=found.mask_logits[order])

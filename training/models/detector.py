"""The two-stage detector: backbone, FPN, RPN, box head and one mask head (Mask R-CNN, He et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdk.config import PoolSpec
from training.config import ModelConfig
from training.heads import HEADS
from training.models.backbones import build_backbone
from training.models.box_head import BoxHead, box_losses, sample_rois, select_detections
from training.models.fpn import FPN
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
        self.rpn = RPN(config.rpn, config.fpn_channels)
        self.box_head = BoxHead(config.box, config.fpn_channels, classes)
        self.mask_head = HEADS[config.head.name](config.head, config.fpn_channels, classes)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """P2 .. P6."""
        return self.fpn(self.backbone(images))

    def pool(self, pyramid: list[Tensor], boxes: Tensor, batch: Tensor, spec: PoolSpec) -> Tensor:
        """One RoI input (N, C, S, S) from the pyramid."""
        return multilevel_roi_align(pyramid[:4], boxes, batch, spec.size, STRIDES[:4], spec.sampling_ratio, spec.level)

    def mask_inputs(self, pyramid: list[Tensor], maps: dict[str, Tensor], boxes: Tensor, batch: Tensor) -> list[Tensor]:
        """What the mask head wants pooled, from the pyramid and from the ``maps`` that it made of it."""
        inputs = []
        for spec in self.mask_head.pools:
            if spec.feature == "pyramid":
                inputs.append(self.pool(pyramid, boxes, batch, spec))
            else:
                stride = (float(spec.stride or 1),)
                inputs.append(multilevel_roi_align([maps[spec.feature]], boxes, batch, spec.size, stride, spec.sampling_ratio))
        return inputs

    def box_pool(self) -> PoolSpec:
        return PoolSpec(size=self.config.box.pool_size, sampling_ratio=self.config.box.sampling_ratio)

    def losses(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> dict[str, Tensor]:
        """All losses of a batch by name."""
        pyramid = self.pyramid(images)
        logits, deltas, anchors = self.rpn(pyramid)
        truths, labels = [t.boxes for t in targets], [t.labels for t in targets]
        losses = self.rpn.losses(logits, deltas, anchors, truths)

        proposals = self.rpn.propose(logits, deltas, anchors, sizes)
        rois = sample_rois(proposals, truths, labels, self.config.box, len(self.config.class_names))
        pooled = self.pool(pyramid, rois.boxes, rois.batch, self.box_pool())
        losses.update(box_losses(*self.box_head(pooled), rois, truths, self.config.box))

        fg = rois.foreground()
        boxes, batch = rois.boxes[fg], rois.batch[fg]
        maps = self.mask_head.maps(pyramid)
        inputs = self.mask_inputs(pyramid, maps, boxes, batch)
        mask_targets = MaskTargets(pictures=targets, boxes=boxes, batch=batch, truth=rois.truth[fg], labels=rois.labels[fg])
        mask_losses, _ = self.mask_head.losses(maps, inputs, mask_targets)
        losses.update(mask_losses)
        return losses

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of every picture; masks stay in their boxes."""
        pyramid = self.pyramid(images)
        maps = self.mask_head.maps(pyramid)
        results = []
        for image, proposals in enumerate(self.rpn.propose(*self.rpn(pyramid), sizes)):
            batch = torch.full((len(proposals),), image, device=proposals.device)
            class_logits, deltas = self.box_head(self.pool(pyramid, proposals, batch, self.box_pool()))
            found = select_detections(self.box_head.probabilities(class_logits), deltas, proposals, sizes[image], self.config.box)
            boxes, scores, labels = found
            batch = torch.full((len(boxes),), image, device=boxes.device)
            mask_logits = self.mask_head(self.mask_inputs(pyramid, maps, boxes, batch), labels).logits
            results.append(Detections(boxes=boxes, scores=scores, labels=labels, mask_logits=mask_logits))
        return results

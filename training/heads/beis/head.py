"""BEIS's head: a coarse mask, refined at doubled sizes, whose features are contrasted along the boundary.

There is no public code. What the paper leaves open is decided here: the channels halve at each doubling, the convolutions of a stage run at
its lower size and the projection after the enlargement, every stage reads P2 anew.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.manifest import PoolSpec
from training.heads.base import MaskHead, MaskOutput, main_pool
from training.heads.beis.config import BEISConfig
from training.heads.beis.contrast import BoundaryContrast, Stage
from training.heads.layers import ClassSlice, ConvReLU
from training.models.targets import MaskTargets


class Refinement(nn.Module):
    """One stage: three 3x3 convolutions, enlargement, projection to the boundary-enhanced features, mask from both features."""

    def __init__(self, inputs: int, hidden: int, outputs: int, projected: int, classes: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.fusion = nn.Sequential(ConvReLU(inputs, hidden), ConvReLU(hidden, hidden), ConvReLU(hidden, outputs))
        last = nn.Conv2d(outputs, projected, 3, padding=1)
        self.projection = nn.Sequential(ConvReLU(outputs, outputs), last)  # no ReLU at the end: distances are taken of it
        self.predictor = ClassSlice(outputs + projected, classes)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features X (N, C, S, S), boundary-enhanced features E (N, D, S, S), mask logits (N, S, S)."""
        x = self.fusion(x)
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        projected = self.projection(x)
        return x, projected, self.predictor(torch.cat([x, projected], 1), labels)


class BEISHead(MaskHead):
    """Mask at 14x14 from the RoI and P2, then ``stages`` refinements; the last one's mask is the head's."""

    config_type = BEISConfig
    training_only = ("contrast.",)
    config: BEISConfig

    def __init__(self, config: BEISConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        sizes = [config.pool_size * 2**i for i in range(config.stages + 1)]
        widths = [config.channels // 2**i for i in range(config.stages + 1)]
        projected = [config.bef_dim or width for width in widths]
        self.mask_size, self.features = sizes[-1], widths[0]
        self.coarse_p2 = config.p2 != "off" and config.source != "p2"  # a main input from P2 is not read twice
        refine_p2 = config.p2 == "every"
        p2_sizes = [sizes[0]] * self.coarse_p2 + (sizes[:-1] if refine_p2 else [])
        p2_pools = [PoolSpec(size=size, sampling_ratio=config.sampling_ratio, level=0) for size in p2_sizes]
        self.pools = tuple(dict.fromkeys([main_pool(config), *p2_pools]))  # equal ones are pooled once
        self.first_p2 = 0 if config.source == "p2" else 1  # which of them is P2 at the coarse size
        self.stages = nn.ModuleList([Refinement(channels * (1 + self.coarse_p2), widths[0], widths[0], projected[0], classes, 1)])
        self.p2 = nn.ModuleList()
        for width, after, dim, after_dim in zip(widths, widths[1:], projected, projected[1:], strict=False):
            if refine_p2:
                self.p2.append(ConvReLU(channels, width, 1))
            self.stages.append(Refinement(width * (1 + refine_p2) + dim + 1, width, after, after_dim, classes, 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # By fan-in: where channels halve, fan-out makes features grow at every stage, and the distances between them with it.
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # bias is on
        wanted = config.ibdl or config.cbdl
        self.contrast = BoundaryContrast(config, projected, classes) if wanted else None

    def run(self, rois: list[Tensor], labels: Tensor) -> tuple[Tensor, list[Stage]]:
        """Features of the coarse mask (N, C, P, P), and every stage's boundary-enhanced features and mask."""
        x, projected, logits = self.stages[0](torch.cat(rois[:2], 1) if self.coarse_p2 else rois[0], labels)
        coarse, made = x, [Stage(features=projected, logits=logits)]
        for i, stage in enumerate(list(self.stages)[1:]):
            parts = [x, projected, torch.sigmoid(logits)[:, None]]
            if len(self.p2):
                parts.append(self.p2[i](rois[self.first_p2 + i]))
            x, projected, logits = stage(torch.cat(parts, 1), labels)
            made.append(Stage(features=projected, logits=logits))
        return coarse, made

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        features, stages = self.run(rois, labels)
        return MaskOutput(stages[-1].logits, features)

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        """``mask0``, ``mask1``, ...: mean binary cross-entropy of each stage's mask; ``ibdl0``, ``cbdl0``, ...: its contrast."""
        features, stages = self.run(rois, targets.labels)
        losses = {}
        for i, stage in enumerate(stages):
            logits = stage.logits.float()
            masks = targets.masks(logits.shape[-1])
            losses[f"mask{i}"] = F.binary_cross_entropy_with_logits(logits, masks) if len(targets) else logits.sum() * 0
        if self.contrast is not None:
            losses.update(self.contrast(stages, targets))
        return losses, MaskOutput(stages[-1].logits, features)

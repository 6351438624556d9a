"""Mask R-CNN's fully convolutional head (He et al. 2017, figure 4 right)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sdk.config import require
from training.config import HeadConfig
from training.heads.base import MaskHead, MaskOutput, main_pool
from training.heads.layers import ClassSlice, ConvStack
from training.models.targets import MaskTargets


@dataclass(frozen=True, kw_only=True)
class FCNConfig(HeadConfig):
    """The baseline; ``convs=8`` is the larger mask head that BMask R-CNN compares itself with."""

    name: str = "fcn"
    convs: int = 4
    aligned: bool = True  # False = RoIAlign without the half-cell shift (``sdk.manifest.PoolSpec``)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.convs >= 1, f"convs must be at least 1, got {self.convs}")


class FCNHead(MaskHead):
    """RoI 14x14 -> 4 x (conv3x3, ReLU) -> deconv x2, ReLU -> the label's 28x28 logits."""

    config_type = FCNConfig

    def __init__(self, config: FCNConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        self.pools = (main_pool(config).replace(aligned=config.aligned),)
        self.mask_size = 2 * config.pool_size
        self.features = config.channels
        self.convs = ConvStack(channels, config.channels, config.convs)
        self.deconv = nn.ConvTranspose2d(config.channels, config.channels, 2, 2)
        self.predictor = ClassSlice(config.channels, classes)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]  # bias is on

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        features = self.convs(rois[0])
        x = F.relu(self.deconv(features))  # N, C, 28, 28
        return MaskOutput(self.predictor(x, labels), features)

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        output = self(rois, targets.labels)
        if len(targets) == 0:
            return {"mask": output.logits.sum() * 0}, output
        return {"mask": F.binary_cross_entropy_with_logits(output.logits.float(), targets.masks(self.mask_size))}, output

"""Mask R-CNN's fully convolutional head (He et al. 2017, figure 4 right)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.config import PoolSpec
from training.config import HeadConfig
from training.heads.base import MaskHead


class ClassSlice(nn.Module):
    """A 1x1 predictor of K maps that computes only the map of each RoI's label: the same numbers, K times less memory."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels).normal_(std=0.001))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.weight[labels]  # N, C
        logits = torch.bmm(weight[:, None], x.reshape(n, c, h * w)) + self.bias[labels][:, None, None]  # N, 1, HW
        return logits.reshape(n, h, w)


class FCNHead(MaskHead):
    """RoI 14x14 -> 4 x (conv3x3, ReLU) -> deconv x2, ReLU -> the label's 28x28 logits."""

    def __init__(self, config: HeadConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        self.pools = (PoolSpec(size=config.pool_size, sampling_ratio=config.sampling_ratio),)
        self.mask_size = 2 * config.pool_size
        inputs = [channels] + [config.channels] * (config.convs - 1)
        self.convs = nn.ModuleList(nn.Conv2d(c, config.channels, 3, padding=1) for c in inputs)
        self.deconv = nn.ConvTranspose2d(config.channels, config.channels, 2, 2)
        self.predictor = ClassSlice(config.channels, classes)
        for layer in [*self.convs, self.deconv]:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, rois: list[Tensor], labels: Tensor) -> Tensor:
        x = rois[0]
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.relu(self.deconv(x))  # N, C, 28, 28
        return self.predictor(x, labels)

    def losses(self, rois: list[Tensor], labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = self(rois, labels)
        if len(logits) == 0:
            return {"mask": logits.sum() * 0}
        return {"mask": F.binary_cross_entropy_with_logits(logits.float(), targets)}

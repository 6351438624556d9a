"""Feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """C2..C5 -> P2..P6, all with ``channels`` channels, at strides 4, 8, 16, 32, 64. P6 serves the RPN only.

    Sides of the picture must be multiples of 32, so that every upsampled map meets its lateral exactly.
    """

    def __init__(self, inputs: list[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in inputs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        merged = [self.lateral[-1](features[-1])]
        for lateral, feature in zip(reversed(self.lateral[:-1]), reversed(features[:-1]), strict=True):
            merged.insert(0, lateral(feature) + F.interpolate(merged[0], scale_factor=2.0, mode="nearest"))
        pyramid = [conv(m) for conv, m in zip(self.output, merged, strict=True)]
        return [*pyramid, F.max_pool2d(pyramid[-1], 1, 2)]

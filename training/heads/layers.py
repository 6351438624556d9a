"""Layers that several mask heads are built from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class ConvReLU(nn.Conv2d):
    """A convolution that keeps the size (at stride 1), then ReLU; He initialisation, bias, no norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]  # bias is on

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class ConvStack(nn.ModuleList):
    """``count`` 3x3 :class:`ConvReLU` one after another."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__(ConvReLU(inputs if i == 0 else outputs, outputs) for i in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self:
            x = conv(x)
        return x


class UpsamplingPredictor(nn.Module):
    """Transposed 2x2 convolution of stride 2, ReLU, and the label's map: (N, C, P, P) -> (N, 2P, 2P)."""

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(inputs, channels, 2, 2)
        self.predictor = ClassSlice(channels, classes)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.deconv.bias)  # type: ignore[arg-type]  # bias is on

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.predictor(F.relu(self.deconv(x)), labels)
        return logits

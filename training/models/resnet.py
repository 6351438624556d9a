"""ResNet and ResNeXt bodies (He et al. 2016, Xie et al. 2017) with torchvision's parameter names: public ImageNet weights load strictly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine are constants: what fine-tuning from ImageNet weights uses.

    The names are those of ``nn.BatchNorm2d``, so either loads the other's state.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def group_norm(channels: int) -> nn.Module:
    """Group norm with 32 groups, or fewer where a layer is too narrow for that or cannot be divided so."""
    groups = next(n for n in range(max(1, min(32, channels // 4)), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm, "group": group_norm}


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """What distinguishes bottlenecks of one width."""

    groups: int = 1  # of the 3x3 convolution (Xie et al. 2017)
    group_width: int = 64  # channels of a group in the first stage of a network of width 64
    stride_in_1x1: bool = False  # stride in the first 1x1 (He et al. 2016, Caffe2's weights) instead of the 3x3 (torchvision's)

    def inner_width(self, width: int) -> int:
        """Channels of the 3x3 convolution of a stage with this ``width``."""
        inner = width * self.group_width // 64 * self.groups
        if inner == 0:
            raise ValueError(f"width {width} leaves no channel for groups of width {self.group_width}")
        return inner


def conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias; the norm after it has one."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18, -34, and the branches of HRNet)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, style: BlockStyle | None = None) -> None:
        super().__init__()
        if style not in (None, BlockStyle()):
            raise ValueError("a basic block has neither groups nor a 1x1 convolution that could stride")
        self.conv1, self.bn1 = conv3x3(inputs, width, stride), norm(width)
        self.conv2, self.bn2 = conv3x3(width, width), norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut (ResNet-50 and deeper; with groups, ResNeXt)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, style: BlockStyle | None = None) -> None:
        super().__init__()
        style = style or BlockStyle()
        inner = style.inner_width(width)
        first, second = (stride, 1) if style.stride_in_1x1 else (1, stride)
        self.conv1, self.bn1 = conv1x1(inputs, inner, first), norm(inner)
        self.conv2, self.bn2 = conv3x3(inner, inner, second, style.groups), norm(inner)
        self.conv3, self.bn3 = conv1x1(inner, 4 * width), norm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, 4 * width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv1x1(inputs, outputs, stride), norm(outputs))


class ResNet(nn.Module):
    """The convolutional body: picture (B, 3, H, W) -> C2, C3, C4, C5 at strides 4, 8, 16, 32.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        depths: blocks per stage.
        width: channels of the stem; 64 is the published network, less is a slim one for small devices.
        norm: constructor of the norm layers.
        style: groups and stride of the bottlenecks.
    """

    classifier = ("fc.",)  # beginnings of the names that only image classification has
    added: tuple[str, ...] = ()  # beginnings of the names that it lacks

    def __init__(self, block: Block, depths: tuple[int, ...], width: int, norm: Norm, style: BlockStyle | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels: list[int] = []
        inputs = width
        for stage, depth in enumerate(depths):
            blocks: list[nn.Module] = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(inputs, width * 2**stage, stride, norm, style))
                inputs = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.channels.append(inputs)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # B, width, H/4, W/4
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return [c2, c3, c4, c5]

    def stem(self) -> list[nn.Module]:
        """What stays as it is when ImageNet weights are fine-tuned: the stem and the first stage."""
        return [self.conv1, self.bn1, self.layer1]


def initialise_convolutions(body: nn.Module) -> None:
    """He et al. 2015, fan-out, for every convolution."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


RESNETS: dict[str, tuple[Block, tuple[int, ...], BlockStyle]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), BlockStyle()),
    "resnet50": (Bottleneck, (3, 4, 6, 3), BlockStyle()),
    "resnet101": (Bottleneck, (3, 4, 23, 3), BlockStyle()),
    "resnet50_caffe2": (Bottleneck, (3, 4, 6, 3), BlockStyle(stride_in_1x1=True)),
    "resnet101_caffe2": (Bottleneck, (3, 4, 23, 3), BlockStyle(stride_in_1x1=True)),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), BlockStyle(groups=32, group_width=8)),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), BlockStyle(groups=64, group_width=4)),
}


def build_resnet(name: str, width: int = 64, norm: str = "batch") -> ResNet:
    """A ResNet body by name (``RESNETS``) with the named norm (``NORMS``)."""
    block, depths, style = RESNETS[name]
    return ResNet(block, depths, width, NORMS[norm], style)

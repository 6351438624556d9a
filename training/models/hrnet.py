"""HRNetV2 bodies (Sun et al. 2019) with timm's parameter names: four resolutions side by side that exchange what they see."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.resnet import NORMS, BasicBlock, Bottleneck, Norm, conv1x1, conv3x3, initialise_convolutions


def _unit(inputs: int, outputs: int, stride: int, norm: Norm, relu: bool = True) -> nn.Sequential:
    """3x3 convolution and norm, with or without ReLU."""
    layers: list[nn.Module] = [conv3x3(inputs, outputs, stride), norm(outputs)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Exchange(nn.Module):
    """One module: blocks on every branch, then every branch receives the sum of all, brought to its resolution.

    Args:
        widths: channels of the branches, finest first.
        blocks: basic blocks on each branch.
        norm: constructor of the norm layers.
        upsample: interpolation of the coarser branches, "nearest" or "bilinear".
    """

    def __init__(self, widths: tuple[int, ...], blocks: int, norm: Norm, upsample: str) -> None:
        super().__init__()
        self.upsample = upsample
        self.branches = nn.ModuleList(nn.Sequential(*[BasicBlock(w, w, 1, norm) for _ in range(blocks)]) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(source, target, widths, norm) for source in range(len(widths))) for target in range(len(widths))
        )

    @staticmethod
    def _path(source: int, target: int, widths: tuple[int, ...], norm: Norm) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:  # coarser: fewer channels here, more pixels in forward()
            return nn.Sequential(conv1x1(widths[source], widths[target]), norm(widths[target]))
        steps = [_unit(widths[source], widths[source], 2, norm) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, _unit(widths[source], widths[target], 2, norm, relu=False))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(v) for branch, v in zip(self.branches, x, strict=True)]
        fused = []
        for target, paths in enumerate(self.fuse_layers):
            total = paths[0](x[0])
            for source in range(1, len(x)):
                total = total + self._resized(paths[source](x[source]), source - target)
            fused.append(F.relu(total))
        return fused

    def _resized(self, x: Tensor, doublings: int) -> Tensor:
        if doublings <= 0:
            return x
        align = None if self.upsample == "nearest" else False
        return F.interpolate(x, scale_factor=float(2**doublings), mode=self.upsample, align_corners=align)


@dataclass(frozen=True, kw_only=True)
class HRNetShape:
    """The numbers of one network."""

    stem_blocks: int = 4  # bottlenecks of stage 1
    modules: tuple[int, int, int] = (1, 4, 3)  # of stages 2, 3 and 4
    blocks: int = 4  # basic blocks on each branch of a module
    width: int  # channels of the finest branch; each next one has twice as many


class HRNet(nn.Module):
    """The body: picture (B, 3, H, W) -> its four branches at strides 4, 8, 16, 32.

    Args:
        shape: the numbers of the network.
        width: channels of the stem; 64 is the published network, less is a slim one (the branches shrink alike).
        norm: constructor of the norm layers.
        upsample: how coarser branches reach a finer one: "nearest" (timm's ImageNet weights) or "bilinear" (the segmentation networks).
        inputs: channels of the picture.
    """

    classifier = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")  # only image classification has these
    added: tuple[str, ...] = ()  # beginnings of the names that it lacks

    def __init__(self, shape: HRNetShape, width: int, norm: Norm, upsample: str = "nearest", inputs: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, width, 2), norm(width)
        self.conv2, self.bn2 = conv3x3(width, width, 2), norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(*[Bottleneck(width if i == 0 else 4 * width, width, 1, norm) for i in range(shape.stem_blocks)])
        widths = tuple(shape.width * width // 64 * 2**i for i in range(4))
        before: tuple[int, ...] = (4 * width,)
        for stage, count in enumerate(shape.modules, start=2):
            self.add_module(f"transition{stage - 1}", self._transition(before, widths[:stage], norm))
            before = widths[:stage]
            self.add_module(f"stage{stage}", nn.Sequential(*[Exchange(before, shape.blocks, norm, upsample) for _ in range(count)]))
        self.channels = list(widths)
        initialise_convolutions(self)

    @staticmethod
    def _transition(before: tuple[int, ...], after: tuple[int, ...], norm: Norm) -> nn.ModuleList:
        """Branches that change their width, and one new branch at half the resolution of the last."""
        kept = [nn.Identity() if a == b else _unit(a, b, 1, norm) for a, b in zip(before, after, strict=False)]
        return nn.ModuleList([*kept, nn.Sequential(_unit(before[-1], after[-1], 2, norm))])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))  # B, width, H/4, W/4
        branches = [self.layer1(x)]
        for transition, stage in ((self.transition1, self.stage2), (self.transition2, self.stage3), (self.transition3, self.stage4)):
            branches = [layer(branches[min(i, len(branches) - 1)]) for i, layer in enumerate(transition)]
            branches = stage(branches)
        return branches

    def stem(self) -> list[nn.Module]:
        """What stays as it is when ImageNet weights are fine-tuned: the stem and the first stage."""
        return [self.conv1, self.bn1, self.conv2, self.bn2, self.layer1]


HRNETS: dict[str, HRNetShape] = {
    "hrnet_w18_small_v2": HRNetShape(stem_blocks=2, modules=(1, 3, 2), blocks=2, width=18),
    "hrnet_w18": HRNetShape(width=18),
    "hrnet_w32": HRNetShape(width=32),
    "hrnet_w48": HRNetShape(width=48),
}


def build_hrnet(name: str, width: int = 64, norm: str = "batch", upsample: str = "nearest", inputs: int = 3) -> HRNet:
    """An HRNet body by name (``HRNETS``) with the named norm (``NORMS``)."""
    return HRNet(HRNETS[name], width, NORMS[norm], upsample, inputs)

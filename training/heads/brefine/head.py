"""BRefine, the mask head of BRank&Sort: RoI features that are joined with P2 at 14, 28 and 56 and refined by residual-aware modules.

The paper leaves some of it open. Here the features are joined by addition, every stage has its own convolution of P2, ReLU follows
every convolution, and only the last mask is supervised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sdk.config import require
from sdk.manifest import PoolSpec
from training.config import HeadConfig
from training.heads.base import MaskHead, MaskOutput, main_pool
from training.heads.layers import ClassSlice, ConvReLU, ConvStack
from training.losses.brce import MASK_LOSSES, erosions, mask_loss, weighted_mean
from training.models.targets import MaskTargets


@dataclass(frozen=True, kw_only=True)
class BRefineConfig(HeadConfig):
    """Options of the paper's ablations; the defaults are its final model."""

    name: str = "brefine"
    convs: int = 4  # of the RoI features, before the first stage
    stages: int = 3  # 1, 2 or 3: masks of pool_size, 2 x, 4 x
    ram: bool = True  # residual-aware module in every stage
    branches: int = 3  # its parallel convolutions: the first so many of ``dilations``
    dilations: tuple[int, ...] = (1, 2, 3)
    residual: bool = True  # its identity beside them
    upsample: str = "bilinear"  # between stages: "bilinear" or "transposed"
    mask_loss: str = "brce"  # "ce", "dice", "focal", "ce_dice" or "brce" (training.losses.brce)
    band_weight: float = 1.0  # lambda of "brce"
    erosion_ratio: float = 0.02  # depth of the boundary region of "brce", share of the mask's diagonal
    erosion_steps: int = 0  # the same in pixels; 0 = by the ratio

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.stages <= 3, f"stages must be 1, 2 or 3, got {self.stages}")
        require(self.convs >= 1, f"convs must be at least 1, got {self.convs}")
        require(self.channels >= 2, f"channels must be at least 2, got {self.channels}")
        require(
            1 <= self.branches <= len(self.dilations) and min(self.dilations) >= 1,
            f"branches must be 1 to {len(self.dilations)}, the number of dilations, and these at least 1; got {self.branches} "
            f"branches, dilations {self.dilations}",
        )
        require(self.upsample in ("bilinear", "transposed"), f"upsample must be 'bilinear' or 'transposed', got {self.upsample!r}")
        require(self.mask_loss in MASK_LOSSES, f"mask_loss must be one of {', '.join(MASK_LOSSES)}, got {self.mask_loss!r}")
        require(
            min(self.band_weight, self.erosion_ratio, self.erosion_steps) >= 0,
            "band_weight, erosion_ratio and erosion_steps must not be negative",
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the stages' features."""
        return tuple(self.pool_size * 2**k for k in range(self.stages))


class ResidualAwareModule(nn.Module):
    """Half the channels, dilated convolutions side by side plus what went into them, and all channels again; keeps the shape."""

    def __init__(self, config: BRefineConfig) -> None:
        super().__init__()
        width, narrow = config.channels, config.channels // 2
        self.residual = config.residual
        self.compress = ConvReLU(width, narrow, 1)
        self.branches = nn.ModuleList(ConvReLU(narrow, narrow, dilation=d) for d in config.dilations[: config.branches])
        self.expand = ConvReLU(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.compress(x)  # N, C/2, S, S
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        expanded: Tensor = self.expand(total + x if self.residual else total)  # N, C, S, S
        return expanded


class TransposedUpsampling(nn.ConvTranspose2d):
    """Transposed 2x2 convolution of stride 2, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, 2)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]  # bias is on

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size
        return F.relu(super().forward(x))


class BRefineHead(MaskHead):
    """RoI 14x14 and P2 at 14, 28, 56 -> (+, residual-aware module, x2) three times -> the label's 56x56 logits."""

    config_type = BRefineConfig
    config: BRefineConfig

    def __init__(self, config: BRefineConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.channels
        self.mask_size = config.sizes[-1]
        self.features = width
        p2 = tuple(PoolSpec(size=s, sampling_ratio=config.sampling_ratio, level=0) for s in config.sizes)
        self.pools = tuple(dict.fromkeys([main_pool(config), *p2]))  # equal ones are pooled once
        self.convs = ConvStack(channels, width, config.convs)
        self.details = nn.ModuleList(ConvReLU(channels, width) for _ in config.sizes)
        self.rams = nn.ModuleList(ResidualAwareModule(config) if config.ram else nn.Identity() for _ in config.sizes)
        if config.upsample == "transposed":
            self.upsampling = nn.ModuleList(TransposedUpsampling(width) for _ in config.sizes[1:])
        self.predictor = ClassSlice(width, classes)

    def double(self, x: Tensor, stage: int) -> Tensor:
        """Features of ``stage`` at the size of the next: (N, C, S, S) -> (N, C, 2S, 2S)."""
        if self.config.upsample == "transposed":
            doubled: Tensor = self.upsampling[stage](x)
            return doubled
        size = self.config.sizes[stage + 1]
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        x = self.convs(rois[0])
        stages = []
        p2 = rois[-self.config.stages :]
        for k, (detail, ram) in enumerate(zip(self.details, self.rams, strict=True)):
            x = ram(x + detail(p2[k]))
            stages.append(x)
            if k + 1 < self.config.stages:
                x = self.double(x, k)
        return MaskOutput(self.predictor(x, labels), stages[0])

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        output = self(rois, targets.labels)
        steps = self.config.erosion_steps or erosions(self.mask_size, self.mask_size, self.config.erosion_ratio)
        each = mask_loss(
            self.config.mask_loss, output.logits.float(), targets.masks(self.mask_size), band_weight=self.config.band_weight, steps=steps
        )
        return {"mask": weighted_mean(each, targets.weights)}, output

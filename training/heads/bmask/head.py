"""BMask R-CNN's head: masks and boundaries learn from each other (Cheng et al. 2020, section 3).

Where paper and released code differ, the code is followed: ReLU after the fusing 1x1 convolutions, Dice with plain sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.config import require
from sdk.manifest import PoolSpec
from training.config import HeadConfig
from training.heads.base import MaskHead, MaskOutput, main_pool
from training.heads.layers import ConvReLU, ConvStack, UpsamplingPredictor
from training.losses.boundary import inner_contour
from training.losses.dice import DICE_FORMS, balanced_bce, dice_bce, dice_loss
from training.models.targets import MaskTargets

BOUNDARY_LOSSES = ("dice_bce", "dice", "bce", "weighted_bce")


@dataclass(frozen=True, kw_only=True)
class BMaskConfig(HeadConfig):
    """Options of the paper's ablations (tables 3 to 9); the defaults are its final model. Without a boundary branch it is ``fcn``."""

    name: str = "bmask"
    convs: int = 4  # of the mask branch
    boundary_convs: int = 2  # of the boundary branch, after the fusion
    variant: str = "fusion"  # "fusion", or "sobel": boundaries are read off the predicted mask (paper, section 4.3)
    mask_to_boundary: bool = True  # M2B
    boundary_to_mask: bool = True  # B2M
    boundary_source: str = "p2"  # as ``source``, for the boundary branch
    boundary_pool: int = 28  # its bins per side: once or twice ``pool_size``
    boundary_target: str = "boundary"  # "boundary", "mask" or "none"
    boundary_loss: str = "dice_bce"  # "dice_bce", "dice", "bce" or "weighted_bce"
    bce_weight: float = 1.0  # lambda of Dice + lambda BCE
    dice_form: str = "linear"  # "linear" or "squared" denominator
    dice_epsilon: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variant in ("fusion", "sobel"), f"variant must be 'fusion' or 'sobel', got {self.variant!r}")
        require(self.boundary_source in ("pyramid", "p2"), f"boundary_source must be 'pyramid' or 'p2', got {self.boundary_source!r}")
        sizes = (self.pool_size, 2 * self.pool_size)
        require(self.boundary_pool in sizes, f"boundary_pool must be {sizes[0]} or {sizes[1]}, got {self.boundary_pool}")
        targets = ("boundary", "mask", "none")
        require(self.boundary_target in targets, f"boundary_target must be one of {', '.join(targets)}, got {self.boundary_target!r}")
        require(
            self.boundary_loss in BOUNDARY_LOSSES, f"boundary_loss must be one of {', '.join(BOUNDARY_LOSSES)}, got {self.boundary_loss!r}"
        )
        taught = self.boundary_target != "none" or (self.variant == "fusion" and self.boundary_to_mask)
        require(taught, "nothing would train the boundary branch: boundary_target 'none' needs variant 'fusion' with boundary_to_mask")
        require(self.dice_form in DICE_FORMS, f"dice_form must be one of {', '.join(DICE_FORMS)}, got {self.dice_form!r}")
        require(min(self.convs, self.boundary_convs) >= 1, "convs and boundary_convs must be at least 1")


class SobelBoundary(nn.Module):
    """Mask logits (N, S, S) -> boundary logits (N, S, S): Sobel gradients of the probability, then two small convolutions."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        x = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        self.register_buffer("kernel", torch.stack([x, x.T])[:, None], persistent=False)  # 2, 1, 3, 3
        self.hidden = ConvReLU(2, 16)
        self.predictor = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, logits: Tensor) -> Tensor:
        gradients = F.conv2d(torch.sigmoid(logits)[:, None], self.kernel, padding=1)  # N, 2, S, S
        boundary: Tensor = self.predictor(self.hidden(gradients))[:, 0]
        return boundary


class BMaskHead(MaskHead):
    """Two branches at 14x14 that feed each other; the boundary branch starts from P2 at 28x28, its predictor only trains."""

    config_type = BMaskConfig
    training_only = ("boundary_predictor.", "sobel.")
    config: BMaskConfig

    def __init__(self, config: BMaskConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.channels
        self.pools = (main_pool(config),)
        self.mask_size = 2 * config.pool_size
        self.features = width
        self.mask_convs = ConvStack(channels, width, config.convs)
        self.mask_predictor = UpsamplingPredictor(width, width, classes)
        if config.variant == "sobel":
            self.sobel = SobelBoundary()
            return
        level = 0 if config.boundary_source == "p2" else None
        self.pools += (PoolSpec(size=config.boundary_pool, sampling_ratio=config.sampling_ratio, level=level),)
        self.boundary_input = ConvReLU(channels, width, stride=config.boundary_pool // config.pool_size)
        self.mask_to_boundary = ConvReLU(width, width, 1) if config.mask_to_boundary else None
        self.boundary_convs = ConvStack(width, width, config.boundary_convs)
        self.boundary_to_mask = ConvReLU(width, width, 1) if config.boundary_to_mask else None
        self.mask_fusion = ConvReLU(width, width) if config.boundary_to_mask else None
        self.boundary_predictor = UpsamplingPredictor(width, width, classes) if config.boundary_target != "none" else None

    def branches(self, rois: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Features (N, C, 14, 14) of the mask and of the boundary (paper, figure 2)."""
        mask = self.mask_convs(rois[0])
        if self.config.variant == "sobel":
            return mask, None
        boundary = self.boundary_input(rois[1])  # N, C, 14, 14
        if self.mask_to_boundary is not None:
            boundary = boundary + self.mask_to_boundary(mask)
        boundary = self.boundary_convs(boundary)
        if self.boundary_to_mask is not None and self.mask_fusion is not None:
            mask = self.mask_fusion(mask + self.boundary_to_mask(boundary))
        return mask, boundary

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        features, _ = self.branches(rois)
        return MaskOutput(self.mask_predictor(features, labels), features)

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        features, boundary_features = self.branches(rois)
        output = MaskOutput(self.mask_predictor(features, targets.labels), features)
        boundary: Tensor | None = None
        if self.config.boundary_target == "none":
            pass
        elif boundary_features is None:
            boundary = self.sobel(output.logits)
        elif self.boundary_predictor is not None:
            boundary = self.boundary_predictor(boundary_features, targets.labels)
        masks = targets.masks(self.mask_size)
        losses = {"mask": F.binary_cross_entropy_with_logits(output.logits.float(), masks) if len(targets) else output.logits.sum() * 0}
        if boundary is not None:
            wanted = inner_contour(masks) if self.config.boundary_target == "boundary" else masks
            losses["boundary"] = self.boundary_loss(boundary, wanted)
        return losses, output

    def boundary_loss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """The configured loss of boundary logits (N, S, S)."""
        config = self.config
        if config.boundary_loss == "dice_bce":
            return dice_bce(logits, wanted, bce_weight=config.bce_weight, form=config.dice_form, epsilon=config.dice_epsilon)
        if config.boundary_loss == "dice":
            return dice_loss(logits, wanted, config.dice_form, config.dice_epsilon)
        if config.boundary_loss == "weighted_bce":
            return balanced_bce(logits, wanted)
        return F.binary_cross_entropy_with_logits(logits.float(), wanted) if len(logits) else logits.sum() * 0

"""One stage of RefineMask: the semantic fusion module (Zhang et al. 2021, figure 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.heads.layers import ConvReLU
from training.heads.refinemask.config import RefineMaskConfig


class FusionStage(nn.Module):
    """Features (N, C, S, S), what is pooled of the picture and mask probability -> features (N, C/2, 2S, 2S).

    The variant ``simple`` (the released faster model) has no semantic probability and no second 1x1 convolution of the pooled features,
    adds the features' mean to the parallel convolutions, joins the mask before it upsamples, and does not upsample in the last stage.
    """

    def __init__(self, config: RefineMaskConfig, index: int) -> None:
        super().__init__()
        width = config.channels // 2**index
        self.size = config.sizes[index]
        self.simple = config.variant == "simple"
        self.upsample = not (self.simple and index == config.stages - 1)
        self.semantic_width = width if config.semantic else 0
        self.semantic_map = config.semantic_map
        if config.semantic:
            self.picture_map = ConvReLU(config.channels, width, 1)
            self.pooled = nn.Identity() if self.simple else ConvReLU(width, width, 1)
        self.fuse = ConvReLU(width + self.semantic_width + config.extra, width, 1)
        self.branches = nn.ModuleList(ConvReLU(width, width, dilation=d) for d in config.dilations)
        self.merge = ConvReLU(width, width, 1)
        self.reduce = ConvReLU(width, width // 2 - config.extra, 1)

    def forward(self, features: Tensor, pooled: Tensor | None, mask: Tensor) -> Tensor:
        """``pooled`` (N, C or C+1, S, S) ends with the semantic probability if there is one; ``mask`` (N, 1, S, S) is a probability."""
        joined, maps = [features], mask
        if pooled is not None:
            joined.append(self.pooled(pooled[:, : self.semantic_width]))
            if self.semantic_map:
                maps = torch.cat([mask, pooled[:, self.semantic_width :]], 1)  # N, 2, S, S
        x = self.fuse(torch.cat([*joined, maps], 1))
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        if self.simple:
            total = total + x.mean((2, 3), keepdim=True)
        x = self.reduce(self.merge(total))
        if self.simple:
            x = torch.cat([x, maps], 1)
            return self._double(x, False) if self.upsample else x
        return torch.cat([self._double(x, False), self._double(maps, True)], 1)

    def _double(self, x: Tensor, align_corners: bool) -> Tensor:
        """Bilinear x2; the released code aligns the corners of masks but not of features."""
        return F.interpolate(x, (2 * self.size, 2 * self.size), mode="bilinear", align_corners=align_corners)

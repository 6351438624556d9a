"""RefineMask's head: 14 -> 28 -> 56 -> 112, each stage fed by fine features of the whole picture (Zhang et al. 2021, section 3).

Where paper and released code differ, the code is followed: band widths 2 (training) and 1 (inference), the band's threshold, and
mask and semantic probabilities joined again after the upsampling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.manifest import PoolSpec
from training.heads.base import MaskHead, MaskOutput, main_pool
from training.heads.layers import ClassSlice, ConvStack
from training.heads.refinemask.config import RefineMaskConfig
from training.heads.refinemask.stage import FusionStage
from training.losses.band import band
from training.losses.refine import compose, enlarge, stage_losses
from training.models.targets import MaskTargets

STRIDE = 4  # of P2, input pixels


class RefineMaskHead(MaskHead):
    """RoI features 14x14 and fine maps of the whole picture -> a mask per stage -> one mask, refined along its outline.

    The maps ``refine14``, ``refine28``, ... hold what stage k wants of P2, and as last channel the semantic probability (RoIAlign works
    channel by channel, so both are pooled at once). ``semantic`` holds that map's logits and is only for the loss.
    """

    config_type = RefineMaskConfig
    config: RefineMaskConfig

    def __init__(self, config: RefineMaskConfig, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.channels
        self.mask_size = config.sizes[-1]
        self.features = width
        self.pools = (main_pool(config),)
        self.instance_convs = ConvStack(channels, width, config.instance_convs)
        self.stages = nn.ModuleList(FusionStage(config, k) for k in range(config.stages))
        widths = [width // 2**k for k in range(config.stages + 1)]
        last = 1 if config.agnostic else classes
        self.predictors = nn.ModuleList(ClassSlice(w, last if w == widths[-1] else classes) for w in widths)
        if not config.semantic:
            return
        # The simple variant reads one point per bin, its centre.
        samples = 1 if config.variant == "simple" else config.sampling_ratio
        self.pools += tuple(PoolSpec(feature=f"refine{s}", size=s, stride=STRIDE, sampling_ratio=samples) for s in config.sizes[:-1])
        self.semantic_convs = ConvStack(channels, width, config.semantic_convs)
        if config.semantic_map:
            self.semantic_predictor = nn.Conv2d(width, 1, 1)
            nn.init.normal_(self.semantic_predictor.weight, std=0.001)
            nn.init.zeros_(self.semantic_predictor.bias)  # type: ignore[arg-type]  # bias is on

    def maps(self, pyramid: list[Tensor]) -> dict[str, Tensor]:
        if not self.config.semantic:
            return {}
        features = self.semantic_convs(pyramid[0])  # B, C, H/4, W/4
        maps = {f"refine{stage.size}": stage.picture_map(features) for stage in self.stages}
        if not self.config.semantic_map:
            return maps
        logits = self.semantic_predictor(features)  # B, 1, H/4, W/4
        maps = {name: torch.cat([x, torch.sigmoid(logits)], 1) for name, x in maps.items()}
        return {**maps, "semantic": logits}

    def stage_logits(self, rois: list[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
        """The label's logits per stage, (N, S_k, S_k), and the features (N, C, 14, 14) that the first was made from."""
        features = first = self.instance_convs(rois[0])
        logits = []
        for k, stage in enumerate(self.stages):
            logits.append(self.predictors[k](features, labels))
            features = stage(features, rois[k + 1] if self.config.semantic else None, torch.sigmoid(logits[-1])[:, None])
        last = self.predictors[-1](features, torch.zeros_like(labels) if self.config.agnostic else labels)
        # The simple variant's last stage stays at its size.
        logits.append(last if last.shape[-1] == self.mask_size else enlarge(last, self.mask_size))
        return logits, first

    def compose(self, logits: list[Tensor]) -> Tensor:
        """The mask (N, S, S) of all stages, logits."""
        return logits[-1] if self.config.refinement == "none" else compose(logits, self.config.start_stage, self.infer_band)

    def train_band(self, masks: Tensor) -> Tensor:
        return band(masks, self.config.train_width, self.config.band_rule, self.config.band_fraction)

    def infer_band(self, masks: Tensor) -> Tensor:
        return band(masks, self.config.infer_width, self.config.band_rule, self.config.band_fraction)

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        logits, features = self.stage_logits(rois, labels)
        return MaskOutput(self.compose(logits), features)

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        logits, features = self.stage_logits(rois, targets.labels)
        masks = [targets.masks(s) for s in self.config.sizes]
        stages = stage_losses([x.float() for x in logits], masks, self.config.start_stage, self.train_band, self.infer_band)
        losses = {"mask": torch.stack([w * x for w, x in zip(self.config.weights, stages, strict=True)]).sum()}
        if self.config.semantic_map:
            wanted = union_mask(targets, maps["semantic"].shape[-2:])
            bce = F.binary_cross_entropy_with_logits(maps["semantic"][:, 0].float(), wanted)
            losses["semantic"] = self.config.semantic_weight * bce
        return losses, MaskOutput(self.compose(logits), features)


@torch.no_grad()
def union_mask(targets: MaskTargets, size: tuple[int, int]) -> Tensor:
    """Where any object is, (B, H, W) float32 in {0, 1}: the union of each picture's masks, bilinear to a map of P2's ``size``."""
    unions = []
    for picture in targets.pictures:
        masks = picture.masks  # G, h, w
        union = masks.amax(0) if len(masks) else masks.new_zeros(masks.shape[1:])
        # The map covers the padded picture; the masks may end where the picture does.
        right, below = STRIDE * size[1] - union.shape[1], STRIDE * size[0] - union.shape[0]
        union = F.pad(union.float(), (0, right, 0, below))
        unions.append(F.interpolate(union[None, None], size, mode="bilinear", align_corners=False)[0, 0])
    return (torch.stack(unions) >= 0.5).float()

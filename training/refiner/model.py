"""The refinement network of BPR: a patch of picture and coarse mask goes in, the logit of a better mask comes out (Tang et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.errors import ConfigError
from training.models.backbones import load_imagenet
from training.models.hrnet import build_hrnet
from training.models.resnet import NORMS, Norm, conv1x1, initialise_convolutions
from training.refiner.config import RefinerConfig
from training.refiner.lite import Lite


class HRNetSegmenter(nn.Module):
    """HRNetV2 with the head of its segmentation networks (Sun et al. 2019): patch (B, C, S, S) -> logits (B, 1, S, S).

    The predictor has the two classes of the paper's softmax. Cross-entropy over two classes sees only the difference of their logits and
    equals the binary cross-entropy of it, so the two rows of weights are subtracted before the convolution: one logit, the same gradients.

    Args:
        name: row of `training.models.hrnet.HRNETS`.
        inputs: channels of the patch.
        norm: name of the norm.
    """

    def __init__(self, name: str, inputs: int, norm: str) -> None:
        super().__init__()
        self.body = build_hrnet(name, norm=norm, upsample="bilinear", inputs=inputs)
        channels = sum(self.body.channels)
        build: Norm = NORMS[norm]
        self.fuse = nn.Sequential(conv1x1(channels, channels), build(channels), nn.ReLU(inplace=True))
        self.predictor = nn.Conv2d(channels, 2, 1)  # background, foreground
        initialise_convolutions(self.fuse)
        nn.init.normal_(self.predictor.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.body(x)
        scaled = [_enlarged(v, 2**i) if i else v for i, v in enumerate(branches)]
        fused = self.fuse(torch.cat(scaled, 1))  # B, C, S/4, S/4
        weight, bias = self.predictor.weight, self.predictor.bias
        return _enlarged(F.conv2d(fused, weight[1:] - weight[:1], bias[1:] - bias[:1]), 4)  # B, 1, S, S


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class Refiner(nn.Module):
    """A refinement network as its configuration describes it.

    Args:
        config: what to build.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        self.net: nn.Module
        if config.network == "lite":
            self.net = Lite(config.mask_channel, config.lite.widths, config.lite.blocks, NORMS[config.norm])
        else:
            self.net = HRNetSegmenter(config.network, 3 + config.mask_channel, config.norm)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (B, 1, S, S) of normalised patches (B, C, S, S): three channels of the picture, then the coarse mask as -1 and 1."""
        return self.net(patches)

    def losses(self, patches: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, mean over all pixels (Tang et al. 2021, section 3.3).

        Args:
            patches: (B, C, S, S), as `forward` takes them.
            targets: (B, S, S) uint8, the true mask.
        """
        logits = self(patches).squeeze(1).float()  # B, S, S; the loss is not computed in half precision
        return {"loss_mask": F.binary_cross_entropy_with_logits(logits, targets.float())}


def normalised(pictures: Tensor, masks: Tensor, config: RefinerConfig) -> Tensor:
    """What the network takes.

    Args:
        pictures: (B, 3, S, S), RGB grey levels 0..255.
        masks: (B, S, S), 0 or 1.
        config: normalisation, order of the colours, and whether the mask is a channel.

    Returns:
        (B, 3 or 4, S, S) float32.
    """
    planes = pictures.float() if config.color == "rgb" else pictures.float().flip(1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    planes = (planes - mean) / std
    if not config.mask_channel:
        return planes
    return torch.cat([planes, (masks.float()[:, None] - 0.5) / 0.5], 1)


def load_imagenet_body(refiner: Refiner, state: Mapping[str, Tensor]) -> None:
    """Load a public ImageNet HRNet (timm's names); the column of the mask channel keeps its fresh values, as in the paper's code.

    Raises:
        ConfigError: names are left over or missing, or shapes differ.
    """
    if not isinstance(refiner.net, HRNetSegmenter):
        raise ConfigError(f"the network {refiner.config.network!r} has no public weights to begin with")
    body, first = refiner.net.body, state.get("conv1.weight")
    if first is not None and refiner.config.mask_channel:
        own = body.conv1.weight.detach()
        if first.shape == own[:, :3].shape:
            state = {**state, "conv1.weight": torch.cat([first, own[:, 3:]], 1)}
    load_imagenet(body, state)

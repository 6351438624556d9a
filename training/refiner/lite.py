"""The small refinement network: an encoder and decoder of plain 3x3 convolutions for CPUs and Jetsons.

HRNet keeps branches of 18 and 36 channels busy at fine resolutions, which use neither the vector width of a CPU nor a tensor core well.
Here every width is a multiple of 16, nearly everything is a dense 3x3 convolution (at equal time on ONNX Runtime it has three times the
parameters of depthwise ones; ``docs/refiner.md`` has the figures), and batch norms fold into the convolutions at export.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.resnet import BasicBlock, Norm, conv1x1, conv3x3, initialise_convolutions

PRIOR = 2.0  # logit that a fresh network gives to the foreground of the coarse mask: 88 % sure


def _unit(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(conv3x3(inputs, outputs, stride), norm(outputs), nn.ReLU(inplace=True))


class Lite(nn.Module):
    """U-Net (Ronneberger et al. 2015) that starts at half resolution: patch (B, C, S, S) -> logits (B, 1, S, S).

    With a mask channel the network predicts what to change: its fresh answer is the coarse mask itself. From random weights and with
    little training that is most of the way.

    The last step goes from half to full resolution by sub-pixels (Shi et al. 2016): four logits per cell instead of a stage of
    convolutions on all pixels, which would cost more than everything below it.

    Args:
        mask_channel: whether the patch has the coarse mask as its fourth channel.
        widths: channels at 1/2, 1/4, 1/8, ... of the patch's resolution; its side must be a multiple of 2 to the power of their number.
        blocks: residual blocks of the encoder at each of these resolutions.
        norm: constructor of the norm layers.
    """

    def __init__(self, mask_channel: bool, widths: tuple[int, ...], blocks: tuple[int, ...], norm: Norm) -> None:
        super().__init__()
        before = (3 + mask_channel, *widths[:-1])
        self.down = nn.ModuleList(_unit(a, b, 2, norm) for a, b in zip(before, widths, strict=True))
        self.encoder = nn.ModuleList(
            nn.Sequential(*[BasicBlock(w, w, 1, norm) for _ in range(n)]) for w, n in zip(widths, blocks, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Sequential(conv1x1(b, a), norm(a)) for a, b in itertools.pairwise(widths))
        self.decoder = nn.ModuleList(_unit(w, w, 1, norm) for w in widths[:-1])
        self.predictor = nn.Conv2d(widths[0], 4, 3, padding=1)
        self.prior = nn.Parameter(torch.tensor(PRIOR)) if mask_channel else None
        initialise_convolutions(self)
        nn.init.normal_(self.predictor.weight, std=0.05)  # with .01 hardly any gradient passes it for hundreds of iterations
        nn.init.zeros_(self.predictor.bias)

    def forward(self, patch: Tensor) -> Tensor:
        x, seen = patch, list[Tensor]()
        for down, blocks in zip(self.down, self.encoder, strict=True):
            x = blocks(down(x))
            seen.append(x)
        for level in range(len(seen) - 2, -1, -1):
            above = F.interpolate(self.lateral[level](x), scale_factor=2.0, mode="nearest")
            x = self.decoder[level](torch.relu(seen[level] + above))
        logits = F.pixel_shuffle(self.predictor(x), 2)  # B, 1, S, S
        return logits if self.prior is None else logits + self.prior * patch[:, 3:]

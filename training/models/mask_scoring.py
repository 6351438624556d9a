"""Mask Scoring: a mask's score is its box's score times the IoU that a small network predicts for it (Huang et al. 2019).

Works on any mask head. As in the authors' code, nothing is detached: the loss also reaches the mask head and the features. Unlike there,
the prediction that the IoU is taken of is cut where its probability is one half, as it is when masks are pasted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdk.config import require
from training.config import ScoringConfig
from training.heads.base import MaskHead, MaskOutput
from training.heads.layers import ConvReLU
from training.models.targets import MaskTargets


class MaskScoring(nn.Module):
    """Mask features (N, C, P, P) and the mask itself -> IoU (N,) of the mask with its object (section 3.2 of the paper)."""

    def __init__(self, config: ScoringConfig, head: MaskHead, classes: int) -> None:
        super().__init__()
        self.config, self.side = config, head.pools[0].size
        require(head.mask_size % self.side == 0, f"a mask of {head.mask_size} cells cannot be pooled to the {self.side} of its features")
        inputs = [head.features + 1] + [config.channels] * (config.convs - 1)
        self.convs = nn.ModuleList(ConvReLU(n, config.channels, stride=2 if i == config.convs - 1 else 1) for i, n in enumerate(inputs))
        side = (self.side + 1) // 2
        self.fc1 = nn.Linear(config.channels * side**2, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.iou = nn.Linear(config.hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.iou.weight, std=0.01)
        for layer in (self.fc1, self.fc2, self.iou):
            nn.init.zeros_(layer.bias)

    def forward(self, output: MaskOutput, labels: Tensor) -> Tensor:
        """Predicted IoU (N,) of the masks of ``labels`` (N,), not yet limited to 0..1."""
        ratio = output.logits.shape[-1] // self.side
        mask = F.max_pool2d(torch.sigmoid(output.logits)[:, None], ratio)  # N, 1, P, P
        x = torch.cat([output.features, mask.to(output.features.dtype)], 1)  # N, C + 1, P, P
        for conv in self.convs:
            x = conv(x)
        x = F.relu(self.fc1(x.flatten(1)))
        iou: Tensor = self.iou(F.relu(self.fc2(x)))  # N, K
        return iou.gather(1, labels[:, None])[:, 0]

    def quality(self, output: MaskOutput, labels: Tensor) -> Tensor:
        """The factor (N,) in 0..1 that a box's score is multiplied with."""
        return self(output, labels).float().clamp(0, 1)

    def loss(self, output: MaskOutput, targets: MaskTargets) -> Tensor:
        """Weighted mean squared error over the masks that touch their object (section 3.3); 0 with gradient 0 when there is none."""
        predicted, wanted = self(output, targets.labels).float(), mask_iou(output.logits, targets)
        counts = (wanted > 0).float()
        return self.config.loss_weight * ((predicted - wanted).square() * counts).sum() / counts.sum().clamp(min=1)


@torch.no_grad()
def mask_iou(logits: Tensor, targets: MaskTargets) -> Tensor:
    """IoU (N,) of predicted masks, ``logits`` (N, S, S) cut at probability 1/2, with the whole objects.

    An object may reach beyond the RoI. Its area on the grid is therefore its area inside divided by the share of its pixels that are
    inside (section 3.3 of the paper).
    """
    predicted, truth = (logits >= 0).float(), targets.masks(logits.shape[-1])
    share = visible_share(targets)
    inter = (predicted * truth).sum((1, 2))
    whole = truth.sum((1, 2)) / share.clamp(min=1e-6)
    union = predicted.sum((1, 2)) + whole - inter
    return torch.where(inter > 0, inter / union.clamp(min=1), torch.zeros_like(inter))


@torch.no_grad()
def visible_share(targets: MaskTargets) -> Tensor:
    """Share (N,) of each RoI's object, by area, that lies inside the RoI's box. A pixel that the box cuts counts in part."""
    share = targets.boxes.new_zeros(len(targets))
    for index, picture in enumerate(targets.pictures):
        for truth in torch.unique(targets.truth[targets.batch == index]).tolist():
            mine = torch.nonzero((targets.batch == index) & (targets.truth == truth)).squeeze(1)
            mask = picture.masks[truth].to(share.dtype)  # H, W
            x1, y1, x2, y2 = targets.boxes[mine].unbind(1)
            rows, columns = _overlap(y1, y2, mask.shape[0]), _overlap(x1, x2, mask.shape[1])  # n, H and n, W
            with torch.autocast(mask.device.type, enabled=False):  # counts of pixels
                share[mine] = ((rows @ mask) * columns).sum(1) / mask.sum().clamp(min=1)
    return share.clamp(max=1)


def _overlap(start: Tensor, end: Tensor, length: int) -> Tensor:
    """How much (n, L) of each pixel [i, i + 1] of an axis lies between ``start`` and ``end``, each (n,)."""
    pixel = torch.arange(length, device=start.device, dtype=start.dtype)
    return (torch.minimum(pixel + 1, end[:, None]) - torch.maximum(pixel, start[:, None])).clamp(min=0)

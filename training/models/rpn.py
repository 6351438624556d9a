"""Region proposal network (Ren et al. 2015) over P2..P6 of a feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import RPNConfig
from training.models.matching import match, sample
from training.models.ops import clip_boxes, decode_boxes, encode_boxes, nms

STRIDES = (4, 8, 16, 32, 64)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def base_anchors(size: float, ratios: tuple[float, ...]) -> Tensor:
    """Anchors (A, 4) of one level, centred on 0: area size^2, height / width = ratio."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    w, h = size / ratio.sqrt(), size * ratio.sqrt()
    return (torch.stack([-w, -h, w, h], 1) / 2).float()


class RPNHead(nn.Module):
    """Shared 3x3 convolution, then objectness (A) and deltas (4A) per cell."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, pyramid: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [F.relu(self.conv(p)) for p in pyramid]
        return [self.objectness(h) for h in hidden], [self.deltas(h) for h in hidden]


class RPN(nn.Module):
    """Anchors, losses and proposals around an :class:`RPNHead`."""

    def __init__(self, config: RPNConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.head = RPNHead(channels, len(config.anchor_ratios))
        for level, size in enumerate(config.anchor_sizes):
            self.register_buffer(f"anchors{level}", base_anchors(size, config.anchor_ratios), persistent=False)

    def anchors(self, level: int, height: int, width: int) -> Tensor:
        """All anchors (H * W * A, 4) of a level, cell by cell in row-major order."""
        base: Tensor = getattr(self, f"anchors{level}")
        ys = torch.arange(height, device=base.device) * STRIDES[level]
        xs = torch.arange(width, device=base.device) * STRIDES[level]
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        shift = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        return (shift + base).reshape(-1, 4)

    def forward(self, pyramid: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level: logits (B, H W A), deltas (B, H W A, 4) and anchors (H W A, 4)."""
        objectness, deltas = self.head(pyramid)
        logits = [o.permute(0, 2, 3, 1).flatten(1) for o in objectness]
        flat = [d.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(len(d), -1, 4) for d in deltas]
        anchors = [self.anchors(i, o.shape[2], o.shape[3]) for i, o in enumerate(objectness)]
        return logits, flat, anchors

    @torch.no_grad()
    def propose(self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Proposals (N, 4) of every picture (``docs/operators.md``, proposals)."""
        pre, post = (
            (self.config.pre_nms_train, self.config.post_nms_train)
            if self.training
            else (self.config.pre_nms_test, self.config.post_nms_test)
        )
        proposals = []
        for image, size in enumerate(sizes):
            kept_boxes, kept_scores = [], []
            for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
                score, index = torch.sort(level_logits[image].float(), descending=True, stable=True)
                score, index = score[:pre], index[:pre]
                boxes = clip_boxes(decode_boxes(level_deltas[image][index].float(), level_anchors[index], RPN_WEIGHTS), size)
                solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
                boxes, score = boxes[solid], score[solid]
                keep = nms(boxes, score, self.config.nms_threshold)[:post]
                kept_boxes.append(boxes[keep])
                kept_scores.append(score[keep])
            order = torch.sort(torch.cat(kept_scores), descending=True, stable=True).indices[:post]
            proposals.append(torch.cat(kept_boxes)[order])
        return proposals

    def losses(self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], truths: list[Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy and L1 over the sampled anchors, both divided by samples * pictures."""
        all_logits, all_deltas, all_anchors = torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors)
        objectness = all_logits.sum() * 0
        regression = all_deltas.sum() * 0
        for image, truth in enumerate(truths):
            matched = match(all_anchors, truth, self.config.low, self.config.high, allow_low_quality=True)
            positive, negative = sample(matched, self.config.samples, 0.5)
            chosen = torch.cat([positive, negative])
            label = torch.zeros(len(chosen), device=chosen.device)
            label[: len(positive)] = 1
            objectness = objectness + F.binary_cross_entropy_with_logits(all_logits[image][chosen].float(), label, reduction="sum")
            target = encode_boxes(truth[matched[positive]], all_anchors[positive], RPN_WEIGHTS)
            regression = regression + F.l1_loss(all_deltas[image][positive].float(), target, reduction="sum")
        scale = 1.0 / (self.config.samples * max(1, len(truths)))
        return {"rpn_objectness": objectness * scale, "rpn_box": regression * scale}

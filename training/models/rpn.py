"""Region proposal network (Ren et al. 2015) over P2..P6 of a feature pyramid (Lin et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import RankSortConfig, RPNConfig
from training.losses.boxes import box_loss
from training.losses.rank_sort import IGNORED as UNRANKED
from training.losses.rank_sort import ranked_losses
from training.models.matching import IGNORED, match, sample
from training.models.ops import clip_boxes, decode_boxes, nms

STRIDES = (4, 8, 16, 32, 64)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of the deltas that the RPN gives, whatever its coder is trained with
RANKED_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the coder in training with Rank & Sort (released code: stds .1 .1 .2 .2)


def base_anchors(size: float, ratios: tuple[float, ...], rounded: bool = False) -> Tensor:
    """Anchors (A, 4) of one level, centred on 0: area size^2, height / width = ratio; ``rounded`` to whole pixels if wanted."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    w, h = size / ratio.sqrt(), size * ratio.sqrt()
    anchors = torch.stack([-w, -h, w, h], 1) / 2
    return (anchors.round() if rounded else anchors).float()


def even_cell_shifts(cells: int, finer_cells: int, device: torch.device) -> Tensor:
    """By how much ``even_cells`` moves the anchors of each row or column of P6, (cells,) input pixels.

    P6 takes every other cell of P5. Where P5 has an odd number of them, P6 sticks out of the picture, and a cell size computed from the
    picture's side is smaller than the stride. Tensor arithmetic throughout, so that an exported graph does it for any size.
    """
    index = torch.arange(cells, device=device)
    side = (torch.arange(finer_cells, device=device)[-1] + 1) * STRIDES[3]
    return (index * (torch.div(side, index[-1] + 1, rounding_mode="floor") - STRIDES[4])).float()


class RPNHead(nn.Module):
    """Shared 3x3 convolution, then objectness (A) and deltas (4A) per cell.

    ``coder_weights`` divide the deltas here, and ``last_anchors`` (A, 4), those of P6 if its cells are ``even_cells``, are moved here, so
    that everything after this layer, an engine's runtime included, sees plain deltas of anchors on the usual grid.
    """

    scale: Tensor | None
    last_sizes: Tensor | None

    def __init__(
        self, channels: int, anchors: int, coder_weights: tuple[float, ...] = RPN_WEIGHTS, last_anchors: Tensor | None = None
    ) -> None:
        super().__init__()
        last_sizes = None if last_anchors is None else last_anchors[:, 2:] - last_anchors[:, :2]
        self.register_buffer("last_sizes", last_sizes, persistent=False)  # A, 2
        scale = None if tuple(coder_weights) == RPN_WEIGHTS else 1 / torch.tensor(coder_weights).repeat(anchors)[:, None, None]
        self.register_buffer("scale", scale, persistent=False)  # 4A, 1, 1
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, pyramid: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [F.relu(self.conv(p)) for p in pyramid]
        deltas = [self.deltas(h) for h in hidden]
        if self.scale is not None:
            deltas = [d * self.scale for d in deltas]
        if self.last_sizes is not None:
            deltas[-1] = deltas[-1] + self._shifts(pyramid[-2], pyramid[-1], self.last_sizes)
        return [self.objectness(h) for h in hidden], deltas

    @staticmethod
    def _shifts(finer: Tensor, last: Tensor, sizes: Tensor) -> Tensor:
        """What moves the anchors of P6 (4A, H, W), in units of the deltas."""
        rows, columns = (even_cell_shifts(last.shape[i], finer.shape[i], last.device) for i in (2, 3))
        dx = columns[None, None, :] / sizes[:, 0, None, None] + torch.zeros_like(rows)[:, None]  # A, H, W
        dy = rows[None, :, None] / sizes[:, 1, None, None] + torch.zeros_like(columns)
        none = torch.zeros_like(dx)
        return torch.stack([dx, dy, none, none], 1).flatten(0, 1)


class RPN(nn.Module):
    """Anchors, losses and proposals around an :class:`RPNHead`. With ``rank_sort``, its losses are Rank & Sort and GIoU."""

    def __init__(self, config: RPNConfig, channels: int, rank_sort: RankSortConfig | None = None) -> None:
        super().__init__()
        self.config, self.rank_sort = config, rank_sort
        self.coder_weights = config.coder_weights or (RPN_WEIGHTS if rank_sort is None else RANKED_WEIGHTS)
        bases = [base_anchors(size, config.anchor_ratios, config.round_anchors) for size in config.anchor_sizes]
        last = bases[-1] if config.even_cells else None
        self.head = RPNHead(channels, len(config.anchor_ratios), self.coder_weights, last)
        for level, base in enumerate(bases):
            self.register_buffer(f"anchors{level}", base, persistent=False)

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
                solid = ((boxes[:, 2:] - boxes[:, :2]) > self.config.min_size).all(1)
                boxes, score = boxes[solid], score[solid]
                keep = nms(boxes, score, self.config.nms_threshold)[:post]
                kept_boxes.append(boxes[keep])
                kept_scores.append(score[keep])
            order = torch.sort(torch.cat(kept_scores), descending=True, stable=True).indices[:post]
            proposals.append(torch.cat(kept_boxes)[order])
        return proposals

    def losses(self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], truths: list[Tensor]) -> dict[str, Tensor]:
        """Losses by name, from what :meth:`forward` gave and the ground truth boxes (G, 4) of every picture."""
        together = torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors)
        return self._sampled(*together, truths) if self.rank_sort is None else self._ranked(*together, truths, self.rank_sort)

    def _sampled(self, logits: Tensor, deltas: Tensor, anchors: Tensor, truths: list[Tensor]) -> dict[str, Tensor]:
        """Binary cross-entropy and the box loss over the sampled anchors, both divided by samples * pictures."""
        objectness = logits.sum() * 0
        regression = deltas.sum() * 0
        units = torch.tensor(self.coder_weights, device=deltas.device)
        for image, truth in enumerate(truths):
            matched = match(anchors, truth, self.config.low, self.config.high, allow_low_quality=True)
            positive, negative = sample(matched, self.config.samples, 0.5)
            chosen = torch.cat([positive, negative])
            label = torch.zeros(len(chosen), device=chosen.device)
            label[: len(positive)] = 1
            objectness = objectness + F.binary_cross_entropy_with_logits(logits[image][chosen].float(), label, reduction="sum")
            predicted, wanted = deltas[image][positive].float() * units, truth[matched[positive]]
            kind, beta = self.config.box_loss, self.config.beta
            regression = regression + box_loss(predicted, anchors[positive], wanted, self.coder_weights, kind, beta)
        scale = 1.0 / (self.config.samples * max(1, len(truths)))
        return {"rpn_objectness": objectness * scale, "rpn_box": regression * scale}

    def _ranked(self, logits: Tensor, deltas: Tensor, anchors: Tensor, truths: list[Tensor], config: RankSortConfig) -> dict[str, Tensor]:
        """Rank & Sort over all anchors of all pictures in one vector, without sampling (Oksuz et al. 2021, section 4.2)."""
        targets = torch.zeros(logits.shape, device=logits.device)  # B, M
        positives, boxes, wanted = [], [], []
        for image, truth in enumerate(truths):
            matched = match(anchors, truth, self.config.low, self.config.high, allow_low_quality=True)
            targets[image] = torch.where(matched == IGNORED, UNRANKED, 0.0)
            positive = torch.nonzero(matched >= 0).squeeze(1)
            boxes.append(decode_boxes(deltas[image][positive].float(), anchors[positive], RPN_WEIGHTS))
            wanted.append(truth[matched[positive]])
            positives.append(positive + image * len(anchors))
        flat, index = logits.flatten(), torch.cat(positives)
        weights = torch.sigmoid(flat[index].detach().float())
        losses = ranked_losses(
            flat, targets.flatten(), index, torch.cat(boxes), torch.cat(wanted), weights, delta=config.delta, balance=config.balance
        )
        h = config.rpn_weight
        return {"rpn_rank": h * losses.rank, "rpn_sort": h * losses.sort, "rpn_box": h * losses.box}

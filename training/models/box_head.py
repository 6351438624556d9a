"""The second stage: class and box of every proposal (Girshick 2015; two layers as in Lin et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import BoxConfig, RankSortConfig
from training.losses.boxes import box_loss
from training.losses.rank_sort import RankedLosses, ranked_losses
from training.models.matching import BACKGROUND, match, sample
from training.models.ops import clip_boxes, decode_boxes, nms

ACTIVATIONS = ("softmax", "sigmoid")


class BoxHead(nn.Module):
    """Pooled features (N, C, 7, 7) -> class logits and box deltas.

    Logits are (N, K + 1), background last, for ``activation="softmax"``, and (N, K), one score per class, for ``"sigmoid"``. Deltas are
    (N, 4K), a box for every class, or (N, 4) when the configuration says ``class_agnostic``.
    """

    def __init__(self, config: BoxConfig, channels: int, classes: int, activation: str = "softmax") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.config, self.activation = config, activation
        self.fc1 = nn.Linear(channels * config.pool_size**2, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.classes = nn.Linear(config.hidden, classes + (activation == "softmax"))
        self.deltas = nn.Linear(config.hidden, 4 if config.class_agnostic else 4 * classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.classes, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.fc1(rois.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.classes(x), self.deltas(x)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores (N, K) in 0..1 of the classes, without background, from the logits that :meth:`forward` gave."""
        if self.activation == "sigmoid":
            return torch.sigmoid(logits)
        return torch.softmax(logits, 1)[:, :-1]


@dataclass(frozen=True, kw_only=True)
class SampledRois:
    """Proposals chosen for training: per RoI its picture, its class (K = background) and its ground truth (-1 = none)."""

    boxes: Tensor  # (N, 4)
    batch: Tensor  # (N,)
    labels: Tensor  # (N,)
    truth: Tensor  # (N,) index into the picture's ground truth

    def foreground(self) -> Tensor:
        return torch.nonzero(self.truth >= 0).squeeze(1)


@torch.no_grad()
def sample_rois(
    proposals: list[Tensor], truths: list[Tensor], labels: list[Tensor], config: BoxConfig, classes: int, *, sampled: bool = True
) -> SampledRois:
    """Match proposals plus ground truth boxes, and sample them (512 a picture, at most 25 % foreground by default) or keep all."""
    picked: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for image, (boxes, truth, label) in enumerate(zip(proposals, truths, labels, strict=True)):
        boxes = torch.cat([boxes, truth])
        matched = match(boxes, truth, config.foreground_iou, config.foreground_iou, allow_low_quality=False)
        if sampled:
            chosen = torch.cat(sample(matched, config.samples, config.positive_fraction))
            boxes, matched = boxes[chosen], matched[chosen]
        picked.append((boxes, torch.full_like(matched, image), _class_of(matched, label, classes), matched))
    stacked = [torch.cat(parts) for parts in zip(*picked, strict=True)]
    return SampledRois(boxes=stacked[0], batch=stacked[1], labels=stacked[2], truth=stacked[3])


@torch.no_grad()
def label_rois(boxes: Tensor, batch: Tensor, truths: list[Tensor], labels: list[Tensor], config: BoxConfig, classes: int) -> SampledRois:
    """Match given RoIs (N, 4) of the pictures ``batch`` (N,), in their order: what a later stage of a cascade is trained on."""
    all_matched = torch.full_like(batch, BACKGROUND)
    all_labels = torch.full_like(batch, classes)
    for image, (truth, label) in enumerate(zip(truths, labels, strict=True)):
        mine = torch.nonzero(batch == image).squeeze(1)
        matched = match(boxes[mine], truth, config.foreground_iou, config.foreground_iou, allow_low_quality=False)
        all_matched[mine], all_labels[mine] = matched, _class_of(matched, label, classes)
    return SampledRois(boxes=boxes, batch=batch, labels=all_labels, truth=all_matched)


def _class_of(matched: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Class (N,) of matched boxes; ``classes`` where there is no match."""
    return torch.cat([labels, labels.new_tensor([classes])])[matched]  # BACKGROUND = -1 is the entry behind the last


def own_deltas(deltas: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """Deltas (F, 4) of the RoIs ``index`` (F,): the slice of ``labels`` (F,), or the only one of a class-agnostic head."""
    per_class = deltas.unflatten(1, (-1, 4))  # N, K or 1, 4
    return per_class[index, labels if per_class.shape[1] > 1 else torch.zeros_like(labels)]


def truth_boxes(rois: SampledRois, index: Tensor, truths: list[Tensor]) -> Tensor:
    """Ground truth boxes (F, 4) of the foreground RoIs ``index`` (F,)."""
    offsets = torch.tensor([0, *[len(t) for t in truths]], device=index.device).cumsum(0)
    return torch.cat(truths)[offsets[rois.batch[index]] + rois.truth[index]]


def box_losses(logits: Tensor, deltas: Tensor, rois: SampledRois, truths: list[Tensor], config: BoxConfig) -> dict[str, Tensor]:
    """Mean cross-entropy over the RoIs; the box loss over the foreground, divided by the number of RoIs."""
    if len(rois.boxes) == 0:
        return {"class": logits.sum() * 0, "regression": deltas.sum() * 0}
    fg = rois.foreground()
    own = own_deltas(deltas, fg, rois.labels[fg])
    regression = box_loss(own, rois.boxes[fg], truth_boxes(rois, fg, truths), config.coder_weights, config.box_loss, config.beta)
    return {
        "class": config.class_weight * F.cross_entropy(logits.float(), rois.labels),
        "regression": config.box_weight * regression / len(rois.boxes),
    }


def ranked_box_losses(
    logits: Tensor, deltas: Tensor, rois: SampledRois, truths: list[Tensor], config: BoxConfig, rank_sort: RankSortConfig
) -> tuple[RankedLosses, Tensor]:
    """Rank & Sort over all RoIs times classes, GIoU over the foreground (Oksuz et al. 2021, section 4.2).

    Returns:
        The losses, and the weight (N,) of every RoI: its highest class probability, without gradient.
    """
    fg, classes = rois.foreground(), logits.shape[1]
    position = fg * classes + rois.labels[fg]
    boxes = decode_boxes(own_deltas(deltas, fg, rois.labels[fg]).float(), rois.boxes[fg], config.coder_weights)
    weights = torch.sigmoid(logits.detach().float()).amax(1)  # N
    flat, wanted = logits.flatten(), truth_boxes(rois, fg, truths)
    targets = torch.zeros(flat.shape, device=flat.device)
    delta, balance = rank_sort.delta, rank_sort.balance
    return ranked_losses(flat, targets, position, boxes, wanted, weights[fg], delta=delta, balance=balance), weights


@torch.no_grad()
def select_detections(
    scores: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int], config: BoxConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (D, 4), scores (D,), labels (D,) of one picture (``docs/operators.md``, select).

    Args:
        scores: (N, K) probabilities, without background.
        deltas: (N, 4K), or (N, 4): the same box for every class.
        proposals: (N, 4) that the deltas start from, input pixels.
        size: (h, w) of the picture.
        config: coder weights, thresholds and the largest number of detections.
    """
    scores, classes = scores.float(), scores.shape[1]
    boxes = clip_boxes(decode_boxes(deltas.float().unflatten(1, (-1, 4)), proposals[:, None], config.coder_weights), size)  # N, K or 1, 4
    boxes = boxes.expand(-1, classes, -1)
    solid = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for label in range(classes):
        index = torch.nonzero((scores[:, label] > config.score_threshold) & solid[:, label]).squeeze(1)
        keep = index[nms(boxes[index, label], scores[index, label], config.nms_threshold)]
        found.append((boxes[keep, label], scores[keep, label], torch.full_like(keep, label), keep))
    all_boxes, all_scores, all_labels, source = (torch.cat(parts) for parts in zip(*found, strict=True))
    by_source = torch.sort(source * classes + all_labels).indices  # ties: lower proposal, then lower class
    order = by_source[torch.sort(all_scores[by_source], descending=True, stable=True).indices][: config.max_detections]
    return all_boxes[order], all_scores[order], all_labels[order]

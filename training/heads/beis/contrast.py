"""Boundary contrast of one training step: both losses at every stage, then the banks and the matrix of classes learn from the batch.

IBDL contrasts a boundary pixel with pixels of its own crop, CBDL with the mean boundary features of earlier RoIs. On every point where the
BEIS paper is silent the choice is stated where it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.heads.beis.banks import FeatureBank, gather_rows
from training.heads.beis.config import BEISConfig
from training.heads.beis.keys import background_classes, class_probability, instance_maps, update_confusion
from training.heads.beis.sampling import Band, Draw, class_counts, draw, key_weights, make_band, query_weights, take
from training.losses.contrastive import contrastive_loss
from training.models.ops import box_area
from training.models.targets import MaskTargets


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage of the head offers to the contrast."""

    features: Tensor  # (N, C, S, S) boundary-enhanced features
    logits: Tensor  # (N, S, S)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a batch teaches bank and matrix, of one stage."""

    means: Tensor  # (N, 2, C) float32, mean feature of each side's band
    sides: Tensor  # (N, 2) bool, which of them exist
    pairs: tuple[Tensor, Tensor, Tensor] | None  # (M,) class of a RoI, class behind its boundary, cosine of their means


class BoundaryContrast(nn.Module):
    """IBDL and CBDL with their banks and the matrix of classes. Only training needs it."""

    confusion: Tensor  # (K + 1, K + 1), similarity of the boundaries of classes; index K = no instance

    def __init__(self, config: BEISConfig, channels: list[int], classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.banks = nn.ModuleList()
        if config.cbdl:
            self.banks.extend(FeatureBank(config.bank_length, c) for c in (channels[:1] if config.bank_shared else channels))
        if config.adaptive_keys:
            self.register_buffer("confusion", torch.full((classes + 1, classes + 1), config.confusion_init))

    def forward(self, stages: list[Stage], targets: MaskTargets) -> dict[str, Tensor]:
        """Losses ``ibdl0``, ``cbdl0``, ... of all ``stages``. Banks and matrix learn after the last one."""
        maps = instance_maps(targets) if self.config.adaptive_keys and len(targets) else []
        losses: dict[str, Tensor] = {}
        summaries = []
        for i, stage in enumerate(stages):
            if len(targets) == 0:
                zero = _zero(stage.features)
                losses.update({f"{name}{i}": zero for name in ("ibdl", "cbdl") if getattr(self.config, name)})
                summaries.append(_nothing(stage.features, self.config.adaptive_keys))
                continue
            with torch.autocast(stage.features.device.type, enabled=False):
                found, summary = self.stage_losses(i, stage, targets, maps)
            losses.update({f"{name}{i}": value for name, value in found.items()})
            summaries.append(summary)
        if torch.is_grad_enabled():  # losses that are only looked at teach nothing, and other processes do not wait for them
            self.learn(summaries, targets)
        return losses

    def stage_losses(self, i: int, stage: Stage, targets: MaskTargets, maps: list[Tensor]) -> tuple[dict[str, Tensor], Summary]:
        """The losses of stage ``i`` and what the batch teaches there."""
        config = self.config
        size = stage.logits.shape[-1]
        widths = config.band_widths
        band = make_band(targets.masks(size), widths[i] if len(widths) > 1 else widths[0])
        behind = background_classes(targets, maps, band.pixels[:, 0], size, self.classes) if config.adaptive_keys else None
        weights = query_weights(band, stage.logits, config.hardness if config.adaptive_queries else None)
        # CBDL's queries are the first of IBDL's: any part of a uniform draw is a uniform draw.
        queries = draw(band, weights, max(config.ibdl_queries * config.ibdl, config.cbdl_queries // 2 * config.cbdl))
        losses = {}
        if config.ibdl:
            positives, negatives = self.draw_keys(band, behind, targets.labels)
            value = ibdl(stage.features, band, _first(queries, config.ibdl_queries), positives, negatives, config)
            losses["ibdl"] = config.ibdl_weight * value
        if config.cbdl:
            value = self.cross_loss(self.bank(i), stage.features, band, _first(queries, config.cbdl_queries // 2), targets.labels)
            losses["cbdl"] = config.cbdl_weight * value
        return losses, summarize(stage.features, band, behind, targets.labels, self.classes)

    def bank(self, i: int) -> FeatureBank:
        """The bank of stage ``i``."""
        bank = self.banks[0 if self.config.bank_shared else i]
        assert isinstance(bank, FeatureBank)
        return bank

    @torch.no_grad()
    def draw_keys(self, band: Band, behind: Tensor | None, labels: Tensor) -> tuple[Draw, Draw]:
        """Positive keys and negative keys (N, 2, k) of the queries of each side; the queries of one side share them.

        One positive more is drawn than a query uses: it may be the query itself. Behind a foreground query are classes to choose from
        (AKS); behind a background query is only the RoI's own object, whose pixels are all of one class.
        """
        uniform = band.inside.float()
        positives = draw(band, uniform, self.config.ibdl_positives + 1)
        weights = uniform
        if behind is not None:
            available = class_counts(band, behind, self.classes + 1) > 0
            probability = class_probability(self.confusion, labels, available)
            weights = torch.stack([key_weights(band, behind, probability), uniform[:, 1]], 1)
        drawn = draw(band, weights, self.config.ibdl_negatives)
        return positives, Draw(pixels=drawn.pixels.flip(1), real=drawn.real.flip(1))

    def cross_loss(self, bank: FeatureBank, features: Tensor, band: Band, queries: Draw, labels: Tensor) -> Tensor:
        """CBDL of one stage; 0 until each side of the bank holds as many entries as a query has negatives."""
        if int(bank.filled.min()) < self.config.cbdl_negatives:
            return _zero(features)
        positives, negatives = self.draw_entries(bank, labels)
        return cbdl(features, band, queries, bank.features, positives, negatives, self.config)

    @torch.no_grad()
    def draw_entries(self, bank: FeatureBank, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Bank entries (N, 2, k): positives of the query's side, and negatives of the other side."""
        config, rows = self.config, len(labels)
        positives = torch.stack([bank.draw(side, rows, config.cbdl_positives) for side in (0, 1)], 1)
        if not config.adaptive_keys:
            return positives, torch.stack([bank.draw(side, rows, config.cbdl_negatives) for side in (1, 0)], 1)
        negatives = []
        for side in (1, 0):
            available = bank.class_counts(side, self.classes) > 0
            probability = class_probability(self.confusion, labels, available)
            negatives.append(bank.draw_by_class(side, probability, config.cbdl_negatives))
        return positives, torch.stack(negatives, 1)

    @torch.no_grad()
    def learn(self, summaries: list[Summary], targets: MaskTargets) -> None:
        """Push the sides' means into the banks and fold the similarities into the matrix, from the first stage to the last."""
        share = gather_rows if self.config.bank_gather else _alone
        chosen = best_of_each_truth(targets) if self.config.push_once else torch.ones_like(targets.labels, dtype=torch.bool)
        for i, summary in enumerate(summaries):
            for side in (0, 1) if self.config.cbdl else ():
                pick = chosen & summary.sides[:, side]
                self.bank(i).push(side, share(summary.means[pick, side]), share(targets.labels[pick]))
            if summary.pairs is not None:
                rows, columns, similarity = (share(part) for part in summary.pairs)
                update_confusion(self.confusion, rows, columns, similarity, self.config.confusion_decay)


def ibdl(features: Tensor, band: Band, queries: Draw, positives: Draw, negatives: Draw, config: BEISConfig) -> Tensor:
    """Contrast within the crop: mean over the queries of a side, sum of both sides, mean over the RoIs that have both.

    Args:
        features: (N, C, S, S).
        band: of the N crops.
        queries: (N, 2, Q).
        positives: (N, 2, P + 1) of the query's side; a query uses the first P that are not itself.
        negatives: (N, 2, M) of the other side.
        config: the head's.
    """
    parts = [queries.pixels, positives.pixels, negatives.pixels]
    q, p, m = (x.flatten(0, 1) for x in take(features, torch.cat(parts, -1)).split([x.shape[-1] for x in parts], 2))  # 2N, k, C
    other = queries.pixels[..., :, None] != positives.pixels[..., None, :]  # N, 2, Q, P + 1
    usable = other & positives.real[..., None, :]
    usable &= usable.cumsum(-1) <= config.ibdl_positives
    loss, defined = contrastive_loss(
        q,
        p,
        m,
        usable.flatten(0, 1),
        negatives.real.flatten(0, 1),
        literal=config.literal,
        normalize=config.normalize,
        tau=config.tau,
    )
    both = band.sides().all(1)  # N
    counted = (defined.unflatten(0, (-1, 2)) & queries.real & both[:, None, None]).float()  # N, 2, Q
    mean = (loss.view_as(counted) * counted).sum(-1) / counted.sum(-1).clamp(min=1)  # N, 2
    return mean.sum() / both.sum().clamp(min=1)


def cbdl(features: Tensor, band: Band, queries: Draw, bank: Tensor, positives: Tensor, negatives: Tensor, config: BEISConfig) -> Tensor:
    """Contrast with the bank: mean over the queries of a RoI, mean over the RoIs that have a boundary.

    Args:
        features: (N, C, S, S).
        band: of the N crops.
        queries: (N, 2, Q).
        bank: (2, L, C), no gradient.
        positives: (N, 2, P) entries of the query's side.
        negatives: (N, 2, M) entries of the other side.
        config: the head's.
    """
    q = take(features, queries.pixels).flatten(0, 1)  # 2N, Q, C
    p = torch.stack([bank[side][positives[:, side]] for side in (0, 1)], 1).flatten(0, 1)  # 2N, P, C
    m = torch.stack([bank[1 - side][negatives[:, side]] for side in (0, 1)], 1).flatten(0, 1)  # 2N, M, C
    everything = torch.ones((), dtype=torch.bool, device=q.device)
    loss, _ = contrastive_loss(
        q,
        p,
        m,
        everything.expand(len(q), q.shape[1], p.shape[1]),
        everything.expand(len(q), m.shape[1]),
        literal=config.literal,
        normalize=config.normalize,
        tau=config.tau,
    )
    counted = queries.real.float()  # N, 2, Q
    mean = (loss.view_as(counted) * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)  # N
    return mean.sum() / band.sides().any(1).sum().clamp(min=1)


@torch.no_grad()
def summarize(features: Tensor, band: Band, behind: Tensor | None, labels: Tensor, classes: int) -> Summary:
    """Mean feature of every band side, and with the classes ``behind`` (N, B) the boundary the similarity of each class found there."""
    n, channels = features.shape[:2]
    area = features.shape[2] * features.shape[3]
    member = features.new_zeros((n, 2, area), dtype=torch.float32).scatter_add_(2, band.pixels, band.inside.float())
    flat = features.detach().flatten(2).float()  # N, C, S*S
    counts = band.inside.sum(-1, keepdim=True)  # N, 2, 1
    means = torch.bmm(member, flat.transpose(1, 2)) / counts.clamp(min=1)
    sides = band.sides()
    if behind is None:
        return Summary(means=means, sides=sides, pairs=None)
    row, position = torch.nonzero(band.inside[:, 0] & sides[:, 1:], as_tuple=True)
    vectors = flat.transpose(1, 2)[row, band.pixels[row, 0, position]]  # M, C
    pairs, which = torch.unique(row * (classes + 1) + behind[row, position], return_inverse=True)
    sums = vectors.new_zeros((len(pairs), channels)).index_add_(0, which, vectors)  # a mean has the direction of its sum
    rois = torch.div(pairs, classes + 1, rounding_mode="floor")
    similarity = F.cosine_similarity(means[rois, 1], sums, dim=1)
    return Summary(means=means, sides=sides, pairs=(labels[rois], pairs % (classes + 1), similarity))


@torch.no_grad()
def best_of_each_truth(targets: MaskTargets) -> Tensor:
    """RoIs (N,) bool that fit their object best: one for each object of each picture, so that a bank is not filled with near-copies."""
    chosen = torch.zeros(len(targets), dtype=torch.bool, device=targets.boxes.device)
    if len(targets) == 0:
        return chosen
    offsets = torch.tensor([0, *[len(p.boxes) for p in targets.pictures]], device=chosen.device).cumsum(0)
    instance = offsets[targets.batch] + targets.truth  # N
    truth = torch.cat([p.boxes for p in targets.pictures])[instance]
    corners = torch.cat([torch.maximum(truth[:, :2], targets.boxes[:, :2]), torch.minimum(truth[:, 2:], targets.boxes[:, 2:])], 1)
    overlap = box_area(corners)
    iou = overlap / (box_area(truth) + box_area(targets.boxes) - overlap).clamp(min=1e-6)
    order = torch.sort(iou, descending=True, stable=True).indices
    order = order[torch.sort(instance[order], stable=True).indices]  # by object, the best first
    sorted_instance = instance[order]
    first = torch.ones_like(chosen)
    first[1:] = sorted_instance[1:] != sorted_instance[:-1]
    chosen[order[first]] = True
    return chosen


def _nothing(features: Tensor, pairs: bool) -> Summary:
    """The summary of no RoIs: the other processes still wait for it."""
    none = torch.zeros(0, dtype=torch.int64, device=features.device)
    means = torch.zeros((0, 2, features.shape[1]), device=features.device)
    return Summary(means=means, sides=means[..., 0] > 0, pairs=(none, none, means[:, 0, 0]) if pairs else None)


def _zero(features: Tensor) -> Tensor:
    """0, with a gradient of 0."""
    return features[:0].float().sum()


def _first(drawn: Draw, count: int) -> Draw:
    return Draw(pixels=drawn.pixels[..., :count], real=drawn.real[..., :count])


def _alone(rows: Tensor) -> Tensor:
    return rows

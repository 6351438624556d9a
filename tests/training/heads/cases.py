"""Four pictures with one large shape each, their feature pyramid and RoIs: enough to train any mask head in seconds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.heads import HEADS, MaskHead
from training.models.ops import multilevel_roi_align, paste_masks
from training.models.targets import MaskTargets, Target

CHANNELS, CLASSES, SIDE = 16, 3, 128
STRIDES = (4.0, 8.0, 16.0, 32.0)


def shape(kind: int) -> Tensor:
    """Bitmap (SIDE, SIDE) uint8 of an ellipse, a diamond, a tilted ellipse or a cut disc."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    u, v = (x - 64) / 50, (y - 60) / 44
    inside = (
        u**2 + v**2 < 1,
        u.abs() + v.abs() < 1,
        ((u + v) / 1.3) ** 2 + ((u - v) / 0.9) ** 2 < 1,
        (u**2 + v**2 < 1) & (v > -0.4),
    )[kind]
    return inside.to(torch.uint8)


def pictures() -> list[Target]:
    targets = []
    for kind in range(4):
        mask = shape(kind)
        rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
        box = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        targets.append(Target(boxes=box[None], labels=torch.tensor([kind % CLASSES]), masks=mask[None]))
    return targets


def pyramid(targets: list[Target]) -> list[Tensor]:
    """P2 .. P5 that hold what a backbone could know: each cell a fixed mixture of the 4 x 4 pixels under it."""
    mixture = torch.randn((CHANNELS, 16, 1, 1), generator=torch.Generator().manual_seed(0)) / 4
    image = torch.stack([t.masks.amax(0)[None].float() for t in targets])  # B, 1, H, W
    p2 = F.conv2d(F.pixel_unshuffle(2 * image - 1, 4), mixture)  # B, C, H/4, W/4
    return [F.avg_pool2d(p2, 2**k) for k in range(4)]


def rois(targets: list[Target], count: int | None = None) -> MaskTargets:
    """One RoI per picture, a little larger than its object; or only the first ``count``."""
    n = len(targets) if count is None else count
    offset = torch.tensor([-3.0, -2.0, 2.0, 4.0])
    boxes = torch.cat([t.boxes + offset for t in targets])[:n]
    labels = torch.cat([t.labels for t in targets])[:n]
    return MaskTargets(pictures=targets, boxes=boxes, batch=torch.arange(n), truth=torch.zeros(n, dtype=torch.int64), labels=labels)


def pooled(head: MaskHead, levels: list[Tensor], maps: dict[str, Tensor], targets: MaskTargets) -> list[Tensor]:
    """What the head's pools take, as the detector does it."""
    inputs = []
    for p in head.pools:
        features, strides = (levels, STRIDES) if p.feature == "pyramid" else ([maps[p.feature]], (float(p.stride or 0),))
        inputs.append(multilevel_roi_align(features, targets.boxes, targets.batch, p.size, strides, p.sampling_ratio, p.level))
    return inputs


def build(name: str, channels: int = 32, **options: Any) -> MaskHead:
    """A head for the pyramid above."""
    config = HEADS[name].config_type(name=name, channels=channels, **options)
    return HEADS[name](config, CHANNELS, CLASSES)


def run(head: MaskHead, targets: MaskTargets) -> tuple[dict[str, Tensor], Tensor]:
    """Losses, and the logits (N, S, S) that inference would give."""
    levels = pyramid(targets.pictures)
    maps = head.maps(levels)
    inputs = pooled(head, levels, maps, targets)
    losses, _ = head.losses(maps, inputs, targets)
    with torch.no_grad():
        return losses, head(inputs, targets.labels).logits


def fit(targets: MaskTargets, iterations: int, rate: float, **options: Any) -> Tensor:
    """Trains a head of these options on the same RoIs over and over; returns the IoU (N,) of the pasted masks with the objects."""
    head, levels = build(**options), pyramid(targets.pictures)
    optimizer = torch.optim.Adam(head.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, rate / 20)
    for _ in range(iterations):
        maps = head.maps(levels)
        losses, _ = head.losses(maps, pooled(head, levels, maps, targets), targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        maps = head.maps(levels)
        logits = head(pooled(head, levels, maps, targets), targets.labels).logits
    found = paste_masks(logits, targets.boxes, (SIDE, SIDE))
    truth = torch.stack([targets.pictures[b].masks[t] for b, t in zip(targets.batch, targets.truth, strict=True)]).bool()
    return (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))

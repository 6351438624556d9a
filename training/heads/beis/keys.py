"""Adaptive keys: which class lies behind each boundary pixel, and how alike the classes' boundaries are (BEIS, AKS)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.models.targets import MaskTargets


def instance_maps(targets: MaskTargets) -> list[Tensor]:
    """Per picture, the ground truth that each pixel shows, (H, W) int64, -1 = none; of overlapping ones the smaller."""
    maps = []
    for picture in targets.pictures:
        shown = torch.full(picture.masks.shape[1:], -1, dtype=torch.int64, device=picture.masks.device)
        area = picture.masks.flatten(1).sum(1, dtype=torch.int64)
        for index in torch.argsort(area, descending=True, stable=True).tolist():
            shown.masked_fill_(picture.masks[index] > 0, index)
        maps.append(shown)
    return maps


def background_classes(targets: MaskTargets, maps: list[Tensor], pixels: Tensor, size: int, classes: int) -> Tensor:
    """Classes (N, B) of ``pixels`` (N, B) outside of the RoI's own object, given as cells of a grid of ``size`` cells a side.

    The instance at the cell's centre decides. ``classes`` = K stands for no instance: also outside the picture, and where the map shows
    the RoI's own object although its resampled mask does not.
    """
    boxes = targets.boxes.float()
    step = (boxes[:, 2:] - boxes[:, :2]) / size  # N, 2
    x = torch.floor(boxes[:, :1] + (pixels % size + 0.5) * step[:, :1]).long()  # N, B
    y = torch.floor(boxes[:, 1:2] + (torch.div(pixels, size, rounding_mode="floor") + 0.5) * step[:, 1:]).long()
    found = torch.full_like(pixels, classes)
    for index, (picture, shown) in enumerate(zip(targets.pictures, maps, strict=True)):
        mine = torch.nonzero(targets.batch == index).squeeze(1)
        if len(mine) == 0:
            continue
        h, w = shown.shape
        px, py = x[mine], y[mine]
        instance = shown[py.clamp(0, h - 1), px.clamp(0, w - 1)]
        inside = (px >= 0) & (px < w) & (py >= 0) & (py < h)
        other = inside & (instance >= 0) & (instance != targets.truth[mine][:, None])
        found[mine] = torch.where(other, picture.labels[instance.clamp(min=0)], classes)
    return found


def class_probability(confusion: Tensor, labels: Tensor, available: Tensor) -> Tensor:
    """For each row, the probability (N, V) of drawing a class: softmax of ``confusion`` over the ``available`` ones.

    Args:
        confusion: (>= V, >= V) similarity of classes, P.
        labels: (N,) class u of each row.
        available: (N, V) or (V,) bool. A row without any gets zeros.
    """
    similarity = confusion[labels][:, : available.shape[-1]]  # N, V
    available = available.expand(len(labels), -1)
    probability = torch.softmax(similarity.masked_fill(~available, float("-inf")), 1)
    return torch.where(available, probability, 0.0)


def update_confusion(confusion: Tensor, rows: Tensor, columns: Tensor, similarity: Tensor, decay: float) -> None:
    """In place, for every pair in turn: P(u, v) <- decay P(u, v) + (1 - decay) p.

    Pairs of the same cell are folded into one update that equals doing them one after another.

    Args:
        confusion: (K + 1, K + 1).
        rows: (M,) classes u.
        columns: (M,) classes v.
        similarity: (M,) p.
        decay: share of the old value.
    """
    cell = rows * confusion.shape[1] + columns
    ordered, order = torch.sort(cell, stable=True)
    position = torch.arange(len(cell), device=cell.device)
    later = torch.searchsorted(ordered, ordered, right=True) - 1 - position  # updates of the same cell that follow
    first = torch.searchsorted(ordered, ordered) == position
    flat = confusion.view(-1)
    flat[ordered[first]] *= decay ** (later[first] + 1).to(flat.dtype)
    flat.index_add_(0, ordered, (1 - decay) * decay ** later.to(flat.dtype) * similarity[order].to(flat.dtype))

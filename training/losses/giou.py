"""Generalized IoU of pairs of boxes (Rezatofighi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.models.ops import box_area


def paired_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (N,) and union (N,), pixels^2, of the boxes ``a`` and ``b``, each (N, 4) xyxy, row by row. An empty union gives IoU 0."""
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)  # N, 2
    inter = side[:, 0] * side[:, 1]
    union = box_area(a) + box_area(b) - inter
    safe = torch.where(union > 0, union, torch.ones_like(union))
    return inter / safe, union


def giou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """1 - GIoU (N,) of ``boxes`` and ``truth``, each (N, 4) xyxy: 0 for equal boxes, up to 2 for boxes far apart.

    GIoU = IoU - (|C| - |U|) / |C| with the union U and the smallest enclosing box C (equation in algorithm 1). A pair whose enclosing box
    has no area gives 1.
    """
    boxes, truth = boxes.float(), truth.float()
    iou, union = paired_iou(boxes, truth)
    sides = torch.maximum(boxes[:, 2:], truth[:, 2:]) - torch.minimum(boxes[:, :2], truth[:, :2])  # N, 2
    enclosing = sides[:, 0] * sides[:, 1]
    safe = torch.where(enclosing > 0, enclosing, torch.ones_like(enclosing))
    return 1 - iou + torch.where(enclosing > 0, (enclosing - union) / safe, torch.zeros_like(union))

"""The torch form of the operators that training needs.

Each function here has a contract in ``docs/operators.md`` and a native twin in ``sdk.ops``; the tests run both over the same cases.
They are written for gradients and for any device, not for CPU latency.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DELTA_CLAMP = math.log(1000.0 / 16.0)


def box_area(boxes: Tensor) -> Tensor:
    """Area of boxes ``(..., 4)`` xyxy; inverted boxes count as empty."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise IoU of ``a`` (N, 4) and ``b`` (M, 4), xyxy. Pairs with an empty union have IoU 0."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (bottom_right - top_left).clamp(min=0).prod(-1)  # N, M
    union = box_area(a)[:, None] + box_area(b)[None] - inter
    return torch.where(union > 0, inter / union, torch.zeros_like(inter))


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Deltas (N, 4) that :func:`decode_boxes` turns back into ``boxes`` (N, 4) from ``anchors`` (N, 4)."""
    aw, ah = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    bw, bh = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    wx, wy, ww, wh = weights
    return torch.stack(
        [
            wx * (boxes[:, 0] + bw / 2 - anchors[:, 0] - aw / 2) / aw,
            wy * (boxes[:, 1] + bh / 2 - anchors[:, 1] - ah / 2) / ah,
            ww * torch.log(bw / aw),
            wh * torch.log(bh / ah),
        ],
        dim=1,
    )


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Boxes (..., 4) from ``deltas`` (..., 4) and ``anchors`` of a broadcastable shape."""
    wx, wy, ww, wh = weights
    aw, ah = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    cx = anchors[..., 0] + 0.5 * aw + deltas[..., 0] / wx * aw
    cy = anchors[..., 1] + 0.5 * ah + deltas[..., 1] / wy * ah
    w = aw * torch.exp((deltas[..., 2] / ww).clamp(max=DELTA_CLAMP))
    h = ah * torch.exp((deltas[..., 3] / wh).clamp(max=DELTA_CLAMP))
    return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h], dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut to a picture of ``size`` (h, w)."""
    h, w = size
    return torch.stack([boxes[..., 0].clamp(0, w), boxes[..., 1].clamp(0, h), boxes[..., 2].clamp(0, w), boxes[..., 3].clamp(0, h)], dim=-1)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (M,) of the boxes that greedy NMS keeps, by descending score (ties: lower index).

    Greedy suppression is the unique fixed point of "kept = overlapped by no kept box of higher score", so iterating that
    equation from "all kept" ends in exactly the greedy result; it needs as many rounds as the longest chain of suppressions.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    overlaps = box_iou(boxes[order], boxes[order]).gt(iou_threshold).triu(1).to(torch.float32)  # [higher, lower]
    keep = torch.ones(len(order), device=boxes.device)
    while True:
        settled = (keep @ overlaps == 0).to(torch.float32)
        if torch.equal(settled, keep):
            return order[keep.bool()]
        keep = settled


def assign_levels(boxes: Tensor, levels: int, finest: float = 56.0) -> Tensor:
    """Pyramid level (N,) of each box, 0 = P2 (Lin et al. 2017, equation 1)."""
    side = torch.sqrt(box_area(boxes))
    return torch.floor(torch.log2(side / finest + 1e-6)).clamp(0, levels - 1).long()


def _axis_samples(start: Tensor, extent: Tensor, bins: int, samples: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Cell indices and weights (N, bins, 2 * samples) of the linear interpolation along one axis.

    ``start`` and ``extent`` (N,) are in cells, ``size`` (N,) is the length of the axis.
    """
    step = (torch.arange(samples, device=start.device) + 0.5) / samples
    bin_index = torch.arange(bins, device=start.device)
    u = start[:, None, None] - 0.5 + (bin_index[None, :, None] + step) * (extent / bins)[:, None, None]  # N, bins, samples
    last = (size - 1).to(u.dtype)[:, None, None]
    inside = (u >= -1) & (u <= last + 1) & (extent > 0)[:, None, None]
    u = torch.minimum(u.clamp(min=0), last)
    low = u.floor()
    high = torch.minimum(low + 1, last)
    upper = (u - low) * inside
    lower = inside.to(u.dtype) - upper
    return torch.cat([low, high], -1).long(), torch.cat([lower, upper], -1) / samples


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    batch: Tensor,
    output_size: int,
    strides: tuple[float, ...],
    sampling_ratio: int = 2,
    level: int | None = None,
    aligned: bool = True,
) -> Tensor:
    """RoIAlign over a pyramid, differentiable in ``features``.

    Every output cell is a weighted sum of feature vectors, so the whole operator is one ``embedding_bag`` over the table of all
    cells of all levels and pictures.

    Args:
        features: per level (B, C, H_l, W_l).
        boxes: (N, 4) xyxy in input pixels.
        batch: (N,) picture index of each box.
        output_size: bins per side, P.
        strides: input pixels per cell of each level.
        sampling_ratio: samples per bin and side; 0 = as many as the bin has cells, rounded up.
        level: pool every box from this level instead of by size.
        aligned: False = no half-cell shift, and extents of at least one cell, as torchvision's models were trained.

    Returns:
        (N, C, P, P), dtype of the features.
    """
    channels = features[0].shape[1]
    if len(boxes) == 0:
        return features[0].new_zeros((0, channels, output_size, output_size)) + 0 * features[0].sum()
    table = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, channels) for f in features])
    heights = torch.tensor([f.shape[2] for f in features], device=boxes.device)
    widths = torch.tensor([f.shape[3] for f in features], device=boxes.device)
    rows = torch.tensor([f.shape[0] * f.shape[2] * f.shape[3] for f in features], device=boxes.device)
    first = rows.cumsum(0) - rows

    boxes = boxes.float()
    lv = assign_levels(boxes, len(features)) if level is None else torch.full((len(boxes),), level, device=boxes.device)
    scaled = boxes / torch.tensor(strides, device=boxes.device, dtype=torch.float32)[lv][:, None]
    w, h = scaled[:, 2] - scaled[:, 0], scaled[:, 3] - scaled[:, 1]
    if not aligned:
        scaled = scaled + 0.5  # undoes the shift that the samples get
        solid = (w > 0) & (h > 0)
        w, h = w.clamp(min=1) * solid, h.clamp(min=1) * solid
    base = first[lv] + batch.long() * heights[lv] * widths[lv]

    out = table.new_empty((len(boxes), output_size, output_size, channels))
    ny, nx = _sample_counts(h, output_size, sampling_ratio), _sample_counts(w, output_size, sampling_ratio)
    for count_y, count_x in torch.unique(torch.stack([ny, nx], 1), dim=0).tolist():
        pick = torch.nonzero((ny == count_y) & (nx == count_x)).squeeze(1)
        iy, wy = _axis_samples(scaled[pick, 1], h[pick], output_size, count_y, heights[lv[pick]])
        ix, wx = _axis_samples(scaled[pick, 0], w[pick], output_size, count_x, widths[lv[pick]])
        row = base[pick][:, None, None] + iy * widths[lv[pick]][:, None, None]
        index = row[:, :, None, :, None] + ix[:, None, :, None, :]  # n, P, P, 2 ny, 2 nx
        weight = wy[:, :, None, :, None] * wx[:, None, :, None, :]
        bag = 4 * count_y * count_x
        pooled = F.embedding_bag(index.reshape(-1, bag), table, per_sample_weights=weight.reshape(-1, bag).to(table.dtype), mode="sum")
        pooled = pooled.reshape(-1, output_size, output_size, channels)
        out = pooled if len(pick) == len(boxes) else out.index_copy(0, pick, pooled)
    return out.permute(0, 3, 1, 2)


def _sample_counts(extent: Tensor, bins: int, sampling_ratio: int) -> Tensor:
    """Samples per bin (N,) along one axis."""
    if sampling_ratio > 0:
        return torch.full(extent.shape, sampling_ratio, device=extent.device, dtype=torch.long)
    return torch.ceil(extent / bins).clamp(min=1).long()


def paste_masks(mask_logits: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Full-picture bitmaps (N, H, W) bool of mask logits (N, Hm, Wm) in boxes (N, 4) (``docs/operators.md``, paste)."""
    if len(boxes) == 0:
        return torch.zeros((0, *size), dtype=torch.bool, device=boxes.device)
    h, w = size
    x1, y1, x2, y2 = boxes.float().unbind(1)
    gx = (torch.arange(w, device=boxes.device) + 0.5 - x1[:, None]) / (x2 - x1)[:, None] * 2 - 1  # N, W
    gy = (torch.arange(h, device=boxes.device) + 0.5 - y1[:, None]) / (y2 - y1)[:, None] * 2 - 1  # N, H
    grid = torch.stack([gx[:, None, :].expand(-1, h, -1), gy[:, :, None].expand(-1, -1, w)], -1)
    probability = F.grid_sample(torch.sigmoid(mask_logits)[:, None], grid, align_corners=False)
    return probability[:, 0] >= threshold

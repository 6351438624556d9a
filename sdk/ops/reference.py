"""What every operator means, in slow NumPy: the tests compare every implementation with these.

Written from `docs/operators.md`, pixel by pixel and box by box, in float64 unless a contract says float32. Arguments are those of the
public calls and are taken to be valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]

MAX_LOG_SCALE = math.log(1000 / 16)


# -- preprocess ---------------------------------------------------------------------------------------------------------------------


def preprocess(
    image: Array,
    size: tuple[int, int],
    padded: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    swap_channels: bool = False,
    antialias: bool = True,
) -> Floats:
    """See `sdk.ops.preprocess`."""
    picture = np.asarray(image, np.float64).reshape(image.shape[0], image.shape[1], -1)
    picture = np.repeat(picture, 3 // picture.shape[2], axis=2)
    if swap_channels:
        picture = picture[:, :, ::-1]
    down = triangle_matrix(picture.shape[0], size[0], antialias)
    across = triangle_matrix(picture.shape[1], size[1], antialias)
    resized = np.einsum("yi,xj,ijc->cyx", down, across, picture, optimize=True)
    result = np.zeros((3, *padded))
    result[:, : size[0], : size[1]] = (resized - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return result


def triangle_matrix(size: int, new_size: int, antialias: bool) -> Floats:
    """(new_size, size): row i holds the weights of output i."""
    scale = size / new_size
    support = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(new_size) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distance)
    normalised: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normalised


# -- boxes --------------------------------------------------------------------------------------------------------------------------


def decode(source: Array, deltas: Array, weights: Sequence[float] = (1, 1, 1, 1)) -> Floats:
    """Boxes (n, 4) from source boxes (n, 4) and deltas (n, 4)."""
    x1, y1, x2, y2 = np.asarray(source, np.float64).T
    dx, dy, dw, dh = np.asarray(deltas, np.float64).T / np.reshape(np.asarray(weights, np.float64), (4, 1))
    cx = (x1 + x2) / 2 + dx * (x2 - x1)
    cy = (y1 + y2) / 2 + dy * (y2 - y1)
    w = (x2 - x1) * np.exp(np.minimum(dw, MAX_LOG_SCALE))
    h = (y2 - y1) * np.exp(np.minimum(dh, MAX_LOG_SCALE))
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)


def clip(boxes: Array, size: tuple[int, int]) -> Array:
    """Boxes cut to a picture of `size` = (h, w)."""
    limits = np.array([size[1], size[0], size[1], size[0]], boxes.dtype)
    cut: Array = np.minimum(np.maximum(boxes, 0), limits)
    return cut


def nms(boxes: Array, scores: Array, iou_threshold: float, groups: Array | None = None) -> NDArray[np.int64]:
    """See `sdk.ops.nms`; float32, as its contract says."""
    boxes = boxes.astype(np.float32)
    if groups is None:
        groups = np.zeros(len(boxes), np.int64)
    order = sorted(range(len(boxes)), key=lambda i: (-math.inf if math.isnan(scores[i]) else scores[i], -i), reverse=True)
    keep: list[int] = []
    for i in order:
        rivals = [k for k in keep if groups[k] == groups[i]]
        if not any(_overlap_too_much(boxes[i], boxes[k], np.float32(iou_threshold)) for k in rivals):
            keep.append(i)
    return np.array(keep, np.int64)


def _overlap_too_much(a: Array, b: Array, iou_threshold: np.float32) -> bool:
    zero = np.float32(0)
    area_a = max(zero, a[2] - a[0]) * max(zero, a[3] - a[1])
    area_b = max(zero, b[2] - b[0]) * max(zero, b[3] - b[1])
    shared = max(zero, min(a[2], b[2]) - max(a[0], b[0])) * max(zero, min(a[3], b[3]) - max(a[1], b[1]))
    return bool(shared > iou_threshold * (area_a + area_b - shared))


def decode_boxes(deltas: Array, boxes: Array, size: tuple[int, int], *, coder_weights: Sequence[float]) -> Floats:
    """See `sdk.ops.decode_boxes`."""
    with np.errstate(all="ignore"):
        decoded = decode(boxes, deltas, coder_weights)
    decoded[~np.isfinite(decoded).all(axis=1)] = 0
    return clip(decoded, size)


def proposals(
    objectness: Sequence[Array],
    deltas: Sequence[Array],
    anchors: Sequence[Array],
    strides: Sequence[float],
    size: tuple[int, int],
    *,
    pre_nms: int,
    post_nms: int,
    nms_threshold: float,
    min_size: float = 0.0,
) -> tuple[Floats, Floats]:
    """See `sdk.ops.proposals`."""
    found: list[tuple[float, int, int, Floats]] = []
    for level, (logits, shifts, base, stride) in enumerate(zip(objectness, deltas, anchors, strides, strict=True)):
        found += _level_proposals(level, logits, shifts, base, stride, size, pre_nms, nms_threshold, min_size)
    found.sort(key=lambda row: (-row[0], row[1], row[2]))
    found = found[:post_nms]
    boxes = np.array([row[3] for row in found]).reshape(-1, 4)
    scores = np.array([1 / (1 + math.exp(-row[0])) for row in found])
    return boxes, scores


def _level_proposals(
    level: int,
    logits: Array,
    shifts: Array,
    base: Array,
    stride: float,
    size: tuple[int, int],
    pre_nms: int,
    threshold: float,
    min_size: float,
) -> list[tuple[float, int, int, Floats]]:
    """Rows (logit, level, candidate, box)."""
    count, height, width = logits.shape
    flat_logits = logits.transpose(1, 2, 0).reshape(-1).astype(np.float64)  # (y, x, a)
    flat_deltas = shifts.reshape(count, 4, height, width).transpose(2, 3, 0, 1).reshape(-1, 4)
    ys, xs, _ = np.unravel_index(np.arange(height * width * count), (height, width, count))
    sources = np.tile(base.astype(np.float64), (height * width, 1)) + stride * np.stack([xs, ys, xs, ys], axis=1)
    finite = [i for i in range(len(flat_logits)) if math.isfinite(flat_logits[i])]
    best = sorted(finite, key=lambda i: (-flat_logits[i], i))[:pre_nms]
    with np.errstate(all="ignore"):
        decoded = decode(sources[best], flat_deltas[best])
    sound = np.isfinite(decoded).all(axis=1)
    boxes = clip(decoded, size)
    sound &= (boxes[:, 2] - boxes[:, 0] > min_size) & (boxes[:, 3] - boxes[:, 1] > min_size)
    rows = [(float(flat_logits[i]), level, i, box) for i, box, good in zip(best, boxes, sound, strict=True) if good]
    if not rows:
        return []
    keep = nms(np.array([row[3] for row in rows]), np.arange(len(rows), 0, -1), threshold)
    return [rows[k] for k in keep]


def select_detections(
    scores: Array,
    box_deltas: Array,
    proposals: Array,
    size: tuple[int, int],
    *,
    coder_weights: Sequence[float],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """See `sdk.ops.select_detections`."""
    found: list[tuple[float, int, int, Floats]] = []  # (score, proposal, class, box)
    for k in range(scores.shape[1]):
        columns = 0 if box_deltas.shape[1] == 4 else 4 * k
        with np.errstate(all="ignore"):
            decoded = decode(proposals, box_deltas[:, columns : columns + 4], coder_weights)
        boxes = clip(decoded, size)
        sound = np.isfinite(decoded).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        chosen = np.flatnonzero(sound & (scores[:, k] > np.float32(score_threshold)) & np.isfinite(scores[:, k]))
        found += [(float(scores[n, k]), int(n), k, boxes[n]) for n in chosen[nms(boxes[chosen], scores[chosen, k], nms_threshold)]]
    found = sorted(found, key=lambda row: (-row[0], row[1], row[2]))[:max_detections]
    return (
        np.array([row[3] for row in found]).reshape(-1, 4),
        np.array([row[0] for row in found]),
        np.array([row[2] for row in found], np.int64),
    )


# -- roi_align ----------------------------------------------------------------------------------------------------------------------


def roi_align(
    features: Sequence[Array],
    strides: Sequence[float],
    boxes: Array,
    batch: Array,
    output_size: int,
    *,
    sampling_ratio: int = 2,
    level: int | None = None,
    aligned: bool = True,
) -> Floats:
    """See `sdk.ops.Pyramid`."""
    result = np.zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for n, box in enumerate(np.asarray(boxes, np.float64)):
        if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
            continue
        chosen = roi_level(box, len(features)) if level is None else level
        feature = features[chosen][batch[n]].astype(np.float64)  # (C, H, W)
        x1, y1, x2, y2 = box / strides[chosen]
        if aligned:
            x1, y1, x2, y2 = x1 - 0.5, y1 - 0.5, x2 - 0.5, y2 - 0.5
        else:
            x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        rows = _bin_matrix(y1, y2, output_size, sampling_ratio, feature.shape[1])
        columns = _bin_matrix(x1, x2, output_size, sampling_ratio, feature.shape[2])
        result[n] = np.einsum("py,cyx,qx->cpq", rows, feature, columns, optimize=True)
    return result


def roi_level(box: Array, levels: int) -> int:
    """The level that a box is pooled from."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(math.log2(side / 56 + 1e-6)), 0), levels - 1)


def _bin_matrix(low: float, high: float, bins: int, sampling_ratio: int, size: int) -> Floats:
    """(bins, size): bilinear sampling is separable, so one axis of it is a matrix; each row is the mean of the bin's samples."""
    extent = high - low
    n = sampling_ratio or max(1, math.ceil(extent / bins))
    matrix = np.zeros((bins, size))
    for i in range(bins):
        for k in range(n):
            u = low + (i + (k + 0.5) / n) * extent / bins
            if u < -1 or u > size:
                continue
            u = min(max(u, 0.0), size - 1.0)
            cell = min(math.floor(u), max(size - 2, 0))
            matrix[i, cell] += (1 - (u - cell)) / n
            if size > 1:
                matrix[i, cell + 1] += (u - cell) / n
    return matrix


# -- masks --------------------------------------------------------------------------------------------------------------------------


def paste_masks(mask_logits: Array, boxes: Array, shape: tuple[int, int], *, threshold: float = 0.5) -> NDArray[np.bool_]:
    """See `sdk.ops.paste_masks`; the result is dense, (N, H, W)."""
    result = np.zeros((len(boxes), *shape), bool)
    for n, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, np.float64)):
        if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1:
            continue
        probabilities = np.pad(_sigmoid(mask_logits[n]), 1)  # a ring of zeros: node (i, j) is at [i + 1, j + 1]
        rows, gy = _grid_coordinates(y1, y2, probabilities.shape[0] - 2, shape[0])
        columns, gx = _grid_coordinates(x1, x2, probabilities.shape[1] - 2, shape[1])
        i, j = np.floor(gy).astype(int)[:, None] + 1, np.floor(gx).astype(int)[None] + 1
        fy, fx = (gy - np.floor(gy))[:, None], (gx - np.floor(gx))[None]
        upper = probabilities[i, j] + fx * (probabilities[i, j + 1] - probabilities[i, j])
        lower = probabilities[i + 1, j] + fx * (probabilities[i + 1, j + 1] - probabilities[i + 1, j])
        result[n][np.ix_(rows, columns)] = upper + fy * (lower - upper) >= threshold
    return result


def _grid_coordinates(low: float, high: float, nodes: int, size: int) -> tuple[Array, Floats]:
    """The pixels of one axis that reach the grid, and where they fall on it."""
    with np.errstate(over="ignore"):
        g = (np.arange(size) + 0.5 - low) / (high - low) * nodes - 0.5
    inside = np.flatnonzero((g > -1) & (g < nodes))
    return inside, np.asarray(g[inside], np.float64)


def _sigmoid(logits: Array) -> Floats:
    # math.exp and not np.exp: NumPy's vectorised exp differs from the C library's in the last bit.
    def one(x: float) -> float:
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

    values: Floats = np.array([one(float(x)) if x == x else math.nan for x in logits.reshape(-1)])
    return values.reshape(logits.shape)


def rle_counts(mask: Array) -> list[int]:
    """COCO's run lengths of one full-size mask (H, W)."""
    counts, value = [0], 0
    for pixel in np.asarray(mask, bool).T.reshape(-1):
        if pixel == value:
            counts[-1] += 1
        else:
            counts.append(1)
            value = pixel
    return counts


def rle_mask(counts: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of COCO run lengths."""
    values = [bool(i % 2) for i, count in enumerate(counts) for _ in range(count)]
    return np.array(values, bool).reshape(shape[1], shape[0]).T


def fill_rings(rings: Sequence[Array], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside an odd number of rings: what `polygons` must give back."""
    inside = np.zeros(shape, bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x == next_x:  # a vertical edge flips everything to its right
                inside[min(y, next_y) : max(y, next_y), x:] ^= True
    return inside


def boundary_band(mask: Array, width: int, min_frac: float = 0.0) -> NDArray[np.bool_]:
    """The band of pixels around a mask's boundary, as RefineMask finds it by convolution (Zhang et al., CVPR 2021, section 3.3).

    D counts the pixels of the other label in the square of side 2 width + 1 around a pixel; what lies outside the mask is background.
    The band is D > min_frac (2 width + 1)^2. With 0, the paper's rule, these are the pixels whose Chebyshev distance to the other label
    is at most `width`: dilation less erosion by that square, for max and min pooling alike. RefineMask's code takes 0.1.

    Args:
        mask: (H, W), 0 or 1.
        width: pixels, at least 1.
        min_frac: part of the square, from 0 to below 1.

    Returns:
        (H, W) bool. A full mask has its frame as a band, an empty one nothing.
    """
    label = np.asarray(mask, bool)
    height, side = label.shape[0], 2 * width + 1
    padded = np.pad(label, width)  # first padded, then compared: the outside is background for both labels
    other = np.zeros(label.shape, np.int64)
    for dy in range(side):
        for dx in range(side):
            other += padded[dy : dy + height, dx : dx + label.shape[1]] != label
    band: NDArray[np.bool_] = other > min_frac * side**2
    return band

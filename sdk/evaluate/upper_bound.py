"""What perfect labels near the predicted boundary would be worth: the analysis of BPR's Table 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.evaluate.boundary import Bits, dilate, disk, grow_window, render, union_window, window_of
from sdk.evaluate.inputs import Items, Shape, Truth
from sdk.evaluate.matching import IoUs, accumulate, match_all, pairs
from sdk.evaluate.overlaps import overlaps
from sdk.ops import MaskCrops

WIDTHS = (1, 2, 3, math.inf)  # pixels from the predicted boundary; infinity is the whole mask


def upper_bound(truth: Truth, found: Items, ious: IoUs, max_dets: int) -> dict[str, Any]:
    """Mask AP when the pixels near the predicted boundaries had the labels of the annotation (Tang et al., BPR, CVPR 2021, table 1).

    Each result is compared with the object of its class, no crowd region, that its mask overlaps most. Pixels whose Euclidean distance
    to the nearest pixel of the other predicted label is at most n take that object's label; the picture's border is no boundary.
    Results that overlap no such object stay as they are, and so do scores.

    Args:
        truth: the objects.
        found: the results.
        ious: overlaps of their masks.
        max_dets: results per picture and category that count.

    Returns:
        `rows`: "0px" (the results as they are), "1px", "2px", "3px", "inf" -> the figures of `Curves.summary`.
    """
    partners = _partners(truth.objects, found, ious)
    rows = {"0px": _precision(truth, found, max_dets)}
    for width in WIDTHS:
        rows["inf" if width == math.inf else f"{width}px"] = _precision(truth, corrected(truth, found, partners, width), max_dets)
    return {"rows": rows, "max_dets": max_dets, "corrected": len(partners)}


def corrected(truth: Truth, found: Items, partners: Mapping[int, int], width: float) -> Items:
    """The results with their partners' labels within `width` pixels of the predicted boundary."""
    counts = list(found.counts)
    for image, index in found.by_image().items():
        chosen = np.array([i for i in index.tolist() if i in partners], np.intp)
        if len(chosen):
            shape = truth.shapes[image]
            before = ops.rle_decode([found.counts[i] for i in chosen], shape)
            labels = ops.rle_decode([truth.objects.counts[partners[i]] for i in chosen.tolist()], shape)
            for i, text in zip(chosen.tolist(), ops.rle_encode(_relabel(before, labels, shape, width), shape), strict=True):
                counts[i] = text
    return replace(found, counts=counts, areas=ops.rle_area(counts).astype(np.float64))


def _partners(objects: Items, found: Items, ious: IoUs) -> dict[int, int]:
    """Position of a result -> that of the object it overlaps most."""
    result: dict[int, int] = {}
    for images in pairs(objects, found).values():
        for d, g in images.values():
            wanted = g[~objects.crowd[g]]
            if len(d) and len(wanted):
                overlap = ious(d, wanted)
                best = overlap.argmax(axis=1)
                result |= {int(d[k]): int(wanted[j]) for k, j in enumerate(best) if overlap[k, j] > 0}
    return result


def _relabel(masks: MaskCrops, labels: MaskCrops, shape: Shape, width: float) -> MaskCrops:
    def new_crops() -> Iterator[tuple[tuple[int, int, int, int], Bits]]:
        for n in range(len(masks)):
            if width == math.inf:
                window = union_window(window_of(masks, n), window_of(labels, n))
                yield window, render(labels, n, window)
                continue
            kernel = disk(int(width))
            window = grow_window(window_of(masks, n), int(width) + 1, shape)  # what is farther has no foreground within reach
            mask = render(masks, n, window)
            near = dilate(mask, kernel) & dilate(1 - mask, kernel)
            yield window, np.where(near, render(labels, n, window), mask)

    crops = list(new_crops())
    sizes: NDArray[np.int64] = np.cumsum([0] + [crop.size for _, crop in crops], dtype=np.int64)
    boxes = np.array([window for window, _ in crops], np.int32)
    return MaskCrops(boxes, sizes, np.concatenate([crop.reshape(-1) for _, crop in crops]))


def _precision(truth: Truth, found: Items, max_dets: int) -> dict[str, Any]:
    ious = overlaps("segm", truth.objects, found, truth.shapes, 0.0)
    matches = match_all(truth.objects, found, found.areas, ious, max_dets=max_dets)
    return accumulate(matches, sorted(truth.names)).summary(truth.names)

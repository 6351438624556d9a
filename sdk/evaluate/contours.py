"""How well contours agree: RefineMask's F over objects, and BPR's AF over hits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sdk import ops
from sdk.evaluate.boundary import Window, contour_f, grow_window, render, union_window, window_of
from sdk.evaluate.inputs import Items, Shape, Truth
from sdk.evaluate.matching import THRESHOLDS, IoUs, Matches, pairs

_Pair = tuple[int, int]  # positions of a result and an object


def f_npx(truth: Truth, found: Items, ious: IoUs, radii: Sequence[int]) -> dict[str, Any]:
    """The boundary F of RefineMask's evaluation tool (Zhang et al., CVPR 2021, appendix).

    For every object that is no crowd region the result of its class with the highest mask IoU, whatever its score; where that is at
    least 0.5, the F of the two masks inside the object's box enlarged by half its size on every side. One result may serve two objects.

    Args:
        truth: the objects.
        found: the results.
        ious: overlaps of their masks.
        radii: tolerances in pixels.

    Returns:
        "F1px" and so on: means over these objects, NaN without any; `per_class`, category name -> the same with the first radius;
        `pairs`, how many.
    """
    objects = truth.objects
    chosen: list[_Pair] = []
    for images in pairs(objects, found).values():
        for d, g in images.values():
            ranked, wanted = np.sort(d), g[~objects.crowd[g]]  # in the file's order: of equal IoUs the first result counts
            if len(ranked) and len(wanted):
                overlap = ious(ranked, wanted)
                best = overlap.argmax(axis=0)
                chosen += [(int(ranked[k]), int(wanted[j])) for j, k in enumerate(best) if overlap[k, j] >= THRESHOLDS[0]]
    windows = {pair: _around(objects.boxes[pair[1]], truth.shapes[int(objects.images[pair[1]])]) for pair in chosen}
    windows = {pair: (x1, y1, x2, y2) for pair, (x1, y1, x2, y2) in windows.items() if x2 - x1 > 1 and y2 - y1 > 1}
    values = _measure(truth, found, windows, windows, tuple(radii))
    by_class: dict[int, list[float]] = {}
    for (_, position), fs in values.items():
        by_class.setdefault(int(objects.categories[position]), []).append(fs[0])
    return {
        **{f"F{radius}px": _mean([fs[i] for fs in values.values()]) for i, radius in enumerate(radii)},
        "per_class": {name: _mean(by_class.get(c, [])) for c, name in sorted(truth.names.items())},
        "pairs": len(values),
    }


def average_f(truth: Truth, found: Items, matches: Mapping[int, Sequence[Matches]], radii: Sequence[int]) -> dict[str, Any]:
    """BPR's AF (Tang et al., CVPR 2021, section 4.1): the F of hits, averaged over the IoU thresholds.

    At every threshold the mean F of all hits of COCO's matching, pooled over classes and pictures; then the mean over the thresholds
    that have a hit. The paper's tolerance is 1 pixel; its figures are these times 100.

    Args:
        truth: the objects.
        found: the results.
        matches: of the masks.
        radii: tolerances in pixels.

    Returns:
        `AF`, with 1 pixel; "AF3px" and so on for other radii; `per_class`, category name -> that class's figure of the first radius;
        `class_AF`, the mean of these; `hits` at IoU 0.5.
    """
    hits: dict[int, list[list[_Pair]]] = {}  # category -> T lists
    for category, entries in matches.items():
        rows: list[list[_Pair]] = [[] for _ in THRESHOLDS]
        for entry in entries:
            t, k = np.nonzero((entry.matched[:, 0] >= 0) & ~entry.ignored[:, 0])  # objects of any size
            for threshold, position in zip(t.tolist(), k.tolist(), strict=True):
                rows[threshold].append((int(entry.found[position]), int(entry.objects[entry.matched[threshold, 0, position]])))
        hits[category] = rows
    values = _measure(truth, found, sorted({pair for rows in hits.values() for row in rows for pair in row}), {}, tuple(radii))

    def mean_f(rows: Iterable[list[_Pair]], i: int) -> float:
        return _mean([_mean([values[pair][i] for pair in row]) for row in rows if row])

    pooled = [[pair for rows in hits.values() for pair in rows[t]] for t in range(len(THRESHOLDS))]
    per_class = {name: mean_f(hits.get(c, []), 0) for c, name in sorted(truth.names.items())}
    return {
        **{"AF" if radius == 1 else f"AF{radius}px": mean_f(pooled, i) for i, radius in enumerate(radii)},
        "class_AF": _mean([value for value in per_class.values() if not math.isnan(value)]),
        "per_class": per_class,
        "hits": len(pooled[0]),
    }


def _around(box: Sequence[float], shape: Shape) -> Window:
    """An object's box (x, y, w, h), whole pixels, enlarged by half its size on every side and cut to the picture."""
    x, y, w, h = (int(v) for v in box)
    w, h = max(1, w), max(1, h)
    return max(x - w // 2, 0), max(y - h // 2, 0), min(x + w + w // 2, shape[1]), min(y + h + h // 2, shape[0])


def _measure(
    truth: Truth, found: Items, chosen: Iterable[_Pair], windows: Mapping[_Pair, Window], radii: tuple[int, ...]
) -> dict[_Pair, list[float]]:
    """F per radius of each pair, inside its window if it has one."""
    by_image: dict[int, list[_Pair]] = {}
    for pair in chosen:
        by_image.setdefault(int(truth.objects.images[pair[1]]), []).append(pair)
    values: dict[_Pair, list[float]] = {}
    for image, group in by_image.items():
        shape = truth.shapes[image]
        left = ops.rle_decode([found.counts[d] for d, _ in group], shape)
        right = ops.rle_decode([truth.objects.counts[g] for _, g in group], shape)
        for n, pair in enumerate(group):
            # One pixel more on each side: there the contour of the whole picture and that of the crop are the same.
            tight = grow_window(union_window(window_of(left, n), window_of(right, n)), 1, shape)
            window = windows.get(pair, tight)
            values[pair] = contour_f(render(left, n, window), render(right, n, window), radii)
    return values


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan

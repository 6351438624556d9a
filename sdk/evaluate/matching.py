"""COCO's matching of results with objects and the average precision that follows: what pycocotools' COCOeval computes.

Written anew because several metrics need the matches, and because LVIS asks for other rules and has so many empty pairs of picture and
category that visiting them all costs minutes. The tests hold every figure against pycocotools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.inputs import Items

Floats = NDArray[np.float64]
IoUs = Callable[[NDArray[np.intp], NDArray[np.intp]], Floats]  # positions of D results and G objects -> (D, G)

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)  # T IoUs from which a result can be a hit
RECALLS: Floats = np.linspace(0.0, 1.0, 101)  # R recalls at which precision is read
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # A ranges, pixels


@dataclass(frozen=True)
class Matches:
    """Results and objects of one category in one picture.

    Attributes:
        found: (D,) positions of the results, best score first.
        objects: (G,) positions of the objects.
        scores: (D,).
        matched: (T, A, D) int32, which of the objects a result hits, or -1.
        ignored: (T, A, D) bool, results that count neither as hit nor as miss.
        ignored_objects: (A, G) bool, objects that need not be found.
    """

    found: NDArray[np.intp]
    objects: NDArray[np.intp]
    scores: Floats
    matched: NDArray[np.int32]
    ignored: NDArray[np.bool_]
    ignored_objects: NDArray[np.bool_]


def pairs(objects: Items, found: Items, max_dets: int | None = None) -> dict[int, dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]]]:
    """Category id -> image id -> (positions of its results, best score first and `max_dets` at most; positions of its objects).

    Only pairs that have a result or an object; both ids ascend.
    """
    groups: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for side, items in enumerate((found, objects)):
        for i, key in enumerate(zip(items.categories.tolist(), items.images.tolist(), strict=True)):
            groups.setdefault(key, ([], []))[side].append(i)
    result: dict[int, dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]]] = {}
    for (category, image), (d, g) in sorted(groups.items()):
        ranked = np.array(d, np.intp)
        ranked = ranked[np.argsort(-found.scores[ranked], kind="stable")][:max_dets]
        result.setdefault(category, {})[image] = (ranked, np.array(g, np.intp))
    return result


def match_all(
    objects: Items,
    found: Items,
    areas: Floats,
    ious: IoUs,
    *,
    max_dets: int,
    incomplete: Mapping[int, Set[int]] | None = None,
) -> dict[int, list[Matches]]:
    """Matches every picture and category.

    Args:
        objects: what is there; crowd regions may be hit many times and need not be found.
        found: the results.
        areas: (len(found),) float64, pixels, for the ranges of size.
        ious: the overlaps of results and objects of one picture.
        max_dets: results per picture and category that count.
        incomplete: image id -> categories whose objects were not all annotated: results that hit nothing are no misses (LVIS).

    Returns:
        Category id -> one entry per picture that has results or objects of it, by image id.
    """
    result: dict[int, list[Matches]] = {}
    for category, images in pairs(objects, found, max_dets).items():
        for image, (d, g) in images.items():
            lenient = incomplete is not None and category in incomplete.get(image, ())
            entry = _match(d, g, objects, found.scores[d], areas[d], ious(d, g), lenient)
            result.setdefault(category, []).append(entry)
    return result


def _match(d: NDArray[np.intp], g: NDArray[np.intp], objects: Items, scores: Floats, areas: Floats, ious: Floats, lenient: bool) -> Matches:
    crowd = objects.crowd[g]
    ignored_objects = crowd | _outside(objects.areas[g])  # (A, G)
    matched = _assign(ious, ignored_objects, crowd)  # (T, A, D)
    unmatched = matched < 0
    free = _outside(areas) | lenient  # (A, D)
    hit_ignored = np.zeros(matched.shape, np.bool_)
    t, a, k = np.nonzero(~unmatched)
    hit_ignored[t, a, k] = ignored_objects[a, matched[t, a, k]]
    return Matches(d, g, scores, matched, np.where(unmatched, free, hit_ignored), ignored_objects)


def _outside(areas: Floats) -> NDArray[np.bool_]:
    """(A, n): which areas lie outside each range."""
    low, high = np.array(list(AREAS.values())).T[..., None]  # (A, 1)
    outside: NDArray[np.bool_] = (areas < low) | (areas > high)
    return outside


def _assign(ious: Floats, ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Greedy: each result takes the free object of highest IoU, one that counts before one that is ignored; the last of equal ones.

    Args:
        ious: (D, G), rows by falling score.
        ignored: (A, G).
        crowd: (G,), objects that stay free.

    Returns:
        (T, A, D) int32, column of the object or -1.
    """
    count_areas, count_objects = ignored.shape
    matched = np.full((len(THRESHOLDS), count_areas, len(ious)), -1, np.int32)
    taken = np.zeros((len(THRESHOLDS), count_areas, count_objects), np.bool_)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)
    for d in np.flatnonzero(ious.max(axis=1, initial=0.0) >= limits[0]):
        near = np.flatnonzero(ious[d] >= limits[0])[::-1]  # reversed, as argmax takes the first of equal ones
        values = ious[d, near]
        free = (values >= limits[:, None, None]) & (~taken[:, :, near] | crowd[near])  # (T, A, n)
        regular = free & ~ignored[:, near]
        choice = np.where(regular.any(axis=2, keepdims=True), regular, free)
        best = np.where(choice, values, -1.0).argmax(axis=2)  # (T, A)
        t, a = np.nonzero(choice.any(axis=2))
        chosen = near[best[t, a]]
        matched[t, a, d] = chosen
        taken[t, a, chosen] = True
    return matched


@dataclass(frozen=True)
class Curves:
    """Precision and recall of K categories.

    Attributes:
        categories: K ids.
        precision: (T, R, K, A) float64; -1 where a category has no object of that size.
        recall: (T, K, A) float64, likewise.
    """

    categories: Sequence[int]
    precision: Floats
    recall: Floats

    def summary(self, names: Mapping[int, str]) -> dict[str, Any]:
        """COCO's figures: AP, AP50, AP75, APs, APm, APl, AR, and AP by category name."""
        ranges = list(AREAS)
        every = self.precision[..., 0]  # (T, R, K)
        return {
            "AP": mean_valid(every),
            "AP50": mean_valid(every[np.isclose(THRESHOLDS, 0.5)]),
            "AP75": mean_valid(every[np.isclose(THRESHOLDS, 0.75)]),
            "APs": mean_valid(self.precision[..., ranges.index("small")]),
            "APm": mean_valid(self.precision[..., ranges.index("medium")]),
            "APl": mean_valid(self.precision[..., ranges.index("large")]),
            "AR": mean_valid(self.recall[..., 0]),
            "per_class": {names[c]: mean_valid(every[:, :, k]) for k, c in enumerate(self.categories)},
        }


def accumulate(matches: Mapping[int, Sequence[Matches]], categories: Sequence[int]) -> Curves:
    """Precision over recall of each category, from all its pictures."""
    shape = (len(THRESHOLDS), len(RECALLS), len(categories), len(AREAS))
    precision = np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    for k, category in enumerate(categories):
        entries = matches.get(category, ())
        if not entries:
            continue
        order = np.argsort(-np.concatenate([m.scores for m in entries]), kind="stable")
        hit = np.concatenate([m.matched >= 0 for m in entries], axis=2)[:, :, order]  # (T, A, D)
        ignored = np.concatenate([m.ignored for m in entries], axis=2)[:, :, order]
        wanted = np.concatenate([~m.ignored_objects for m in entries], axis=1).sum(axis=1)  # (A,)
        for a in np.flatnonzero(wanted):
            precision[:, :, k, a], recall[:, k, a] = _curve(hit[:, a] & ~ignored[:, a], ~hit[:, a] & ~ignored[:, a], int(wanted[a]))
    return Curves(categories, precision, recall)


def _curve(hits: NDArray[np.bool_], misses: NDArray[np.bool_], wanted: int) -> tuple[Floats, Floats]:
    """Precision (T, R) at the recalls, and the greatest recall (T,), of results by falling score (T, D)."""
    count = hits.shape[1]
    true, false = hits.cumsum(axis=1).astype(np.float64), misses.cumsum(axis=1).astype(np.float64)
    recall = true / wanted
    precision = true / (false + true + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best precision at this recall or a greater one
    at_recalls = np.zeros((len(hits), len(RECALLS)))
    for t in range(len(hits)):
        position = np.searchsorted(recall[t], RECALLS, side="left")
        at_recalls[t, position < count] = precision[t, position[position < count]]
    return at_recalls, recall[:, -1] if count else np.zeros(len(hits))


def mean_valid(values: Floats) -> float:
    """The mean of what is not -1, or NaN."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan

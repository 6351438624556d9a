"""Average precision under LVIS's rules, and AP*: results of COCO's classes scored with LVIS's finer annotations.

LVIS (Gupta et al., CVPR 2019, section 2.2) is a federated data set: each class is annotated in some pictures only. A picture lists the
classes that are verified to be absent and those of which not every object is annotated; of all others nothing is known unless they
occur.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sdk.errors import InputError
from sdk.evaluate.inputs import Items, Truth, is_id
from sdk.evaluate.matching import accumulate, match_all, mean_valid
from sdk.evaluate.overlaps import overlaps
from sdk.evaluate.synsets import COCO_OF_SYNSET

MAX_DETS = 300  # results per picture that count, over all classes
ABSENT, INCOMPLETE = "neg_category_ids", "not_exhaustive_category_ids"
_FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}  # rare, common, frequent: in how many training pictures a class is


def federated_precision(truth: Truth, found: Items, kind: str, ratio: float) -> dict[str, Any]:
    """COCO's figures under LVIS's rules, as lvis-api has them.

    The best 300 results of a picture count. Results of classes that the picture neither has nor is known to lack are left out. A result
    that hits nothing is no miss when the class is not exhaustively annotated there. There are no crowd regions.

    Args:
        truth: LVIS annotations.
        found: results of their categories.
        kind: "segm", "bbox" or "boundary".
        ratio: depth of Boundary IoU's band.

    Returns:
        As `Curves.summary`, and `APr`, `APc`, `APf`, the means over rare, common and frequent classes, NaN where there are none;
        `scored`, the results that were left.

    Raises:
        InputError: the annotations lack LVIS's fields.
    """
    absent, incomplete = _lists(truth, ABSENT), _lists(truth, INCOMPLETE)
    objects = replace(truth.objects, crowd=np.zeros(len(truth.objects), np.bool_))
    known = {image: set(categories) for image, categories in absent.items()}
    for image, category in zip(objects.images.tolist(), objects.categories.tolist(), strict=True):
        known[image].add(category)
    found = limit(found, MAX_DETS)
    scored = [category in known[image] for image, category in zip(found.images.tolist(), found.categories.tolist(), strict=True)]
    found = found.take(np.flatnonzero(scored))
    areas = found.boxes[:, 2] * found.boxes[:, 3] if kind == "bbox" else found.areas
    ious = overlaps(kind, objects, found, truth.shapes, ratio)
    matches = match_all(objects, found, areas, ious, max_dets=MAX_DETS, incomplete=incomplete)
    categories = sorted(truth.names)
    curves = accumulate(matches, categories)
    frequency = {int(category["id"]): category.get("frequency") for category in truth.categories}
    groups = {key: [k for k, c in enumerate(categories) if frequency[c] == letter] for key, letter in _FREQUENCIES.items()}
    return {
        **curves.summary(truth.names),
        **{key: mean_valid(curves.precision[:, :, group, 0]) for key, group in groups.items()},
        "max_dets": MAX_DETS,
        "images": len(truth.shapes),
        "objects": len(objects),
        "scored": len(found),
    }


def cocofied(truth: Truth, names: Mapping[int, str]) -> Truth:
    """LVIS annotations of COCO's categories, under COCO's ids.

    Categories are found by synset (`COCO_OF_SYNSET`); objects of all others go, and so do the others in the lists of absent and
    incompletely annotated classes. Of the categories those stay that an object or a list names.

    Args:
        truth: LVIS annotations.
        names: COCO category id -> name; the name in LVIS where there is none.

    Raises:
        InputError: the annotations lack LVIS's fields.
    """
    ids: dict[int, int] = {}
    for position, category in enumerate(truth.categories):
        if not isinstance(category.get("synset"), str):
            raise InputError(f"{truth.where}: categories[{position}] needs a text 'synset', as LVIS annotations have it")
        if category["synset"] in COCO_OF_SYNSET:
            ids[int(category["id"])] = COCO_OF_SYNSET[category["synset"]]
    lists = {key: _lists(truth, key) for key in (ABSENT, INCOMPLETE)}
    images = [
        {**image, **{key: [ids[c] for c in sorted(lists[key][int(image["id"])]) if c in ids] for key in lists}} for image in truth.images
    ]
    objects = truth.objects.take(np.flatnonzero([c in ids for c in truth.objects.categories.tolist()]))
    objects = replace(objects, categories=np.array([ids[c] for c in objects.categories.tolist()], np.int64))
    used = set(objects.categories.tolist()).union(*(image[key] for image in images for key in lists))
    categories = [{**category, "id": ids[int(category["id"])]} for category in truth.categories if ids.get(int(category["id"])) in used]
    return Truth(
        where=truth.where,
        shapes=truth.shapes,
        names={category["id"]: names.get(category["id"], str(category["name"])) for category in categories},
        objects=objects,
        images=images,
        categories=categories,
    )


def limit(found: Items, count: int) -> Items:
    """The best `count` results of every picture, in their order; of equal scores the first."""
    kept = [index[np.argsort(-found.scores[index], kind="stable")[:count]] for index in found.by_image().values()]
    return found.take(np.sort(np.concatenate(kept))) if kept else found


def restrict(found: Items, truth: Truth) -> Items:
    """The results of pictures and categories that the annotations have."""
    known = [i in truth.shapes and c in truth.names for i, c in zip(found.images.tolist(), found.categories.tolist(), strict=True)]
    return found.take(np.flatnonzero(known))


def _lists(truth: Truth, key: str) -> dict[int, set[int]]:
    """Image id -> the categories that it lists under a key."""
    result: dict[int, set[int]] = {}
    for position, image in enumerate(truth.images):
        values = image.get(key)
        at = f"{truth.where}: images[{position}]"
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise InputError(f"{at} needs a list {key!r}, as LVIS annotations have it")
        if wrong := [value for value in values if not is_id(value) or value not in truth.names]:
            raise InputError(f"{at}: {key} names categories that are not in the list 'categories': {wrong!r:.60}")
        result[int(image["id"])] = {int(value) for value in values}
    return result

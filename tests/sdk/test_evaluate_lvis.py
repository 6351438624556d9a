"""LVIS's rules and AP* against a slow reading of lvis-api, picture by picture and threshold by threshold."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.evaluate import evaluate
from sdk.evaluate.synsets import COCO_OF_SYNSET
from tests.sdk.worlds import Dicts, decode, federated, rle, world

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

AREAS = {"AP": (0, 1e10), "APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}


def slow_iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    first, second = decode(a), decode(b)
    return float((first & second).sum() / max((first | second).sum(), 1))


def ranked(results: Iterable[dict[str, Any]]) -> Dicts:
    return sorted(results, key=lambda r: r["score"], reverse=True)


def slow_cell(truth: dict[str, Any], results: Dicts, image: dict[str, Any], category: int, threshold: float, area: str) -> Any:
    """Rows (score, hit) of the results that count, and the number of objects to find."""
    low, high = AREAS[area]
    gts = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
    if not gts and category not in image["neg_category_ids"]:
        return [], 0
    gts.sort(key=lambda a: not low <= a["area"] <= high)  # those outside the range come last
    rows, taken = [], set()
    for result in ranked(r for r in results if (r["image_id"], r["category_id"]) == (image["id"], category)):
        best, chosen = threshold, None
        for gt in gts:
            if gt["id"] in taken:
                continue
            if chosen is not None and low <= chosen["area"] <= high and not low <= gt["area"] <= high:
                break
            overlap = slow_iou(result, gt)
            if overlap >= best:
                best, chosen = overlap, gt
        size = int(decode(result).sum())
        if chosen is not None:
            taken.add(chosen["id"])
            if low <= chosen["area"] <= high:
                rows.append((result["score"], True))
        elif low <= size <= high and category not in image["not_exhaustive_category_ids"]:
            rows.append((result["score"], False))
    return rows, sum(low <= a["area"] <= high for a in gts)


def slow_ap(truth: dict[str, Any], results: Dicts, area: str, categories: list[int]) -> float:
    kept: Dicts = []
    for image in truth["images"]:
        kept += ranked(r for r in results if r["image_id"] == image["id"])[:300]
    values = []
    for category in categories:
        for threshold in np.linspace(0.5, 0.95, 10):
            cells = [slow_cell(truth, kept, image, category, threshold, area) for image in sorted(truth["images"], key=lambda i: i["id"])]
            wanted = sum(count for _, count in cells)
            if not wanted:
                continue
            hits = np.array([hit for _, hit in sorted((row for rows, _ in cells for row in rows), key=lambda row: -row[0])], bool)
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            recall = np.cumsum(hits) / wanted
            values.append(np.mean([precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]))
    return float(np.mean(values)) if values else math.nan


def lvis_world(seed: int, **options: Any) -> tuple[dict[str, Any], Dicts]:
    truth, results = world(seed, shape=(72, 96), images=4, objects=5, categories=(1, 4, 9, 12), crowd=0, **options)
    for i, result in enumerate(results):
        result["score"] = 1 - i / 1e3  # different ones: lvis-api leaves the order of equal scores to that of pictures
    return federated(truth, seed), results


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_slow_reading(seed: int) -> None:
    truth, results = lvis_world(seed)
    mine = evaluate(truth, results, metrics=["lvis"])["lvis"]
    ids = [c["id"] for c in truth["categories"]]
    for area in AREAS:
        assert mine[area] == pytest.approx(slow_ap(truth, results, area, ids), nan_ok=True)
    for key in "rcf":
        group = [c["id"] for c in truth["categories"] if c["frequency"] == key]
        assert mine[f"AP{key}"] == pytest.approx(slow_ap(truth, results, "AP", group), nan_ok=True)
    assert mine["AP"] != evaluate(truth, results)["segm"]["AP"]
    assert mine["scored"] < len(results) or seed


def test_three_hundred_results_of_a_picture_count() -> None:
    """Not per class, as with COCO: the best 300 results of one class push all those of another class out."""
    truth, _ = lvis_world(0)
    image = truth["images"][0]["id"]
    first, second = sorted({a["category_id"] for a in truth["annotations"] if a["image_id"] == image})[:2]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] == image]
    objects = [a for a in truth["annotations"] if a["category_id"] == second]
    exact = [{**a, "score": 0.1} for a in objects]
    spam = [{**next(a for a in truth["annotations"] if a["category_id"] == first), "score": 0.9}]
    for count, expected in ((300 - len(exact), 1.0), (300, 0.0)):
        found = evaluate(truth, exact + spam * count, metrics=["lvis"])["lvis"]
        assert found["per_class"][f"class {second}"] == expected


def one_object() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A picture with an object of class 1; a result that finds it; a better one of class 4 that finds nothing."""
    truth, _ = lvis_world(0)
    target = next(a for a in truth["annotations"] if a["area"])
    image = next(i for i in truth["images"] if i["id"] == target["image_id"])
    truth |= {
        "annotations": [{**target, "category_id": 1}],
        "images": [{**image, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
    }
    other = {**target, "category_id": 1, "score": 0.9, "segmentation": rle(np.zeros((72, 96), bool))}
    return truth, {**truth["annotations"][0], "score": 0.5}, other


def test_a_class_that_is_not_exhaustively_annotated_has_no_misses() -> None:
    truth, hit, miss = one_object()
    assert evaluate(truth, [hit, miss], metrics=["lvis"])["lvis"]["AP"] == pytest.approx(0.5)
    truth["images"][0]["not_exhaustive_category_ids"] = [1]
    assert evaluate(truth, [hit, miss], metrics=["lvis"])["lvis"]["AP"] == pytest.approx(1.0)


def test_results_count_where_the_class_is_known_to_be_absent() -> None:
    truth, hit, _ = one_object()
    image = truth["images"][0]
    truth["images"].append({**image, "id": 99})
    stray = {**hit, "image_id": 99, "score": 0.9}
    found = evaluate(truth, [hit, stray], metrics=["lvis"])["lvis"]
    assert (found["AP"], found["scored"]) == (pytest.approx(1.0), 1)
    truth["images"][1]["neg_category_ids"] = [1]
    found = evaluate(truth, [hit, stray], metrics=["lvis"])["lvis"]
    assert (found["AP"], found["scored"]) == (0.5, 2)


def test_boundary_and_box_precision_follow_the_same_rules() -> None:
    truth, hit, miss = one_object()
    miss["bbox"] = [0, 0, 1, 1]
    for name in ("lvis_boundary", "lvis_bbox"):
        assert evaluate(truth, [hit, miss], metrics=[name])[name]["AP"] == pytest.approx(0.5)


# -- AP* ----------------------------------------------------------------------------------------------------------------------------


def test_the_table_names_cocos_80_categories() -> None:
    assert len(COCO_OF_SYNSET) == len(set(COCO_OF_SYNSET.values())) == 80
    assert set(range(1, 91)) - set(COCO_OF_SYNSET.values()) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert [COCO_OF_SYNSET[s] for s in ("person.n.01", "beef.n.01", "bag.n.04", "bag.n.06", "toothbrush.n.01")] == [1, 21, 31, 33, 90]


SYNSETS = {1: "person.n.01", 4: "zebra.n.01", 9: "aerosol_can.n.02", 12: "toothbrush.n.01"}  # 9 is none of COCO's
TO_COCO = {1: 1, 4: 24, 12: 90}


def star_world(seed: int) -> tuple[dict[str, Any], dict[str, Any], Dicts]:
    """COCO annotations, LVIS annotations of the same pictures, results with COCO's ids."""
    fine, results = lvis_world(seed)
    for category in fine["categories"]:
        category["synset"] = SYNSETS[category["id"]]
    names = {1: "person", 24: "zebra", 90: "toothbrush", 2: "bicycle"}
    coco = {**fine, "categories": [{"id": c, "name": name} for c, name in names.items()]}
    coco["annotations"] = [{**a, "category_id": TO_COCO[a["category_id"]]} for a in fine["annotations"] if a["category_id"] in TO_COCO][:5]
    return coco, fine, [{**r, "category_id": TO_COCO.get(r["category_id"], 2)} for r in results]


@pytest.mark.parametrize("seed", range(3))
def test_ap_star_equals_the_slow_reading(seed: int) -> None:
    coco, fine, results = star_world(seed)
    before = copy.deepcopy(fine)
    mine = evaluate(coco, results, metrics=["ap_star", "fnpx"], lvis_annotations=fine)
    remapped = {
        "annotations": [{**a, "category_id": TO_COCO[a["category_id"]]} for a in fine["annotations"] if a["category_id"] in TO_COCO],
        "images": [
            {**i, **{k: [TO_COCO[c] for c in i[k] if c in TO_COCO] for k in ("neg_category_ids", "not_exhaustive_category_ids")}}
            for i in fine["images"]
        ],
    }
    for area in AREAS:
        assert mine["ap_star"][area] == pytest.approx(slow_ap(remapped, results, area, [1, 24, 90]), nan_ok=True)
    assert set(mine["ap_star"]["per_class"]) == {"person", "zebra", "toothbrush"}
    assert mine["ap_star"]["objects"] == len(remapped["annotations"])
    assert fine == before
    same = {**remapped, "categories": coco["categories"]}
    direct = evaluate(same, results, metrics=["fnpx"])["fnpx"]
    assert [mine["fnpx"][k] for k in ("F1px", "F3px", "pairs")] == [direct[k] for k in ("F1px", "F3px", "pairs")]
    assert (mine["fnpx"]["objects_of"], direct["objects_of"]) == ("lvis", "annotations")


def test_categories_that_nothing_names_are_left_out() -> None:
    coco, fine, results = star_world(0)
    fine["annotations"] = [a for a in fine["annotations"] if a["category_id"] != 12]
    for image in fine["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [c for c in image[key] if c != 12]
    assert set(evaluate(coco, results, metrics=["ap_star"], lvis_annotations=fine)["ap_star"]["per_class"]) == {"person", "zebra"}
    fine["images"][0]["neg_category_ids"] = [12]
    values = evaluate(coco, results, metrics=["ap_star"], lvis_annotations=fine)["ap_star"]
    assert math.isnan(values["per_class"]["toothbrush"])


def test_pictures_that_lvis_does_not_have_are_left_out() -> None:
    coco, fine, results = star_world(1)
    gone = fine["images"][0]["id"]
    fewer = [r for r in results if r["image_id"] != gone]
    fine["annotations"] = [a for a in fine["annotations"] if a["image_id"] != gone]
    fine["images"] = fine["images"][1:]
    options: dict[str, Any] = {"metrics": ["ap_star", "ap_star_boundary"], "lvis_annotations": fine}
    for name, values in evaluate(coco, results, **options).items():
        assert values["AP"] == evaluate(coco, fewer, **options)[name]["AP"]
        assert values["images"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["images"][0].pop("neg_category_ids"), r"LVIS annotations: images\[0\] needs a list 'neg_category_ids'"),
        (lambda f: f["images"][1].update(not_exhaustive_category_ids="4"), r"images\[1\] needs a list 'not_exhaustive_category_ids'"),
        (lambda f: f["images"][1].update(neg_category_ids=[77]), r"names categories that are not in the list 'categories': \[77\]"),
        (lambda f: f["images"][1].update(neg_category_ids=[[]]), r"names categories that are not in the list 'categories': \[\[\]\]"),
        (lambda f: f["categories"][2].pop("synset"), r"categories\[2\] needs a text 'synset'"),
        (lambda f: (f["images"][0].update(height=73), f.update(annotations=[])), r"image 10 is \(73, 96\) \(h, w\) here and \(72, 96\)"),
    ],
)
def test_what_are_no_lvis_annotations(change: Any, message: str) -> None:
    coco, fine, results = star_world(0)
    fine = copy.deepcopy(fine)
    change(fine)
    with pytest.raises(InputError, match=message):
        evaluate(coco, results, metrics=["ap_star"], lvis_annotations=fine)


def test_ap_star_without_lvis() -> None:
    coco, _, results = star_world(0)
    with pytest.raises(InputError, match="needs lvis_annotations"):
        evaluate(coco, results, metrics=["segm", "ap_star"])

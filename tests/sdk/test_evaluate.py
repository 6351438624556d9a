from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdk import ops
from sdk.errors import InputError
from sdk.evaluate import evaluate, format_table

pytest.importorskip("pycocotools", reason="pycocotools is not installed")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SHAPE = (200, 260)
Dicts = list[dict[str, Any]]


def rectangle(rng: np.random.Generator, side: float) -> tuple[list[float], dict[str, Any]]:
    w, h = (int(v) for v in rng.uniform(0.7, 1.3, 2) * side)
    x, y = int(rng.integers(0, SHAPE[1] - w)), int(rng.integers(0, SHAPE[0] - h))
    return [x, y, w, h], segmentation(x, y, w, h)


def segmentation(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((1, *SHAPE), bool)
    mask[0, max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return {"size": list(SHAPE), "counts": ops.rle_encode(ops.dense_to_crops(mask), SHAPE)[0].decode()}


def world(seed: int = 0, images: int = 4, objects: int = 12, crowd: bool = True) -> tuple[dict[str, Any], Dicts]:
    """Rectangles of three sizes and two classes, and results that are shifted, missed, doubled or of the wrong class."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": 10 + i, "height": SHAPE[0], "width": SHAPE[1], "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [],
    }
    results: Dicts = []
    for image in truth["images"]:
        for _ in range(objects):
            (x, y, w, h), rle = rectangle(rng, float(rng.choice([14, 60, 120])))
            category = int(rng.choice([3, 8]))
            common = {"image_id": image["id"], "category_id": category}
            iscrowd = int(crowd and rng.random() < 0.1)
            number = len(truth["annotations"])  # begins with 0, which pycocotools alone would never match
            truth["annotations"].append(
                {**common, "id": number, "bbox": [x, y, w, h], "area": w * h, "segmentation": rle, "iscrowd": iscrowd}
            )
            for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
                dx, dy = (int(v) for v in rng.normal(0, 0.08, 2) * w)
                guess = {
                    **common,
                    "score": float(rng.random()),
                    "bbox": [x + dx, y + dy, w, h],
                    "segmentation": segmentation(x + dx, y + dy, w, h),
                }
                results.append(guess if rng.random() < 0.9 else {**guess, "category_id": 11 - category})
    return truth, results


def by_pycocotools(truth: dict[str, Any], results: Dicts, kind: str) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        for annotation in gt.dataset["annotations"]:
            annotation["id"] += 1
        gt.createIndex()
        # Without the boxes, pycocotools takes the area of a result from its mask, as for masks it should be.
        given = [{k: v for k, v in r.items() if k != ("bbox" if kind == "segm" else "segmentation")} for r in results]
        run = COCOeval(gt, gt.loadRes(copy.deepcopy(given)), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_figures_equal_pycocotools(kind: str, seed: int) -> None:
    truth, results = world(seed)
    mine = evaluate(truth, results)[kind]
    stats = by_pycocotools(truth, results, kind)
    theirs = [stats[i] for i in (0, 1, 2, 3, 4, 5, 8)]
    np.testing.assert_allclose([mine[key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")], theirs, atol=1e-12)
    assert 0.1 < mine["AP"] < 0.95
    assert np.mean(list(mine["per_class"].values())) == pytest.approx(mine["AP"])
    assert list(mine["per_class"]) == ["cat", "dog"]
    assert (mine["images"], mine["results"], mine["max_dets"]) == (4, len(results), 100)


def perfect(truth: dict[str, Any]) -> Dicts:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: a[key] for key in keys}, "score": 0.5 + i / 1e4} for i, a in enumerate(truth["annotations"]) if not a["iscrowd"]]


def test_perfect_results_score_one() -> None:
    truth, _ = world(1)
    for values in evaluate(truth, perfect(truth)).values():
        assert [values[key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")] == [1.0] * 7


def test_the_limit_counts_for_every_figure() -> None:
    """More objects of one class in a picture than COCO's limit of 100."""
    truth, _ = world(2, images=1, objects=300, crowd=False)
    results = perfect(truth)
    assert evaluate(truth, results, max_dets=300)["segm"]["AP"] == 1.0
    limited = evaluate(truth, results, max_dets=100)["segm"]
    assert limited["AR"] == pytest.approx(np.mean([100 / sum(a["category_id"] == c for a in truth["annotations"]) for c in (3, 8)]))
    for key in ("AP", "AP50", "AP75", "AR"):
        assert 0.5 < limited[key] < 0.8
    assert evaluate(truth, results, max_dets=1)["segm"]["AP"] < 0.05


def test_no_results_score_zero() -> None:
    truth, _ = world(3)
    for values in evaluate(truth, []).values():
        assert [values[key] for key in ("AP", "AP50", "AP75", "AR")] == [0.0] * 4
        assert values["results"] == 0


def test_nothing_to_find_is_not_a_number() -> None:
    truth, _ = world(3)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 96 * 96 and a["category_id"] == 3]
    values = evaluate(truth, perfect(truth))["segm"]
    assert math.isnan(values["APs"])
    assert math.isnan(values["per_class"]["dog"])
    assert (values["APl"], values["per_class"]["cat"]) == (1.0, 1.0)
    assert format_table({"segm": values}).count(" -") >= 3


def test_inputs_are_left_alone() -> None:
    truth, results = world(0)
    before = copy.deepcopy((truth, results))
    evaluate(truth, results)
    assert (truth, results) == before


def test_files_and_a_quiet_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = world(0)
    (tmp_path / "a.json").write_text(json.dumps(truth))
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert evaluate(tmp_path / "a.json", tmp_path / "r.json") == evaluate(truth, results)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 99}, "result 1 is of image 99, which the annotations do not have"),
        ({"category_id": 4}, r"result 1 is of category 4; the annotations have \[3, 8\]"),
        ({"score": float("nan")}, "result 1: score must be a finite number"),
        ({"score": None}, "result 1: score must be"),
        ({"score": ...}, "result 1 needs image_id, category_id and score"),
        ({"bbox": [1, 2, 3]}, "result 1: box AP needs a bbox of four numbers"),
        ({"bbox": ...}, "result 1: box AP needs a bbox"),
        ({"segmentation": ...}, "result 1: mask AP needs a segmentation"),
        ({"segmentation": {"size": [1, 1], "counts": "1"}}, "result 1: segmentation of a picture of size"),
        ({"segmentation": {"size": list(SHAPE), "counts": "zzz"}}, "result 1"),
    ],
)
def test_malformed_results_are_named(changes: dict[str, Any], message: str) -> None:
    truth, results = world(0)
    results[1] = {key: value for key, value in {**results[1], **changes}.items() if value is not ...}
    with pytest.raises(InputError, match=message):
        evaluate(truth, results)


@pytest.mark.parametrize(
    ("annotations", "results", "options", "message"),
    [
        ({}, [], {}, "need a list 'images'"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, [], {}, r"images\[0\] needs integers"),
        ({"images": [], "annotations": [{"id": 1}], "categories": []}, [], {}, r"annotations\[0\] lacks image_id"),
        (None, {"results": []}, {}, "results are a list"),
        (None, [], {"iou_types": ["keypoints"]}, "iou_types must be among segm, bbox"),
        (None, [], {"max_dets": 0}, "max_dets must be a positive number"),
        (None, ["x"], {}, "results are a list of objects"),
    ],
)
def test_bad_arguments(annotations: Any, results: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(world(0)[0] if annotations is None else annotations, results, **options)


def test_kinds_that_all_results_have() -> None:
    truth, results = world(0)
    assert list(evaluate(truth, results, iou_types=None)) == ["segm", "bbox"]
    del results[2]["bbox"]
    assert list(evaluate(truth, results, iou_types=None)) == ["segm"]
    del results[3]["segmentation"]
    with pytest.raises(InputError, match="neither all results have a segmentation nor all a bbox"):
        evaluate(truth, results, iou_types=None)


def test_polygons_are_accepted() -> None:
    truth, _ = world(1)
    results = perfect(truth)
    for entry in (*truth["annotations"], *results):
        x, y, w, h = entry["bbox"]
        if not entry.get("iscrowd"):
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    assert evaluate(truth, results, iou_types=["segm"])["segm"]["AP"] == 1.0


def test_table_lists_classes_when_there_are_several() -> None:
    truth, results = world(0)
    lines = format_table(evaluate(truth, results)).splitlines()
    assert lines[0].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    assert [line.split()[0] for line in lines[1:3]] == ["mask", "box"]
    assert [line.split()[0] for line in lines[-2:]] == ["cat", "dog"]


def test_boxes_of_no_place_and_run_lengths_of_no_mask_are_refused() -> None:
    truth, results = world(0)
    results[0]["bbox"] = [math.nan] * 4
    with pytest.raises(InputError, match="result 0"):
        evaluate(truth, results)
    truth, results = world(0)
    image = truth["images"][0]
    truth["annotations"][0] |= {
        "image_id": image["id"],
        "segmentation": {"size": [image["height"], image["width"]], "counts": "^L@L<:Dm5RkM"},
    }
    with pytest.raises(InputError, match=r"annotations\[0\]"):
        evaluate(truth, results)


HUGE = 10**400  # JSON has numbers that no float holds


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("images", None, r"images\[1\] must be an object, got NoneType"),
        ("images", {"height": None}, r"images\[1\] needs integers 'id', 'height' and 'width'"),
        ("images", {"height": HUGE}, r"images\[1\] needs integers"),
        ("images", {"width": 2**40}, r"images\[1\]: a picture has from 1 to \d+ pixels, got 200 x"),
        ("images", {"height": 0}, r"images\[1\]: a picture has from 1"),
        ("images", {"id": [10]}, r"images\[1\] needs integers"),
        ("images", {"id": 10}, r"images\[1\]: the id 10 is that of an image before"),
        ("categories", {"id": "8"}, r"categories\[1\] needs an integer 'id' and a text 'name'"),
        ("categories", {"name": None}, r"categories\[1\] needs an integer 'id' and a text 'name'"),
        ("categories", {"id": 3}, r"categories\[1\]: the id 3 is that of a category before"),
        ("annotations", 7, r"annotations\[1\] must be an object, got int"),
        ("annotations", {"image_id": 99}, r"annotations\[1\] is of image 99, which is not in the list 'images'"),
        ("annotations", {"image_id": {}}, r"annotations\[1\] is of image {}"),
        ("annotations", {"category_id": None}, r"annotations\[1\] is of category None, which is not in the list 'categories'"),
        ("annotations", {"area": None}, r"annotations\[1\]: area must be a number of pixels, got None"),
        ("annotations", {"area": HUGE}, r"annotations\[1\]: area must be a number of pixels, got 1000"),
        ("annotations", {"area": -1}, r"annotations\[1\]: area must be"),
        ("annotations", {"bbox": None}, r"annotations\[1\]: bbox must be four numbers, got None"),
        ("annotations", {"bbox": [1, 2, 3, HUGE]}, r"annotations\[1\]: bbox must be four numbers"),
        ("annotations", {"iscrowd": "yes"}, r"annotations\[1\]: iscrowd must be 0 or 1, got 'yes'"),
        ("annotations", {"iscrowd": [0]}, r"annotations\[1\]: iscrowd must be 0 or 1"),
        ("annotations", {"segmentation": None}, r"annotations\[1\]: segmentation must be run lengths or polygons"),
        ("annotations", {"segmentation": {"size": None, "counts": "1"}}, r"annotations\[1\]: segmentation of a picture of size None"),
        ("annotations", {"segmentation": [[HUGE] * 6]}, r"annotations\[1\]: a polygon is a flat list of numbers"),
        ("annotations", {"segmentation": [[1, 2, 3, 4, 5]]}, r"annotations\[1\]: a polygon is a flat list of at least three"),
        ("results", {"image_id": None}, "result 1 is of image None"),
        ("results", {"image_id": []}, r"result 1 is of image \[\]"),
        ("results", {"category_id": {}}, "result 1 is of category {}"),
        ("results", {"score": HUGE}, "result 1: score must be a finite number"),
        ("results", {"score": True}, "result 1: score must be a finite number"),
        ("results", {"bbox": [1, 2, 3, HUGE]}, "result 1: box AP needs a bbox of four numbers"),
        ("results", {"bbox": {"x": 1}}, "result 1: box AP needs a bbox of four numbers"),
        ("results", {"segmentation": [[1, 1, 2, 2]]}, "result 1: a polygon is a flat list of at least three"),
    ],
)
def test_values_of_the_wrong_type_are_named(key: str, changes: Any, message: str) -> None:
    truth, results = world(0)
    entries = results if key == "results" else truth[key]
    entries[1] = {**entries[1], **changes} if isinstance(changes, dict) else changes
    with pytest.raises(InputError, match=message) as caught:
        evaluate(truth, results)
    assert len(str(caught.value)) < 200


def test_lines_among_the_polygons_of_an_object_cover_nothing() -> None:
    """Some data sets have polygons of one or two points."""
    truth, _ = world(1, crowd=False)
    results = perfect(truth)
    for entry in truth["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[3, 4], [0, 0, 9, 9], [x, y, x + w, y, x + w, y + h, x, y + h]]
    assert evaluate(truth, results)["segm"]["AP"] == 1.0


def test_an_object_without_polygons_is_empty() -> None:
    truth, _ = world(1, crowd=False)
    results = perfect(truth)
    truth["annotations"][0]["segmentation"] = []
    assert evaluate(truth, results)["segm"]["AP"] < 1.0


def test_categories_of_one_name_are_told_apart() -> None:
    truth, results = world(0)
    truth["categories"][1]["name"] = "cat"
    assert list(evaluate(truth, results)["segm"]["per_class"]) == ["cat (3)", "cat (8)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["segm", "ap"]}, r"metrics must be among segm, bbox, boundary, .*, got \['ap'\]"),
        ({"metrics": "segm"}, "metrics must be a list of names among"),
        ({"metrics": []}, "metrics must be a list of names among"),
        ({"boundary_ratio": 0}, "boundary_ratio must be above 0 and at most 1, got 0"),
        ({"boundary_ratio": float("nan")}, "boundary_ratio must be above 0"),
        ({"boundary_ratio": "2"}, "boundary_ratio must be above 0"),
        ({"radii": ()}, "radii must be whole numbers of pixels from 1 to 100"),
        ({"radii": (1, 2.5)}, "radii must be whole numbers"),
        ({"radii": (0,)}, "radii must be whole numbers"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(*world(0), **options)


def test_every_metric_at_once() -> None:
    """What a table of them looks like, and that the order asked for is the order given."""
    truth, results = world(0)
    names = ["fnpx", "segm", "boundary", "af", "upper_bound", "bbox"]
    found = evaluate(truth, results, metrics=[*names, "segm"])
    assert list(found) == names
    assert found["segm"] == evaluate(truth, results)["segm"]
    lines = format_table(found).splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["AP", "mask", "boundary", "box", "fnpx", "af"]
    assert lines[7].split() == ["upper_bound", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    assert [line.split()[0] for line in lines[8:13]] == ["0px", "1px", "2px", "3px", "inf"]
    assert lines[14].split() == ["F1px", "mask", "AP", "boundary", "AP", "AF", "box", "AP"]
    assert [line.split()[0] for line in lines[15:]] == ["cat", "dog"]


def test_tables_of_many_classes_are_cut() -> None:
    values = {"AP": 0.5, **dict.fromkeys(("AP50", "AP75", "APs", "APm", "APl", "AR"), 0.5), "per_class": {f"c{i}": 0.5 for i in range(150)}}
    lines = format_table({"lvis": values}).splitlines()
    assert lines[-1] == "and 50 more classes; JSON has them all"
    assert len(lines) == 105

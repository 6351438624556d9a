from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdk.errors import InputError
from sdk.images import read_image
from sdk.instances import Instances
from sdk.masks import CropMasks, LogitMasks, MaskSource, RleMasks
from sdk.ops import MaskCrops, dense_to_crops, rle_encode

coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")

SHAPE = (24, 30)
COUNT = 6


def fields(rng: np.random.Generator) -> dict[str, Any]:
    corners = rng.uniform(0, 20, (COUNT, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 9, (COUNT, 2))], 1).astype(np.float32)
    return {"boxes": boxes, "scores": np.linspace(0.9, 0.2, COUNT, dtype=np.float32), "labels": np.array([0, 1, 2, 0, 1, 2])}


def logits(rng: np.random.Generator, boxes: NDArray[np.float32]) -> LogitMasks:
    return LogitMasks(rng.normal(2, 3, (len(boxes), 7, 7)).astype(np.float32), boxes, 0.5)


def crops(source: LogitMasks) -> CropMasks:
    return CropMasks(source.crops(SHAPE))


def rle(source: LogitMasks) -> RleMasks:
    return RleMasks(source.rle(SHAPE))


FORMS: dict[str, Callable[[LogitMasks], MaskSource]] = {"logits": lambda source: source, "crops": crops, "rle": rle}


def make(form: str = "logits", seed: int = 0, **changes: Any) -> Instances:
    rng = np.random.default_rng(seed)
    values = fields(rng)
    source = FORMS[form](logits(rng, values["boxes"]))
    common = {
        "masks": source,
        "shape": SHAPE,
        "names": ("ant", "bee", "cat"),
        "category_ids": (5, 3, 9),
        "speed": {"total": 1.0},
        "path": "a.png",
    }
    return Instances(**values, **{**common, **changes})


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_masks_agree(form: str) -> None:
    reference, instances = make(), make(form)
    np.testing.assert_array_equal(instances.masks, reference.masks)
    assert instances.rle() == reference.rle()
    assert instances.masks.shape == (COUNT, *SHAPE)
    assert instances.masks.dtype == np.bool_
    assert instances.masks.any(axis=(1, 2)).all()
    decoded = coco_mask.decode(instances.rle()).transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded.astype(bool), instances.masks)
    assert (instances.mask_logits is not None) == (form == "logits")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        slice(1, 4),
        slice(None, None, -2),
        [3, 1],
        [],
        np.array([2, 2, -1]),
        np.array([True, False, True, False, False, True]),
        [False] * COUNT,
        np.int64(2),
    ],
    ids=str,
)
def test_indexing_filters_every_field_together(form: str, key: Any) -> None:
    instances = make(form)
    index = np.atleast_1d(np.arange(COUNT)[np.asarray(key, int) if isinstance(key, list) and not key else key])
    chosen = instances[key]
    np.testing.assert_array_equal(chosen.boxes, instances.boxes[index])
    np.testing.assert_array_equal(chosen.scores, instances.scores[index])
    np.testing.assert_array_equal(chosen.labels, instances.labels[index])
    np.testing.assert_array_equal(chosen.masks, instances.masks[index])
    assert chosen.rle() == [instances.rle()[i] for i in index]
    assert (chosen.boxes.dtype, chosen.scores.dtype, chosen.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (chosen.shape, chosen.names, chosen.category_ids, chosen.path) == (SHAPE, instances.names, (5, 3, 9), "a.png")


@pytest.mark.parametrize("key", [COUNT, [0, COUNT], [True] * 5, np.zeros((2, 2), int), 1.5, "a", [0.5]], ids=str)
def test_an_index_that_is_not_there(key: Any) -> None:
    with pytest.raises(IndexError):
        make()[key]


def test_iterating_gives_one_at_a_time() -> None:
    instances = make()
    ones = list(instances)
    assert [len(one) for one in ones] == [1] * COUNT
    np.testing.assert_array_equal(np.concatenate([one.masks for one in ones]), instances.masks)


@pytest.mark.parametrize(
    "empty",
    [
        lambda: make()[[]],
        lambda: Instances([], [], [], shape=SHAPE, masks=MaskCrops.empty()),
        lambda: Instances(np.zeros((0, 4)), np.zeros(0), np.zeros(0), shape=SHAPE, masks=np.zeros((0, *SHAPE), bool)),
        lambda: Instances.from_coco([], SHAPE),
        lambda: Instances.concatenate([make("crops")[[]], make("rle")[[]]]),
    ],
)
def test_nothing_found_is_zero_length_arrays(empty: Callable[[], Instances]) -> None:
    none = empty()
    assert len(none) == 0
    assert (none.boxes.shape, none.boxes.dtype) == ((0, 4), np.float32)
    assert (none.scores.shape, none.scores.dtype) == ((0,), np.float32)
    assert (none.labels.shape, none.labels.dtype) == ((0,), np.int64)
    assert (none.masks.shape, none.masks.dtype) == ((0, *SHAPE), np.bool_)
    assert (none.rle(), none.polygons(), none.to_coco(1), list(none)) == ([], [], [], [])
    assert none.plot(np.zeros((*SHAPE, 3), np.uint8)).any() == np.False_
    assert json.loads(none.to_json())["instances"] == []


def area(ring: NDArray[np.int32]) -> float:
    x, y = ring[:, 0].astype(float), ring[:, 1].astype(float)
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_polygons_have_holes_and_parts() -> None:
    mask = np.zeros((1, *SHAPE), bool)
    mask[0, 2:10, 3:12] = True
    mask[0, 4:7, 5:9] = False
    mask[0, 15:20, 20:25] = True
    parts = Instances([[3, 2, 25, 20]], [1.0], [0], shape=SHAPE, masks=mask).polygons()[0]
    assert [len(part) for part in parts] == [2, 1]
    assert sum(area(ring) for part in parts for ring in part) == mask.sum()


@pytest.mark.parametrize("form", FORMS)
def test_coco_and_back(form: str) -> None:
    instances = make(form)
    results = instances.to_coco(42)
    assert [result["category_id"] for result in results] == [5, 3, 9, 5, 3, 9]
    assert {result["image_id"] for result in results} == {42}
    assert json.loads(json.dumps(results)) == results
    x, y, w, h = results[0]["bbox"]
    np.testing.assert_allclose([x, y, x + w, y + h], instances.boxes[0], rtol=1e-6)
    back = Instances.from_coco(results, SHAPE, names=instances.names, category_ids=(5, 3, 9))
    np.testing.assert_allclose(back.boxes, instances.boxes, rtol=1e-6)
    np.testing.assert_array_equal(back.scores, instances.scores)
    np.testing.assert_array_equal(back.labels, instances.labels)
    np.testing.assert_array_equal(back.masks, instances.masks)


def test_categories_count_from_one_without_ids() -> None:
    instances = make(category_ids=None)
    assert [result["category_id"] for result in instances.to_coco(1)] == [1, 2, 3, 1, 2, 3]
    assert [result["category_id"] for result in instances.to_coco(1, category_ids=[7, 8, 9])] == [7, 8, 9, 7, 8, 9]
    with pytest.raises(InputError, match="2 entries"):
        instances.to_coco(1, category_ids=[7, 8])


def test_coco_run_lengths_polygons_and_boxes() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[4:10, 5:15] = True
    runs = [5 * 24 + 4, 6]
    for _ in range(9):
        runs += [18, 6]
    runs.append(24 * 30 - sum(runs))
    polygon = [5.0, 4.0, 15.0, 4.0, 15.0, 10.0, 5.0, 10.0]
    common = {"category_id": 1, "image_id": 1}
    results = [
        {**common, "segmentation": {"size": list(SHAPE), "counts": runs}},
        {**common, "segmentation": [polygon], "score": 0.5},
        {
            **common,
            "segmentation": {"size": list(SHAPE), "counts": rle_encode(dense_to_crops(mask[None]), SHAPE)[0]},
            "bbox": [5, 4, 10, 6],
        },
    ]
    instances = Instances.from_coco(results, SHAPE)
    for found in instances.masks:
        np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(instances.boxes, [[5, 4, 15, 10]] * 3)
    np.testing.assert_array_equal(instances.scores, np.float32([1, 0.5, 1]))


GOOD = {"category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": {"size": [24, 30], "counts": "`f0"}}  # all background


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"segmentation": {"size": [30, 24], "counts": "`f0"}},
            r"result 1: segmentation of a picture of size \[30, 24\], expected \[24, 30\]",
        ),
        ({"segmentation": {"size": [24, 30], "counts": "`f"}}, "result 1"),
        ({"segmentation": {"size": [24, 30], "counts": "é"}}, "result 1"),
        ({"segmentation": {"size": [24, 30], "counts": [1, 2]}}, "result 1: run lengths must be whole numbers that sum to 720, got sum 3"),
        ({"segmentation": {"size": [24, 30], "counts": [730, -10]}}, "result 1: run lengths"),
        ({"segmentation": {"size": [24, 30], "counts": [719.5, 0.5]}}, "result 1: run lengths"),
        ({"segmentation": {"size": [24, 30]}}, "result 1: segmentation counts must be"),
        ({"segmentation": [[1, 2, 3, 4]]}, "result 1: a polygon"),
        ({"segmentation": [[1, 2, 3, 4, float("nan"), 6]]}, "result 1: a polygon"),
        ({"segmentation": 5}, "result 1: segmentation must be"),
        ({"category_id": 0}, "result 1: category_id 0"),
        ({"category_id": "1"}, "result 1: category_id must be an integer"),
        ({"bbox": [1, 2, 3]}, "result 1: bbox must be 4 finite numbers"),
        ({"bbox": None}, "result 1: bbox"),
        ({"score": float("nan")}, "result 1: score must be 1 finite number"),
        ({"score": "high"}, "result 1: score"),
        ({"segmentation": ...}, "result 1 has no segmentation while others have one"),
    ],
)
def test_malformed_results_are_named(changes: dict[str, Any], message: str) -> None:
    bad = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(InputError, match=message):
        Instances.from_coco([GOOD, bad], SHAPE)


def test_unknown_categories_are_named() -> None:
    with pytest.raises(InputError, match=r"result 0: category_id 1 is none of \[4, 5\]"):
        Instances.from_coco([GOOD], SHAPE, category_ids=[4, 5])
    with pytest.raises(InputError, match="neither bbox nor segmentation"):
        Instances.from_coco([{"category_id": 1}], SHAPE)


@pytest.mark.parametrize("forms", [("logits", "logits"), ("logits", "crops"), ("rle", "crops"), ("rle", "rle")])
def test_concatenate(forms: tuple[str, str]) -> None:
    first, second = make(forms[0], seed=1), make(forms[1], seed=2)
    both = Instances.concatenate([first, second])
    np.testing.assert_array_equal(both.boxes, np.concatenate([first.boxes, second.boxes]))
    np.testing.assert_array_equal(both.masks, np.concatenate([first.masks, second.masks]))
    assert (both.mask_logits is not None) == (forms == ("logits", "logits"))


@pytest.mark.parametrize(
    "parts",
    [lambda: [], lambda: [make(), make("crops", shape=(24, 31))], lambda: [make(), make(names=("x",))], lambda: [make(), make(masks=None)]],
)
def test_concatenate_refuses_what_does_not_fit(parts: Callable[[], list[Instances]]) -> None:
    with pytest.raises(InputError):
        Instances.concatenate(parts())


def test_boxes_without_masks() -> None:
    instances = make(masks=None)
    assert not instances.has_masks
    assert "segmentation" not in instances.to_coco(1)[0]
    assert "segmentation" not in json.loads(instances.to_json())["instances"][0]
    for ask in (lambda: instances.masks, instances.rle, instances.polygons, lambda: instances.crops):
        with pytest.raises(InputError, match="no masks"):
            ask()
    assert instances[1:3].boxes.shape == (2, 4)
    assert instances.plot(np.zeros((*SHAPE, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((COUNT, 5))}, r"boxes must have shape \('N', 4\), got \(6, 5\)"),
        ({"scores": np.zeros(COUNT - 1)}, "scores must have one entry per box: 6 expected, got 5"),
        ({"scores": np.zeros((COUNT, 1))}, "scores must have shape"),
        ({"labels": np.zeros(COUNT)}, "labels must be integers, got float64"),
        ({"scores": ["a"] * COUNT}, "scores must be numbers"),
        ({"masks": np.zeros((COUNT, 30, 24), bool)}, r"masks must be bool of shape \(N, 24, 30\)"),
        ({"masks": np.zeros((COUNT, *SHAPE))}, "masks must be bool"),
        ({"masks": np.zeros((COUNT - 1, *SHAPE), bool)}, "masks must have one entry per box"),
    ],
)
def test_fields_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    values = {**fields(np.random.default_rng(0)), "shape": SHAPE, **changes}
    with pytest.raises(InputError, match=message):
        Instances(**values)


def test_other_names_and_json() -> None:
    instances = make()
    assert instances.xyxy is instances.boxes
    assert instances.confidence is instances.scores
    assert instances.class_id is instances.labels
    assert instances.mask is instances.masks
    assert instances.counts() == {"ant": 2, "bee": 2, "cat": 2}
    assert repr(instances) == "Instances(2 ant, 2 bee, 2 cat; picture 24 x 30)"
    assert instances.class_name(7) == "7"
    values = json.loads(instances.to_json())
    assert values["shape"] == [24, 30]
    assert [entry["name"] for entry in values["instances"]] == ["ant", "bee", "cat"] * 2
    assert values["instances"][1]["segmentation"] == instances.rle()[1]
    assert values["instances"][1]["box"] == instances.boxes[1].tolist()


def test_instances_travel_between_processes() -> None:
    instances = make()
    back = pickle.loads(pickle.dumps(instances))
    np.testing.assert_array_equal(back.masks, instances.masks)
    np.testing.assert_array_equal(back.boxes, instances.boxes)


def test_save_writes_what_plot_draws(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    path = tmp_path / "sub" / "overlay.png"
    make().save(path, picture)
    assert [entry.name for entry in path.parent.iterdir()] == ["overlay.png"]
    np.testing.assert_array_equal(read_image(path).bgr(), make().plot(picture))
    with pytest.raises(InputError, match=r"ends in '\.xyz'"):
        make().save(tmp_path / "overlay.xyz", picture)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sub"]


def test_plot_takes_the_picture_from_the_path(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    plotted = make(path=str(tmp_path / "a.png")).plot()
    np.testing.assert_array_equal(plotted, make().plot(picture, color="rgb"))
    with pytest.raises(InputError, match="do not come from a file"):
        make(path=None).plot()
    with pytest.raises(InputError, match=r"\(24, 30\) pixels \(h, w\), got one of \(30, 24\)"):
        make().plot(picture.transpose(1, 0, 2))

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdk.errors import InputError
from sdk.formats.coco import load_annotations, parse_segmentation, write_results


def write(path: Path, images: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(json.dumps({"images": images, "annotations": [], **more}))
    return path


def test_ids_by_file_name(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.png"}, {"id": 9, "file_name": "train/b.png"}, {"id": 2, "file_name": "val/b.png"}]
    annotations = load_annotations(write(tmp_path / "a.json", images, categories=[{"id": 4, "name": "cat"}]))
    assert annotations.categories == {4: "cat"}
    assert annotations.ids_of(["x/y/a.png", "/data/val/b.png", Path("train/b.png")]) == [5, 2, 9]
    assert annotations.ids_of([]) == []
    with pytest.raises(InputError, match=r"no \(or no single\) entry for x/b.png, c.png; match file names"):
        annotations.ids_of(["x/b.png", "a.png", "c.png"])
    with pytest.raises(InputError, match=r"several pictures match one image entry: a\.png, other/a\.png"):
        annotations.ids_of(["a.png", "other/a.png"])


def test_many_unknown_names_are_cut_short(tmp_path: Path) -> None:
    annotations = load_annotations(write(tmp_path / "a.json", []))
    with pytest.raises(InputError, match=r"9\.png and 15 more"):
        annotations.ids_of([f"{i}.png" for i in range(25)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object with a list 'images'"),
        ("{}", "expected an object with a list 'images'"),
        ("{", "not a JSON file"),
        ('{"images": [{"id": "1", "file_name": "a"}]}', r"images\[0\] needs an integer 'id'"),
        ('{"images": [{"id": 1}]}', r"images\[0\] needs"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}', "two images are called 'a'"),
        ('{"images": [], "categories": [{"id": 1}]}', "categories need 'id' and 'name'"),
    ],
)
def test_what_is_no_annotation_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_annotations(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_annotations(tmp_path / "gone.json")


def test_results_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "r.json"
    write_results(path, [{"image_id": 1, "score": 0.5}])
    assert json.loads(path.read_text()) == [{"image_id": 1, "score": 0.5}]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(path, [{"score": float("nan")}])
    with pytest.raises(TypeError):
        write_results(path, [{"score": object()}])
    assert json.loads(path.read_text()) == [{"image_id": 1, "score": 0.5}]
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]


TRIANGLE = [0, 0, 3, 0, 0, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": None, "counts": "04"}, "segmentation of a picture of size None"),
        ({"size": 4, "counts": "04"}, "segmentation of a picture of size 4"),
        ({"size": [10**400, 4], "counts": "04"}, "segmentation of a picture of size"),
        ({"size": [4, 4], "counts": [10**400]}, "counts must be 1 finite number"),
        ({"size": [4, 4], "counts": None}, "counts must be text or a list of run lengths, got NoneType"),
        ([[10**400, *TRIANGLE[1:]]], "a polygon is a flat list of numbers"),
        ([[1e300, *TRIANGLE[1:]]], "from -100000 to 100000 pixels"),
        ([[None, *TRIANGLE[1:]]], "a polygon is a flat list of numbers"),
        ([[[1], *TRIANGLE[1:]]], "a polygon is a flat list of numbers"),
        ([{}], "a polygon is a flat list of numbers"),
        ([3], "at least three finite x, y pairs"),
        (None, "segmentation must be run lengths or polygons, got NoneType"),
    ],
)
def test_segmentations_of_the_wrong_type(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}"):
        parse_segmentation(value, (4, 4), "here")

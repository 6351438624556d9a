import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sdk.errors import KerfError
from training.data.check import check
from training.data.coco import CocoInstances, DataError


def write(folder: Path, annotations: list[Any], images: list[Any] | None = None, **more: Any) -> Path:
    """One grey picture of 20 x 30 (h, w) with these annotations; returns the annotation file."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), 90, np.uint8)).save(folder / "pictures/a.png")
    images = [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}] if images is None else images
    content = {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "cat"}, {"id": 2, "name": "dog"}], **more}
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


def annotation(segmentation: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 4, "iscrowd": 0, "segmentation": segmentation, **changes}


SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]


def test_all_encodings_of_a_mask_are_read(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F")
    runs = np.diff(np.flatnonzero(np.diff(flat, prepend=flat[0])), prepend=0, append=flat.size).tolist()
    encodings = [SQUARE, {"size": [20, 30], "counts": compressed["counts"].decode()}, {"size": [20, 30], "counts": runs}]
    path = write(tmp_path, [annotation(s, id=i, category_id=2 + 2 * (i % 2)) for i, s in enumerate(encodings, start=1)])
    data = CocoInstances(path, tmp_path / "pictures")
    image, masks, labels = data.load(0)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8
    assert all(np.array_equal(m, mask) for m in masks) and len(masks) == 3
    assert (data.class_names, data.category_ids, labels.tolist()) == (("cat", "dog"), (4, 2), [0, 1, 0])
    assert check(data) == []
    assert data.encoded(0).counts == [compressed["counts"]] * 3  # as run lengths: no bitmaps


def test_crowds_are_known_but_not_learnt(tmp_path: Path) -> None:
    crowd = annotation({"size": [20, 30], "counts": [100, 50, 450]}, id=2, iscrowd=1)
    data = CocoInstances(write(tmp_path, [annotation(SQUARE), crowd]), tmp_path / "pictures")
    assert [a["id"] for a in data.records[0].annotations] == [1]
    assert [a["id"] for a in data.records[0].crowd] == [2]
    assert len(data.load(0)[1]) == 1


PICTURE = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}


@pytest.mark.parametrize(
    ("annotations", "images", "message"),
    [
        ([5], None, r"1 x malformed annotation \(e.g. annotations\[0\]: expected an object, got 5"),
        ([annotation(SQUARE, id="x")], None, r"id must be a whole number, got 'x'"),
        ([annotation(SQUARE, image_id=None)], None, r"image_id must be a whole number, got nothing"),
        ([annotation(SQUARE, category_id=4.0)], None, r"category_id must be a whole number"),
        ([annotation(SQUARE, area="large")], None, r"area must be a number, got 'large'"),
        ([annotation(SQUARE, iscrowd=[1])], None, r"iscrowd must be 0 or 1"),
        ([annotation(None)], None, r"segmentation must be run lengths or polygons, got nothing"),
        ([annotation(SQUARE), annotation(SQUARE)], None, r"1 x duplicate annotation id \(e.g. annotation 1\)"),
        ([annotation(SQUARE, category_id=9)], None, r"1 x unknown category \(e.g. annotation 1: category 9"),
        ([annotation(SQUARE, image_id=7)], None, r"1 x annotation of an unknown picture \(e.g. annotation 1: picture 7"),
        ([annotation(SQUARE, area=0)], None, r"1 x empty mask"),
        ([], [PICTURE, PICTURE], r"1 x duplicate image id \(e.g. 1\)"),
        ([], [PICTURE, []], r"1 x malformed image entry \(e.g. images\[1\]: expected an object"),
        ([], [PICTURE, {**PICTURE, "id": 2, "height": "20"}], r"images\[1\]: height must be a whole number of at least 1, got '20'"),
        ([], [PICTURE, {**PICTURE, "id": 2, "file_name": 3}], r"images\[1\]: it names no file"),
        ([], [PICTURE, {**PICTURE, "id": 2, "file_name": "p" * 5000}], r"1 x missing picture"),
        ([], [PICTURE, {**PICTURE, "id": 2, "file_name": "a.png\0"}], r"1 x missing picture"),
        ([annotation(SQUARE, id=10**400, area=10**400, iscrowd=3)], None, r"iscrowd must be 0 or 1, got 3"),
        (
            [annotation(SQUARE, image_id=2)],
            [PICTURE, {**PICTURE, "id": 2, "file_name": "gone.png"}],
            r"1 x missing picture \(e.g. .*gone.png\); 1 x annotation of a picture that is left out",
        ),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, annotations: list[Any], images: list[Any] | None, message: str) -> None:
    path = write(tmp_path, annotations, images)
    with pytest.raises(DataError, match=message):
        CocoInstances(path, tmp_path / "pictures")
    kept = CocoInstances(path, tmp_path / "pictures", skip_bad=True)
    assert len(kept) == 1 and kept.problems
    assert len(kept.records[0].annotations) == (1 if "duplicate annotation" in message else 0)


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([[5, 5, 15, 5]], "malformed mask"),
        ([[5, 5, 15, 5, 15, 15, 5]], "malformed mask"),
        ([["a", 5, 15, 5, 15, 15]], "malformed mask"),
        ([[1e12, 5, 15, 5, 15, 15]], "malformed mask"),
        ([[10**400, 5, 15, 5, 15, 15]], "malformed mask"),
        ([["5", "5", "15", "5", "15", "15"]], "malformed mask"),
        ([["1"] * 8], "malformed mask"),
        ([[None] * 8], "malformed mask"),
        ([[9e5, 9e5, -9e5, 9e5, -9e5, -9e5]], "malformed mask"),
        ({"size": [20, 30], "counts": [10**400, 600 - 10**400]}, "malformed mask"),
        ({"size": [None, None], "counts": None}, "malformed mask"),
        ([5, 5, 15, 5, 15, 15], "malformed mask"),
        ([{"x": 1}], "malformed mask"),
        ({"size": [20, 30], "counts": [10, 20]}, "malformed mask"),
        ({"size": [20, 30], "counts": [10, "x"]}, "malformed mask"),
        ({"size": [20, 30], "counts": "ab"}, "malformed mask"),
        ({"size": [30, 20], "counts": [600]}, "malformed mask"),
        ({"size": 5, "counts": [600]}, "malformed mask"),
        ({"counts": [600]}, "malformed mask"),
        ({"size": [20, 30]}, "malformed mask"),
        ({"size": [20, 30], "counts": [600]}, "empty mask"),
        ([], "empty mask"),
        ([[5, 5, 5.1, 5, 5.1, 5.1]], "empty mask"),
        ([[-20, 5, -10, 5, -10, 15]], "mask outside the picture"),
        ([[5, 25, 15, 25, 15, 35]], "mask outside the picture"),
    ],
)
def test_bad_masks_are_found_by_the_check(tmp_path: Path, segmentation: Any, kind: str) -> None:
    path = write(tmp_path, [annotation(segmentation), annotation(SQUARE, id=2)])
    data = CocoInstances(path, tmp_path / "pictures")
    findings = check(data)
    assert [(index, f.kind, f.position) for index, f in findings] == [(0, kind, 0)]
    assert "annotation 1" in findings[0][1].where
    data.leave_out(findings)
    assert [a["id"] for a in data.records[0].annotations] == [2]
    assert f"1 x {kind}" in data.summary()
    with pytest.raises(DataError, match=kind):
        data.refuse("here", skip_bad=False)
    assert len(data.load(0)[1]) == 1


def test_masks_over_the_edge_are_cut(tmp_path: Path) -> None:
    data = CocoInstances(write(tmp_path, [annotation([[-5, -5, 10, -5, 10, 10, -5, 10]])]), tmp_path / "pictures")
    assert check(data) == []
    assert data.load(0)[1].sum() == 100


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda data: data[:60], "truncated picture"),
        (lambda data: data[:50] + bytes([data[50] ^ 255]) + data[51:], "corrupt picture"),
        (lambda data: b"", "truncated picture"),
        (lambda data: b"hello", "unusable picture"),
    ],
)
def test_damaged_pictures_are_found_by_the_check(tmp_path: Path, damage: Any, kind: str) -> None:
    data = CocoInstances(write(tmp_path, [annotation(SQUARE)]), tmp_path / "pictures")
    picture = tmp_path / "pictures/a.png"
    picture.write_bytes(damage(picture.read_bytes()))
    findings = check(data)
    assert [(index, f.kind, f.position) for index, f in findings] == [(0, kind, None)]
    data.leave_out(findings)
    with pytest.raises(DataError, match=f"no usable picture: 1 x {kind}"):
        data.refuse("here", skip_bad=True)


def test_a_picture_of_another_size_is_found(tmp_path: Path) -> None:
    data = CocoInstances(write(tmp_path, [], [{**PICTURE, "width": 31}]), tmp_path / "pictures")
    assert [f.kind for _, f in check(data)] == ["picture of another size"]
    with pytest.raises(DataError, match=r"20 x 30 pixels \(h, w\), its annotations say 20 x 31"):
        data.load(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "list 'images'"),
        ('{"images": []}', "list 'annotations'"),
        ('{"images": [], "annotations": {}}', "list 'annotations'"),
        ('{"images": [], "annotations": []}', "list 'categories'"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": "x"}]}', r"categories\[0\] needs"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}', "was there before"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "no usable picture"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        CocoInstances(tmp_path / "a.json", tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KerfError, match=r"none\.json"):
        CocoInstances(tmp_path / "none.json", tmp_path)

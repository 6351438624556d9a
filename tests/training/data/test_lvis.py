import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data.batches import TrainingSet
from training.data.check import check
from training.data.lvis import LvisInstances
from training.data.source import DataError
from training.data.sources import DataOptions, open_source
from training.presets import PRESETS

URL = "http://images.cocodataset.org/{}/{:012d}.jpg"


def write(folder: Path, **changes: Any) -> Path:
    """Two pictures from both of COCO's folders, as LVIS v1 names them; returns the annotation file."""
    images = [
        {
            "id": 9,
            "coco_url": URL.format("train2017", 9),
            "height": 20,
            "width": 30,
            "neg_category_ids": [3],
            "not_exhaustive_category_ids": [1],
        },
        {
            "id": 8,
            "coco_url": URL.format("val2017", 8),
            "height": 20,
            "width": 30,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        },
    ]
    images[0].update(changes)
    for image, where in zip(images, ("train2017", "val2017"), strict=True):
        (folder / where).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / where / f"{image['id']:012d}.jpg")
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 1, "segmentation": square, "area": 100, "bbox": [5, 5, 10, 10]},
        {"id": 2, "image_id": 8, "category_id": 2, "segmentation": square, "area": 100, "bbox": [5, 5, 10, 10]},
    ]
    categories = [
        {"id": i, "name": name, "frequency": f, "synset": f"{name}.n.01"}
        for i, name, f in ((1, "apple", "f"), (2, "yak", "r"), (3, "bat", "c"))
    ]
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations/lvis_v1_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_federated_fields_and_addresses(tmp_path: Path) -> None:
    data = LvisInstances(write(tmp_path), tmp_path)
    assert data.records[0].path == tmp_path / "train2017/000000000009.jpg"
    assert data.records[1].path == tmp_path / "val2017/000000000008.jpg"
    assert data.records[0].neg_category_ids == (3,) and data.records[0].not_exhaustive_category_ids == (1,)
    assert data.frequency == ("f", "r", "c") and data.class_names == ("apple", "yak", "bat")
    assert check(data) == []
    assert data.load(1)[2].tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coco_url": None}, "names no file"),
        ({"coco_url": "nowhere"}, "names no file"),
        ({"neg_category_ids": 5}, "neg_category_ids must be a list"),
        ({"not_exhaustive_category_ids": ["x"]}, "not_exhaustive_category_ids must be a list"),
        ({"coco_url": URL.format("train2017", 77)}, "missing picture"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LvisInstances(write(tmp_path, **change), tmp_path)


def test_a_folder_in_lvis_layout_is_recognised(tmp_path: Path) -> None:
    write(tmp_path)
    source = open_source(DataOptions(data=tmp_path))
    assert isinstance(source, LvisInstances)
    config = PRESETS["lvis-1x"].replace(repeat_threshold=0.9, batch=2)
    data = TrainingSet(source, config)
    assert data.epoch == pytest.approx(2 * (0.9 / 0.5) ** 0.5)  # both categories are in half of the pictures

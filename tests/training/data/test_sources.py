"""From a command line's words to a checked data set: everything bad at once, counted, named, and only that left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.data.test_coco import SQUARE, annotation
from training.data.batches import TrainingSet
from training.data.lvis import LvisInstances
from training.data.source import DataError, FileSource
from training.data.sources import DataOptions, checked_source
from training.distributed import World
from training.presets import SMALL

GOOD = {11, 12, 21}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("malformed mask", {"id": 100, "segmentation": [["5"] * 8]}),
    ("malformed mask", {"id": 101, "segmentation": {"size": [None, None], "counts": [600]}}),
    ("malformed mask", {"id": 102, "segmentation": {"size": [20, 30], "counts": [10**400, 600 - 10**400]}}),
    ("malformed mask", {"id": 103, "segmentation": [[1e6, 1e6, -1e6, 1e6, -1e6, -1e6]]}),
    ("empty mask", {"id": 104, "segmentation": {"size": [20, 30], "counts": [600]}}),
    ("empty mask", {"id": 105, "area": 0}),
    ("mask outside the picture", {"id": 106, "segmentation": [[-20, 5, -10, 5, -10, 15]]}),
    ("duplicate annotation id", {"id": 11}),
    ("unknown category", {"id": 107, "category_id": 9}),
    ("annotation of an unknown picture", {"id": 108, "image_id": 77}),
    ("annotation of a picture that is left out", {"id": 109, "image_id": 5}),
    ("malformed annotation", {"id": "x"}),
    ("malformed annotation", {"id": 110, "area": "large"}),
    ("malformed annotation", {"id": 111, "segmentation": None}),
]


def write(root: Path, name: str = "train") -> None:
    """Three good pictures (the third without objects), one missing, one truncated, one of another size, one twice."""
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 30} for i in (1, 2, 3, 5, 6, 7)]
    for image in images:
        size = (20, 31) if image["id"] == 7 else (20, 30)
        if image["id"] != 5:
            Image.fromarray(np.full(size, 90, np.uint8)).save(root / f"train/{image['id']}.png")
    data = (root / "train/6.png").read_bytes()
    (root / "train/6.png").write_bytes(data[:60])
    images += [images[0], {"id": 8, "file_name": "1.png", "height": "20", "width": 30}]
    annotations = [annotation(SQUARE, id=i, image_id=i // 10) for i in sorted(GOOD)]
    annotations += [{**annotation(SQUARE), **changes} for _, changes in BAD]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "cat"}]}
    (root / f"annotations/{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["train", "lvis_v1_train"])
def test_everything_bad_is_counted_and_only_that_left_out(name: str, tmp_path: Path) -> None:
    write(tmp_path / "set", name)
    out = tmp_path / "run"
    images = tmp_path / "set/train" if name.startswith("lvis") else None
    options = DataOptions(data=tmp_path / "set", images=images, cache=out)
    expected = [kind for kind, _ in BAD] + ["missing picture", "truncated picture", "picture of another size"]
    expected += ["duplicate image id", "malformed image entry"]
    with pytest.raises(DataError, match="pass --skip-bad") as caught:
        checked_source(options, World(), skip_bad=False, jobs=1)
    for kind in set(expected):
        assert f"{expected.count(kind)} x {kind} " in str(caught.value), kind
    listed = (out / "problems.txt").read_text().splitlines()
    assert sorted(line.partition(":")[0] for line in listed) == sorted(expected)

    for _ in range(2):  # the second time from what is remembered
        source, left_out = checked_source(options, World(), skip_bad=True, jobs=1)
        assert isinstance(source, FileSource) and isinstance(source, LvisInstances) == name.startswith("lvis")
        assert sorted(left_out.splitlines()) == sorted(listed)
        assert [r.image_id for r in source.records] == [1, 2, 3]
        assert {a["id"] for r in source.records for a in r.annotations} == GOOD
    batch = TrainingSet(source, SMALL.replace(batch=6)).batch(0)
    assert sorted(set(batch.ids)) == [1, 2, 3]
    assert {i: len(t.labels) for i, t in zip(batch.ids, batch.targets, strict=True)} == {1: 2, 2: 1, 3: 0}

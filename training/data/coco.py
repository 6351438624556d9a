"""COCO-format instances: read, checked before training starts, decoded when needed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import KerfError
from sdk.formats.coco import parse_segmentation
from sdk.images import read_image
from sdk.ops import crops_to_dense, rle_decode


class DataError(KerfError, ValueError):
    """The data set cannot be trained on as it is; the message counts and names what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture and its annotations, masks still encoded."""

    image_id: int
    path: Path
    height: int
    width: int
    annotations: list[dict[str, Any]] = field(repr=False)


class CocoInstances:
    """The pictures of one COCO annotation file.

    Args:
        annotations: path of the JSON file.
        images: folder of the pictures.
        category_ids: categories to learn, in label order; others are an error unless ``skip_bad``.
        skip_bad: leave out what cannot be used (after saying so) instead of stopping.
    """

    def __init__(self, annotations: str | Path, images: str | Path, category_ids: tuple[int, ...], *, skip_bad: bool = False) -> None:
        content = json.loads(Path(annotations).read_text())
        self.label_of = {category: label for label, category in enumerate(category_ids)}
        self.problems: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        pictures = self._pictures(content["images"], Path(images))
        by_image: dict[int, list[dict[str, Any]]] = {i: [] for i in pictures}
        seen: set[int] = set()
        for annotation in content["annotations"]:
            if self._usable(annotation, pictures, seen):
                by_image[annotation["image_id"]].append(annotation)
        if self.problems and not skip_bad:
            raise DataError(f"{annotations}: {self.summary()}; pass --skip-bad to leave these out")
        self.records = [
            Record(image_id=i, path=path, height=image["height"], width=image["width"], annotations=by_image[i])
            for i, (image, path) in pictures.items()
        ]
        if not self.records:
            raise DataError(f"{annotations}: no usable picture")

    def __len__(self) -> int:
        return len(self.records)

    def summary(self) -> str:
        """What was wrong, counted, with examples."""
        return "; ".join(f"{n} x {what} (e.g. {', '.join(self.examples[what])})" for what, n in self.problems.items())

    def _note(self, what: str, where: str) -> None:
        self.problems[what] += 1
        examples = self.examples.setdefault(what, [])
        if len(examples) < 3:
            examples.append(where)

    def _pictures(self, images: list[dict[str, Any]], folder: Path) -> dict[int, tuple[dict[str, Any], Path]]:
        pictures: dict[int, tuple[dict[str, Any], Path]] = {}
        for image in images:
            path = folder / image["file_name"]
            if image["id"] in pictures:
                self._note("duplicate image id", str(image["id"]))
            elif not path.is_file():
                self._note("missing picture", str(path))
            else:
                pictures[image["id"]] = (image, path)
        return pictures

    def _usable(self, annotation: dict[str, Any], pictures: dict[int, Any], seen: set[int]) -> bool:
        name = f"annotation {annotation.get('id')}"
        if annotation["image_id"] not in pictures:
            self._note("annotation of an unknown picture", name)
        elif annotation["id"] in seen:
            self._note("duplicate annotation id", name)
        elif annotation["category_id"] not in self.label_of:
            self._note("unknown category", f"{name}: category {annotation['category_id']}")
        elif annotation.get("area", 1) <= 0:
            self._note("empty mask", name)
        else:
            seen.add(annotation["id"])
            return not annotation.get("iscrowd", 0)
        return False

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Picture (H, W, 3) uint8 RGB, masks (G, H, W) uint8 and labels (G,) int64 of record ``index``."""
        record = self.records[index]
        shape = (record.height, record.width)
        picture = read_image(record.path, alpha="drop")
        if picture.shape != shape:
            raise DataError(f"{record.path}: {picture.shape} pixels, annotations say {shape}")
        counts = [parse_segmentation(a["segmentation"], shape, f"annotation {a['id']}") for a in record.annotations]
        masks = crops_to_dense(rle_decode(counts, shape), shape).view(np.uint8)
        labels = np.array([self.label_of[a["category_id"]] for a in record.annotations], np.int64)
        return picture.rgb(), masks, labels

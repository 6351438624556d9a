"""COCO-format instances: read, checked before training starts, decoded when needed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdk.errors import InputError
from sdk.formats.coco import parse_segmentation, read_json
from sdk.ops import rle_area
from training.data.files import is_file
from training.data.source import DataError, Encoded, FileSource, Finding, Record, inspect_picture, open_picture

__all__ = ["CocoInstances", "DataError", "Record"]


class CocoInstances(FileSource):
    """The pictures of one COCO annotation file.

    Args:
        annotations: path of the JSON file.
        images: folder of the pictures.
        category_ids: categories to learn, in label order; annotations of others are a problem. None = the file's own, in its order.
        skip_bad: leave out what cannot be used (it is counted in ``problems``) instead of raising.

    Raises:
        DataError: no COCO annotations; or something cannot be used and ``skip_bad`` is false; or nothing can be used.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path, category_ids: Sequence[int] | None = None, *, skip_bad: bool = False
    ) -> None:
        content = _read(annotations)
        self.categories = _categories(content, annotations, required=category_ids is None)
        ids = tuple(self.categories) if category_ids is None else tuple(category_ids)
        names = tuple(str(self.categories.get(i, {}).get("name", i)) for i in ids)
        super().__init__(names, ids, f"{_stamp(annotations)} {Path(images)} {ids}")
        pictures, lost = self._pictures(content["images"], Path(images))
        objects, crowds = self._objects(content["annotations"], pictures, lost)
        self.records = [self._record(image, path, objects[i], crowds[i]) for i, (image, path) in pictures.items()]
        self.refuse(os.fspath(annotations), skip_bad=skip_bad)

    def file_name(self, image: Mapping[str, Any]) -> str | None:
        """Path of a picture below the folder of pictures; None when its entry does not say."""
        name = image.get("file_name")
        return name if isinstance(name, str) and name else None

    def _record(self, image: Mapping[str, Any], path: Path, objects: list[dict[str, Any]], crowd: list[dict[str, Any]]) -> Record:
        return Record(image_id=image["id"], path=path, height=image["height"], width=image["width"], annotations=objects, crowd=crowd)

    def _pictures(self, images: list[Any], folder: Path) -> tuple[dict[int, tuple[Mapping[str, Any], Path]], set[int]]:
        """Usable pictures by id, and the ids of those that are not."""
        pictures: dict[int, tuple[Mapping[str, Any], Path]] = {}
        lost: set[int] = set()
        for position, image in enumerate(images):
            wrong = self._wrong_image(image)
            if wrong:
                self.problems.add("malformed image entry", f"images[{position}]: {wrong}")
                if isinstance(image, Mapping) and type(image.get("id")) is int:
                    lost.add(image["id"])
            elif image["id"] in pictures or image["id"] in lost:
                self.problems.add("duplicate image id", str(image["id"]))
            elif not is_file(path := folder / str(self.file_name(image))):
                self.problems.add("missing picture", str(path))
                lost.add(image["id"])
            else:
                pictures[image["id"]] = (image, path)
        return pictures, lost - set(pictures)

    def _wrong_image(self, image: Any) -> str | None:
        """Why an entry of ``images`` cannot be used."""
        if not isinstance(image, Mapping):
            return f"expected an object, got {_short(image)}"
        for key in ("id", "height", "width"):
            if type(image.get(key)) is not int or (key != "id" and image[key] < 1):
                return f"{key} must be a whole number{'' if key == 'id' else ' of at least 1'}, got {_short(image.get(key))}"
        return None if self.file_name(image) else "it names no file"

    def _objects(
        self, annotations: list[Any], pictures: Mapping[int, object], lost: set[int]
    ) -> tuple[dict[int, list[dict[str, Any]]], dict[int, list[dict[str, Any]]]]:
        """Annotations to learn from and crowd regions, both by picture."""
        objects: dict[int, list[dict[str, Any]]] = {i: [] for i in pictures}
        crowds: dict[int, list[dict[str, Any]]] = {i: [] for i in pictures}
        seen: set[int] = set()
        for position, annotation in enumerate(annotations):
            wrong = _wrong_annotation(annotation)
            name = f"annotations[{position}]" if wrong else f"annotation {annotation['id']}"
            if wrong:
                self.problems.add("malformed annotation", f"{name}: {wrong}")
            elif annotation["id"] in seen:
                self.problems.add("duplicate annotation id", name)
            elif annotation["image_id"] in lost:
                self.problems.add("annotation of a picture that is left out", name)
            elif annotation["image_id"] not in pictures:
                self.problems.add("annotation of an unknown picture", f"{name}: picture {annotation['image_id']}")
            elif annotation["category_id"] not in self.label_of:
                self.problems.add("unknown category", f"{name}: category {annotation['category_id']}")
            elif annotation.get("area", 1) <= 0:
                self.problems.add("empty mask", name)
            else:
                seen.add(annotation["id"])
                (crowds if annotation.get("iscrowd", 0) else objects)[annotation["image_id"]].append(annotation)
        return objects, crowds

    @staticmethod
    def inspect(record: Record) -> list[Finding]:
        findings = inspect_picture(record)
        if findings:
            return findings
        shape = (record.height, record.width)
        for position, annotation in enumerate(record.annotations):
            name = f"annotation {annotation['id']}"
            try:
                counts = parse_mask(annotation["segmentation"], shape, name)
            except DataError as error:
                findings.append(Finding("malformed mask", str(error), position))
                continue
            if int(rle_area([counts])[0]) == 0:
                kind = "mask outside the picture" if _outside(annotation["segmentation"], shape) else "empty mask"
                findings.append(Finding(kind, name, position))
        return findings

    def encoded(self, index: int) -> Encoded:
        record = self.records[index]
        shape = (record.height, record.width)
        image = open_picture(record).rgb()
        counts = [parse_mask(a["segmentation"], shape, f"annotation {a['id']}") for a in record.annotations]
        return Encoded(image, counts, self.labels(record))


def parse_mask(value: Any, shape: tuple[int, int], where: str) -> bytes:
    """Compressed run lengths of an annotation's ``segmentation``: polygons, compressed or plain run lengths.

    Polygons that reach over the picture's edge are cut there, as the COCO API does it.

    Raises:
        DataError: malformed, or of another picture size.
    """
    try:
        return parse_segmentation(value, shape, where)
    except InputError as error:
        raise DataError(str(error)) from error


def _outside(segmentation: Any, shape: tuple[int, int]) -> bool:
    """Whether polygons lie wholly outside the picture."""
    if isinstance(segmentation, Mapping) or not len(segmentation):
        return False
    points = np.concatenate([np.reshape(p, (-1, 2)) for p in segmentation])
    low, high = points.min(0), points.max(0)
    return bool((high <= 0).any() or (low >= (shape[1], shape[0])).any())


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except InputError as error:
        raise DataError(str(error)) from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: not a COCO annotation file: expected an object with a list {key!r}")
    return dict(content)


def _categories(content: dict[str, Any], path: str | Path, *, required: bool) -> dict[int, dict[str, Any]]:
    """The file's categories by id, in its order."""
    entries = content.get("categories", [])
    if not isinstance(entries, list) or (required and not entries):
        raise DataError(f"{path}: expected a list 'categories' with at least one entry")
    categories: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get("name"), str):
            raise DataError(f"{path}: categories[{position}] needs a whole number 'id' and a text 'name', got {_short(entry)}")
        if entry["id"] in categories:
            raise DataError(f"{path}: categories[{position}]: the id {entry['id']} was there before")
        categories[entry["id"]] = entry
    return categories


def _wrong_annotation(annotation: Any) -> str | None:
    """Why an entry of ``annotations`` cannot be used, as far as its types go."""
    if not isinstance(annotation, dict):
        return f"expected an object, got {_short(annotation)}"
    for key in ("id", "image_id", "category_id"):
        if type(annotation.get(key)) is not int:
            return f"{key} must be a whole number, got {_short(annotation.get(key))}"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"iscrowd must be 0 or 1, got {_short(annotation['iscrowd'])}"
    if type(annotation.get("area", 1)) not in (int, float):
        return f"area must be a number, got {_short(annotation['area'])}"
    if not isinstance(annotation.get("segmentation"), (list, Mapping)):
        return f"segmentation must be run lengths or polygons, got {_short(annotation.get('segmentation'))}"
    return None


def _short(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60}"


def _stamp(path: str | Path) -> str:
    info = os.stat(path)
    return f"{Path(path).resolve()} {info.st_size} {info.st_mtime_ns}"

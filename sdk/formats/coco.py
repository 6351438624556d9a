"""COCO files: annotations (which picture has which id), and results."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import InputError
from sdk.files import PathLike, write_json
from sdk.formats.rasterize import polygon_mask

_LISTED = 10  # names in an error message
_LARGEST = 2**63


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: missing, unreadable or not JSON.
    """
    try:
        with open(path, "rb") as stream:
            return json.load(stream)
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{os.fspath(path)}: not a JSON file ({error})") from error


def write_results(path: PathLike, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes COCO results, whole or not at all."""
    write_json(path, list(results))


@dataclass(frozen=True)
class Annotations:
    """The parts of a COCO annotation file that prediction needs.

    Attributes:
        path: the file.
        images: picture file name -> id.
        categories: category id -> name; empty when the file has none.
    """

    path: str
    images: dict[str, int]
    categories: dict[int, str]

    def ids_of(self, pictures: Sequence[PathLike]) -> list[int]:
        """Returns the image id of every picture, matched by file name.

        A name without its folders is enough where it is unique; otherwise the folders in the annotations must agree.

        Raises:
            InputError: names that the annotations do not have or cannot tell apart, or two pictures with one id.
        """
        by_name: dict[str, list[str]] = {}
        for name in self.images:
            by_name.setdefault(PurePath(name).name, []).append(name)
        ids: list[int] = []
        unknown: list[str] = []
        for picture in pictures:
            candidates = by_name.get(PurePath(picture).name, [])
            if len(candidates) > 1:
                candidates = [name for name in candidates if _ends_with(picture, name)]
            if len(candidates) == 1:
                ids.append(self.images[candidates[0]])
            else:
                unknown.append(os.fspath(picture))
        if unknown:
            raise InputError(
                f"{self.path}: its images have no (or no single) entry for {_listed(unknown)}; match file names, or leave them out"
            )
        twice = [os.fspath(picture) for picture, i in zip(pictures, ids, strict=True) if Counter(ids)[i] > 1]
        if twice:
            raise InputError(f"{self.path}: several pictures match one image entry: {_listed(twice)}")
        return ids


def load_annotations(path: PathLike) -> Annotations:
    """Reads the images and categories of a COCO annotation file.

    Raises:
        InputError: missing, not JSON, or not COCO annotations.
    """
    values, where = read_json(path), os.fspath(path)
    if not isinstance(values, dict) or not isinstance(values.get("images"), list):
        raise InputError(f"{where}: not a COCO annotation file: expected an object with a list 'images'")
    images: dict[str, int] = {}
    for position, image in enumerate(values["images"]):
        if not isinstance(image, dict) or type(image.get("id")) is not int or not isinstance(image.get("file_name"), str):
            raise InputError(f"{where}: images[{position}] needs an integer 'id' and a 'file_name'")
        if images.setdefault(image["file_name"], image["id"]) != image["id"]:
            raise InputError(f"{where}: two images are called {image['file_name']!r}")
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in values.get("categories", [])}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{where}: categories need 'id' and 'name' ({error!r})") from error
    return Annotations(where, images, categories)


@dataclass(frozen=True)
class ResultFields:
    """COCO results of one picture as arrays.

    Attributes:
        boxes: (N, 4) float32, xyxy, pixels.
        scores: (N,) float32.
        labels: (N,) int64.
        counts: compressed run lengths, or None when no entry has a segmentation.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    counts: list[bytes] | None


def parse_results(results: Sequence[Mapping[str, Any]], shape: tuple[int, int], category_ids: Sequence[int] | None = None) -> ResultFields:
    """Reads the results or annotations of one picture; `Instances.from_coco` says what they may look like.

    Raises:
        InputError: an entry is malformed; its index is named.
    """
    with_mask = ["segmentation" in result for result in results]
    if any(with_mask) and not all(with_mask):
        raise InputError(f"result {with_mask.index(False)} has no segmentation while others have one")
    counts = [parse_segmentation(r["segmentation"], shape, f"result {i}") for i, r in enumerate(results)] if any(with_mask) else None
    labels_of = None if category_ids is None else {category: label for label, category in enumerate(category_ids)}
    labels = np.zeros(len(results), np.int64)
    scores = np.ones(len(results), np.float32)
    boxes = np.zeros((len(results), 4), np.float32)
    tight = None
    for i, result in enumerate(results):
        labels[i] = _label(result.get("category_id"), labels_of, i)
        scores[i] = _numbers(result.get("score", 1.0), 1, f"result {i}: score")[0]
        if "bbox" in result:
            x, y, w, h = _numbers(result["bbox"], 4, f"result {i}: bbox")
            boxes[i] = x, y, x + w, y + h
        elif counts is not None:
            tight = ops.rle_decode(counts, shape).boxes if tight is None else tight
            boxes[i] = tight[i]
        else:
            raise InputError(f"result {i} has neither bbox nor segmentation")
    return ResultFields(boxes, scores, labels, counts)


def parse_segmentation(value: Any, shape: tuple[int, int], where: str) -> bytes:
    """Returns compressed run lengths of a COCO segmentation: compressed or plain run lengths, or a list of polygons.

    Args:
        value: what an annotation or result has under "segmentation".
        shape: height and width of the picture, pixels.
        where: how messages call it.

    Raises:
        InputError: malformed, or of another picture size.
    """
    if isinstance(value, Mapping):
        size = value.get("size")
        if not isinstance(size, (list, tuple, np.ndarray)) or list(size) != list(shape):
            raise InputError(f"{where}: segmentation of a picture of size {size!r:.60}, expected {list(shape)} (h, w)")
        counts = value.get("counts")
        if isinstance(counts, str):
            counts = counts.encode("ascii", "replace")
        if isinstance(counts, (list, tuple)):
            runs = _numbers(counts, len(counts), f"{where}: counts")
            if any(run < 0 or run != int(run) for run in runs) or sum(runs) != shape[0] * shape[1]:
                raise InputError(f"{where}: run lengths must be whole numbers that sum to {shape[0] * shape[1]}, got sum {sum(runs):g}")
            return ops.rle_string(np.asarray(runs, np.uint32))
        if isinstance(counts, bytes):
            _check_counts(counts, shape, where)
            return counts
        raise InputError(f"{where}: segmentation counts must be text or a list of run lengths, got {type(counts).__name__}")
    if isinstance(value, (list, tuple)):
        try:
            mask = polygon_mask(value, shape)
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}: {error}") from error
        return ops.rle_encode(ops.dense_to_crops(mask[None]), shape)[0]
    raise InputError(f"{where}: segmentation must be run lengths or polygons, got {type(value).__name__}")


def _check_counts(counts: bytes, shape: tuple[int, int], where: str) -> None:
    try:
        ops.rle_decode([counts], shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _label(category: Any, labels_of: Mapping[int, int] | None, index: int) -> int:
    if type(category) is not int:
        raise InputError(f"result {index}: category_id must be an integer, got {category!r}")
    if labels_of is None:
        if category < 1:
            raise InputError(f"result {index}: category_id {category}; give category_ids when ids do not start at 1")
        return category - 1
    if category not in labels_of:
        raise InputError(f"result {index}: category_id {category} is none of {list(labels_of)}")
    return labels_of[category]


def _numbers(value: Any, count: int, where: str) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    if not all(is_number(v) for v in values) or len(values) != count:
        raise InputError(f"{where} must be {count} finite number{'s' if count != 1 else ''}, got {value!r:.80}")
    return [float(v) for v in values]


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number; JSON's whole numbers may have more digits than a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return -_LARGEST < value < _LARGEST if isinstance(value, int) else math.isfinite(value)


def _ends_with(path: PathLike, name: str) -> bool:
    parts, tail = PurePath(path).parts, PurePath(name).parts
    return parts[-len(tail) :] == tail


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest

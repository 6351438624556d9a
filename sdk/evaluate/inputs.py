"""Reading what is compared: COCO or LVIS annotations and results, checked value by value before anything native sees them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import BackendError, InputError
from sdk.files import PathLike
from sdk.formats import coco as coco_format
from sdk.formats.rasterize import polygon_points

Shape = tuple[int, int]  # height and width of a picture, pixels

_MAX_PIXELS = 2**32  # of a picture: COCO's run lengths are 32-bit numbers
_MAX_ID = 2**63
_MAX_BOX = 1e9  # pixels


@dataclass(frozen=True, kw_only=True)
class Items:
    """N objects or results.

    Attributes:
        images: (N,) int64, image ids.
        categories: (N,) int64, category ids.
        scores: (N,) float64; 1 for objects.
        boxes: (N, 4) float64, x, y, width, height in pixels, as COCO has them; NaN where there is none.
        counts: N compressed run lengths; empty strings where masks were not asked for.
        areas: (N,) float64, pixels: what the annotation says, or the pixels of a result's mask.
        crowd: (N,) bool, regions of many objects.
    """

    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    counts: list[bytes]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: NDArray[np.integer]) -> Items:
        """The items at these positions, in this order."""
        return Items(
            images=self.images[index],
            categories=self.categories[index],
            scores=self.scores[index],
            boxes=self.boxes[index],
            counts=[self.counts[i] for i in index],
            areas=self.areas[index],
            crowd=self.crowd[index],
        )

    def by_image(self) -> dict[int, NDArray[np.intp]]:
        """Image id -> positions of its items, in order."""
        order = np.argsort(self.images, kind="stable")
        ids, starts = np.unique(self.images[order], return_index=True)
        return dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True)) if len(ids) else {}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Annotations.

    Attributes:
        where: how messages call them.
        shapes: image id -> (h, w).
        names: category id -> name; a name that two categories share is followed by the id.
        objects: the annotated objects.
        images: the images as they came.
        categories: the categories as they came.
    """

    where: str
    shapes: dict[int, Shape]
    names: dict[int, str]
    objects: Items
    images: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]


def load_truth(annotations: PathLike | Mapping[str, Any], *, masks: bool = True, name: str = "annotations") -> Truth:
    """Reads COCO or LVIS annotations.

    Args:
        annotations: a file, or its contents.
        masks: read the segmentations.
        name: how messages call contents that are no file.

    Raises:
        InputError: not COCO annotations; the entry is named.
    """
    if isinstance(annotations, (str, os.PathLike)):
        values, where = coco_format.read_json(annotations), os.fspath(annotations)
    else:
        values, where = annotations, name
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: COCO annotations are an object, got {type(values).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(values.get(key), list):
            raise InputError(f"{where}: COCO annotations need a list {key!r}")
        for position, entry in enumerate(values[key]):
            if not isinstance(entry, Mapping):
                raise InputError(f"{where}: {key}[{position}] must be an object, got {type(entry).__name__}")
    shapes = _read_shapes(values["images"], where)
    names = _read_names(values["categories"], where)
    objects = _read_objects(values["annotations"], shapes, names, where, masks)
    return Truth(where=where, shapes=shapes, names=names, objects=objects, images=values["images"], categories=values["categories"])


def open_results(results: PathLike | Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Returns the results and what messages call them.

    Raises:
        InputError: not a list of objects.
    """
    if isinstance(results, (str, os.PathLike)):
        found, where = coco_format.read_json(results), os.fspath(results)
    else:
        found, where = results, "results"
    if not isinstance(found, Sequence) or not all(isinstance(result, Mapping) for result in found):
        raise InputError(f"{where}: COCO results are a list of objects, got {type(found).__name__}")
    return found, where


def read_results(found: Sequence[Mapping[str, Any]], where: str, truth: Truth, *, masks: bool, boxes: bool) -> Items:
    """Reads results.

    Args:
        found: what `open_results` gave.
        where: how messages call them.
        truth: whose pictures and categories they may be of.
        masks: every result needs a segmentation.
        boxes: every result needs a bbox.

    Raises:
        InputError: of an unknown picture or category, or malformed; the entry is named.
    """
    counts, rows = [], []
    for i, result in enumerate(found):
        at = f"{where}: result {i}"
        rows.append(_result_row(result, at, truth, boxes))
        if masks and "segmentation" not in result:
            raise InputError(f"{at}: mask AP needs a segmentation")
        counts.append(segmentation_counts(result["segmentation"], truth.shapes[rows[-1][0]], at) if masks else b"")
    return Items(
        images=np.array([row[0] for row in rows], np.int64),
        categories=np.array([row[1] for row in rows], np.int64),
        scores=np.array([row[2] for row in rows], np.float64),
        boxes=np.array([row[3] for row in rows], np.float64).reshape(-1, 4),
        counts=counts,
        areas=ops.rle_area(counts).astype(np.float64) if masks else np.full(len(rows), np.nan),
        crowd=np.zeros(len(rows), np.bool_),
    )


def mask_module() -> Any:
    """The mask functions of pycocotools.

    Raises:
        BackendError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise BackendError(f"evaluation needs pycocotools ({error}); pip install pycocotools") from error
    return mask


def segmentation_counts(value: Any, shape: Shape, at: str) -> bytes:
    """Compressed run lengths of a segmentation; polygons as pycocotools fills them.

    Raises:
        InputError: malformed.
    """
    if not isinstance(value, (list, tuple)):
        return coco_format.parse_segmentation(value, shape, at)
    try:
        polygons = [polygon_points(polygon).reshape(-1).tolist() for polygon in value]  # bad ones crash pycocotools
    except ValueError as error:
        raise InputError(f"{at}: {error}") from error
    if not polygons:
        return ops.rle_string(np.array([shape[0] * shape[1]], np.uint32))
    masks = mask_module()
    counts: bytes = masks.merge(masks.frPyObjects(polygons, *shape))["counts"]
    return counts


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a whole number of 64 bits."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(-_MAX_ID <= value < _MAX_ID)


def _read_shapes(images: Sequence[Mapping[str, Any]], where: str) -> dict[int, Shape]:
    shapes: dict[int, Shape] = {}
    for position, image in enumerate(images):
        at = f"{where}: images[{position}]"
        if not all(is_id(image.get(key)) for key in ("id", "height", "width")):
            raise InputError(f"{at} needs integers 'id', 'height' and 'width'")
        number, height, width = int(image["id"]), int(image["height"]), int(image["width"])
        if height < 1 or width < 1 or height * width >= _MAX_PIXELS:
            raise InputError(f"{at}: a picture has from 1 to {_MAX_PIXELS - 1} pixels, got {height} x {width}")
        if number in shapes:
            raise InputError(f"{at}: the id {number} is that of an image before")
        shapes[number] = (height, width)
    return shapes


def _read_names(categories: Sequence[Mapping[str, Any]], where: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for position, category in enumerate(categories):
        at = f"{where}: categories[{position}]"
        if not is_id(category.get("id")) or not isinstance(category.get("name"), str):
            raise InputError(f"{at} needs an integer 'id' and a text 'name'")
        if int(category["id"]) in names:
            raise InputError(f"{at}: the id {category['id']} is that of a category before")
        names[int(category["id"])] = category["name"]
    uses = Counter(names.values())
    return {number: f"{name} ({number})" if uses[name] > 1 else name for number, name in names.items()}


def _read_objects(
    annotations: Sequence[Mapping[str, Any]], shapes: dict[int, Shape], names: dict[int, str], where: str, masks: bool
) -> Items:
    counts = []
    for position, entry in enumerate(annotations):
        at = f"{where}: annotations[{position}]"
        _check_object(entry, at, shapes, names)
        counts.append(_object_counts(entry["segmentation"], shapes[entry["image_id"]], at) if masks else b"")
    return Items(
        images=np.array([entry["image_id"] for entry in annotations], np.int64),
        categories=np.array([entry["category_id"] for entry in annotations], np.int64),
        scores=np.ones(len(annotations)),
        boxes=np.array([list(entry["bbox"]) for entry in annotations], np.float64).reshape(-1, 4),
        counts=counts,
        areas=np.array([entry["area"] for entry in annotations], np.float64),
        crowd=np.array([entry.get("iscrowd", 0) for entry in annotations], np.bool_),
    )


def _check_object(entry: Mapping[str, Any], at: str, shapes: dict[int, Shape], names: dict[int, str]) -> None:
    if missing := [key for key in ("image_id", "category_id", "area", "bbox", "segmentation") if key not in entry]:
        raise InputError(f"{at} lacks {', '.join(missing)}")
    if not is_id(entry["image_id"]) or entry["image_id"] not in shapes:
        raise InputError(f"{at} is of image {entry['image_id']!r:.60}, which is not in the list 'images'")
    if not is_id(entry["category_id"]) or entry["category_id"] not in names:
        raise InputError(f"{at} is of category {entry['category_id']!r:.60}, which is not in the list 'categories'")
    if not coco_format.is_number(entry["area"]) or entry["area"] < 0:
        raise InputError(f"{at}: area must be a number of pixels, got {entry['area']!r:.60}")
    if not _is_box(entry["bbox"]):
        raise InputError(f"{at}: bbox must be four numbers, got {entry['bbox']!r:.60}")
    if entry.get("iscrowd", 0) not in (0, 1):
        raise InputError(f"{at}: iscrowd must be 0 or 1, got {entry['iscrowd']!r:.60}")


def _object_counts(value: Any, shape: Shape, at: str) -> bytes:
    """As `segmentation_counts`; the lines and points that some data sets have among an object's polygons cover nothing."""
    if isinstance(value, (list, tuple)):
        value = [polygon for polygon in value if not isinstance(polygon, (list, tuple)) or len(polygon) not in (2, 4)]
    return segmentation_counts(value, shape, at)


def _result_row(result: Mapping[str, Any], at: str, truth: Truth, boxes: bool) -> tuple[int, int, float, Sequence[float]]:
    """Image id, category id, score, box."""
    if not {"image_id", "category_id", "score"} <= set(result):
        raise InputError(f"{at} needs image_id, category_id and score")
    image, category, score = result["image_id"], result["category_id"], result["score"]
    if not is_id(image) or image not in truth.shapes:
        raise InputError(f"{at} is of image {image!r:.60}, which the annotations do not have")
    if not is_id(category) or category not in truth.names:
        raise InputError(f"{at} is of category {category!r:.60}; the annotations have {_listed(sorted(truth.names))}")
    if not coco_format.is_number(score):
        raise InputError(f"{at}: score must be a finite number, got {score!r:.60}")
    box = result.get("bbox")
    if boxes and not _is_box(box):
        raise InputError(f"{at}: box AP needs a bbox of four numbers, got {box!r:.60}")
    return int(image), int(category), float(score), [float(v) for v in box] if boxes and box is not None else [np.nan] * 4


def _is_box(value: Any) -> bool:
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 4:
        return False
    return all(coco_format.is_number(v) and abs(v) < _MAX_BOX for v in value)


def _listed(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 100 else f"{len(ids)} from {ids[0]} to {ids[-1]}"

"""COCO average precision of results, computed by pycocotools (the extra `eval`)."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import BackendError, InputError
from sdk.files import PathLike
from sdk.formats import coco as coco_format

IOU_TYPES = ("segm", "bbox")
_AREAS = ("all", "small", "medium", "large")  # pycocotools' order: 0, up to 32 x 32, up to 96 x 96, above


def evaluate(
    annotations: PathLike | Mapping[str, Any],
    results: PathLike | Sequence[Mapping[str, Any]],
    *,
    iou_types: Sequence[str] | None = IOU_TYPES,
    max_dets: int = 100,
) -> dict[str, dict[str, Any]]:
    """Measures results against annotations.

    Args:
        annotations: a COCO annotation file, or its contents.
        results: a COCO result file, or its contents.
        iou_types: "segm" for masks, "bbox" for boxes; None for whichever of them all results have.
        max_dets: results per picture and category that count, best scores first. COCO says 100; raise it for crowded pictures.

    Returns:
        IoU type -> `AP` (mean over IoU .50:.05:.95), `AP50`, `AP75`, `APs`, `APm`, `APl` (objects below 32 x 32 pixels, up to
        96 x 96, above), `AR` (recall, mean over the same IoUs), each from 0 to 1 or NaN when there is nothing to find; `per_class`,
        category name -> AP; `images`, `objects`, `results`, counts.

    Raises:
        InputError: a file that is not COCO, results of unknown pictures or categories, or malformed ones.
        BackendError: pycocotools is not installed.
    """
    if unknown := [kind for kind in iou_types or () if kind not in IOU_TYPES]:
        raise InputError(f"iou_types must be among {', '.join(IOU_TYPES)}, got {unknown}")
    if isinstance(max_dets, bool) or not isinstance(max_dets, int) or max_dets < 1:
        raise InputError(f"max_dets must be a positive number, got {max_dets!r}")
    truth = _load_truth(annotations)
    found, where = _load_results(results)
    kinds = _shared_kinds(found, where) if iou_types is None else list(iou_types)
    _check_results(truth, found, where, kinds)
    return {kind: _evaluate(truth, found, kind, max_dets) for kind in kinds}


def format_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the result of `evaluate` as a plain-text table.

    >>> row = {"AP": 0.5, "AP50": 0.8, "AP75": 0.5, "APs": float("nan"), "APm": 0.5, "APl": 0.5, "AR": 0.6}
    >>> print(format_table({"segm": {**row, "per_class": {"cat": 0.5}}}))
               AP   AP50   AP75    APs    APm    APl     AR
    mask    0.500  0.800  0.500      -  0.500  0.500  0.600
    """
    columns = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
    titles = {"segm": "mask", "bbox": "box"}
    lines = [" " * 6 + "".join(f"{name:>7}" for name in columns)]
    lines += [f"{titles[kind]:6}" + "".join(f"{_cell(values[name]):>7}" for name in columns) for kind, values in metrics.items()]
    classes = list(next(iter(metrics.values()))["per_class"]) if metrics else []
    if len(classes) > 1:
        width = max(len(name) for name in classes)
        lines += ["", " " * width + "".join(f"{titles[kind] + ' AP':>9}" for kind in metrics)]
        lines += [f"{name:{width}}" + "".join(f"{_cell(m['per_class'][name]):>9}" for m in metrics.values()) for name in classes]
    return "\n".join(lines)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _load_truth(annotations: PathLike | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(annotations, Mapping):
        values, where = annotations, "annotations"
    else:
        values, where = coco_format.read_json(annotations), os.fspath(annotations)
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: COCO annotations are an object, got {type(values).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(values.get(key), list):
            raise InputError(f"{where}: COCO annotations need a list {key!r}")
    for position, image in enumerate(values["images"]):
        if not all(type(image.get(key)) is int for key in ("id", "height", "width")):
            raise InputError(f"{where}: images[{position}] needs integers 'id', 'height' and 'width'")
    for position, annotation in enumerate(values["annotations"]):
        if missing := [key for key in ("image_id", "category_id", "area", "bbox", "segmentation") if key not in annotation]:
            raise InputError(f"{where}: annotations[{position}] lacks {', '.join(missing)}")
    _check_truth(values, where)
    return dict(values)


def _check_truth(values: Mapping[str, Any], where: str) -> None:
    """Malformed run lengths make pycocotools hang or crash."""
    shapes = {image["id"]: (image["height"], image["width"]) for image in values["images"]}
    for position, annotation in enumerate(values["annotations"]):
        at = f"{where}: annotations[{position}]"
        if annotation["image_id"] in shapes and isinstance(annotation["segmentation"], Mapping):
            coco_format.parse_segmentation(annotation["segmentation"], shapes[annotation["image_id"]], at)


def _load_results(results: PathLike | Sequence[Mapping[str, Any]]) -> tuple[Sequence[Any], str]:
    """Returns the results and what messages call them."""
    if isinstance(results, (str, os.PathLike)):
        found, where = coco_format.read_json(results), os.fspath(results)
    else:
        found, where = results, "results"
    if not isinstance(found, Sequence) or not all(isinstance(result, Mapping) for result in found):
        raise InputError(f"{where}: COCO results are a list of objects, got {type(found).__name__}")
    return found, where


def _shared_kinds(results: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    keys = {"segm": "segmentation", "bbox": "bbox"}
    kinds = [kind for kind in IOU_TYPES if all(keys[kind] in result for result in results)]
    if not kinds:
        raise InputError(f"{where}: neither all results have a segmentation nor all a bbox")
    return kinds


def _check_results(truth: Mapping[str, Any], results: Sequence[Any], where: str, iou_types: Sequence[str]) -> None:
    """Malformed run lengths crash pycocotools, and ids it does not know trip an assertion or vanish; so they are found before."""
    shapes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for i, result in enumerate(results):
        at = f"{where}: result {i}"
        if not {"image_id", "category_id", "score"} <= set(result):
            raise InputError(f"{at} needs image_id, category_id and score")
        if result["image_id"] not in shapes:
            raise InputError(f"{at} is of image {result['image_id']!r}, which the annotations do not have")
        if result["category_id"] not in categories:
            raise InputError(f"{at} is of category {result['category_id']!r}; the annotations have {sorted(categories)}")
        if not isinstance(result["score"], (int, float)) or not math.isfinite(result["score"]):
            raise InputError(f"{at}: score must be a finite number, got {result['score']!r:.60}")
        box = result.get("bbox")
        if "bbox" in iou_types and not (
            isinstance(box, Sequence) and len(box) == 4 and all(isinstance(v, (int, float)) and abs(v) < 1e9 for v in box)
        ):
            raise InputError(f"{at}: box AP needs a bbox of four numbers, got {box!r:.60}")
        if "segm" in iou_types:
            if "segmentation" not in result:
                raise InputError(f"{at}: mask AP needs a segmentation")
            coco_format.parse_segmentation(result["segmentation"], shapes[result["image_id"]], at)


def _evaluate(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], kind: str, max_dets: int) -> dict[str, Any]:
    coco_class, eval_class, mask_area = _pycocotools()
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports progress on standard output
        gt, dt = coco_class(), coco_class()
        # Copies, because pycocotools writes into them; new ids, because it takes an object of id 0 for "no match".
        objects = [{"iscrowd": 0, **annotation, "id": i + 1} for i, annotation in enumerate(truth["annotations"])]
        gt.dataset = {**truth, "annotations": objects}
        gt.createIndex()
        dt.dataset = {
            "images": truth["images"],
            "categories": truth["categories"],
            "annotations": [_detection(result, i + 1, kind, gt, mask_area) for i, result in enumerate(results)],
        }
        dt.createIndex()
        run = eval_class(gt, dt, kind)
        run.params.maxDets = [max_dets]
        run.evaluate()
        run.accumulate()
    # precision: (T IoUs, R recalls, K categories, A areas, M limits); -1 where a category has no object of that size.
    precision, recall = run.eval["precision"][..., 0], run.eval["recall"][..., 0]
    thresholds = run.params.iouThrs
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[np.isclose(thresholds, 0.5), :, :, 0]),
        "AP75": _mean(precision[np.isclose(thresholds, 0.75), :, :, 0]),
        "APs": _mean(precision[:, :, :, _AREAS.index("small")]),
        "APm": _mean(precision[:, :, :, _AREAS.index("medium")]),
        "APl": _mean(precision[:, :, :, _AREAS.index("large")]),
        "AR": _mean(recall[:, :, 0]),
        "max_dets": max_dets,
        "per_class": {str(names[c]): _mean(precision[:, :, k, 0]) for k, c in enumerate(run.params.catIds)},
        "images": len(truth["images"]),
        "objects": sum(not annotation.get("iscrowd", 0) for annotation in truth["annotations"]),
        "results": len(results),
    }


def _detection(result: Mapping[str, Any], number: int, kind: str, gt: Any, mask_area: Any) -> dict[str, Any]:
    """A result as pycocotools wants it; its area is that of what is compared (loadRes would take the box's for masks too)."""
    entry = {key: result[key] for key in ("image_id", "category_id", "score")} | {"id": number, "iscrowd": 0}
    if kind == "bbox":
        x, y, w, h = result["bbox"]
        return {**entry, "bbox": [x, y, w, h], "area": w * h}
    rle = gt.annToRLE({"image_id": result["image_id"], "segmentation": result["segmentation"]})
    return {**entry, "segmentation": rle, "area": float(mask_area(rle))}


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else math.nan


def _pycocotools() -> tuple[Any, Any, Any]:
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BackendError(f"evaluation needs pycocotools ({error}); pip install pycocotools") from error
    return COCO, COCOeval, mask.area

"""Metrics of 200 objects and 200 results on 1024 x 2048 pixels, beside pycocotools and a Boundary AP of full-size masks.

The peer of Boundary AP does what the reference implementation does: it decodes every mask to the full picture, pads and erodes it there,
encodes the boundary, and lets pycocotools match by the lesser of both IoUs. Reading and checking the dictionaries counts for Kerf, COCO's
index for the peers.

    python -m benchmarks.evaluate [--json]
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.ops_paste_rle import SHAPE, blob_logits, street_boxes
from benchmarks.ops_timing import arguments, measure, report
from sdk.evaluate import boundary_distance, evaluate
from sdk.ops import paste_rle, rle_area

RATIO = 0.005  # Cityscapes
IMAGES, OBJECTS, CLASSES = 4, 50, 8
Dicts = list[dict[str, Any]]


def world() -> tuple[dict[str, Any], Dicts]:
    """Objects of a street, and each of them found a little beside its place."""
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "images": [{"id": i, "height": SHAPE[0], "width": SHAPE[1]} for i in range(IMAGES)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)],
        "annotations": [],
    }
    results: Dicts = []
    for image in range(IMAGES):
        boxes, logits = street_boxes(rng, OBJECTS), blob_logits(rng, OBJECTS)
        classes = rng.integers(1, CLASSES + 1, OBJECTS).tolist()
        for entries, shift in ((truth["annotations"], 0.0), (results, 2.0)):
            for counts, category in zip(paste_rle(logits, boxes + np.float32(shift), SHAPE), classes, strict=True):
                entry = {"image_id": image, "category_id": category, "segmentation": {"size": list(SHAPE), "counts": counts.decode()}}
                entries.append({**entry, "score": float(rng.random())} if shift else entry)
    for number, entry in enumerate(truth["annotations"], 1):
        entry |= {"id": number, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": int(rle_area([entry["segmentation"]["counts"]])[0])}
    return truth, results


def by_pycocotools(truth: dict[str, Any], results: Dicts, boundary: bool) -> float:
    """Mask or Boundary AP."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), "segm")
        if boundary:
            run.computeIoU = functools.partial(lesser_iou, run, run.computeIoU)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


def lesser_iou(run: Any, mask_iou: Callable[[int, int], Any], image: int, category: int) -> Any:
    objects, found = run._gts[image, category], run._dts[image, category]
    ious = mask_iou(image, category)
    if not objects or not found:
        return ious
    found = [found[i] for i in np.argsort([-entry["score"] for entry in found], kind="mergesort")][: run.params.maxDets[-1]]
    bands = [[full_size_band(entry["segmentation"]) for entry in entries] for entries in (found, objects)]
    return np.minimum(ious, coco.iou(bands[0], bands[1], [0] * len(objects)))


def full_size_band(segmentation: Any) -> Any:
    padded = np.pad(coco.decode(segmentation), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=boundary_distance(SHAPE, RATIO))
    return coco.encode(np.asfortranarray((padded - eroded)[1:-1, 1:-1]))


def main() -> None:
    options = arguments(__doc__)
    truth, results = world()

    def kerf(metric: str) -> Callable[[], Any]:
        return lambda: evaluate(truth, results, metrics=[metric], boundary_ratio=RATIO)

    for metric in ("segm", "boundary"):
        mine, theirs = kerf(metric)()[metric]["AP"], by_pycocotools(truth, results, metric == "boundary")
        assert abs(mine - theirs) < 1e-12, f"{metric}: {mine} and {theirs}: not the same work"
    tables = {
        "mask AP": {"pycocotools": lambda: by_pycocotools(truth, results, False), "Kerf": kerf("segm")},
        "Boundary AP": {"full-size masks + pycocotools": lambda: by_pycocotools(truth, results, True), "Kerf": kerf("boundary")},
        "other metrics": {f"Kerf {name}": kerf(name) for name in ("af", "fnpx", "upper_bound")},
    }
    rounds = max(3, options.rounds // 5)
    report({title: measure(calls, rounds, next(iter(calls)) if "Kerf" in calls else None) for title, calls in tables.items()}, options.json)


if __name__ == "__main__":
    main()

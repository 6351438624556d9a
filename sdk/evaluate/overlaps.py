"""Overlaps of results and objects of one picture: of masks, boxes, and masks with their boundaries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.evaluate.boundary import boundary_distance, crop_bands
from sdk.evaluate.inputs import Items, Shape, mask_module
from sdk.evaluate.matching import Floats, IoUs


def overlaps(kind: str, objects: Items, found: Items, shapes: Mapping[int, Shape], ratio: float) -> IoUs:
    """IoU as COCO defines it; of crowd regions the part of the result inside.

    Args:
        kind: "segm", "bbox" or "boundary": the lesser of mask IoU and Boundary IoU, of crowd regions the mask IoU.
        objects: G objects.
        found: D results.
        shapes: image id -> (h, w).
        ratio: depth of the boundary as a part of the picture's diagonal.

    Source: Cheng et al., Boundary IoU, CVPR 2021, section 5; crowd regions as its reference implementation does.
    """
    if kind == "bbox":
        return lambda d, g: _iou(found.boxes[d], objects.boxes[g], objects.crowd[g])
    if kind == "segm":
        return _mask_ious(objects, found, shapes)
    outer = _mask_ious(objects, found, shapes)
    inner = _mask_ious(_with_bands(objects, shapes, ratio), _with_bands(found, shapes, ratio), shapes)
    return lambda d, g: np.where(objects.crowd[g], outer(d, g), np.minimum(outer(d, g), inner(d, g)))


def _mask_ious(objects: Items, found: Items, shapes: Mapping[int, Shape]) -> IoUs:
    def ious(d: NDArray[np.intp], g: NDArray[np.intp]) -> Floats:
        sides = [
            [{"size": shapes[int(items.images[i])], "counts": items.counts[i]} for i in index]
            for items, index in ((found, d), (objects, g))
        ]
        return _iou(sides[0], sides[1], objects.crowd[g])

    return ious


def _iou(found: object, objects: object, crowd: NDArray[np.bool_]) -> Floats:
    """(D, G) float64; pycocotools gives a list when a side is empty."""
    values = np.asarray(mask_module().iou(found, objects, crowd.astype(np.uint8).tolist()), np.float64)
    return values.reshape(-1, len(crowd)) if len(crowd) else np.zeros((len(found), 0))  # type: ignore[arg-type]


def _with_bands(items: Items, shapes: Mapping[int, Shape], ratio: float) -> Items:
    """The same items, their masks reduced to the boundaries."""
    counts = list(items.counts)
    for image, index in items.by_image().items():
        shape = shapes[image]
        bands = crop_bands(ops.rle_decode([items.counts[i] for i in index], shape), boundary_distance(shape, ratio))
        for i, text in zip(index, ops.rle_encode(bands, shape), strict=True):
            counts[i] = text
    return Items(**{**vars(items), "counts": counts})

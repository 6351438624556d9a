"""The patch operators by their slow definition, until the core has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.ops import reference_patches as definition
from sdk.ops.crops import MaskCrops, crops_to_dense, dense_to_crops
from sdk.ops.reference import Array

Shape = tuple[int, int]


def check_patches(boxes: Array, instance: Array, scores: Array, shape: Shape, padding: int) -> None:
    """Shapes and dtypes."""
    expected = ((boxes, np.int32, (len(instance), 4)), (instance, np.int32, (len(instance),)), (scores, np.float32, (len(instance),)))
    for array, dtype, size in expected:
        if array.dtype != dtype or array.shape != size:
            raise InputError(f"patches: expected {np.dtype(dtype)} of shape {size}, got {array.dtype} of shape {array.shape}")


def boundary_patches(
    mask_boxes: Array,
    offsets: Array,
    data: Array,
    shape: Shape,
    size: int,
    padding: int,
    threshold: float,
    scheme: str,
    enlarge: float,
    frame: bool,
    pad_small: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Boxes, instance, scores."""
    boxes, instance, scores = [], [], []
    for n, mask in enumerate(crops_to_dense(MaskCrops(mask_boxes, offsets, data), shape)):
        found = definition.boundary_patches(
            mask, size=size, threshold=threshold, scheme=scheme, enlarge=enlarge, frame=frame, pad_small=pad_small
        )
        boxes += [box for box, _ in found]
        scores += [score for _, score in found]
        instance += [n] * len(found)
    return np.array(boxes, np.int32).reshape(-1, 4), np.array(instance, np.int32), np.array(scores, np.float32)


def cut_patches(
    image: Array,
    crops: tuple[Array, Array, Array] | None,
    boxes: Array,
    instance: Array,
    shape: Shape,
    padding: int,
    input_size: int,
    mean: Sequence[float] | NDArray[Any],
    std: Sequence[float] | NDArray[Any],
    swap_channels: bool,
    out: Array | None,
) -> Array:
    """(P, C, S, S) float32."""
    picture = np.broadcast_to(image.reshape(*shape, -1), (*shape, 3))[:, :, :: -1 if swap_channels else 1]
    masks = crops_to_dense(MaskCrops(*crops), shape) if crops else None
    result = out if out is not None else np.empty((len(boxes), 4 if crops else 3, input_size, input_size), np.float32)
    for i, ((x1, y1, x2, y2), n) in enumerate(zip(boxes.tolist(), instance.tolist(), strict=True)):
        mask = masks[n] if masks is not None else None
        result[i] = definition.cut_patch(
            picture, mask, (x1, y1, x2, y2), padding=padding, input_size=input_size, mean=list(mean), std=list(std)
        )
    return result


def merge_patches(
    mask_boxes: Array,
    offsets: Array,
    data: Array,
    boxes: Array,
    instance: Array,
    shape: Shape,
    padding: int,
    values: Array,
    threshold: float,
    logits: bool,
    soft: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32]]:
    """Boxes, offsets, labels and means; crops are tight here, and not yet grown to the patches."""
    masks = crops_to_dense(MaskCrops(mask_boxes, offsets, data), shape)
    all_means = np.zeros(masks.shape, np.float32)
    for n, mask in enumerate(masks):
        chosen = np.flatnonzero(instance == n)
        means, covered = definition.merge_patches(
            mask, [tuple(boxes[i].tolist()) for i in chosen], values[chosen], padding=padding, logits=logits
        )
        masks[n] = np.where(covered & ~np.isnan(means), means > threshold, mask)
        all_means[n] = means
    crops = dense_to_crops(masks)
    cut = [all_means[n, y1:y2, x1:x2].reshape(-1) for n, (x1, y1, x2, y2) in enumerate(crops.boxes.tolist())]
    return crops.boxes, crops.offsets, crops.data, np.concatenate(cut) if cut else np.zeros(0, np.float32)


def patch_uncertainty(boxes: Array, instance: Array, shape: Shape, mask_logits: Array, mask_boxes: Array) -> NDArray[np.float32]:
    """(P,) float32."""
    values = [
        definition.patch_uncertainty((x1, y1, x2, y2), mask_logits[n], mask_boxes[n])
        for (x1, y1, x2, y2), n in zip(boxes.tolist(), instance.tolist(), strict=True)
    ]
    return np.array(values, np.float32)

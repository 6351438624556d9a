"""Private native operators; call them through `sdk.ops`, where they are documented."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Float32 = NDArray[np.float32]
_Floats = Sequence[float] | NDArray[np.floating[Any]]
_Crops = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def check_crops(boxes: NDArray[np.int32], offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> None: ...
def boundary_band(
    boxes: NDArray[np.int32], offsets: NDArray[np.int64], data: NDArray[np.uint8], shape: tuple[int, int], width: int, min_frac: float
) -> _Crops: ...
def boundary_patches(
    mask_boxes: NDArray[np.int32],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    shape: tuple[int, int],
    size: int,
    padding: int,
    threshold: float,
    scheme: str,
    enlarge: float,
    frame: bool,
    pad_small: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32], _Float32]: ...
def check_patches(
    boxes: NDArray[np.int32], instance: NDArray[np.int32], scores: _Float32, shape: tuple[int, int], padding: int
) -> None: ...
def crops_to_dense(
    boxes: NDArray[np.int32], offsets: NDArray[np.int64], data: NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.bool_]: ...
def cut_patches(
    image: NDArray[np.uint8],
    masks: _Crops | None,
    boxes: NDArray[np.int32],
    instance: NDArray[np.int32],
    shape: tuple[int, int],
    padding: int,
    input_size: int,
    mean: _Floats,
    std: _Floats,
    swap_channels: bool,
    out: _Float32 | None,
) -> _Float32: ...
def decode_boxes(deltas: _Float32, boxes: _Float32, size: tuple[int, int], coder_weights: _Floats) -> _Float32: ...
def dense_to_crops(masks: NDArray[np.bool_]) -> _Crops: ...
def merge_patches(
    mask_boxes: NDArray[np.int32],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    boxes: NDArray[np.int32],
    instance: NDArray[np.int32],
    shape: tuple[int, int],
    padding: int,
    values: _Float32,
    threshold: float,
    logits: bool,
    soft: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8], _Float32]: ...
def nms(boxes: _Float32, scores: _Float32, iou_threshold: float, groups: NDArray[np.int64] | None) -> NDArray[np.int64]: ...
def paste_masks(mask_logits: _Float32, boxes: _Float32, shape: tuple[int, int], threshold: float) -> _Crops: ...
def paste_rle(mask_logits: _Float32, boxes: _Float32, shape: tuple[int, int], threshold: float) -> list[bytes]: ...
def patch_uncertainty(
    boxes: NDArray[np.int32], instance: NDArray[np.int32], shape: tuple[int, int], mask_logits: _Float32, mask_boxes: _Float32
) -> _Float32: ...
def polygons(boxes: NDArray[np.int32], offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> list[list[list[NDArray[np.int32]]]]: ...
def preprocess(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    padded: tuple[int, int],
    mean: _Floats,
    std: _Floats,
    swap_channels: bool,
    antialias: bool,
    out: _Float32 | None,
) -> _Float32: ...
def proposals(
    objectness: list[_Float32],
    deltas: list[_Float32],
    anchors: list[_Float32],
    strides: Sequence[float],
    size: tuple[int, int],
    pre_nms: int,
    post_nms: int,
    nms_threshold: float,
    min_size: float,
) -> tuple[_Float32, _Float32]: ...
def rle_encode(boxes: NDArray[np.int32], offsets: NDArray[np.int64], data: NDArray[np.uint8], shape: tuple[int, int]) -> list[bytes]: ...
def rle_decode(counts: list[bytes] | list[str] | list[bytes | str], shape: tuple[int, int]) -> _Crops: ...
def rle_area(counts: list[bytes] | list[str] | list[bytes | str]) -> NDArray[np.int64]: ...
def rle_counts(text: bytes | str) -> NDArray[np.uint32]: ...
def rle_string(counts: NDArray[np.uint32]) -> bytes: ...
def select_detections(
    scores: _Float32,
    box_deltas: _Float32,
    proposals: _Float32,
    size: tuple[int, int],
    coder_weights: _Floats,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[_Float32, _Float32, NDArray[np.int64]]: ...

class Pyramid:
    def __init__(self, features: list[_Float32], strides: Sequence[float]) -> None: ...
    def set(self, features: list[_Float32]) -> None: ...
    def clear(self) -> None: ...
    def roi_align(
        self,
        boxes: _Float32,
        batch: NDArray[np.int32],
        output_size: int,
        sampling_ratio: int,
        level: int | None,
        out: _Float32 | None,
        aligned: bool = True,
    ) -> _Float32: ...

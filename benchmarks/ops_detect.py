"""The operators around the networks: preprocess, proposals, select and NMS at the sizes of an 800 x 1333 detector.

python -m benchmarks.ops_detect [--json]
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.ops_roi_align import crowded_boxes
from benchmarks.ops_timing import arguments, measure, report
from sdk.ops import nms, preprocess, proposals, select_detections

STRIDES = [4, 8, 16, 32, 64]
SIZE = (800, 1344)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Calls = dict[str, Callable[[], object]]


def preprocess_calls(rng: np.random.Generator) -> Calls:
    out = np.zeros((3, 800, 1344), np.float32)

    def peer(image: NDArray[np.uint8]) -> Callable[[], object]:
        scale, offset = np.float32(1) / np.float32(STD), -np.float32(MEAN) / np.float32(STD)

        def call() -> None:  # cv2's area filter is the nearest to an antialiased resize that it has
            resized = cv2.resize(image, (1333, 750), interpolation=cv2.INTER_AREA)
            out[:, :750, :1333] = (resized * scale + offset).transpose(2, 0, 1)

        return call

    calls: Calls = {}
    for name, shape in {"1080p": (1080, 1920, 3), "4K": (2160, 3840, 3)}.items():
        image = rng.integers(0, 256, shape, np.uint8)
        calls[f"cv2.resize + NumPy, {name} to 750 x 1333"] = peer(image)
        calls[f"Kerf preprocess, {name} to 750 x 1333"] = lambda i=image: preprocess(i, (750, 1333), (800, 1344), MEAN, STD, out=out)
        calls[f"Kerf preprocess, {name} to 800 x 1333"] = lambda i=image: preprocess(i, (800, 1333), (800, 1344), MEAN, STD, out=out)
    return calls


def proposal_calls(rng: np.random.Generator) -> Calls:
    sizes = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in STRIDES]
    logits = [rng.normal(-5, 2, (3, *size)).astype(np.float32) for size in sizes]
    deltas = [0.3 * rng.standard_normal((12, *size), np.float32) for size in sizes]
    ratios = np.sqrt([0.5, 1.0, 2.0])
    extents = [np.stack([8 * s / ratios, 8 * s * ratios], axis=1) / 2 for s in STRIDES]
    anchors = [np.concatenate([-e, e], axis=1).astype(np.float32) for e in extents]
    rule = {"pre_nms": 1000, "post_nms": 1000}
    return {"Kerf proposals, 5 levels of 800 x 1344": lambda: proposals(logits, deltas, anchors, STRIDES, SIZE, **rule, nms_threshold=0.7)}


def select_calls(rng: np.random.Generator) -> Calls:
    boxes = crowded_boxes(rng, 1000)
    objects = rng.integers(0, 80, 40).repeat(25)
    confident = rng.normal(0, 1, (1000, 81)).astype(np.float32)
    confident[:, 80] += 4
    confident[np.arange(1000), objects] += rng.normal(5, 2, 1000).astype(np.float32)
    powers = np.exp(confident)
    scores = np.ascontiguousarray((powers / powers.sum(1, keepdims=True))[:, :80])
    deltas = 0.3 * rng.standard_normal((1000, 320), np.float32)

    def select(threshold: float, most: int) -> Callable[[], object]:
        rule = {"coder_weights": (10, 10, 5, 5), "nms_threshold": 0.5, "max_detections": most}
        return lambda: select_detections(scores, deltas, boxes, SIZE, score_threshold=threshold, **rule)  # type: ignore[arg-type]

    return {"Kerf select, 1,000 x 80, threshold 0.05": select(0.05, 100), "Kerf select, 1,000 x 80, threshold 0.0001": select(1e-4, 300)}


def nms_calls(rng: np.random.Generator) -> Calls:
    boxes, scores = crowded_boxes(rng, 4000), rng.random(4000, np.float32)
    return {"Kerf nms, 4,000 boxes, IoU 0.7": lambda: nms(boxes, scores, 0.7)}


def main() -> None:
    options = arguments(__doc__)
    cv2.setNumThreads(options.threads)
    rng = np.random.default_rng(0)
    tables = {
        "picture to input": measure(preprocess_calls(rng), options.rounds),
        "boxes": measure({**proposal_calls(rng), **select_calls(rng), **nms_calls(rng)}, options.rounds),
    }
    report(tables, options.json)


if __name__ == "__main__":
    main()

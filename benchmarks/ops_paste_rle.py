"""100 mask grids of 28 x 28 onto 1024 x 2048 pixels and into COCO run lengths, beside what people use today.

The peers paste into full-size masks, by torch's grid_sample inside each box (as detectron2 does on a CPU) or by cv2.resize per box, and
pycocotools encodes those. Their canvas is allocated once, outside the timing. cv2 rounds boxes to whole pixels, so its masks differ.

    python -m benchmarks.ops_paste_rle [--json]
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks.ops_timing import arguments, measure, report
from sdk.ops import paste_masks, paste_rle, polygons, rle_decode, rle_encode

SHAPE = (1024, 2048)
PEER = "torch grid_sample per box + pycocotools"
Floats = NDArray[np.float32]


def street_boxes(rng: np.random.Generator, count: int) -> Floats:
    """Boxes as in a street picture: sides 15 to 500 pixels log-uniform, a few over the border."""
    side = np.exp(rng.uniform(np.log(15), np.log(500), (count, 1)))
    aspect = np.exp(rng.uniform(-0.7, 0.7, (count, 1)))
    extent = np.concatenate([side * np.sqrt(aspect), side / np.sqrt(aspect)], axis=1)
    centre = rng.uniform(0, 1, (count, 2)) * SHAPE[::-1]
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1).astype(np.float32)


def blob_logits(rng: np.random.Generator, count: int, size: int = 28) -> Floats:
    """Star-shaped blobs with a soft edge, as a mask head draws them."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    edge = [0.75 + 0.2 * np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6)) for _ in range(count)]
    noise = 0.3 * rng.standard_normal((count, size, size))
    return (12 * (np.stack(edge) - radius) + noise).astype(np.float32)


def encode_dense(masks: NDArray[np.uint8]) -> list[bytes]:
    """Encodes full-size masks; pycocotools needs every mask in column-major order."""
    return [coco.encode(np.asfortranarray(mask))["counts"] for mask in masks]


def torch_peer(logits: Floats, boxes: Floats) -> Callable[[], list[bytes]]:
    canvas = np.zeros((len(boxes), *SHAPE), np.uint8)

    def call() -> list[bytes]:
        canvas.fill(0)
        probabilities = torch.from_numpy(logits).sigmoid()[:, None, None]
        for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            left, top = max(int(x1) - 1, 0), max(int(y1) - 1, 0)
            right, bottom = min(int(x2) + 2, SHAPE[1]), min(int(y2) + 2, SHAPE[0])
            gx = (torch.arange(left, right) + 0.5 - x1) / (x2 - x1) * 2 - 1
            gy = (torch.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * 2 - 1
            grid = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), dim=-1)[None]  # (1, h, w, 2)
            pasted = torch.nn.functional.grid_sample(probabilities[n], grid, align_corners=False)[0, 0] >= 0.5
            canvas[n, top:bottom, left:right] = pasted.numpy()
        return encode_dense(canvas)

    return call


def cv2_peer(logits: Floats, boxes: Floats) -> Callable[[], list[bytes]]:
    canvas = np.zeros((len(boxes), *SHAPE), np.uint8)

    def call() -> list[bytes]:
        canvas.fill(0)
        for n, (x1, y1, x2, y2) in enumerate(np.rint(boxes).astype(int)):
            resized = cv2.resize(1 / (1 + np.exp(-logits[n])), (max(x2 - x1, 1), max(y2 - y1, 1))) >= 0.5
            left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, SHAPE[1]), min(y2, SHAPE[0])
            canvas[n, top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
        return encode_dense(canvas)

    return call


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    rng = np.random.default_rng(0)
    boxes, logits = street_boxes(rng, 100), blob_logits(rng, 100)
    crops = paste_masks(logits, boxes, SHAPE)
    counts = paste_rle(logits, boxes, SHAPE)
    peers = {PEER: torch_peer(logits, boxes), "cv2.resize per box + pycocotools": cv2_peer(logits, boxes)}
    ours: dict[str, Callable[[], object]] = {
        "Kerf paste_rle": lambda: paste_rle(logits, boxes, SHAPE),
        "Kerf paste_masks, then rle_encode": lambda: rle_encode(paste_masks(logits, boxes, SHAPE), SHAPE),
        "Kerf paste_masks": lambda: paste_masks(logits, boxes, SHAPE),
    }
    others: dict[str, Callable[[], object]] = {
        "Kerf rle_encode of the crops": lambda: rle_encode(crops, SHAPE),
        "Kerf rle_decode": lambda: rle_decode(counts, SHAPE),
        "Kerf polygons of the crops": lambda: polygons(crops),
    }
    tables = {
        "100 masks of 28 x 28 on 1024 x 2048": measure({**peers, **ours}, max(3, options.rounds // 3), PEER),
        f"the same alone, {int(crops.areas().sum()):,} foreground pixels": measure({**ours, **others}, options.rounds),
    }
    report(tables, options.json)


if __name__ == "__main__":
    main()

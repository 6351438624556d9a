"""A small data set of bright ellipses on a dim, noisy ground: quick to learn, masks known exactly. No files, from a seed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

CATEGORIES = [{"id": 3, "name": "bright"}, {"id": 7, "name": "dark"}]


def draw(rng: np.random.Generator, height: int, width: int, count: int) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]], list[int]]:
    """Picture (H, W, 3) uint8 RGB, non-overlapping masks (H, W) uint8 and their categories."""
    image = rng.normal(110, 6, (height, width, 3))
    taken = np.zeros((height, width), np.uint8)
    masks, categories = [], []
    for _ in range(20 * count):
        if len(masks) == count:
            break
        axes = rng.integers(8, 24, 2)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, centre, (int(axes[0]), int(axes[1])), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        if mask.sum() < 80 or (taken & mask).any():
            continue
        bright = bool(rng.random() < 0.5)
        image[mask > 0] += 110 if bright else -90
        taken |= cv2.dilate(mask, np.ones((5, 5), np.uint8))
        masks.append(mask)
        categories.append(3 if bright else 7)
    return np.clip(image, 0, 255).astype(np.uint8), masks, categories


def write_coco(folder: Path, split: str = "train", pictures: int = 12, seed: int = 0, size: tuple[int, int] = (128, 160)) -> Path:
    """Write ``folder/SPLIT/*.png`` and ``folder/annotations/SPLIT.json``; returns ``folder``."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for index in range(pictures):
        image, masks, categories = draw(rng, *size, int(rng.integers(2, 6)))
        name = f"{split}_{index:03d}.png"
        cv2.imwrite(str(folder / split / name), image[:, :, ::-1])
        images.append({"id": index + 1, "file_name": name, "height": size[0], "width": size[1]})
        for mask, category in zip(masks, categories, strict=True):
            encoded = coco_mask.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": category,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": [float(v) for v in coco_mask.toBbox(encoded)],
                    "segmentation": {"size": list(size), "counts": encoded["counts"].decode()},
                }
            )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder

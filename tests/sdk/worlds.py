"""Small COCO worlds of blobs: annotations, and results that are shifted, ragged, missed, doubled, empty or of the wrong class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops

Mask = NDArray[np.bool_]
Dicts = list[dict[str, Any]]


def blob(rng: np.random.Generator, shape: tuple[int, int], side: float) -> Mask:
    """An ellipse with a wavy rim; often cut by the picture's border."""
    cy, cx = rng.uniform(-0.05, 1.05, 2) * shape
    ry, rx = rng.uniform(0.3, 0.7, 2) * side
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle = np.arctan2(y - cy, x - cx)
    rim = 1 + 0.2 * np.sin(rng.integers(2, 7) * angle + rng.uniform(0, 6))
    inside: Mask = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < rim**2
    return inside


def moved(rng: np.random.Generator, mask: Mask, by: float) -> Mask:
    """The mask shifted by some pixels, with some flakes on it."""
    dy, dx = (round(v) for v in rng.normal(0, by, 2))
    result = np.zeros_like(mask)
    h, w = mask.shape
    result[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = mask[max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)]
    ring = result ^ np.roll(result, 1, axis=int(rng.integers(2)))
    return result ^ (ring & (rng.random(mask.shape) < 0.3))


def rle(mask: Mask) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": ops.rle_encode(ops.dense_to_crops(mask[None]), mask.shape)[0].decode()}


def box(mask: Mask) -> list[float]:
    x1, y1, x2, y2 = ops.dense_to_crops(mask[None]).boxes[0].tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def world(
    seed: int = 0,
    *,
    shape: tuple[int, int] = (96, 120),
    images: int = 4,
    objects: int = 6,
    categories: tuple[int, ...] = (3, 8),
    crowd: float = 0.15,
) -> tuple[dict[str, Any], Dicts]:
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": 10 + i, "height": shape[0], "width": shape[1]} for i in range(images)],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": [],
    }
    results: Dicts = []
    for image in truth["images"]:
        for position in range(objects):
            mask = blob(rng, shape, float(rng.choice([12, 40, 80])))
            mask &= image is not truth["images"][-1] or position > 0  # one object is empty
            common = {"image_id": image["id"], "category_id": int(rng.choice(categories))}
            number = len(truth["annotations"]) + 1
            entry = {**common, "id": number, "segmentation": rle(mask), "bbox": box(mask), "area": int(mask.sum())}
            truth["annotations"].append({**entry, "iscrowd": int(rng.random() < crowd)})
            for _ in range(int(rng.choice([0, 1, 1, 2]))):
                guess = moved(rng, mask, float(rng.choice([0.3, 1.5, 4]))) & (rng.random() > 0.05)
                category = common["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
                score = float(rng.choice([round(rng.random(), 1), rng.random()]))  # equal scores occur
                results.append({**common, "category_id": category, "score": score, "segmentation": rle(guess), "bbox": box(guess)})
    return truth, results


def decode(entry: dict[str, Any]) -> Mask:
    mask: Mask = ops.crops_to_dense(
        ops.rle_decode([entry["segmentation"]["counts"]], tuple(entry["segmentation"]["size"])), tuple(entry["segmentation"]["size"])
    )[0]
    return mask


def federated(truth: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same world with LVIS's fields: each picture's classes that are absent and those not exhaustively annotated."""
    rng = np.random.default_rng(seed)
    present: dict[int, set[int]] = {image["id"]: set() for image in truth["images"]}
    for entry in truth["annotations"]:
        present[entry["image_id"]].add(entry["category_id"])
    ids = [category["id"] for category in truth["categories"]]
    images = []
    for image in truth["images"]:
        here = sorted(present[image["id"]])
        missing = [c for c in ids if c not in here]
        images.append(
            {
                **image,
                "neg_category_ids": [c for c in missing if rng.random() < 0.5],
                "not_exhaustive_category_ids": [c for c in here if rng.random() < 0.4],
            }
        )
    categories = [{**category, "frequency": "rcf"[k % 3]} for k, category in enumerate(truth["categories"])]
    annotations = [{key: value for key, value in entry.items() if key != "iscrowd"} for entry in truth["annotations"]]
    return {"images": images, "categories": categories, "annotations": annotations}

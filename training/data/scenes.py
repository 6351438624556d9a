"""Procedural pictures of large textured objects with fine outlines: no files, any size, everything from a seed.

On COCO and Cityscapes a 28x28 mask is what limits the outline, because objects are large. Small data sets that train on two cores rarely
show that. These scenes do: objects of 100 to 400 pixels (on 512) whose outlines carry detail of a few pixels (teeth, spikes, serrated
lobes, thin arms, holes), partly hidden by each other, on textured ground with clutter that is no object. Masks are exact: a pixel belongs
to the topmost object that covers at least half of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sdk.ops import dense_to_crops, rle_encode

Rng = np.random.Generator
Outline = list[NDArray[np.float64]]  # closed curves (V, 2) xy around 0, radius about 1; filled by the even-odd rule

_SUPERSAMPLING = 4  # sub-pixels per side when an outline becomes coverage


def _polar(radius: Callable[[NDArray[np.float64]], NDArray[np.float64]], points: int = 720) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    r = radius(angle)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1)


def _star(rng: Rng) -> Outline:
    """Spikes of slightly different length."""
    count, depth = int(rng.integers(6, 14)), rng.uniform(0.35, 0.6)
    lengths = rng.uniform(0.8, 1.0, count)
    corners = np.empty((2 * count, 2))
    for i in range(2 * count):
        r = lengths[i // 2] if i % 2 == 0 else depth
        corners[i] = r * math.cos(math.pi * i / count), r * math.sin(math.pi * i / count)
    return [corners]


def _leaf(rng: Rng) -> Outline:
    """A long body with serrated edge."""
    teeth, bite, slim = int(rng.integers(18, 34)), rng.uniform(0.06, 0.12), rng.uniform(0.45, 0.7)

    def radius(angle: NDArray[np.float64]) -> NDArray[np.float64]:
        body = 1 / np.sqrt(np.cos(angle) ** 2 + (np.sin(angle) / slim) ** 2)
        return np.asarray(body * (1 - bite * (teeth * angle / (2 * math.pi) % 1.0)))

    return [_polar(radius)]


def _gear(rng: Rng) -> Outline:
    """Square teeth around a disk with a hole."""
    teeth, height, hole = int(rng.integers(10, 20)), rng.uniform(0.12, 0.22), rng.uniform(0.2, 0.45)
    outer = _polar(lambda a: np.where((teeth * a / (2 * math.pi)) % 1.0 < 0.5, 1.0, 1.0 - height))
    return [outer, _polar(lambda a: np.full_like(a, hole))]


def _flower(rng: Rng) -> Outline:
    """Round petals with deep gaps."""
    petals, depth = int(rng.integers(5, 9)), rng.uniform(0.3, 0.55)
    return [_polar(lambda a: 1 - depth + depth * np.sqrt(np.abs(np.cos(petals * a / 2))))]


def _blob(rng: Rng) -> Outline:
    """A smooth body with a wavy edge."""
    low = [(k, rng.uniform(0, 0.25) / k, rng.uniform(0, 2 * math.pi)) for k in range(2, 6)]
    waves = [*low, (int(rng.integers(12, 25)), rng.uniform(0.03, 0.06), rng.uniform(0, 2 * math.pi))]
    return [_polar(lambda a: 0.8 + sum((w * np.cos(k * a + p) for k, w, p in waves), np.zeros_like(a)))]


def _antler(rng: Rng) -> Outline:
    """A small body with long thin arms."""
    arms = int(rng.integers(4, 8))
    sharp, bend = rng.uniform(8, 20), rng.uniform(-0.6, 0.6)

    def radius(angle: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(0.28 + 0.72 * np.exp(-sharp * (1 - np.cos(arms * angle)) / arms))

    curve = _polar(radius, 1440)
    r = np.hypot(curve[:, 0], curve[:, 1])  # arms bend with the distance from the centre
    cos, sin = np.cos(bend * r), np.sin(bend * r)
    return [np.stack([cos * curve[:, 0] - sin * curve[:, 1], sin * curve[:, 0] + cos * curve[:, 1]], 1)]


SHAPES: dict[str, Callable[[Rng], Outline]] = {
    "star": _star,
    "leaf": _leaf,
    "gear": _gear,
    "flower": _flower,
    "blob": _blob,
    "antler": _antler,
}


def covered_share(outline: Outline, size: int) -> NDArray[np.float32]:
    """Covered share (S, S) of every pixel, ``outline`` in pixels."""
    fine = np.zeros((size * _SUPERSAMPLING, size * _SUPERSAMPLING), np.uint8)
    shift = 4  # fractional bits of the corners
    # cv2's pixel centres are at whole numbers, ours at halves.
    corners = [np.round((c * _SUPERSAMPLING - 0.5) * 2**shift).astype(np.int32) for c in outline]
    cv2.fillPoly(fine, corners, 255, lineType=cv2.LINE_8, shift=shift)
    return np.asarray(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), np.float32) / 255


def _texture(rng: Rng, size: int, base: NDArray[np.float64]) -> NDArray[np.float32]:
    """A textured square (S, S, 3), grey levels: noise of several sizes, and sometimes stripes, around ``base``."""
    amount = np.zeros((size, size), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.normal(0, rng.uniform(4, 16), (cells, cells)).astype(np.float32)
        amount += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, math.pi), rng.uniform(8, 40)
        y, x = np.mgrid[:size, :size].astype(np.float32)
        amount += rng.uniform(6, 18) * np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period).astype(np.float32)
    tint = rng.uniform(0.7, 1.3, 3).astype(np.float32)
    return np.asarray(base.astype(np.float32) + amount[..., None] * tint, np.float32)


def _distant_color(rng: Rng, other: NDArray[np.float64]) -> NDArray[np.float64]:
    """A colour that differs from ``other`` by at least 60 grey levels."""
    while True:
        color = rng.uniform(30, 225, 3)
        if np.linalg.norm(color - other) >= 60:
            return color


def _clutter(rng: Rng, image: NDArray[np.float32], ground: NDArray[np.float64]) -> None:
    """Specks and lines that belong to no object."""
    size = image.shape[0]
    for _ in range(int(rng.integers(10, 30))):
        color = tuple(float(v) for v in _distant_color(rng, ground))
        a = (rng.uniform(0, size, 2)).astype(int).tolist()
        if rng.random() < 0.5:
            b = (np.asarray(a) + rng.uniform(-60, 60, 2) * size / 512).astype(int).tolist()
            cv2.line(image, a, b, color, int(rng.integers(1, 4)), cv2.LINE_AA)
        else:
            axes = np.maximum(1, rng.uniform(2, 14, 2) * size / 512).astype(int).tolist()
            cv2.ellipse(image, a, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """One picture of the set; it has no file."""

    image_id: int
    height: int
    width: int
    path: None = None
    annotations: list[dict[str, Any]] = field(default_factory=list, repr=False)


class Scenes:
    """A data set of ``count`` square pictures with 2 to 5 objects each.

    Args:
        count: number of pictures; picture i of a seed is the same whatever the count.
        size: side in pixels; objects are 0.2 to 0.8 of it.
        seed: another seed is another data set: train, val and test differ by it.
    """

    class_names = tuple(SHAPES)
    category_ids = tuple(range(1, len(SHAPES) + 1))

    def __init__(self, count: int, size: int = 512, seed: int = 0) -> None:
        if count < 1 or size < 32:
            raise ValueError(f"count must be at least 1 and size at least 32, got {count} and {size}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.size, self.seed = size, seed
        self.records = [SceneRecord(image_id=i + 1, height=size, width=size) for i in range(count)]

    def __len__(self) -> int:
        return len(self.records)

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Picture (H, W, 3) uint8 RGB, visible masks (G, H, W) uint8 and labels (G,) int64 of record ``index``."""
        if not 0 <= index < len(self.records):
            raise IndexError(f"picture {index} of {len(self.records)}")
        rng = np.random.default_rng([self.seed, index])
        ground = rng.uniform(40, 215, 3)
        image = _texture(rng, self.size, ground)
        _clutter(rng, image, ground)
        masks: list[NDArray[np.bool_]] = []
        labels: list[int] = []
        wanted = int(rng.integers(2, 6))
        for _ in range(4 * wanted):
            if len(masks) == wanted:
                break
            label = int(rng.integers(len(SHAPES)))
            coverage = self._place(rng, label)
            solid = coverage >= 0.5
            hidden = [(m & ~solid).sum() < 0.6 * m.sum() for m in masks]
            if solid.sum() < 0.004 * self.size**2 or any(hidden):
                continue  # too little of it, or it would hide too much of another
            color = _distant_color(rng, ground)
            image += coverage[..., None] * (_texture(rng, self.size, color) - image)
            masks = [m & ~solid for m in masks] + [solid]
            labels.append(label)
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.8)))
        image += rng.normal(0, rng.uniform(1, 5), image.shape).astype(np.float32)
        pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
        stacked = np.stack(masks).astype(np.uint8) if masks else np.zeros((0, self.size, self.size), np.uint8)
        return pixels, stacked, np.asarray(labels, np.int64)

    def _place(self, rng: Rng, label: int) -> NDArray[np.float32]:
        """Coverage (H, W) of a shape of random size, angle and place, cut at the picture's border."""
        outline = SHAPES[self.class_names[label]](rng)
        radius = 0.5 * self.size * float(np.exp(rng.uniform(math.log(0.2), math.log(0.78))))
        angle, stretch = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 1.0)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * radius
        centre = rng.uniform(min(radius, 0.4 * self.size), self.size - min(radius, 0.4 * self.size), 2)
        return covered_share([(c * [1.0, stretch]) @ turn.T + centre for c in outline], self.size)

    def to_coco(self) -> dict[str, Any]:
        """The ground truth as COCO annotations (compressed run lengths), for evaluation."""
        annotations: list[dict[str, Any]] = []
        for index, record in enumerate(self.records):
            _, masks, labels = self.load(index)
            crops = dense_to_crops(masks.view(np.bool_))
            for counts, mask, label in zip(rle_encode(crops, (self.size, self.size)), masks, labels, strict=True):
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                x, y = int(columns[0]), int(rows[0])
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": record.image_id,
                        "category_id": self.category_ids[label],
                        "iscrowd": 0,
                        "area": int(mask.sum()),
                        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                        "segmentation": {"size": [self.size, self.size], "counts": counts.decode()},
                    }
                )
        images = [{"id": r.image_id, "height": r.height, "width": r.width, "file_name": f"{r.image_id}.png"} for r in self.records]
        categories = [{"id": i, "name": n} for i, n in zip(self.category_ids, self.class_names, strict=True)]
        return {"images": images, "annotations": annotations, "categories": categories}

"""Dead leaves: pictures of opaque textured shapes that fall on each other, with exact masks (Matheron 1968; Lee, Mumford & Huang 2001).

Sizes follow a power law, as those of the things in photographs do, so edges and their occlusions have the statistics of photographs at
every scale. Networks learn low-level edges from such pictures. No files; everything comes from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.scenes import SHAPES, SceneRecord, covered_share

Rng = np.random.Generator
Outline = list[NDArray[np.float64]]

_BANK = 48  # textures that the leaves of one data set are cut from
_TILE = 256  # their side, pixels


def _ellipse(rng: Rng) -> Outline:
    angle = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    return [np.stack([np.cos(angle), rng.uniform(0.3, 1.0) * np.sin(angle)], 1)]


def _polygon(rng: Rng) -> Outline:
    """3 to 7 corners around the centre."""
    angle = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 8))))
    radius = rng.uniform(0.6, 1.0, len(angle))
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)]


def _bar(rng: Rng) -> Outline:
    """A long rectangle: poles, limbs, cables."""
    half = rng.uniform(0.04, 0.5)
    return [np.array([[-1, -half], [1, -half], [1, half], [-1, half]])]


def _cloud(rng: Rng) -> Outline:
    """A closed curve of random waves that fall off with their frequency."""
    angle = np.linspace(0, 2 * math.pi, 240, endpoint=False)
    falloff, radius = rng.uniform(1.0, 2.0), np.ones_like(angle)
    for k in range(1, 25):
        radius += rng.normal(0, 0.35) / k**falloff * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
    radius = np.clip(radius, 0.15, None)
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) / radius.max()]


LEAVES: tuple[Callable[[Rng], Outline], ...] = (_ellipse, _polygon, _bar, _cloud, _cloud, *SHAPES.values())


class DeadLeaves:
    """A data set of ``count`` square pictures; every leaf of which enough is seen is an object.

    Args:
        count: number of pictures; picture i of a seed is the same whatever the count.
        size: side in pixels.
        seed: another seed is another data set.
        radius: smallest and largest radius of a leaf, shares of the side.
    """

    class_names = ("object",)
    category_ids = (1,)

    def __init__(self, count: int, size: int = 320, seed: int = 0, radius: tuple[float, float] = (0.06, 0.5)) -> None:
        if count < 1 or size < 96:
            raise ValueError(f"count must be at least 1 and size at least 96, got {count} and {size}")
        self.size, self.seed, self.radius = size, seed, radius
        self.records = [SceneRecord(image_id=i + 1, height=size, width=size) for i in range(count)]

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def _bank(self) -> NDArray[np.float32]:
        """Textures (T, S, S) around 0 with standard deviation 1: noise whose spectrum falls off at a random rate, some with stripes."""
        rng = np.random.default_rng([self.seed, 0])
        y, x = np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]
        tiles = np.empty((_BANK, _TILE, _TILE), np.float32)
        for tile in tiles:
            # Frequencies are stretched along one random axis: grain, fur and grass have a direction.
            angle, stretch = rng.uniform(0, math.pi), math.exp(rng.uniform(0, 1.5))
            u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
            distance = np.hypot(u * stretch, v)
            distance[0, 0] = 1.0
            amplitude = np.maximum(distance, 1 / _TILE) ** -rng.uniform(0.5, 2.0)
            amplitude[0, 0] = 0.0
            phase = rng.uniform(0, 2 * math.pi, amplitude.shape)
            noise = np.fft.irfft2(amplitude * np.exp(1j * phase), (_TILE, _TILE))
            tile[:] = noise / noise.std()
            if rng.random() < 0.3:
                rows, columns = np.mgrid[:_TILE, :_TILE]
                along = columns * math.cos(angle) + rows * math.sin(angle)
                tile += (rng.uniform(0.5, 2.0) * np.sign(np.sin(along * 2 * math.pi / rng.uniform(4, 40)))).astype(np.float32)
        return tiles

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Picture (H, W, 3) uint8 RGB, visible masks (G, H, W) uint8 and labels (G,) int64 of record ``index``."""
        if not 0 <= index < len(self.records):
            raise IndexError(f"picture {index} of {len(self.records)}")
        rng = np.random.default_rng([self.seed, 1, index])
        colors = int(rng.integers(3, 9))  # leaves of similar colours are neighbours often enough to be hard
        palette = rng.uniform(10, 245, (colors, 1)) + rng.normal(0, rng.uniform(5, 60), (colors, 3))
        palette = np.clip(palette, 0, 255).astype(np.float32)
        image = self._texture(rng, palette, self.size, self.size)
        owner = np.zeros((self.size, self.size), np.int32)  # which leaf is on top; 0 = the ground
        areas = [0]
        for leaf in range(1, int(rng.integers(12, 40))):
            areas.append(self._drop(rng, palette, image, owner, leaf))
        if rng.random() < 0.5:  # optics soften all edges
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)))
        if rng.random() < 0.7:
            image = image + rng.normal(0, rng.uniform(1, 6), image.shape).astype(np.float32)
        seen = np.bincount(owner.ravel(), minlength=len(areas))
        shown = [k for k in range(1, len(areas)) if seen[k] >= max(150, 0.4 * areas[k])]
        masks = np.stack([owner == k for k in shown]) if shown else np.zeros((0, self.size, self.size), np.bool_)
        return np.clip(np.round(image), 0, 255).astype(np.uint8), masks.astype(np.uint8), np.zeros(len(shown), np.int64)

    def _drop(self, rng: Rng, palette: NDArray[np.float32], image: NDArray[np.float32], owner: NDArray[np.int32], leaf: int) -> int:
        """One leaf falls on the picture; returns the pixels that it covers."""
        low, high = (r * self.size for r in self.radius)
        # Density r^-3 between the two: uniform in 1/r^2.
        radius = float(rng.uniform(high**-2, low**-2)) ** -0.5
        angle, side = rng.uniform(0, 2 * math.pi), 2 * math.ceil(radius) + 2
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * radius
        centre = rng.uniform(0, self.size, 2)
        corner = np.floor(centre - side / 2).astype(int)
        outline = LEAVES[int(rng.integers(len(LEAVES)))](rng)
        share = covered_share([c @ turn.T + centre - corner for c in outline], side)  # S, S
        x1, y1 = np.maximum(corner, 0)
        x2, y2 = np.minimum(corner + side, self.size)
        if x1 >= x2 or y1 >= y2:
            return 0
        share = share[y1 - corner[1] : y2 - corner[1], x1 - corner[0] : x2 - corner[0]]
        window = image[y1:y2, x1:x2]
        edge = cv2.GaussianBlur(share, (0, 0), float(rng.uniform(0.5, 1.5))) if rng.random() < 0.15 else share  # out of focus
        window += edge[..., None] * (self._texture(rng, palette, y2 - y1, x2 - x1) - window)
        solid = share >= 0.5
        owner[y1:y2, x1:x2][solid] = leaf
        return int(np.count_nonzero(solid))

    def _texture(self, rng: Rng, palette: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """A rectangle (h, w, 3), grey levels: a colour near one of the palette's, a texture, and light that changes across it."""
        tile = self._bank[int(rng.integers(len(self._bank)))]
        tile = np.rot90(tile, int(rng.integers(4)))
        zoom = math.exp(rng.uniform(math.log(0.7), math.log(2.5))) * max(1.0, max(height, width) / _TILE)
        need = (min(_TILE, math.ceil(height / zoom) + 1), min(_TILE, math.ceil(width / zoom) + 1))
        y, x = (int(rng.integers(_TILE - n + 1)) for n in need)
        noise = cv2.resize(np.ascontiguousarray(tile[y : y + need[0], x : x + need[1]]), (width, height), interpolation=cv2.INTER_LINEAR)
        color = palette[int(rng.integers(len(palette)))] + rng.normal(0, 12, 3).astype(np.float32)
        strength = math.exp(rng.uniform(math.log(2), math.log(35)))
        tint = (strength * rng.uniform(0.6, 1.4, 3)).astype(np.float32)
        ramp = rng.uniform(-30, 30, 2)
        light = np.linspace(-ramp[0], ramp[0], height)[:, None] + np.linspace(-ramp[1], ramp[1], width)
        return np.asarray(color + noise[..., None] * tint + light.astype(np.float32)[..., None], np.float32)

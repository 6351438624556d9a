"""True masks made coarse, as mask heads, coarse grids and hands draw them. Everything comes from the generator that is passed in.

The steps follow what networks do: the mask is seen in a box that is a little off, on a grid of few cells, blurred, with noise of low
frequency; then it is enlarged and thresholded. Before that thin parts may be lost and a piece of a neighbour may be taken in; after it
the mask may shrink, grow, or become a polygon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sdk.config import Config, check_fraction, require

Rng = np.random.Generator
Mask = NDArray[np.uint8]
TRIES = 6


@dataclass(frozen=True, kw_only=True)
class CoarseConfig(Config):
    """How a true mask is made coarse: what mask heads, coarse grids and hands do to outlines.

    Every range is drawn from uniformly unless said otherwise; all steps together make one coarse mask.
    """

    jitter: float = 0.04  # standard deviation of the box's edges, in its sides
    grid: tuple[int, int] = (20, 48)  # cells per side of the soft mask, drawn by logarithm; mask heads have 28
    blur: tuple[float, float] = (0.3, 1.6)  # sigma of the Gauss on the grid, cells
    noise: tuple[float, float] = (0.0, 0.35)  # amplitude of the low-frequency noise on the soft mask, which lies in 0..1
    noise_cells: tuple[int, int] = (4, 12)  # cells per side of that noise
    bias: float = 0.15  # the threshold is drawn from .5 +- bias
    thin: float = 0.3  # probability that thin parts are dropped
    thin_radius: tuple[float, float] = (0.01, 0.05)  # half of the width that counts as thin, in sqrt(area)
    morphology: float = 0.3  # probability of erosion or dilation
    morphology_radius: tuple[float, float] = (0.005, 0.03)  # in sqrt(area)
    neighbour: float = 0.2  # probability that a part of a neighbour, or of the ground where there is none, is glued on
    polygon: float = 0.1  # probability that the outline becomes a polygon, as a hand draws it
    polygon_error: tuple[float, float] = (1.0, 4.0)  # its greatest distance from the outline, pixels
    clean: float = 0.1  # probability that the mask is only blurred a little: good masks have to stay good
    min_iou: float = 0.5  # with the true mask; a mask not above this is drawn again

    def __post_init__(self) -> None:
        for name in ("thin", "morphology", "neighbour", "polygon", "clean"):
            check_fraction(name, getattr(self, name))
        for name in ("grid", "blur", "noise", "noise_cells", "thin_radius", "morphology_radius", "polygon_error"):
            low, high = getattr(self, name)
            require(0 <= low <= high, f"{name} must be two numbers in order, not negative, got {(low, high)}")
        require(self.grid[0] >= 4 and self.noise_cells[0] >= 2, "grid needs at least 4 cells and noise_cells at least 2")
        require(0 <= self.bias < 0.5 and self.jitter >= 0, f"bias must be below .5 and jitter not negative, got {self.bias}, {self.jitter}")
        require(0 <= self.min_iou < 1, f"min_iou must be from 0 to below 1, got {self.min_iou}")


def simulate(mask: Mask, others: Mask | None, config: CoarseConfig, rng: Rng) -> Mask | None:
    """A coarse version of a mask.

    Args:
        mask: (H, W) uint8, 0 or 1; a window of the picture with some room around the object.
        others: (H, W) uint8, 1 where other objects are; None = none are known.
        config: what may happen.
        rng: source of all randomness.

    Returns:
        (H, W) uint8 whose IoU with ``mask`` is above ``config.min_iou``; None when several tries did not give one.
    """
    if not mask.any():
        return None
    for _ in range(TRIES):
        coarse = _draw(mask, others, config, rng)
        if mask_iou(mask, coarse) > config.min_iou:
            return coarse
    return None


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one window; 0 when both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 0.0


def _draw(mask: Mask, others: Mask | None, config: CoarseConfig, rng: Rng) -> Mask:
    size = math.sqrt(float(np.count_nonzero(mask)))
    if rng.random() < config.clean:
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.0)))
        return (soft > 0.5).astype(np.uint8)
    result = mask
    if rng.random() < config.thin:
        result = _without_thin_parts(result, size * float(rng.uniform(*config.thin_radius)), rng)
    if rng.random() < config.neighbour:
        result = _with_neighbour(result, others, size, rng)
    result = _on_grid(result, config, rng)
    if rng.random() < config.morphology:
        kernel = _disk(max(1, round(size * float(rng.uniform(*config.morphology_radius)))))
        result = cv2.dilate(result, kernel) if rng.random() < 0.5 else _eroded(result, kernel)
    if rng.random() < config.polygon:
        result = _as_polygons(result, float(rng.uniform(*config.polygon_error)))
    return result


def _disk(radius: int) -> Mask:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _eroded(mask: Mask, kernel: Mask) -> Mask:
    """Erosion that does not eat from the picture's edge, where the object goes on."""
    return np.asarray(cv2.erode(mask, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8)


def _without_thin_parts(mask: Mask, radius: float, rng: Rng) -> Mask:
    """Some of the parts that an opening removes are gone."""
    kernel = _disk(max(1, round(radius)))
    opened = np.asarray(cv2.dilate(_eroded(mask, kernel), kernel), np.uint8) & mask
    if not opened.any():
        return mask
    count, labels = cv2.connectedComponents(mask & ~opened & 1, connectivity=8)
    gone = rng.random(count) < 0.7
    gone[0] = False
    return np.where(gone[labels], 0, mask).astype(np.uint8)


def _with_neighbour(mask: Mask, others: Mask | None, size: float, rng: Rng) -> Mask:
    """A round piece around a point of the outline is taken in: of the neighbours where they touch, otherwise of the ground."""
    ring = cv2.dilate(mask, _disk(2)) & ~mask & 1
    touching = ring & others if others is not None else np.zeros_like(ring)
    ys, xs = np.nonzero(touching if touching.any() else ring)
    if not len(ys):
        return mask
    chosen = int(rng.integers(len(ys)))
    piece = np.zeros_like(mask)
    low, high = (0.2, 0.6) if touching.any() else (0.05, 0.25)
    cv2.circle(piece, (int(xs[chosen]), int(ys[chosen])), max(2, round(size * float(rng.uniform(low, high)))), 1, -1)
    if touching.any() and others is not None:
        piece &= others
    return mask | piece


def _on_grid(mask: Mask, config: CoarseConfig, rng: Rng) -> Mask:
    """Seen in a jittered box on a coarse grid, blurred, with noise, enlarged, thresholded."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask)
    shift = rng.normal(0, config.jitter, 4) * (w, h, w, h)
    left, top = x + shift[0], y + shift[1]
    wide, high = max(2.0, x + w + shift[2] - left), max(2.0, y + h + shift[3] - top)
    cells = round(math.exp(rng.uniform(math.log(config.grid[0]), math.log(config.grid[1]))))
    # Cells are shared out over the box; a pixel centre at (p + .5) of the picture is at (c + .5) of the grid.
    sx, sy = cells / wide, cells / high
    matrix = np.array([[sx, 0, (0.5 - left) * sx - 0.5], [0, sy, (0.5 - top) * sy - 0.5]])
    source = mask.astype(np.float32)
    if min(sx, sy) < 1:  # average over the pixels of a cell before they are picked
        source = cv2.blur(source, (max(1, round(1 / sx)), max(1, round(1 / sy))), borderType=cv2.BORDER_REPLICATE)
    soft = cv2.warpAffine(source, matrix, (cells, cells), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(soft, (0, 0), float(rng.uniform(*config.blur)))
    waves = int(rng.integers(config.noise_cells[0], config.noise_cells[1] + 1))
    noise = rng.uniform(-1, 1, (waves, waves)).astype(np.float32) * float(rng.uniform(*config.noise))
    soft = soft + cv2.resize(noise, (cells, cells), interpolation=cv2.INTER_CUBIC)
    inverse = cv2.invertAffineTransform(matrix)
    full = cv2.warpAffine(soft, inverse, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return (full > 0.5 + config.bias * float(rng.uniform(-1, 1))).astype(np.uint8)


def _as_polygons(mask: Mask, error: float) -> Mask:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    result = np.zeros_like(mask)
    cv2.fillPoly(result, [cv2.approxPolyDP(c, error, True) for c in contours], 1)
    return result

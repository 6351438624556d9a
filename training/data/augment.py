"""From a whole picture to what the detector trains on. All randomness comes from the generator that is passed in.

Two ways: a random square crop (``training_crop``), or the whole picture at a random scale (``training_picture``), as the papers do it.
Objects are dropped only here, and only when the view shows too little of them: less than ``min_visible`` of their pixels or fewer than
four pixels inside the crop, or not a single pixel after resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdk.config import ResizeRule
from sdk.ops import MaskCrops, dense_to_crops
from training.config import AugmentConfig, ModelConfig
from training.models.targets import Target

Rng = np.random.Generator
CHUNK = 16  # masks that are resampled together: never all bitmaps of a picture at once


@dataclass(frozen=True)
class View:
    """What becomes of a picture: a window, mirrored, turned, resized."""

    y: int  # window, pixels of the picture
    x: int
    height: int
    width: int
    flip: bool
    turns: int  # quarter turns
    size: tuple[int, int]  # (h, w) after resizing

    def turned(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An array (..., H, W) mirrored and turned."""
        return np.rot90(array[..., ::-1] if self.flip else array, self.turns, (-2, -1))


def training_crop(
    image: NDArray[np.uint8],
    masks: MaskCrops | NDArray[np.uint8],
    labels: NDArray[np.int64],
    model: ModelConfig,
    config: AugmentConfig,
    rng: Rng,
) -> tuple[Tensor, Target]:
    """A normalised, zero-padded crop (3, S, S) float32 and its ground truth.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: G masks, cropped or as (G, H, W) uint8.
        labels: (G,) int64.
        model: its resize rule and normalisation.
        config: what to vary, and by how much.
        rng: source of all randomness.
    """
    crops = _cropped(masks)
    height, width = image.shape[:2]
    scale = model.resize.scale_for(height, width) * float(np.exp(rng.uniform(*np.log(config.scale))))
    side = max(8, round(config.crop / scale))  # of the window, picture pixels
    y, x = _window(rng, crops, height, width, side)
    y2, x2 = min(height, y + side), min(width, x + side)
    flip, turns = _draw_turns(rng, config)
    size = [min(config.crop, max(1, round(length * scale))) for length in (y2 - y, x2 - x)]
    view = View(y, x, y2 - y, x2 - x, flip, turns, (size[1], size[0]) if turns % 2 else (size[0], size[1]))
    visible = np.array([_part(crops, n, view).sum() for n in range(len(crops))], np.int64)
    keep = np.flatnonzero((visible >= 4) & (visible >= config.min_visible * crops.areas()))
    pixels, target = _render(image, crops, labels, keep, view, model, config, rng)
    return pad(pixels, target, (config.crop, config.crop))


def training_picture(
    image: NDArray[np.uint8],
    masks: MaskCrops | NDArray[np.uint8],
    labels: NDArray[np.int64],
    model: ModelConfig,
    config: AugmentConfig,
    rng: Rng,
) -> tuple[Tensor, Target]:
    """The whole picture at a random scale, normalised, (3, h, w) float32, and its ground truth; the arguments are those of `training_crop`.

    The shorter side is drawn from ``config.short`` (one of them, or, with ``config.short_range``, anything from the first to the
    last); ``config.long`` limits the longer one.
    """
    height, width = image.shape[:2]
    rule = model.resize
    if config.short:
        drawn = rng.integers(config.short[0], config.short[-1] + 1) if config.short_range else rng.choice(config.short)
        rule = ResizeRule(short=int(drawn), long=config.long or rule.long)
    flip, turns = _draw_turns(rng, config)
    size = rule.size_for(height, width)
    view = View(0, 0, height, width, flip, turns, size[::-1] if turns % 2 else size)
    return _render(image, _cropped(masks), labels, np.arange(len(labels)), view, model, config, rng)


def pad(pixels: Tensor, target: Target, size: tuple[int, int]) -> tuple[Tensor, Target]:
    """A normalised picture (3, h, w) and its masks with zeros to the right and below, to ``size``."""
    missing = (0, size[1] - pixels.shape[2], 0, size[0] - pixels.shape[1])
    masks = F.pad(target.masks, missing)  # G, H, W
    return F.pad(pixels, missing), Target(boxes=target.boxes, labels=target.labels, masks=masks)


def _cropped(masks: MaskCrops | NDArray[np.uint8]) -> MaskCrops:
    return masks if isinstance(masks, MaskCrops) else dense_to_crops(masks.astype(np.bool_))


def _draw_turns(rng: Rng, config: AugmentConfig) -> tuple[bool, int]:
    flip = config.flip and bool(rng.random() < 0.5)
    return flip, int(rng.integers(4)) if config.rotate90 else 0


def _window(rng: Rng, crops: MaskCrops, height: int, width: int, side: int) -> tuple[int, int]:
    """Top-left corner of a random window; nine times of ten it holds the centre of a random object."""
    high_y, high_x = max(0, height - side), max(0, width - side)
    if len(crops) and rng.random() < 0.9:
        index = int(rng.integers(len(crops)))
        ys, xs = np.nonzero(crops.crop(index))
        if len(ys):
            y = int(ys.mean() + crops.boxes[index, 1] - rng.uniform(0, side))
            x = int(xs.mean() + crops.boxes[index, 0] - rng.uniform(0, side))
            return int(np.clip(y, 0, high_y)), int(np.clip(x, 0, high_x))
    return int(rng.integers(high_y + 1)), int(rng.integers(high_x + 1))


def _overlap(crops: MaskCrops, index: int, view: View) -> tuple[int, int, int, int]:
    """The part of a crop's box inside the window: x1, y1, x2, y2 in picture pixels, empty where they do not meet."""
    x1, y1, x2, y2 = (int(v) for v in crops.boxes[index])
    left, top = max(x1, view.x), max(y1, view.y)
    return left, top, max(left, min(x2, view.x + view.width)), max(top, min(y2, view.y + view.height))


def _part(crops: MaskCrops, index: int, view: View) -> NDArray[np.uint8]:
    """The pixels of a mask inside the window."""
    left, top, right, bottom = _overlap(crops, index, view)
    x, y = int(crops.boxes[index, 0]), int(crops.boxes[index, 1])
    return crops.crop(index)[top - y : bottom - y, left - x : right - x]


def _render(
    image: NDArray[np.uint8],
    crops: MaskCrops,
    labels: NDArray[np.int64],
    keep: NDArray[np.int64],
    view: View,
    model: ModelConfig,
    config: AugmentConfig,
    rng: Rng,
) -> tuple[Tensor, Target]:
    """A view of a picture, normalised (3, h, w), and the objects ``keep`` in it."""
    window = image[view.y : view.y + view.height, view.x : view.x + view.width]
    shaded = _shade(window.astype(np.float32), config, rng)
    planes = view.turned(shaded.transpose(2, 0, 1))  # 3, h, w
    planes = planes if model.color == "rgb" else planes[::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(planes, np.float32))
    pixels = F.interpolate(pixels[None], view.size, mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.mean, model.std))
    return (pixels - mean) / std, _target(_bitmaps(crops, keep, view), torch.from_numpy(labels[keep]))


def _bitmaps(crops: MaskCrops, keep: NDArray[np.int64], view: View) -> Tensor:
    """Masks (G, h, w) uint8 of the objects ``keep`` as the view shows them."""
    bitmaps = torch.zeros((len(keep), *view.size), dtype=torch.uint8)
    for first in range(0, len(keep), CHUNK):
        chosen = keep[first : first + CHUNK]
        dense = np.zeros((len(chosen), view.height, view.width), np.float32)
        for row, index in zip(dense, chosen, strict=True):
            left, top, right, bottom = _overlap(crops, int(index), view)
            row[top - view.y : bottom - view.y, left - view.x : right - view.x] = _part(crops, int(index), view)
        soft = torch.from_numpy(np.ascontiguousarray(view.turned(dense), np.float32))[:, None]  # g, 1, H, W
        soft = F.interpolate(soft, view.size, mode="bilinear", antialias=True)[:, 0]  # g, h, w
        bitmaps[first : first + len(chosen)] = soft >= 0.5
    return bitmaps


def _shade(image: NDArray[np.float32], config: AugmentConfig, rng: Rng) -> NDArray[np.float32]:
    """Photometric jitter on 0..255 floats."""
    if config.invert and rng.random() < config.invert:
        image = 255.0 - image
    if config.grey and rng.random() < config.grey:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    if config.gamma:
        image = 255.0 * (image / 255.0) ** float(2.0 ** rng.uniform(-config.gamma, config.gamma))
    if config.contrast:
        centre = image.mean()
        image = (image - centre) * float(1 + rng.uniform(-config.contrast, config.contrast)) + centre
    if config.brightness:
        image = image + float(rng.uniform(-config.brightness, config.brightness))
    return np.clip(image, 0.0, 255.0).astype(np.float32)


def _target(bitmaps: Tensor, labels: Tensor) -> Target:
    """Boxes around the bitmaps; objects that vanished in the resampling are dropped."""
    boxes, kept = [], []
    for index, bitmap in enumerate(bitmaps):
        rows, columns = torch.nonzero(bitmap.any(1)).squeeze(1), torch.nonzero(bitmap.any(0)).squeeze(1)
        if len(rows):
            boxes.append([columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1])
            kept.append(index)
    return Target(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=labels[kept], masks=bitmaps[kept])

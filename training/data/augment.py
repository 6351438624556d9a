"""From a whole picture to one training crop. All randomness comes from the generator that is passed in."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.config import AugmentConfig, ModelConfig
from training.models.detector import Target

Rng = np.random.Generator


def training_crop(
    image: NDArray[np.uint8], masks: NDArray[np.uint8], labels: NDArray[np.int64], model: ModelConfig, config: AugmentConfig, rng: Rng
) -> tuple[Tensor, Target]:
    """A normalised crop (3, S, S) float32 and its ground truth.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (G, H, W) uint8.
        labels: (G,) int64.
        model: its resize rule and normalisation.
        config: what to vary, and by how much.
        rng: source of all randomness.
    """
    height, width = image.shape[:2]
    scale = model.resize.scale_for(height, width) * float(np.exp(rng.uniform(*np.log(config.scale))))
    side = max(8, round(config.crop / scale))  # of the window, picture pixels
    y, x = _window(rng, masks, height, width, side)
    image, window = image[y : y + side, x : x + side], masks[:, y : y + side, x : x + side]
    visible = window.reshape(len(window), -1).sum(1)
    whole = masks.reshape(len(masks), -1).sum(1)
    keep = (visible >= 4) & (visible >= config.min_visible * whole)
    image, window = _turn(image, window[keep], config, rng)
    image = _shade(image.astype(np.float32), config, rng)
    pixels, bitmaps = _resample(image, window, scale, config.crop)
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (model.mean, model.std))
    return (pixels - torch.from_numpy(mean)) / torch.from_numpy(std), _target(bitmaps, torch.from_numpy(labels[keep]))


def _window(rng: Rng, masks: NDArray[np.uint8], height: int, width: int, side: int) -> tuple[int, int]:
    """Top-left corner of a random window; nine times of ten it holds the centre of a random object."""
    high_y, high_x = max(0, height - side), max(0, width - side)
    if len(masks) and rng.random() < 0.9:
        ys, xs = np.nonzero(masks[rng.integers(len(masks))])
        if len(ys):
            y = int(ys.mean() - rng.uniform(0, side))
            x = int(xs.mean() - rng.uniform(0, side))
            return int(np.clip(y, 0, high_y)), int(np.clip(x, 0, high_x))
    return int(rng.integers(high_y + 1)), int(rng.integers(high_x + 1))


def _turn(
    image: NDArray[np.uint8], masks: NDArray[np.uint8], config: AugmentConfig, rng: Rng
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if config.flip and rng.random() < 0.5:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    if config.rotate90:
        turns = int(rng.integers(4))
        image, masks = np.rot90(image, turns), np.rot90(masks, turns, (1, 2))
    return image, masks


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


def _resample(image: NDArray[np.float32], masks: NDArray[np.uint8], scale: float, crop: int) -> tuple[Tensor, Tensor]:
    """The window scaled by ``scale`` and zero-padded to the crop: pixels (3, S, S), bitmaps (G, S, S) uint8."""
    height, width = (min(crop, max(1, round(side * scale))) for side in image.shape[:2])
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)[0]
    pixels = F.pad(pixels, (0, crop - width, 0, crop - height))
    if len(masks) == 0:
        return pixels, torch.zeros((0, crop, crop), dtype=torch.uint8)
    soft = torch.from_numpy(np.ascontiguousarray(masks))[:, None].float()
    soft = F.interpolate(soft, (height, width), mode="bilinear", antialias=True)[:, 0]
    return pixels, F.pad((soft >= 0.5).to(torch.uint8), (0, crop - width, 0, crop - height))


def _target(bitmaps: Tensor, labels: Tensor) -> Target:
    """Boxes around the bitmaps; objects that vanished in the resampling are dropped."""
    boxes, kept = [], []
    for index, bitmap in enumerate(bitmaps):
        rows, columns = torch.nonzero(bitmap.any(1)).squeeze(1), torch.nonzero(bitmap.any(0)).squeeze(1)
        if len(rows):
            boxes.append([columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1])
            kept.append(index)
    return Target(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=labels[kept], masks=bitmaps[kept])

"""What happens to the picture of a training patch. All randomness comes from the generator that is passed in."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.refiner.config import PatchConfig

Rng = np.random.Generator
Pixels = NDArray[np.float32]


def shade(patch: NDArray[np.uint8], config: PatchConfig, rng: Rng) -> NDArray[np.uint8]:
    """Photometric distortion as BPR is trained with (that of SSD, Liu et al. 2016), then what cameras and files do.

    Args:
        patch: (S, S, 3) uint8 RGB.
        config: probabilities.
        rng: source of all randomness.
    """
    if config.photometric:
        patch = _to_bytes(_photometric(patch.astype(np.float32), config.photometric, rng))
    if rng.random() < config.blur:
        patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), float(rng.uniform(0.3, 1.2))), np.uint8)
    if rng.random() < config.noise:
        patch = _to_bytes(patch + rng.normal(0, rng.uniform(1, 8), patch.shape).astype(np.float32))
    if rng.random() < config.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 91))]
        patch = np.asarray(cv2.imdecode(cv2.imencode(".jpg", patch, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return patch


def _to_bytes(pixels: Pixels) -> NDArray[np.uint8]:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _photometric(pixels: Pixels, probability: float, rng: Rng) -> Pixels:
    """Brightness, contrast, saturation and hue, each with a probability; contrast comes before or after the colours."""
    brightness, contrast, saturation, hue, early = rng.random(5)
    if brightness < probability:
        pixels = pixels + np.float32(rng.uniform(-32, 32))
    factor = np.float32(rng.uniform(0.5, 1.5))
    if contrast < probability and early < 0.5:
        pixels = pixels * factor
    if min(saturation, hue) < probability:
        hsv = cv2.cvtColor(np.clip(pixels, 0, 255) / np.float32(255), cv2.COLOR_RGB2HSV)  # H 0..360, S and V 0..1
        if saturation < probability:
            hsv[..., 1] = np.clip(hsv[..., 1] * np.float32(rng.uniform(0.5, 1.5)), 0, 1)
        if hue < probability:
            hsv[..., 0] = (hsv[..., 0] + np.float32(rng.uniform(-36, 36))) % 360
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
    if contrast < probability and early >= 0.5:
        pixels = pixels * factor
    return np.asarray(pixels, np.float32)

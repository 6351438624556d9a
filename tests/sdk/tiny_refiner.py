"""A refiner whose answers are known: foreground is where the picture's red channel is bright; or, `echo`, what the mask channel says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from sdk.engine import Engine
from sdk.manifest import PatchSpec, RefinerManifest
from tests.sdk import tiny

QUALITIES = {
    "fast": PatchSpec(size=32, input_size=32, nms_threshold=0.1, max_patches=4),
    "balanced": PatchSpec(size=32, input_size=32),
    "best": PatchSpec(size=32, input_size=64, nms_threshold=0.55),
}


def manifest(**changes: Any) -> RefinerManifest:
    """The manifest, graphs not filled in."""
    return RefinerManifest(
        name="tiny-refiner", method="colour", mean=(0, 0, 0), std=(255, 255, 255), size_divisor=8, qualities=QUALITIES
    ).replace(**changes)


def graph(*, echo: bool = False, channels: int = 4, name: str = "logits", size: str = "H") -> bytes:
    """Logits from the patches: 20 where red is bright (or the mask is set), -20 elsewhere."""
    weights = np.zeros((1, channels, 1, 1), np.float32)
    weights[0, 3 if echo else 0] = 20 if echo else 40
    nodes = [
        helper.make_node("Conv", ["patches", "weights", "bias"], ["maps"]),
        helper.make_node("Squeeze", ["maps", "axis"], [name]),
    ]
    constants = {"weights": weights, "bias": np.float32([0 if echo else -20]), "axis": np.int64([1])}
    inputs = [tiny.value("patches", ["N", channels, size, "W"])]
    return tiny.serialise("refiner", nodes, constants, inputs, [tiny.value(name, ["N", "h", "w"])])


def write(path: Path, *, echo: bool = False, **changes: Any) -> Path:
    """Writes the engine."""
    with_mask = changes.get("mask_channel", True)
    Engine.write(path, manifest(**changes), {"refiner": graph(echo=echo, channels=4 if with_mask else 3)})
    return path

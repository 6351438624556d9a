"""What a head costs: parameters, multiply-accumulates, and milliseconds of the exported engine on this machine."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy import config
from benchmarks.accuracy.fit import attach
from export.pack import pack
from sdk import Segmenter
from training.data.scenes import Scenes
from training.heads import MaskHead
from training.models.detector import Detector


@torch.no_grad()
def macs(head: MaskHead, channels: int, size: int = 512) -> tuple[int, int]:
    """Multiply-accumulates of one RoI, and of the maps that the head adds to a picture of ``size`` x ``size``."""
    head = head.eval()
    pyramid = [torch.zeros(1, channels, size // s, size // s) for s in (4, 8, 16, 32)]
    with FlopCounterMode(display=False) as per_picture:
        maps = head.maps(pyramid)
    inputs = [torch.zeros(1, maps[p.feature].shape[1] if p.feature in maps else channels, p.size, p.size) for p in head.pools]
    with FlopCounterMode(display=False) as per_roi:
        head(inputs, torch.zeros(1, dtype=torch.int64))
    return per_roi.get_total_flops() // 2, per_picture.get_total_flops() // 2


def inference_parameters(head: MaskHead) -> int:
    """Parameters that the exported head keeps."""
    return sum(p.numel() for name, p in head.named_parameters() if not name.startswith(head.training_only))


def milliseconds(engines: dict[str, Path], scenes: Scenes, rounds: int = 40) -> dict[str, dict[str, float]]:
    """Median times of ``Segmenter.predict`` with each engine, taken picture by picture in turn, so that all see the same machine."""
    segmenters = {name: Segmenter(path, device="cpu", color="rgb", conf=0.25) for name, path in engines.items()}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for index in range(rounds + 2):
        pixels = scenes.load(index % len(scenes))[0]
        for name, segmenter in segmenters.items():
            speed = dict(segmenter.predict(pixels).speed)
            if index >= 2:  # the first two warm up
                taken[name].append(speed)
    return {
        name: {
            "total": statistics.median(t["total"] for t in times),
            "mask": statistics.median(t.get("pool_mask", 0.0) + t.get("mask", 0.0) for t in times),
            "trunk": statistics.median(t["trunk"] for t in times),
        }
        for name, times in taken.items()
    }


def costs(detector: Detector, heads: dict[str, MaskHead], scenes: Scenes) -> dict[str, dict[str, Any]]:
    """Every head's costs; ``detector`` lends its other parts."""
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for name, head in heads.items():
            attach(detector, head)
            engines[name] = Path(folder) / f"{name}.engine"
            pack(detector.eval(), engines[name], name, {})
        times = milliseconds(engines, scenes)
    rows = {}
    for name, head in heads.items():
        per_roi, per_picture = macs(head, config.CHANNELS)
        rows[name] = {
            "parameters": inference_parameters(head),
            "macs_per_roi": per_roi,
            "macs_per_picture": per_picture,
            "milliseconds": times[name],
        }
    return rows


def published_size(name: str) -> dict[str, int]:
    """Parameters and multiply-accumulates of the head as published: 256 channels, 80 classes."""
    head = config.make_head(name, 256, 80)
    per_roi, per_picture = macs(head, 256, 1024)
    return {"parameters": inference_parameters(head), "macs_per_roi": per_roi, "macs_per_picture_1024": per_picture}

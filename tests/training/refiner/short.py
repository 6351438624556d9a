"""A configuration that trains in seconds, and a trainer of it."""

from __future__ import annotations

from pathlib import Path

from training.distributed import World
from training.refiner.config import LiteConfig, PatchConfig, RefinerConfig, RefinerTrainConfig, SourceConfig
from training.refiner.data import PatchSet
from training.refiner.sources import open_sources
from training.refiner.trainer import RefinerTrainer
from training.refiner.validate import hold_out

SHORT = RefinerTrainConfig(
    model=RefinerConfig(network="lite", lite=LiteConfig(widths=(8, 16, 16), blocks=(1, 1, 1)), input=64),
    sources=(SourceConfig(data="dead-leaves", count=4, size=128), SourceConfig(data="scenes", count=2, size=128, weight=0.5)),
    patches=PatchConfig(jitter=4.0, scale=(0.8, 1.25), rotate90=True, per_mask=2, blur=0.3, noise=0.3, jpeg=0.3),
    iterations=4,
    batch=8,
    optimizer="adamw",
    learning_rate=2e-3,
    floor=0.0,
    schedule="cosine",
    clip_norm=5.0,
    ema=0.9,
    checkpoint_every=100,
    log_every=1,
    validate_every=2,
    validate_patches=8,
    device="cpu",
)


def trainer(config: RefinerTrainConfig, out: Path) -> RefinerTrainer:
    """A run over the sources of ``config``."""
    sources, held, _ = open_sources(config.sources, World(), out, min_iou=config.coarse.min_iou, skip_bad=False, jobs=1)
    return RefinerTrainer(config, PatchSet(sources, config), out, held=hold_out(held, config))

"""A configuration that trains in seconds, and a trainer of it."""

from __future__ import annotations

from pathlib import Path

from tests.trained import TINY
from training.config import ModelConfig, TrainConfig
from training.data.batches import TrainingSet
from training.data.coco import CocoInstances
from training.presets import with_head
from training.trainer import Trainer

SHORT = TINY.replace(iterations=6, batch=2, checkpoint_every=4, log_every=1, augment=TINY.augment.replace(crop=64))


def with_norm(norm: str) -> ModelConfig:
    """The model with another norm in its backbone."""
    return TINY.model.replace(norm=norm)


def headed(name: str) -> ModelConfig:
    """The model with another mask head."""
    return with_head(TINY, "", name).model


def trainer(config: TrainConfig, folder: Path, out: Path) -> Trainer:
    """A run over the ellipses in ``folder``."""
    data = CocoInstances(folder / "annotations/train.json", folder / "train", config.model.category_ids)
    return Trainer(config, TrainingSet(data, config), out)

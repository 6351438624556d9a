"""Fixtures around one small detector that the tests train themselves, once per test run (about 20 s on two cores)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdk.config import ResizeRule
from tests.ellipses import write_coco
from training.config import AugmentConfig, BoxConfig, ModelConfig, RPNConfig, TrainConfig
from training.data.coco import CocoInstances
from training.heads.fcn import FCNConfig
from training.models.detector import Detector
from training.train import Trainer, TrainingSet

TINY = TrainConfig(
    model=ModelConfig(
        class_names=("bright", "dark"),
        category_ids=(3, 7),
        backbone="resnet18",
        width=8,
        norm="batch",
        fpn_channels=24,
        resize=ResizeRule(factor=1.0, long=512),
        rpn=RPNConfig(anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0), pre_nms_train=100, post_nms_train=100, samples=128),
        box=BoxConfig(hidden=64, samples=48, max_detections=50),
        head=FCNConfig(channels=24, convs=2),
    ),
    augment=AugmentConfig(crop=128, scale=(0.9, 1.1), rotate90=True),
    iterations=260,
    batch=4,
    optimizer="adamw",
    learning_rate=4e-3,
    weight_decay=0.01,
    warmup=20,
    schedule="cosine",
    clip_norm=10.0,
    ema=0.9,
    seed=1,
    checkpoint_every=1000,
)


@pytest.fixture(scope="session")
def ellipses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder with ``train`` (12 pictures) and ``val`` (4 pictures)."""
    folder = write_coco(tmp_path_factory.mktemp("ellipses"))
    return write_coco(folder, "val", 4, seed=99)


@pytest.fixture(scope="session")
def tiny_checkpoint(ellipses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a small detector trained on ``ellipses``."""
    out = tmp_path_factory.mktemp("tiny")
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train", TINY.model.category_ids)
    trainer = Trainer(TINY, TrainingSet(data, TINY), out)
    losses = [row["loss"] for row in trainer.run()]
    assert losses[-1] < 0.5 * losses[0]
    return out / "checkpoint.pt"


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> Detector:
    from training.checkpoint import load_model

    torch.manual_seed(0)
    return load_model(tiny_checkpoint)[0]

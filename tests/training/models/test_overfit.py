"""Every kind of detection training learns the ellipses: boxes that fit, and true objects scored above everything else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from export.verify import predict_torch
from tests.trained import TINY
from training.config import CascadeConfig, ScoringConfig
from training.data.coco import CocoInstances
from training.models.ops import paste_masks
from training.train import Trainer, TrainingSet

KINDS = {
    "rs_giou": {"detection_loss": "rs_giou"},
    "cascade": {"cascade": CascadeConfig()},
    "scoring": {"scoring": ScoringConfig(channels=16, convs=2, hidden=32)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_learns_the_ellipses(kind: str, ellipses: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, model=TINY.model.replace(**KINDS[kind]), iterations=200)
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train", config.model.category_ids)
    trainer = Trainer(config, TrainingSet(data, config), tmp_path)
    # Not the sum: in a cascade more and more RoIs of the later stages are foreground, so that their box losses grow while it learns.
    losses = [row["mask"] for row in trainer.run()]
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.ema is not None
    trainer.model.load_state_dict(trainer.ema)
    trainer.model.eval()
    best: list[float] = []
    for index in range(4):
        image, masks, labels = data.load(index)
        found = predict_torch(trainer.model, image)
        top = len(labels)  # scores of Rank & Sort rank, but are not calibrated: no threshold on them
        pasted = paste_masks(found.mask_logits[:top], found.boxes[:top], image.shape[:2]).numpy()
        own = found.labels[:top].numpy()
        for mask, label in zip(masks.astype(bool), labels, strict=True):
            best.append(max([(m & mask).sum() / (m | mask).sum() for m in pasted[own == label]], default=0.0))
    assert np.mean(best) > 0.8

"""Ready-made training configurations, and what each mask head's paper changes in them.

The papers trained on three code bases that differ in details; which detail comes from where is told in ``docs/training.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sdk.config import ResizeRule
from training.config import AugmentConfig, BoxConfig, HeadConfig, ModelConfig, RPNConfig, TrainConfig
from training.heads.fcn import FCNConfig

NUCLEI = TrainConfig(
    model=ModelConfig(
        class_names=("nucleus",),
        backbone="resnet18",
        width=32,
        norm="batch",
        fpn_channels=96,
        resize=ResizeRule(short=None, long=1344, factor=2.0),
        rpn=RPNConfig(anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0), pre_nms_train=400, post_nms_train=400, samples=256),
        box=BoxConfig(hidden=384, samples=128, max_detections=500),
        head=FCNConfig(channels=96),
    ),
    augment=AugmentConfig(crop=256, scale=(0.7, 1.5), rotate90=True, gamma=0.7, contrast=0.3, brightness=5.0, grey=0.2, invert=0.1),
    iterations=5000,
    batch=4,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup=200,
    schedule="cosine",
    clip_norm=10.0,
    ema=0.998,
    checkpoint_every=200,
)

# Pictures of 256 to 512 px on two CPU cores, from random weights: large objects, so that the mask and not the detector limits the outline.
SMALL = TrainConfig(
    model=ModelConfig(
        backbone="resnet18",
        width=32,
        norm="batch",
        fpn_channels=96,
        resize=ResizeRule(short=320, long=512),
        rpn=RPNConfig(pre_nms_train=400, post_nms_train=400, pre_nms_test=400, post_nms_test=400),
        box=BoxConfig(hidden=384, samples=128),
        head=FCNConfig(channels=96),
    ),
    augment=AugmentConfig(mode="full", short=(256, 288, 320, 352, 384), long=512),
    iterations=1500,
    batch=4,
    sampler="epochs",
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup=200,
    schedule="cosine",
    clip_norm=10.0,
    ema=0.998,
    checkpoint_every=200,
)

# Detectron2's numbers for Mask R-CNN R50-FPN: 90,000 iterations of 16 pictures from ImageNet weights.
COCO_1X = TrainConfig(
    model=ModelConfig(box=BoxConfig(sampling_ratio=0), head=FCNConfig(sampling_ratio=0)),
    augment=AugmentConfig(mode="full", short=(640, 672, 704, 736, 768, 800), long=1333),
    iterations=90_000,
    batch=16,
    sampler="epochs",
    skip_empty=True,
    decay_biases=True,
    warmup=1000,
    warmup_factor=1e-3,
    milestones=(60 / 90, 80 / 90),
    freeze_stem=True,
    checkpoint_every=2500,
    workers=4,
    cache_mb=0,  # a picture comes again after an epoch only
)

LVIS_1X = COCO_1X.replace(
    model=COCO_1X.model.replace(box=BoxConfig(sampling_ratio=0, score_threshold=1e-4, max_detections=300)),
    iterations=180_000,
    milestones=(120 / 180, 160 / 180),
    sampler="repeat",
    repeat_threshold=1e-3,
)

CITYSCAPES = COCO_1X.replace(
    model=COCO_1X.model.replace(resize=ResizeRule(short=1024, long=2048)),
    augment=COCO_1X.augment.replace(short=tuple(range(800, 1025, 32)), long=2048),
    iterations=24_000,
    batch=8,
    learning_rate=0.01,
    milestones=(18 / 24,),
)

PRESETS: dict[str, TrainConfig] = {
    "coco-1x": COCO_1X,
    "coco-2x": COCO_1X.replace(iterations=180_000, milestones=(120 / 180, 160 / 180)),
    "coco-3x": COCO_1X.replace(iterations=270_000, milestones=(210 / 270, 250 / 270)),
    "lvis-1x": LVIS_1X,
    "cityscapes": CITYSCAPES,
    "small": SMALL,
    "nuclei": NUCLEI,
}

# RefineMask and BRefine were trained with MMDetection: epochs instead of iterations, one scale on COCO, a shorter warm-up.
MMDETECTION: Mapping[str, Mapping[str, Any]] = {
    "coco-1x": {"epochs": 12.0, "milestones": (8 / 12, 11 / 12), "warmup": 500, "augment.short": (800,)},
    "coco-2x": {"epochs": 24.0, "milestones": (16 / 24, 22 / 24), "warmup": 500, "augment.short": (800,)},
    # Not in these papers: Detectron2's length and drops in epochs, so that it does not depend on the batch.
    "coco-3x": {"epochs": 36.0, "warmup": 500, "augment.short": (800,)},
    "lvis-1x": {"epochs": 12.0, "milestones": (8 / 12, 11 / 12), "warmup": 500},
    "cityscapes": {"epochs": 64.0, "milestones": (7 / 8,), "warmup": 500, "augment.short": (800, 1024), "augment.short_range": True},
}
PAPERS = ("coco-1x", "coco-2x", "coco-3x", "lvis-1x", "cityscapes")

REFINEMASK = {"clip_norm": 35.0, "model.box.class_weight": 2.0, "model.box.box_weight": 2.0}
# Three GPUs with two pictures each; the learning rate goes with the batch.
BREFINE = {"batch": 6, "learning_rate": 0.0075, "model.detection_loss": "rs_giou"}

# What a head's paper changes, by preset. BEIS trains as the presets do.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "bmask": {name: {"augment.short": (800,)} for name in ("coco-1x", "coco-2x", "coco-3x")},
    "refinemask": {name: {**changes, **REFINEMASK} for name, changes in MMDETECTION.items()},
    "brefine": {name: {**changes, **BREFINE} for name, changes in MMDETECTION.items()},
}
RECIPES["refinemask"]["lvis-1x"]["model.head.last_stage_agnostic"] = True
RECIPES["refinemask"]["cityscapes"].update({"model.box.box_loss": "smooth_l1", "model.box.beta": 1.0})


def with_head(config: TrainConfig, preset: str, head: str) -> TrainConfig:
    """A preset with another mask head, and with what the head's paper changes in that preset.

    Args:
        config: the preset.
        preset: its name.
        head: a row of ``training.heads.HEADS``. It gets its own defaults, but the width and the sampling of the preset's head.
    """
    shared = {f.name: getattr(config.model.head, f.name) for f in fields(HeadConfig) if f.name in ("channels", "sampling_ratio")}
    values = config.to_dict()
    values["model"]["head"] = {**shared, "name": head}
    for path, value in RECIPES.get(head, {}).get(preset, {}).items():
        *parents, name = path.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[name] = value
    return TrainConfig.from_dict(values)

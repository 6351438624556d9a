"""What is trained and measured."""

from __future__ import annotations

from typing import Any

from sdk.config import ResizeRule
from training.config import AugmentConfig, BoxConfig, HeadConfig, ModelConfig, RPNConfig, TrainConfig
from training.data.scenes import Scenes
from training.heads import HEADS as ARCHITECTURES
from training.heads import MaskHead

CHANNELS = 64  # of the pyramid and of every head: a quarter of the published width
# Rows of the table: a head with the paper's options, and what differs from them.
HEADS: dict[str, dict[str, Any]] = {
    "fcn": {},
    "bmask": {},
    "refinemask": {},
    "brefine": {},
    "beis": {},
    "beis-unit": {"name": "beis", "normalize": True, "tau": 0.1},  # contrast between features of length 1, as is usual elsewhere
}
SEEDS = {"fcn": 3, "bmask": 3, "refinemask": 3, "brefine": 3, "beis": 3, "beis-unit": 1}  # runs of each row, from seed 0
TRAIN_SCENES, TRAIN_SEED = 800, 1
VAL_SCENES, VAL_SEED = 200, 2

# BMask R-CNN's head draws on both kinds of RoI input (all levels by size, and P2 for every box), so training the detector with it leaves
# features behind that suit every head; that head itself is thrown away.
DETECTOR = TrainConfig(
    model=ModelConfig(
        class_names=Scenes.class_names,
        category_ids=Scenes.category_ids,
        backbone="resnet18",
        width=32,
        norm="batch",
        fpn_channels=CHANNELS,
        resize=ResizeRule(factor=1.0, long=512),
        rpn=RPNConfig(pre_nms_train=200, post_nms_train=200, pre_nms_test=200, post_nms_test=200, samples=128),
        box=BoxConfig(hidden=256, samples=64, max_detections=50),
        head=HeadConfig.from_dict({"name": "bmask", "channels": CHANNELS}),
    ),
    augment=AugmentConfig(crop=512, scale=(0.9, 1.1), rotate90=True),
    iterations=1800,
    batch=2,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup=100,
    schedule="cosine",
    clip_norm=10.0,
    ema=0.995,
    checkpoint_every=100,
)


def make_head(row: str, channels: int = CHANNELS, classes: int = len(Scenes.class_names)) -> MaskHead:
    """The head of a row of the table, with new weights."""
    settings = HeadConfig.from_dict({"name": row, **HEADS[row], "channels": channels})
    return ARCHITECTURES[settings.name](settings, channels, classes)


# One budget for every head.
ITERATIONS = 1200
PICTURES = 2  # per iteration
ROIS = 8  # per picture, at most
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
WARMUP = 50
CLIP_NORM = 10.0
EMA = 0.99

DETECTOR_SCENES = 1500  # pictures that the detector trains on; the heads train on the first TRAIN_SCENES of them

TEXT = (
    "Data: `scenes`, procedural pictures of 512x512 with objects of 100 to 400 px and fine outlines. The detector (ResNet-18 of half "
    f"width, {CHANNELS} channels) was trained once, with BMask R-CNN's head because that draws on all pyramid levels and on P2 alike; "
    f"its head was dropped and the rest frozen. Every head, {CHANNELS} channels wide, then learned from random weights on its features: "
    f"{ITERATIONS} iterations of {PICTURES} pictures with up to {ROIS} boxes each, AdamW, on {TRAIN_SCENES} pictures; measured on "
    f"{VAL_SCENES} others."
)
NOTES = (
    "The papers train the whole detector with each head on COCO; here only the head learns, in a short run. The table compares "
    "heads, it does not reproduce the papers.",
    "No run has converged, and the baseline is the furthest from it, so a longer run narrows the gaps. AP / AP_B of seed 0: `fcn` "
    "33.7 / 13.8 after 800 iterations, 35.4 / 16.0 after 1,200, 36.9 / 17.9 after 1,600, 39.2 / 21.2 after 2,400; `refinemask` "
    "46.9 / 37.3 after 800, 48.8 / 40.2 after 1,200; `beis` 46.4 / 36.3 and 48.1 / 40.5. The baseline pools large objects from "
    "coarse levels only, the other heads also read P2: on objects of 100 to 400 px that is probably most of the difference.",
)

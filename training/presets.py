"""Ready-made training configurations."""

from __future__ import annotations

from sdk.config import ResizeRule
from training.config import AugmentConfig, BoxConfig, ModelConfig, RPNConfig, TrainConfig
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

PRESETS: dict[str, TrainConfig] = {"coco-1x": TrainConfig(), "nuclei": NUCLEI}

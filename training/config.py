"""Configuration of models and of their training: frozen dataclasses, stored in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdk.config import Config, ResizeRule, require


@dataclass(frozen=True, kw_only=True)
class RPNConfig(Config):
    """Region proposal network (Ren et al. 2015), with Detectron2's numbers."""

    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)  # one per level P2..P6, input pixels
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    high: float = 0.7  # IoU from which an anchor is positive
    low: float = 0.3  # IoU below which it is negative
    samples: int = 256  # anchors per picture in the loss
    pre_nms_train: int = 2000  # per level
    pre_nms_test: int = 1000  # per level
    post_nms_train: int = 1000  # per picture
    post_nms_test: int = 1000  # per picture
    nms_threshold: float = 0.7

    def __post_init__(self) -> None:
        require(len(self.anchor_sizes) == 5, f"anchor_sizes needs one size per level P2..P6, got {self.anchor_sizes}")


@dataclass(frozen=True, kw_only=True)
class BoxConfig(Config):
    """Second stage."""

    pool_size: int = 7
    sampling_ratio: int = 2  # samples per bin and side; 0 = adaptive
    hidden: int = 1024
    coder_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    samples: int = 512  # RoIs per picture
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """Mask head: its row in ``training.heads.HEADS`` and its size."""

    name: str = "fcn"
    channels: int = 256
    convs: int = 4
    pool_size: int = 14
    sampling_ratio: int = 2


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """Everything that rebuilds the model."""

    class_names: tuple[str, ...] = ("object",)
    category_ids: tuple[int, ...] = (1,)  # COCO category of each class
    backbone: str = "resnet50"
    width: int = 64  # channels of the stem
    norm: str = "frozen"
    fpn_channels: int = 256
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # RGB, 0..255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    resize: ResizeRule = field(default_factory=lambda: ResizeRule(short=800, long=1333))
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box: BoxConfig = field(default_factory=BoxConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        require(
            len(self.class_names) == len(self.category_ids) > 0,
            f"class_names ({len(self.class_names)}) and category_ids ({len(self.category_ids)}) must pair up",
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Config):
    """What happens to a training picture."""

    crop: int = 256  # side of the square training crop, input pixels
    scale: tuple[float, float] = (0.7, 1.4)  # jitter on top of the resize rule
    flip: bool = True
    rotate90: bool = False  # quarter turns too: only where "up" has no meaning
    gamma: float = 0.0  # exponent drawn from 2^[-gamma, gamma]
    contrast: float = 0.0  # factor drawn from 1 +- contrast
    brightness: float = 0.0  # offset drawn from +- brightness, grey levels
    grey: float = 0.0  # probability of dropping colour
    invert: float = 0.0  # probability of a negative
    min_visible: float = 0.2  # share of an object that must be inside the crop for it to count


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    iterations: int = 90_000
    batch: int = 16
    optimizer: str = "sgd"  # "sgd" (momentum .9) or "adamw"
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    warmup: int = 1000  # iterations of linear warm-up
    schedule: str = "step"  # "step" (x .1 at 2/3 and 8/9) or "cosine" (to zero)
    clip_norm: float = 0.0  # gradient norm; 0 = off
    ema: float = 0.0  # decay of the averaged weights; 0 = off
    seed: int = 0
    checkpoint_every: int = 500  # iterations
    log_every: int = 20
    threads: int = 0  # 0 = torch's choice

    def __post_init__(self) -> None:
        require(self.optimizer in ("sgd", "adamw"), f"optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")
        require(self.schedule in ("step", "cosine"), f"schedule must be 'step' or 'cosine', got {self.schedule!r}")
        require(min(self.iterations, self.batch, self.checkpoint_every, self.log_every) >= 1, "counts must be at least 1")


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
        head=HeadConfig(channels=96),
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

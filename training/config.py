"""Configuration of models and of their training: frozen dataclasses, stored in every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sdk.config import Config, ResizeRule, require

if TYPE_CHECKING:
    from typing_extensions import Self


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
    """What the mask heads have in common. Each head derives its own configuration, in its own folder."""

    name: str  # its row in ``training.heads.HEADS``
    channels: int = 256
    pool_size: int = 14  # bins per side of the main RoI input
    sampling_ratio: int = 2  # samples per bin and side; 0 = adaptive
    source: str = "pyramid"  # where the main RoI input comes from: "pyramid" = P2..P5 by box size, "p2" = P2 for every box

    def __post_init__(self) -> None:
        require(self.source in ("pyramid", "p2"), f"source must be 'pyramid' or 'p2', got {self.source!r}")
        require(self.channels >= 1 and self.pool_size >= 1, "channels and pool_size must be at least 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str | None = None) -> Self:
        """As ``Config.from_dict``; called on this base class, ``name`` decides which head's configuration is built."""
        if cls is not HeadConfig:
            return super().from_dict(values, where=where)
        from training.heads import HEADS

        name = values.get("name", "fcn") if isinstance(values, Mapping) else None
        require(name in HEADS, f"{where or cls.__name__}.name: expected one of {', '.join(HEADS)}, got {name!r}")
        return cast("Self", HEADS[cast("str", name)].config_type.from_dict(values, where=where))


def _default_head() -> HeadConfig:
    return HeadConfig.from_dict({"name": "fcn"})


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
    head: HeadConfig = field(default_factory=_default_head)

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

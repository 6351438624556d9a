"""Configuration of models and of their training: frozen dataclasses, stored in every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sdk.config import Config, ResizeRule, check_fraction, require

if TYPE_CHECKING:
    from typing_extensions import Self


BOX_LOSSES = ("l1", "smooth_l1", "giou")


def _check_least(config: Config, least: int, *names: str) -> None:
    for name in names:
        require(getattr(config, name) >= least, f"{name} must be at least {least}, got {getattr(config, name)}")


def _check_shares(config: Config, *names: str) -> None:
    for name in names:
        check_fraction(name, getattr(config, name))


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
    min_size: float = 0.0  # input pixels; proposals not wider and higher than this are dropped
    round_anchors: bool = False  # anchors of whole pixels, as torchvision's
    even_cells: bool = False  # P6's anchors lie every floor(side / cells) pixels, as torchvision's, instead of every 64
    coder_weights: tuple[float, float, float, float] | None = None  # None = (1, 1, 1, 1), or (10, 10, 5, 5) with "rs_giou"
    box_loss: str = "l1"  # "l1", "smooth_l1" or "giou"; "rs_giou" always takes GIoU
    beta: float = 1 / 9  # smooth_l1: size of the quadratic part, units of the coder

    def __post_init__(self) -> None:
        require(len(self.anchor_sizes) == 5, f"anchor_sizes needs one size per level P2..P6, got {self.anchor_sizes}")
        require(min(self.anchor_sizes) > 0, f"anchor_sizes must be positive, got {self.anchor_sizes}")
        require(
            bool(self.anchor_ratios) and min(self.anchor_ratios) > 0, f"anchor_ratios must be positive numbers, got {self.anchor_ratios}"
        )
        _check_shares(self, "low", "high", "nms_threshold")
        require(self.low <= self.high, f"low must not be above high, got {self.low} and {self.high}")
        _check_least(self, 1, "samples", "pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test")
        _check_least(self, 0, "min_size")
        require(self.coder_weights is None or min(self.coder_weights) > 0, f"coder_weights must be positive, got {self.coder_weights}")
        _check_box_loss(self.box_loss, self.beta)


def _check_box_loss(box_loss: str, beta: float) -> None:
    require(box_loss in BOX_LOSSES, f"box_loss must be one of {', '.join(BOX_LOSSES)}, got {box_loss!r}")
    require(beta > 0, f"beta must be positive, got {beta}; for 0 take box_loss 'l1'")


@dataclass(frozen=True, kw_only=True)
class BoxConfig(Config):
    """Second stage."""

    pool_size: int = 7
    sampling_ratio: int = 2  # samples per bin and side, bounded cost on any box; 0 = adaptive, as the presets of the papers have it
    aligned: bool = True  # False = RoIAlign without the half-cell shift (``sdk.manifest.PoolSpec``)
    hidden: int = 1024
    coder_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    samples: int = 512  # RoIs per picture
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    class_agnostic: bool = False  # one box per RoI instead of one per class
    box_loss: str = "l1"  # "l1", "smooth_l1" or "giou"; "rs_giou" always takes GIoU
    beta: float = 1.0  # smooth_l1: size of the quadratic part, units of the coder
    class_weight: float = 1.0  # of the classification loss; RefineMask doubles both (2.0). Not used by "rs_giou"
    box_weight: float = 1.0  # of the box loss; likewise
    train_on_pred_boxes: bool = False  # masks are trained in the boxes that this stage predicts, as BMask R-CNN's released code does
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        require(min(self.coder_weights) > 0, f"coder_weights must be positive, got {self.coder_weights}")
        _check_least(self, 1, "pool_size", "hidden", "samples", "max_detections")
        _check_least(self, 0, "sampling_ratio", "class_weight", "box_weight")
        _check_shares(self, "positive_fraction", "foreground_iou", "score_threshold", "nms_threshold")
        _check_box_loss(self.box_loss, self.beta)


@dataclass(frozen=True, kw_only=True)
class RankSortConfig(Config):
    """Options of the detection loss "rs_giou" (Oksuz et al. 2021, section 4; Cao et al. 2023)."""

    delta: float = 0.5  # half width of the smoothed step, logits
    rpn_weight: float = 0.2  # of all three losses of the RPN
    balance: bool = True  # scale box and mask losses to the value of their stage's ranking loss
    mask_cap: int = 200  # foreground RoIs of a batch that the mask head is trained on, at most

    def __post_init__(self) -> None:
        require(self.delta > 0 and self.rpn_weight > 0, f"delta and rpn_weight must be positive, got {self.delta} and {self.rpn_weight}")
        require(self.mask_cap >= 1, f"mask_cap must be at least 1, got {self.mask_cap}")


@dataclass(frozen=True, kw_only=True)
class CascadeConfig(Config):
    """Box stages one after another, each trained on the boxes of the one before (Cai & Vasconcelos 2018). Boxes are class-agnostic."""

    ious: tuple[float, ...] = (0.5, 0.6, 0.7)  # IoU from which a RoI is foreground, per stage; in place of ``box.foreground_iou``
    coder_weights: tuple[tuple[float, float, float, float], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )  # in place of ``box.coder_weights``

    def __post_init__(self) -> None:
        require(len(self.ious) == len(self.coder_weights) >= 2, "a cascade needs at least 2 stages, each with an IoU and coder weights")
        require(all(0 <= iou <= 1 for iou in self.ious), f"ious must be from 0 to 1, got {self.ious}")


@dataclass(frozen=True, kw_only=True)
class ScoringConfig(Config):
    """Mask Scoring: a small network that predicts the IoU of each mask (Huang et al. 2019)."""

    channels: int = 256
    convs: int = 4  # 3x3, the last with stride 2
    hidden: int = 1024
    loss_weight: float = 0.5

    def __post_init__(self) -> None:
        require(min(self.channels, self.convs, self.hidden) >= 1, "channels, convs and hidden must be at least 1")
        _check_least(self, 0, "loss_weight")


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """What the mask heads have in common. Each head derives its own configuration, in its own folder."""

    name: str  # its row in ``training.heads.HEADS``
    channels: int = 256
    pool_size: int = 14  # bins per side of the main RoI input
    sampling_ratio: int = 2  # as ``BoxConfig.sampling_ratio``
    source: str = "pyramid"  # where the main RoI input comes from: "pyramid" = P2..P5 by box size, "p2" = P2 for every box

    def __post_init__(self) -> None:
        require(self.source in ("pyramid", "p2"), f"source must be 'pyramid' or 'p2', got {self.source!r}")
        require(self.channels >= 1 and self.pool_size >= 1, "channels and pool_size must be at least 1")
        _check_least(self, 0, "sampling_ratio")

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
    color: str = "rgb"  # channel order of the network: "rgb" or "bgr"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # grey levels 0..255, in the network's channel order
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # grey levels, same order
    resize: ResizeRule = field(default_factory=lambda: ResizeRule(short=800, long=1333))
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box: BoxConfig = field(default_factory=BoxConfig)
    head: HeadConfig = field(default_factory=_default_head)
    detection_loss: str = "ce_l1"  # "ce_l1" = cross-entropy and box_loss on samples, "rs_giou" = Rank & Sort and GIoU on everything
    rank_sort: RankSortConfig = field(default_factory=RankSortConfig)  # used by "rs_giou"
    cascade: CascadeConfig | None = None  # None = one box stage
    scoring: ScoringConfig | None = None  # Mask Scoring; None = a mask's score is its box's

    def box_stages(self) -> tuple[BoxConfig, ...]:
        """The configuration of each box stage: ``box`` itself, or what the cascade makes of it."""
        if self.cascade is None:
            return (self.box,)
        stages = zip(self.cascade.ious, self.cascade.coder_weights, strict=True)
        return tuple(self.box.replace(class_agnostic=True, foreground_iou=iou, coder_weights=weights) for iou, weights in stages)

    def __post_init__(self) -> None:
        require(self.color in ("rgb", "bgr"), f"color must be 'rgb' or 'bgr', got {self.color!r}")
        require(min(self.std) > 0, f"std must be positive, got {self.std}")
        _check_least(self, 1, "width", "fpn_channels")
        losses = ("ce_l1", "rs_giou")
        require(self.detection_loss in losses, f"detection_loss must be one of {', '.join(losses)}, got {self.detection_loss!r}")
        require(
            len(self.class_names) == len(self.category_ids) > 0,
            f"class_names ({len(self.class_names)}) and category_ids ({len(self.category_ids)}) must pair up",
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Config):
    """What happens to a training picture."""

    mode: str = "crop"  # "crop" = random square crops, "full" = whole pictures at a random scale
    crop: int = 256  # crop: side of the square, input pixels
    scale: tuple[float, float] = (0.7, 1.4)  # crop: jitter on top of the resize rule
    short: tuple[int, ...] = ()  # full: shorter sides to draw from, input pixels; none = the resize rule
    short_range: bool = False  # full: draw anything from the first to the last of them
    long: int | None = None  # full: most the longer side may have, input pixels; None = that of the resize rule
    flip: bool = True
    rotate90: bool = False  # quarter turns too: only where "up" has no meaning
    gamma: float = 0.0  # exponent drawn from 2^[-gamma, gamma]
    contrast: float = 0.0  # factor drawn from 1 +- contrast
    brightness: float = 0.0  # offset drawn from +- brightness, grey levels
    grey: float = 0.0  # probability of dropping colour
    invert: float = 0.0  # probability of a negative
    min_visible: float = 0.2  # share of an object that must be inside the crop for it to count

    def __post_init__(self) -> None:
        require(self.mode in ("crop", "full"), f"mode must be 'crop' or 'full', got {self.mode!r}")
        require(self.crop >= 32, f"crop must be at least 32 pixels, got {self.crop}")
        require(0 < self.scale[0] <= self.scale[1], f"scale must be two positive numbers in order, got {self.scale}")
        require(all(s >= 1 for s in self.short), f"short must be at least 1 pixel, got {self.short}")
        require(not self.short_range or (len(self.short) == 2 and self.short[0] <= self.short[1]), "short_range needs two sides in order")
        require(self.long is None or self.long >= 1, f"long must be at least 1 pixel, got {self.long}")
        _check_least(self, 0, "gamma", "contrast", "brightness")
        _check_shares(self, "grey", "invert", "min_visible")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """What every training run has: how long, how fast, with what. `training.trainer` and `training.schedule` read these."""

    iterations: int = 90_000
    batch: int = 16  # pictures (or patches) of an iteration, over all processes
    accumulate: int = 1  # parts that a process computes its share of the batch in, one after the other
    optimizer: str = "sgd"  # "sgd" (momentum .9) or "adamw"
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    decay_norms: bool = False  # weight decay on norm parameters too
    decay_biases: bool = False  # weight decay on biases too
    bias_factor: float = 1.0  # learning rate of biases, times that of weights
    warmup: int = 1000  # iterations of linear warm-up
    warmup_factor: float = 0.0  # share of the learning rate at iteration 0; 0 = begin with the ramp's first step
    schedule: str = "step"  # after warm-up: "step" (x .1 at milestones), "cosine" (to zero) or "poly"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)  # step: shares of iterations
    power: float = 0.9  # poly: exponent
    floor: float = 0.0  # poly: learning rate at the end
    clip_norm: float = 0.0  # gradient norm; 0 = off
    ema: float = 0.0  # decay of the averaged weights; 0 = off
    precision: str = "fp32"  # "fp32", or autocast to "bf16" or "fp16" (CUDA only, with loss scaling)
    device: str = "auto"  # "cpu", "cuda", "cuda:1"; auto = cuda where there is one
    seed: int = 0
    checkpoint_every: int = 500  # iterations
    log_every: int = 20
    threads: int = 0  # 0 = torch's choice
    workers: int = 0  # processes that prepare batches ahead; 0 = the training process does it
    cache_mb: int = 2048  # decoded pictures kept in memory, MiB over all workers

    def __post_init__(self) -> None:
        check_choice(self, "optimizer", ("sgd", "adamw"))
        check_choice(self, "schedule", ("step", "cosine", "poly"))
        check_choice(self, "precision", ("fp32", "bf16", "fp16"))
        for name in ("iterations", "batch", "accumulate", "checkpoint_every", "log_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "seed", "threads", "workers", "cache_mb", "learning_rate", "weight_decay", "clip_norm"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        require(self.batch % self.accumulate == 0, f"a batch of {self.batch} cannot be computed in {self.accumulate} equal parts")
        require(all(0 < m < 1 for m in self.milestones), f"milestones are shares of the iterations, between 0 and 1, got {self.milestones}")
        require(list(self.milestones) == sorted(self.milestones), f"milestones must be in order, got {self.milestones}")
        require(0 <= self.ema < 1 and 0 <= self.warmup_factor <= 1, "ema must be below 1 and warmup_factor at most 1")
        require(self.power > 0, f"power must be positive, got {self.power}")
        require(self.bias_factor >= 0, f"bias_factor must not be negative, got {self.bias_factor}")
        require(0 <= self.floor <= self.learning_rate, f"floor must be 0 to the learning rate, got {self.floor}")


def check_choice(config: Config, name: str, known: tuple[str, ...]) -> None:
    """Raises `ConfigError` unless a field has one of these values."""
    require(getattr(config, name) in known, f"{name} must be one of {', '.join(known)}, got {getattr(config, name)!r}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One training run of a detector."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: float = 0.0  # passes over the data; 0 = as many as the iterations make, otherwise they decide the iterations
    sampler: str = "area"  # "area" = independent draws by sqrt(area), "epochs" = shuffled, "repeat" = shuffled, rare categories repeated
    repeat_threshold: float = 1e-3  # repeat: categories in a smaller share of the pictures come more often
    skip_empty: bool = False  # do not draw pictures without objects
    freeze_stem: bool = False  # keep stem and first stage as they are: only with weights to begin with

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "sampler", ("area", "epochs", "repeat"))
        require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")
        require(self.repeat_threshold > 0, f"repeat_threshold must be positive, got {self.repeat_threshold}")

"""Configuration of refinement networks and of their training, stored in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdk.config import Config, check_fraction, require
from training.config import RunConfig
from training.data.coarse import CoarseConfig

PROCEDURAL = ("scenes", "dead-leaves")  # sources without files
NETWORKS = ("hrnet_w18_small_v2", "hrnet_w18", "hrnet_w48", "lite")


@dataclass(frozen=True, kw_only=True)
class LiteConfig(Config):
    """Size of the network "lite"."""

    widths: tuple[int, ...] = (32, 64, 96, 128)  # channels at 1/2, 1/4, 1/8, 1/16 of the input
    blocks: tuple[int, ...] = (1, 1, 2, 2)  # residual blocks of the encoder at each of them

    def __post_init__(self) -> None:
        require(len(self.widths) == len(self.blocks) >= 2, "widths and blocks need one entry per resolution, and at least two")
        require(min(self.widths) >= 1 and min(self.blocks) >= 0, f"widths must be positive, got {self.widths} and blocks {self.blocks}")


@dataclass(frozen=True, kw_only=True)
class RefinerConfig(Config):
    """Everything that rebuilds a refinement network, and what its patches are (Tang et al. 2021, section 3)."""

    network: str = "hrnet_w18_small_v2"  # one of NETWORKS
    norm: str = "batch"  # "batch", "frozen" or "group"
    mask_channel: bool = True  # the coarse mask is a fourth channel
    lite: LiteConfig = field(default_factory=LiteConfig)  # used by "lite"
    patch: int = 64  # side of a patch, pixels of the picture
    pad: int = 0  # ring of context around it, pixels of the picture
    input: int = 128  # side of what the network sees, pixels
    color: str = "rgb"  # channel order of the network
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # grey levels 0..255, in the network's channel order
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)  # grey levels, same order

    def __post_init__(self) -> None:
        require(self.network in NETWORKS, f"network must be one of {', '.join(NETWORKS)}, got {self.network!r}")
        require(self.norm in ("batch", "frozen", "group"), f"norm must be 'batch', 'frozen' or 'group', got {self.norm!r}")
        require(self.patch >= 8 and self.patch % 2 == 0, f"patch must be even and at least 8 pixels, got {self.patch}")
        require(self.pad >= 0, f"pad must not be negative, got {self.pad}")
        step = self.size_divisor
        require(self.input >= step and self.input % step == 0, f"input must be a multiple of {step} pixels, got {self.input}")
        require(self.color in ("rgb", "bgr"), f"color must be 'rgb' or 'bgr', got {self.color!r}")
        require(min(self.std) > 0, f"std must be positive, got {self.std}")

    @property
    def size_divisor(self) -> int:
        """Sides of the network's input are multiples of this, pixels."""
        return 2 ** len(self.lite.widths) if self.network == "lite" else 32

    @property
    def window(self) -> int:
        """Side of what is cut out of the picture, pixels: the patch and its ring."""
        return self.patch + 2 * self.pad


@dataclass(frozen=True, kw_only=True)
class PatchConfig(Config):
    """How patches are picked and varied."""

    nms_threshold: float = 0.25  # IoU above which a candidate is suppressed by a better one; the paper's COCO run has .15
    border: bool = True  # foreground at the picture's edge counts as boundary
    per_mask: int = 4  # patches of one coarse mask in a batch
    masks: int = 1  # coarse masks of one picture in a batch
    min_area: int = 64  # pixels; smaller objects are not drawn
    jitter: float = 0.0  # boxes are shifted by up to this many pixels after NMS
    scale: tuple[float, float] = (1.0, 1.0)  # the side of what is cut out, in windows, drawn by logarithm
    flip: bool = True
    rotate90: bool = False
    photometric: float = 0.5  # probability of each: brightness +-32, contrast and saturation x[.5, 1.5], hue +-36 degrees
    blur: float = 0.0  # probability of a Gauss of .3 to 1.2 pixels
    noise: float = 0.0  # probability of noise of up to 8 grey levels
    jpeg: float = 0.0  # probability of JPEG compression, quality 30 to 90

    def __post_init__(self) -> None:
        for name in ("nms_threshold", "photometric", "blur", "noise", "jpeg"):
            check_fraction(name, getattr(self, name))
        for name in ("per_mask", "masks", "min_area"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(0 < self.scale[0] <= self.scale[1], f"scale must be two positive numbers in order, got {self.scale}")
        require(self.jitter >= 0, f"jitter must not be negative, got {self.jitter}")


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """One source of pictures with true masks. Each field is a key of ``--source DATA,key=value,...``."""

    data: str  # folder of a data set, "scenes" or "dead-leaves"
    weight: float = 1.0  # share of the patches, relative to the other sources; 0 = only validated on
    split: str = "train"
    annotations: str = ""  # JSON file, where it is not DATA/annotations/SPLIT.json
    images: str = ""  # folder of the pictures, where it is not DATA/SPLIT
    results: tuple[str, ...] = ()  # COCO results of any model: their masks are the coarse ones
    simulate: float = 0.5  # with results: probability that a coarse mask is simulated all the same
    hold_out: tuple[str, ...] = ()  # patterns of file names (fnmatch) that are validated on and never trained on
    count: int = 1000  # procedural: pictures
    size: int = 320  # procedural: their side, pixels
    seed: int = 0  # procedural: another seed is another data set; seed + 1 is validated on

    def __post_init__(self) -> None:
        require(bool(self.data), "data must name a folder, 'scenes' or 'dead-leaves'")
        require(self.weight >= 0, f"weight must not be negative, got {self.weight}")
        check_fraction("simulate", self.simulate)
        require(self.count >= 1 and self.size >= 96, f"count must be at least 1 and size at least 96, got {self.count} and {self.size}")
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
        if self.data in PROCEDURAL:
            given = [n for n in ("annotations", "images", "results", "hold_out") if getattr(self, n)]
            require(not given, f"{self.data!r} has no files: {', '.join(given)} cannot be given")


@dataclass(frozen=True, kw_only=True)
class RefinerTrainConfig(RunConfig):
    """One training run; the defaults are the paper's (Tang et al. 2021, section 4.1)."""

    model: RefinerConfig = field(default_factory=RefinerConfig)
    sources: tuple[SourceConfig, ...] = ()
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    iterations: int = 160_000
    batch: int = 32
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    decay_norms: bool = True
    decay_biases: bool = True
    warmup: int = 0
    schedule: str = "poly"
    floor: float = 1e-4
    validate_every: int = 500  # iterations; a multiple of log_every. 0 = never
    validate_patches: int = 64  # per source

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.validate_patches >= 1, f"validate_patches must be at least 1, got {self.validate_patches}")
        require(self.validate_every >= 0, f"validate_every must not be negative, got {self.validate_every}")
        require(self.validate_every % self.log_every == 0, f"validate_every must be a multiple of log_every ({self.log_every})")
        group = self.patches.per_mask * self.patches.masks
        require(
            self.batch % (self.accumulate * group) == 0,
            f"a batch of {self.batch} is not {self.accumulate} parts of whole pictures with {group} patches each (per_mask x masks)",
        )

"""The manifest of an engine: everything that a runtime needs to know about it. `docs/engine.md` describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from sdk.config import Config, ResizeRule, check_fraction, require

FORMAT = "kerf-engine"
FORMAT_VERSION = 2
DEFAULT_QUALITY = "balanced"
PYRAMID_LEVELS = (2, 3, 4, 5)  # trunk outputs p2..p5, stride 2**level; boxes are assigned to these by size


@dataclass(frozen=True, kw_only=True)
class InputSpec(Config):
    """What the trunk wants to see."""

    color: str = "rgb"  # channel order of the network: "rgb" or "bgr"
    mean: tuple[float, float, float]  # grey levels 0..255, in the network's channel order
    std: tuple[float, float, float]  # grey levels, same order
    resize: ResizeRule
    size_divisor: int = 32  # height and width are zero-padded right and below to a multiple of this

    def __post_init__(self) -> None:
        require(self.color in ("rgb", "bgr"), f"color must be 'rgb' or 'bgr', got {self.color!r}")
        require(all(s > 0 for s in self.std), f"std must be positive, got {list(self.std)}")
        require(self.size_divisor >= 1, f"size_divisor must be at least 1, got {self.size_divisor}")

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size rounded up to multiples of `size_divisor`."""
        d = self.size_divisor
        return -(-height // d) * d, -(-width // d) * d


Box = tuple[float, float, float, float]  # x1, y1, x2, y2, pixels


@dataclass(frozen=True, kw_only=True)
class ProposalSpec(Config):
    """How the trunk's objectness and deltas become boxes."""

    strides: tuple[int, ...]  # network-input pixels per cell, one per level; powers of two
    anchors: tuple[tuple[Box, ...], ...]  # per level A boxes centred on 0, network-input pixels
    pre_nms: int = 1000  # best candidates per level that enter NMS
    post_nms: int = 1000  # boxes kept over all levels
    nms_threshold: float = 0.7  # IoU above which a box is suppressed
    min_size: float = 0.0  # network-input pixels; boxes not larger than this are dropped

    def __post_init__(self) -> None:
        require(len(self.strides) >= 1, "strides must name at least one level")
        for stride in self.strides:
            require(stride >= 1 and stride & (stride - 1) == 0, f"strides must be powers of two, got {stride}")
        require(
            len(self.anchors) == len(self.strides),
            f"anchors must have one list per stride: {len(self.strides)} expected, got {len(self.anchors)}",
        )
        for level, boxes in enumerate(self.anchors):
            require(len(boxes) >= 1, f"anchors[{level}] is empty")
            for box in boxes:
                require(box[0] < box[2] and box[1] < box[3], f"anchors[{level}]: {list(box)} is not x1 < x2, y1 < y2")
        require(self.pre_nms >= 1 and self.post_nms >= 1, "pre_nms and post_nms must be at least 1")
        check_fraction("nms_threshold", self.nms_threshold)
        require(self.min_size >= 0, f"min_size must not be negative, got {self.min_size}")

    @property
    def levels(self) -> tuple[int, ...]:
        """The level numbers in the trunk's output names: `objectness{level}` has stride `2**level`."""
        return tuple(stride.bit_length() - 1 for stride in self.strides)


@dataclass(frozen=True, kw_only=True)
class PoolSpec(Config):
    """What a head wants pooled from the trunk: one RoIAlign."""

    feature: str = "pyramid"  # "pyramid" = p2..p5 by box size, otherwise the name of one trunk output
    level: int | None = None  # pyramid only: this level for every box, 0 = p2
    size: int  # bins per side
    sampling_ratio: int = 2  # samples per bin and side; 0 = as many as the bin has cells
    aligned: bool = True  # False = no half-cell shift, and extents of at least one cell
    stride: int | None = None  # network-input pixels per cell of a single named output

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size must be at least 1, got {self.size}")
        require(self.sampling_ratio >= 0, f"sampling_ratio must not be negative, got {self.sampling_ratio}")
        if self.feature == "pyramid":
            require(self.stride is None, "stride belongs to a single named feature, not to the pyramid")
            top = len(PYRAMID_LEVELS) - 1
            require(self.level is None or 0 <= self.level <= top, f"level must be 0 to {top} or null, got {self.level}")
        else:
            require(self.level is None, f"level belongs to the pyramid, not to {self.feature!r}")
            require(self.stride is not None and self.stride >= 1, f"the feature {self.feature!r} needs a stride")


@dataclass(frozen=True, kw_only=True)
class BoxStage(Config):
    """One graph of the box head."""

    graph: str = "box"  # its name in `Manifest.graphs`
    coder_weights: Box = (10.0, 10.0, 5.0, 5.0)  # divide dx, dy, dw, dh

    def __post_init__(self) -> None:
        require(re.fullmatch(r"box[1-9]?", self.graph) is not None, f"graph must be 'box' or 'box' with a digit, got {self.graph!r:.60}")
        require(all(w > 0 for w in self.coder_weights), f"coder_weights must be positive, got {self.coder_weights}")


@dataclass(frozen=True, kw_only=True)
class BoxSpec(Config):
    """The box head: what it pools, and how its outputs become detections."""

    pool: PoolSpec
    # Several stages are a cascade: each moves the boxes that the next one pools, and the scores are averaged (Cai & Vasconcelos 2018).
    stages: tuple[BoxStage, ...] = (BoxStage(),)
    class_agnostic: bool = False  # four deltas a box and not four a class
    score_threshold: float = 0.05  # detections have a score above this
    nms_threshold: float = 0.5  # IoU inside a class above which a box is suppressed
    max_detections: int = 100  # per picture

    def __post_init__(self) -> None:
        require(len(self.stages) >= 1, "stages must hold at least one entry")
        require(self.class_agnostic or len(self.stages) == 1, "stages: several need class_agnostic boxes")
        names = [stage.graph for stage in self.stages]
        require(len(set(names)) == len(names), f"stages share a graph: {names}")
        check_fraction("score_threshold", self.score_threshold)
        check_fraction("nms_threshold", self.nms_threshold)
        require(self.max_detections >= 1, f"max_detections must be at least 1, got {self.max_detections}")


@dataclass(frozen=True, kw_only=True)
class MaskSpec(Config):
    """The mask head: what it pools, and what its output means."""

    pools: tuple[PoolSpec, ...]  # one per input rois0, rois1, ...
    size: tuple[int, int]  # mask grid (Hm, Wm)
    activation: str = "sigmoid"  # what turns the output into a probability
    threshold: float = 0.5  # probability from which a pixel of the picture is foreground
    frame: str = "box"  # the grid covers the detection's box
    scored: bool = False  # the graph also predicts how good each mask is, which scales the box's score (Huang et al. 2019)

    def __post_init__(self) -> None:
        require(len(self.pools) >= 1, "pools must hold at least one entry")
        require(min(self.size) >= 1, f"size must be at least 1 x 1, got {list(self.size)}")
        require(self.activation == "sigmoid", f"activation must be 'sigmoid', got {self.activation!r}")
        require(self.frame == "box", f"frame must be 'box', got {self.frame!r}")
        require(check_fraction("threshold", self.threshold) > 0, "threshold must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class GraphSpec(Config):
    """One graph of an engine: a member file and its facts."""

    file: str  # member name inside the engine
    precision: str = "fp32"
    opset: int  # version of the ONNX standard operators
    sha256: str = ""  # hexadecimal; Engine.write fills it in
    bytes: int = 0  # Engine.write fills it in

    def __post_init__(self) -> None:
        # A plain name: no separators, no "..", no drive, so that a directory engine can never reach outside itself.
        require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.file) is not None and self.file != "manifest.json",
            f"file must be a plain file name, got {self.file!r}",
        )
        require(self.opset >= 1, f"opset must be at least 1, got {self.opset}")
        require(
            not self.sha256 or re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None,
            f"sha256 must be 64 lower-case hexadecimal digits, got {self.sha256!r:.80}",
        )
        require(self.bytes >= 0, f"bytes must not be negative, got {self.bytes}")


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec(Config):
    """Which backends can run the graphs, best first."""

    backends: tuple[str, ...] = ("onnxruntime",)

    def __post_init__(self) -> None:
        require(len(self.backends) >= 1, "backends must name at least one")


@dataclass(frozen=True, kw_only=True)
class EngineManifest(Config):
    """What the manifests of every kind of engine have in common."""

    KIND: ClassVar[str]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    kind: str
    name: str
    method: str  # how the model was made, for people; the runtime does not look at it
    graphs: dict[str, GraphSpec] = field(default_factory=dict)
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    provenance: dict[str, object] = field(default_factory=dict)  # free-form: training, data, licences, metrics
    verified: dict[str, object] | None = None  # greatest differences from the reference; null = not verified

    def __post_init__(self) -> None:
        require(self.format == FORMAT, f"format must be {FORMAT!r}, got {self.format!r}")
        require(self.kind == self.KIND, f"kind must be {self.KIND!r}, got {self.kind!r}")
        unknown = set(self.graphs) - set(self.graph_names)
        require(not unknown, f"graphs: unknown {sorted(unknown)}; this {self.kind} has {', '.join(self.graph_names)}")
        files = [graph.file for graph in self.graphs.values()]
        require(len(set(files)) == len(files), f"graphs share a file: {files}")

    @property
    def graph_names(self) -> tuple[str, ...]:
        """The graphs that the engine holds, in the order in which they run."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Manifest(EngineManifest):
    """A segmenter: pictures in, instances out."""

    KIND: ClassVar[str] = "segmenter"
    kind: str = KIND
    class_names: tuple[str, ...]  # label k is class_names[k]
    category_ids: tuple[int, ...]  # COCO category id of each label
    input: InputSpec
    proposals: ProposalSpec
    box: BoxSpec
    mask: MaskSpec

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.class_names) >= 1, "class_names must name at least one class")
        for what, values in (("class_names", self.class_names), ("category_ids", self.category_ids)):
            require(len(set(values)) == len(values), f"{what} holds an entry twice: {list(values)}")
        require(
            len(self.category_ids) == len(self.class_names),
            f"category_ids must have one entry per class: {len(self.class_names)} expected, got {len(self.category_ids)}",
        )
        strides = [2**level for level in PYRAMID_LEVELS]
        require(
            self.input.size_divisor % max(strides) == 0,
            f"input.size_divisor must be a multiple of {max(strides)}, got {self.input.size_divisor}",
        )
        self._check_strides()

    def _check_strides(self) -> None:
        """One map has one stride, whichever pool names it."""
        known = {f"p{level}": 2**level for level in PYRAMID_LEVELS}
        for pool in (self.box.pool, *self.mask.pools):
            if pool.stride is not None:
                stride = known.setdefault(pool.feature, pool.stride)
                require(stride == pool.stride, f"the map {pool.feature!r} has stride {stride}, a pool says {pool.stride}")

    @property
    def graph_names(self) -> tuple[str, ...]:
        """The graphs that the engine holds, in the order in which they run."""
        return ("trunk", *(stage.graph for stage in self.box.stages), "mask")


@dataclass(frozen=True, kw_only=True)
class PatchSpec(Config):
    """Which patches of a mask's boundary are refined, and what the network sees of them; `sdk.ops.boundary_patches`."""

    size: int = 64  # side of a patch, pixels of the picture
    padding: int = 0  # pixels around it that the network sees too
    input_size: int = 128  # side of what the network sees, pixels
    nms_threshold: float = 0.25  # IoU above which a patch is dropped for a better one: greater = more patches
    scheme: str = "dense"  # "dense", "grid" or "instance"
    enlarge: float = 0.0  # "instance" only: part of its sides by which the box grows on every side
    max_patches: int | None = None  # per picture, the most uncertain first; null = all

    def __post_init__(self) -> None:
        require(2 <= self.size <= 1024, f"size must be 2 to 1024 pixels, got {self.size}")
        require(0 <= self.padding <= 1024, f"padding must be 0 to 1024 pixels, got {self.padding}")
        require(8 <= self.input_size <= 1024, f"input_size must be 8 to 1024 pixels, got {self.input_size}")
        check_fraction("nms_threshold", self.nms_threshold)
        require(self.scheme in ("dense", "grid", "instance"), f"scheme must be 'dense', 'grid' or 'instance', got {self.scheme!r}")
        require(0 <= self.enlarge <= 4, f"enlarge must be 0 to 4, got {self.enlarge}")
        require(self.max_patches is None or self.max_patches >= 0, f"max_patches must not be negative, got {self.max_patches}")


@dataclass(frozen=True, kw_only=True)
class RefinerManifest(EngineManifest):
    """A refiner: a picture and masks in, better masks out (Tang et al. 2021)."""

    KIND: ClassVar[str] = "refiner"
    kind: str = KIND
    color: str = "rgb"  # channel order of the network: "rgb" or "bgr"
    mean: tuple[float, float, float]  # grey levels 0..255, in the network's channel order
    std: tuple[float, float, float]  # grey levels, same order
    mask_channel: bool = True  # the network sees the mask as a fourth channel, +1 and -1
    size_divisor: int = 32  # input sizes are multiples of this
    threshold: float = 0.5  # mean probability above which a pixel is foreground
    qualities: dict[str, PatchSpec]  # name -> patches; "balanced" is used unless another one is asked for

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.color in ("rgb", "bgr"), f"color must be 'rgb' or 'bgr', got {self.color!r}")
        require(all(s > 0 for s in self.std), f"std must be positive, got {list(self.std)}")
        require(self.size_divisor >= 1, f"size_divisor must be at least 1, got {self.size_divisor}")
        require(check_fraction("threshold", self.threshold) > 0, "threshold must be greater than 0")
        require(DEFAULT_QUALITY in self.qualities, f"qualities must hold {DEFAULT_QUALITY!r}; it has {', '.join(self.qualities) or 'none'}")
        for name, patches in self.qualities.items():
            require(
                patches.input_size % self.size_divisor == 0,
                f"qualities.{name}: input_size must be a multiple of {self.size_divisor}, got {patches.input_size}",
            )

    @property
    def graph_names(self) -> tuple[str, ...]:
        """The graphs that the engine holds, in the order in which they run."""
        return ("refiner",)


MANIFESTS: dict[str, type[EngineManifest]] = {kind.KIND: kind for kind in (Manifest, RefinerManifest)}

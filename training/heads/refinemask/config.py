"""Options of RefineMask's head."""

from __future__ import annotations

from dataclasses import dataclass

from sdk.config import check_fraction, require
from training.config import HeadConfig
from training.losses.band import BAND_RULES

SIMPLE_WEIGHTS = (0.5, 0.75, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class RefineMaskConfig(HeadConfig):
    """Options of the paper's ablations and of the released code; the defaults are the published model."""

    name: str = "refinemask"
    variant: str = "original"  # "original", or "simple": the release's faster model (see FusionStage)
    stages: int = 3  # fusion stages; masks of pool_size, 2 x, 4 x, ...
    dilations: tuple[int, ...] = (1, 3, 5)  # of the parallel convolutions of a stage
    instance_convs: int = 2
    semantic: bool = True  # features of the whole P2 in every stage
    semantic_convs: int = 4
    semantic_weight: float = 1.0  # of the loss of the semantic map; the simple variant has no such map
    stage_weights: tuple[float, ...] | None = None  # of the stages' losses; None = the variant's own
    start_stage: int = 1  # from 0: learns every pixel and starts the composition; later stages only near the outline
    refinement: str = "boundary"  # inference: "boundary" = finer stages only near the outline, "none" = the last stage as it is
    train_width: int = 2  # pixels, of the band in the loss
    infer_width: int = 1  # pixels, of the band in the composition
    band_rule: str = "fraction"  # "fraction", "strict", "exact" or "inner" (training.losses.band)
    band_fraction: float = 0.1
    last_stage_agnostic: bool | None = None  # one class in the last predictor; None = only in the simple variant

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variant in ("original", "simple"), f"variant must be 'original' or 'simple', got {self.variant!r}")
        require(self.stages >= 1, f"stages must be at least 1, got {self.stages}")
        require(min(self.instance_convs, self.semantic_convs) >= 1, "instance_convs and semantic_convs must be at least 1")
        require(len(self.dilations) >= 1 and min(self.dilations) >= 1, f"dilations must be at least 1, got {self.dilations}")
        narrow = self.channels // 2**self.stages
        require(
            self.channels % 2**self.stages == 0 and narrow > self.extra,
            f"channels are halved by each of {self.stages} stages and must not fall below {self.extra + 1}, got {self.channels}",
        )
        require(
            self.stage_weights is None or len(self.stage_weights) == self.stages + 1,
            f"stage_weights needs {self.stages + 1} values, got {self.stage_weights}",
        )
        require(0 <= self.start_stage <= self.stages, f"start_stage must be 0 to {self.stages}, got {self.start_stage}")
        require(self.refinement in ("boundary", "none"), f"refinement must be 'boundary' or 'none', got {self.refinement!r}")
        require(min(self.train_width, self.infer_width) >= 1, "train_width and infer_width must be at least 1")
        require(self.band_rule in BAND_RULES, f"band_rule must be one of {', '.join(BAND_RULES)}, got {self.band_rule!r}")
        check_fraction("band_fraction", self.band_fraction)

    @property
    def semantic_map(self) -> bool:
        """Whether there is a map of foreground probability."""
        return self.semantic and self.variant == "original"

    @property
    def extra(self) -> int:
        """Probability maps that a stage joins to its features."""
        return 2 if self.semantic_map else 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the stages' masks."""
        return tuple(self.pool_size * 2**k for k in range(self.stages + 1))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the stages' losses."""
        if self.stage_weights is not None:
            return self.stage_weights
        if self.variant == "simple" and self.stages == 3:
            return SIMPLE_WEIGHTS
        return tuple((k + 1) / (self.stages + 1) for k in range(self.stages + 1))  # 0.25, 0.5, 0.75, 1

    @property
    def agnostic(self) -> bool:
        """Whether the last predictor has one class."""
        return self.variant == "simple" if self.last_stage_agnostic is None else self.last_stage_agnostic

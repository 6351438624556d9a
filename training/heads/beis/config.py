"""Options of the BEIS head."""

from __future__ import annotations

from dataclasses import dataclass

from sdk.config import require
from training.config import HeadConfig


@dataclass(frozen=True, kw_only=True)
class BEISConfig(HeadConfig):
    """Options of the paper's ablations; the defaults are its final model.

    X_P2, X_roi and X_P2 + X_roi of its table 4 are ``source="p2"``, ``p2="off"`` and the default.
    """

    name: str = "beis"
    stages: int = 3  # of refinement; the mask has pool_size * 2**stages cells a side, the channels halve at each
    p2: str = "every"  # stages that read P2 beside their input: "every", "first" (the coarse one) or "off"
    bef_dim: int = 0  # channels of the boundary-enhanced features; 0 = those of their stage
    band_widths: tuple[int, ...] = (3,)  # cells on either side of the boundary that are contrasted: one for all stages, or each its own
    ibdl: bool = True  # contrast within the crop
    ibdl_weight: float = 1.0
    ibdl_queries: int = 16  # of each side
    ibdl_positives: int = 4
    ibdl_negatives: int = 32
    cbdl: bool = True  # contrast with the features of earlier RoIs
    cbdl_weight: float = 1.0
    cbdl_queries: int = 16  # half of them of each side
    cbdl_positives: int = 16
    cbdl_negatives: int = 128
    literal: bool = False  # the paper's equations 3 and 4 as printed, which attract the two sides; for study only
    normalize: bool = False  # features of length 1
    tau: float = 1.0  # temperature
    adaptive_queries: bool = True  # AQS: only hard pixels ask
    hardness: float = 0.97  # delta: a pixel is hard while its own class has less probability than this
    adaptive_keys: bool = True  # AKS: negatives of the classes whose boundaries look alike
    confusion_decay: float = 0.99  # lambda of the moving average
    confusion_init: float = 0.1
    bank_length: int = 65536  # entries of either side
    bank_shared: bool = False  # one bank for all stages; needs one bef_dim
    bank_gather: bool = False  # distributed: every process stores what all of them found, instead of its own
    push_once: bool = True  # of several RoIs of one object only the best enters the bank

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.stages <= 4, f"stages must be 0 to 4, got {self.stages}")
        require(self.channels % 2**self.stages == 0, f"channels must be divisible by 2**stages = {2**self.stages}, got {self.channels}")
        require(self.p2 in ("every", "first", "off"), f"p2 must be 'every', 'first' or 'off', got {self.p2!r}")
        require(self.bef_dim >= 0, f"bef_dim must not be negative, got {self.bef_dim}")
        widths = len(self.band_widths)
        require(widths in (1, self.stages + 1), f"band_widths needs 1 or {self.stages + 1} entries, got {widths}")
        require(min(self.band_widths) >= 1, f"band_widths must be at least 1, got {self.band_widths}")
        counts = (self.ibdl_queries, self.ibdl_positives, self.ibdl_negatives, self.cbdl_queries, self.cbdl_positives, self.cbdl_negatives)
        require(min(counts) >= 1, f"queries, positives and negatives must be at least 1, got {counts}")
        require(self.cbdl_queries % 2 == 0, f"cbdl_queries must be even, half of them of each side, got {self.cbdl_queries}")
        most = max(self.cbdl_positives, self.cbdl_negatives)
        require(self.bank_length >= most, f"bank_length must be at least {most}, the keys of a query, got {self.bank_length}")
        weights = (self.ibdl_weight, self.cbdl_weight)
        require(min(weights) > 0, f"ibdl_weight and cbdl_weight must be positive, got {weights}; ibdl and cbdl switch a part off")
        require(self.tau > 0, f"tau must be positive, got {self.tau}")
        require(0 < self.hardness <= 1, f"hardness must be above 0 and at most 1, got {self.hardness}")
        require(0 <= self.confusion_decay <= 1, f"confusion_decay must be from 0 to 1, got {self.confusion_decay}")
        shareable = not self.bank_shared or self.bef_dim > 0 or self.stages == 0
        require(shareable, "bank_shared needs bef_dim: without it the stages' features differ in size")

"""BRefine: boundary-refined masks of BRank&Sort."""

from training.heads.brefine.head import BRefineConfig, BRefineHead

__all__ = ["BRefineConfig", "BRefineHead"]

"""RefineMask: masks refined stage by stage with fine-grained features (Zhang et al. 2021)."""

from training.heads.refinemask.config import RefineMaskConfig
from training.heads.refinemask.head import RefineMaskHead

__all__ = ["RefineMaskConfig", "RefineMaskHead"]

"""BEIS: features on the two sides of a boundary are contrasted, within a RoI (IBDL) and across pictures (CBDL)."""

from training.heads.beis.config import BEISConfig
from training.heads.beis.head import BEISHead

__all__ = ["BEISConfig", "BEISHead"]

"""Mask heads. A head is one folder here plus one row in :data:`HEADS`; nothing else in the tree knows its name."""

from __future__ import annotations

from training.heads.base import MaskHead
from training.heads.fcn import FCNHead

HEADS: dict[str, type[MaskHead]] = {"fcn": FCNHead}

__all__ = ["HEADS", "MaskHead"]

"""Mask heads. A head is one folder here plus one row in :data:`HEADS`; nothing else in the tree knows its name."""

from __future__ import annotations

from training.heads.base import MaskHead, MaskOutput
from training.heads.beis import BEISHead
from training.heads.bmask import BMaskHead
from training.heads.brefine import BRefineHead
from training.heads.fcn import FCNHead
from training.heads.refinemask import RefineMaskHead

HEADS: dict[str, type[MaskHead]] = {
    "fcn": FCNHead,
    "bmask": BMaskHead,
    "refinemask": RefineMaskHead,
    "brefine": BRefineHead,
    "beis": BEISHead,
}

__all__ = ["HEADS", "MaskHead", "MaskOutput"]

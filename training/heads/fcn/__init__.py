"""The baseline head of Mask R-CNN."""

from training.heads.fcn.head import FCNHead

__all__ = ["FCNHead"]

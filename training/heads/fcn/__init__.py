"""The baseline head of Mask R-CNN."""

from training.heads.fcn.head import FCNConfig, FCNHead

__all__ = ["FCNConfig", "FCNHead"]

"""BMask R-CNN: boundary-preserving Mask R-CNN (Cheng et al. 2020)."""

from training.heads.bmask.head import BMaskConfig, BMaskHead

__all__ = ["BMaskConfig", "BMaskHead"]

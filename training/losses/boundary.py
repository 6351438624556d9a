"""Boundary targets made of mask targets. They carry no gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def inner_contour(masks: Tensor) -> Tensor:
    """Foreground pixels (N, H, W), float32 {0, 1}, with a background pixel among their 8 neighbours; outside counts as background.

    Where the Laplacian with centre 8 and neighbours -1 is positive (Cheng et al. 2020, section 3.4).
    """
    foreground = (masks > 0.5).float()
    eroded = -F.max_pool2d(-F.pad(foreground, (1, 1, 1, 1))[:, None], 3, 1)[:, 0]
    return foreground - eroded

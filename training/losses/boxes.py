"""The box regression losses that both stages choose from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from training.losses.giou import giou_loss
from training.models.ops import decode_boxes, encode_boxes


def box_loss(deltas: Tensor, sources: Tensor, truth: Tensor, weights: tuple[float, ...], kind: str, beta: float) -> Tensor:
    """Sum of the regression loss over F boxes.

    Args:
        deltas: (F, 4) predicted, in units of the coder.
        sources: (F, 4) xyxy, the anchors or proposals that the deltas start from.
        truth: (F, 4) xyxy.
        weights: of the coder.
        kind: ``l1``; ``smooth_l1`` (Girshick 2015, equation 3, with ``beta`` for 1); ``giou`` of the decoded boxes.
        beta: difference, in units of the coder, from which smooth L1 is linear.

    Returns:
        A scalar; 0 with gradient 0 for no boxes.
    """
    deltas = deltas.float()
    if kind == "giou":
        return giou_loss(decode_boxes(deltas, sources, weights), truth).sum()
    target = encode_boxes(truth, sources, weights)
    if kind == "smooth_l1":
        return F.smooth_l1_loss(deltas, target, reduction="sum", beta=beta)
    return F.l1_loss(deltas, target, reduction="sum")

"""What every mask head offers to the detector, the exporter and the tests."""

from __future__ import annotations

from torch import Tensor, nn

from sdk.config import PoolSpec
from training.config import HeadConfig


class MaskHead(nn.Module):
    """Base of the heads: declares what it wants pooled, turns it into the label's mask logits, and knows its loss.

    Attributes:
        pools: the RoI inputs, in the order in which ``forward`` takes them.
        mask_size: side of the output grid.
    """

    pools: tuple[PoolSpec, ...]
    mask_size: int

    def __init__(self, config: HeadConfig, channels: int, classes: int) -> None:
        super().__init__()
        self.config = config

    def forward(self, rois: list[Tensor], labels: Tensor) -> Tensor:
        """Logits (N, S, S) of each RoI's own class from the pooled inputs, each (N, C, P, P), and ``labels`` (N,)."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def losses(self, rois: list[Tensor], labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Named losses; ``targets`` (N, S, S) in {0, 1}."""
        raise TypeError(f"{type(self).__name__} does not define losses")

"""What every mask head offers to the detector, the exporter and the tests."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from sdk.manifest import PoolSpec
from training.config import HeadConfig
from training.models.targets import MaskTargets


class MaskOutput(NamedTuple):
    """What a head makes of N RoIs."""

    logits: Tensor  # (N, S, S) of each RoI's own class, as they are pasted
    features: Tensor  # (N, C, P, P) what the mask was made from, at the size of the first pool: the input of Mask Scoring


class MaskHead(nn.Module):
    """Base of the heads: declares what it wants pooled, turns it into the label's mask logits, and knows its losses.

    Attributes:
        config_type: the class of its configuration.
        pools: the RoI inputs, in the order in which ``forward`` takes them.
        mask_size: side of the output grid.
        features: channels of ``MaskOutput.features``.
        training_only: prefixes of the names of parameters and buffers that inference does not need.
    """

    config_type: ClassVar[type[HeadConfig]]
    training_only: ClassVar[tuple[str, ...]] = ()
    pools: tuple[PoolSpec, ...]
    mask_size: int
    features: int

    def __init__(self, config: HeadConfig, channels: int, classes: int) -> None:
        super().__init__()
        self.config = config

    def maps(self, pyramid: list[Tensor]) -> dict[str, Tensor]:
        """Maps of the whole picture (B, C, H, W) that the head adds to the trunk, by the name that its pools call them."""
        return {}

    def forward(self, rois: list[Tensor], labels: Tensor) -> MaskOutput:
        """The masks of inference from the pooled inputs, each (N, C, P, P), and ``labels`` (N,)."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def losses(self, maps: dict[str, Tensor], rois: list[Tensor], targets: MaskTargets) -> tuple[dict[str, Tensor], MaskOutput]:
        """Named losses, and the masks they were computed from. ``maps`` is what :meth:`maps` made; N may be 0."""
        raise TypeError(f"{type(self).__name__} does not define losses")


def main_pool(config: HeadConfig, size: int | None = None) -> PoolSpec:
    """The RoI input of ``config.source`` at ``config.pool_size`` bins, or at ``size``."""
    level = 0 if config.source == "p2" else None
    return PoolSpec(size=size or config.pool_size, sampling_ratio=config.sampling_ratio, level=level)

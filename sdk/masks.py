"""Where the masks of `Instances` come from: three small sources with one interface.

Masks stay in the form they arrived in until somebody asks for another: crop-local logits from a mask head, crops, or run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.ops import MaskCrops

Shape = tuple[int, int]  # height and width of the picture, pixels


class MaskSource(Protocol):
    """N masks in some form."""

    def __len__(self) -> int: ...

    def crops(self, shape: Shape) -> MaskCrops:
        """The masks as crops of the picture."""

    def rle(self, shape: Shape) -> list[bytes]:
        """The masks as compressed COCO run lengths."""

    def take(self, index: NDArray[np.intp]) -> MaskSource:
        """The masks at these positions, in this order."""


@dataclass(frozen=True)
class LogitMasks:
    """What a mask head gives.

    Attributes:
        logits: (N, Hm, Wm) float32, each grid covers its box.
        boxes: (N, 4) float32, xyxy, pixels of the picture.
        threshold: probability from which a pixel is foreground.
    """

    logits: NDArray[np.float32]
    boxes: NDArray[np.float32]
    threshold: float

    def __len__(self) -> int:
        return len(self.logits)

    def crops(self, shape: Shape) -> MaskCrops:
        """See `MaskSource.crops`."""
        return ops.paste_masks(self.logits, self.boxes, shape, threshold=self.threshold)

    def rle(self, shape: Shape) -> list[bytes]:
        """See `MaskSource.rle`."""
        return ops.paste_rle(self.logits, self.boxes, shape, threshold=self.threshold)

    def take(self, index: NDArray[np.intp]) -> LogitMasks:
        """See `MaskSource.take`."""
        return LogitMasks(self.logits[index], self.boxes[index], self.threshold)


@dataclass(frozen=True)
class CropMasks:
    """Crops of the picture."""

    source: MaskCrops

    def __len__(self) -> int:
        return len(self.source)

    def crops(self, shape: Shape) -> MaskCrops:
        """See `MaskSource.crops`."""
        return self.source

    def rle(self, shape: Shape) -> list[bytes]:
        """See `MaskSource.rle`."""
        return ops.rle_encode(self.source, shape)

    def take(self, index: NDArray[np.intp]) -> CropMasks:
        """See `MaskSource.take`."""
        return CropMasks(self.source[index])


@dataclass(frozen=True)
class RleMasks:
    """Compressed COCO run lengths, one string per instance."""

    counts: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.counts)

    def crops(self, shape: Shape) -> MaskCrops:
        """See `MaskSource.crops`."""
        return ops.rle_decode(list(self.counts), shape)

    def rle(self, shape: Shape) -> list[bytes]:
        """See `MaskSource.rle`."""
        return list(self.counts)

    def take(self, index: NDArray[np.intp]) -> RleMasks:
        """See `MaskSource.take`."""
        return RleMasks([self.counts[i] for i in index])


def concatenate(sources: Sequence[MaskSource], shape: Shape) -> MaskSource:
    """Joins sources of one picture; logits stay logits when all of them share grid and threshold, anything else becomes crops."""
    logits = [source for source in sources if isinstance(source, LogitMasks)]
    if len(logits) == len(sources) and len({(source.logits.shape[1:], source.threshold) for source in logits}) == 1:
        return LogitMasks(
            np.concatenate([source.logits for source in logits]),
            np.concatenate([source.boxes for source in logits]),
            logits[0].threshold,
        )
    return CropMasks(MaskCrops.concatenate([source.crops(shape) for source in sources]))

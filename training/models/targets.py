"""Ground truth of training: per picture, and cut out for the foreground RoIs of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.models.ops import multilevel_roi_align

CHUNK = 32  # RoIs whose masks are cut together: at 112 cells, a box of 800 pixels takes 40 MB of samples


@dataclass(frozen=True, kw_only=True)
class Target:
    """Ground truth of one training picture, in input pixels."""

    boxes: Tensor  # (G, 4) float32 xyxy
    labels: Tensor  # (G,) int64, 0 .. K-1
    masks: Tensor  # (G, H, W) uint8


@dataclass(frozen=True, kw_only=True)
class MaskTargets:
    """What the foreground RoIs of a batch should become; any mask head takes from it what its losses need."""

    pictures: list[Target]
    boxes: Tensor  # (N, 4) float32, what was pooled, input pixels
    batch: Tensor  # (N,) int64, index into ``pictures``
    truth: Tensor  # (N,) int64, index into the picture's ground truth
    labels: Tensor  # (N,) int64, class of that ground truth
    weights: Tensor | None = None  # (N,) float32 importance from the detection loss; None = all equal
    _masks: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @torch.no_grad()
    def masks(self, size: int) -> Tensor:
        """Masks (N, S, S) in {0, 1}, float32: each RoI's object inside its box.

        The bitmap is resampled by RoIAlign with as many samples as there are pixels, then cut at one half.
        """
        if size not in self._masks:
            soft = self.boxes.new_zeros((len(self), size, size))
            for index, picture in enumerate(self.pictures):
                mine = torch.nonzero(self.batch == index).squeeze(1)
                bitmaps = picture.masks[:, None].float()  # G, 1, H, W
                for part in mine.split(CHUNK) if len(mine) else ():
                    soft[part] = multilevel_roi_align([bitmaps], self.boxes[part], self.truth[part], size, (1.0,), 0)[:, 0]
            self._masks[size] = (soft >= 0.5).float()
        return self._masks[size]

"""Multi-level RoIAlign: fixed-size features of boxes from a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdk import _core


class Pyramid:
    """Feature maps that boxes are pooled from, one or several times.

    Pooling reads a channels-last copy, of which each call makes the parts that its boxes touch and that no earlier call made. The feature
    arrays are held, not copied: they must not be written to until the next `set`. The copy's memory is reused from `set` to `set`, so keep
    one pyramid for many pictures. Calls from several threads on one pyramid take turns.

    Args:
        features: L arrays (B, C, H_l, W_l) float32 with the same B and C, finest level first.
        strides: L cell sizes, pixels of the input.

    Raises:
        InputError: wrong dtypes or shapes, no level, an empty map, a stride that is not positive.
    """

    def __init__(self, features: Sequence[NDArray[np.float32]], strides: Sequence[float]) -> None:
        self._core = _core.Pyramid(list(features), strides)

    def set(self, features: Sequence[NDArray[np.float32]]) -> None:
        """Replaces the feature maps; sizes, batch and channels may change, the number of levels may not.

        Raises:
            InputError: as the constructor.
        """
        self._core.set(list(features))

    def clear(self) -> None:
        """Lets go of the feature maps and keeps the copy's memory for the next `set`; `roi_align` is an error until then."""
        self._core.clear()

    def roi_align(
        self,
        boxes: NDArray[np.float32],
        batch: NDArray[np.int32],
        output_size: int,
        *,
        sampling_ratio: int = 2,
        level: int | None = None,
        aligned: bool = True,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Pools every box to `output_size` x `output_size` bins (He et al. 2017, section 3).

        A box is read from level `floor(log2(sqrt(w h) / 56 + 1e-6))`, clamped to the levels there are (Lin et al. 2017, eq. 1). A bin is
        the mean of n x n bilinear samples; a sample more than one cell outside the map counts as zero, one nearer reads the border.

        Args:
            boxes: (N, 4) float32, xyxy, pixels of the input. Empty, inverted and non-finite boxes give zeros.
            batch: (N,) int32, image of each box.
            output_size: P, 1 to 256.
            sampling_ratio: n, up to 64; 0 = `ceil(extent / P)` for each axis of each box.
            level: Pool every box from this level.
            aligned: False for models trained without the half-cell shift (before it was introduced, and torchvision's): a box starts half
                a cell further right and below, and is at least one cell wide and high.
            out: (N, C, P, P) float32, C-contiguous: written and returned instead of a new array.

        Returns:
            (N, C, P, P) float32, within 1e-5 of the float64 definition relative to max |feature|.

        Raises:
            InputError: wrong dtypes or shapes, an image or level that is not there, a parameter out of range.
        """
        return self._core.roi_align(boxes, batch, output_size, sampling_ratio, level, out, aligned)

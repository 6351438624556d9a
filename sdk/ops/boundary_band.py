"""The pixels around the boundary of masks."""

from __future__ import annotations

from sdk import _core
from sdk.ops.crops import MaskCrops


def boundary_band(masks: MaskCrops, shape: tuple[int, int], *, width: int = 1, min_frac: float = 0.0) -> MaskCrops:
    """Marks the pixels that have enough pixels of the other label around them (Zhang et al., CVPR 2021, "RefineMask", section 3.3).

    D counts the pixels of the other label in the square of side 2 width + 1 around a pixel; what lies outside the picture is background.
    The band is D > min_frac (2 width + 1)^2. With 0 these are the pixels whose Chebyshev distance to the other label is at most `width`.

    Args:
        masks: N masks inside the picture.
        shape: (H, W) of the picture.
        width: 1 to 127 pixels.
        min_frac: Part of the square, from 0 to below 1.

    Returns:
        N bands; a crop is its mask's, larger by `width` on every side and cut to the picture. An empty mask has an empty band, a full one
        the picture's frame.

    Raises:
        InputError: a mask outside the picture, an option out of range.

    Example:
        >>> import numpy as np
        >>> from sdk.ops import dense_to_crops
        >>> mask = np.zeros((1, 5, 5), bool)
        >>> mask[0, 2, 2] = True
        >>> int(boundary_band(dense_to_crops(mask), (5, 5)).areas()[0])
        9
    """
    return MaskCrops(*_core.boundary_band(masks.boxes, masks.offsets, masks.data, shape, width, min_frac))

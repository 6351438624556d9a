"""Masks as polygons along pixel edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk import _core
from sdk.ops.crops import MaskCrops


def polygons(crops: MaskCrops) -> list[list[list[NDArray[np.int32]]]]:
    """Traces every mask; filling the rings gives the mask back exactly.

    Parts are 4-connected. Vertices are integer pixel corners (pixel x covers x to x + 1), collinear ones merged, and every ring is
    simple: one that meets itself at a corner is split there. So the shoelace area of a part's outer ring minus that of its holes is its
    pixel count.

    Args:
        crops: N masks.

    Returns:
        Per mask a list of parts (sorted by first pixel, row-major), per part a list of rings: the outer one, clockwise on screen, then its
        holes, counterclockwise. A ring is (n, 2) int32, x and y in pixels of the picture, first corner in row-major order first, not
        repeated at the end. A mask without foreground has no part.

    Example:
        >>> import numpy as np
        >>> from sdk.ops import dense_to_crops
        >>> polygons(dense_to_crops(np.ones((1, 2, 3), bool)))[0][0][0].tolist()
        [[0, 0], [3, 0], [3, 2], [0, 2]]
    """
    return _core.polygons(crops.boxes, crops.offsets, crops.data)

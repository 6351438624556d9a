"""COCO run lengths, byte for byte those of pycocotools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdk import _core
from sdk.ops.crops import MaskCrops


def rle_encode(crops: MaskCrops, shape: tuple[int, int]) -> list[bytes]:
    """Compressed run lengths of full-size masks, from their crops.

    Args:
        crops: N masks.
        shape: (H, W) of the picture, fewer than 2^32 pixels; every crop must lie inside.

    Returns:
        N strings as bytes: column-major runs over the whole picture, beginning with background (COCO's `counts`).

    Raises:
        InputError: a crop reaches outside, or too many pixels.

    Example:
        >>> import numpy as np
        >>> from sdk.ops import dense_to_crops
        >>> rle_encode(dense_to_crops(np.ones((1, 2, 2), bool)), (2, 2))
        [b'04']
    """
    return _core.rle_encode(crops.boxes, crops.offsets, crops.data, shape)


def rle_decode(counts: Sequence[bytes | str], shape: tuple[int, int]) -> MaskCrops:
    """Masks from their compressed run lengths.

    Args:
        counts: N COCO strings.
        shape: (H, W) of the picture.

    Returns:
        N tight crops; a mask without foreground gives the box 0, 0, 0, 0.

    Raises:
        InputError: bad characters, a string that ends inside a number, runs that are negative or do not sum to H W; the message begins
            with the string's index.
    """
    return MaskCrops(*_core.rle_decode(list(counts), shape))


def rle_area(counts: Sequence[bytes | str]) -> NDArray[np.int64]:
    """Foreground pixels of every string: (N,) int64.

    Args:
        counts: N COCO strings.

    Raises:
        InputError: a string is not valid.
    """
    return _core.rle_area(list(counts))


def rle_counts(text: bytes | str) -> NDArray[np.uint32]:
    """The run lengths in a COCO string: (n,) uint32, background first.

    Raises:
        InputError: the string is not valid.
    """
    return _core.rle_counts(text)


def rle_string(counts: NDArray[np.uint32]) -> bytes:
    """The COCO string of run lengths, the inverse of `rle_counts`.

    Args:
        counts: (n,) uint32, background first.

    Raises:
        InputError: wrong dtype or shape.
    """
    return _core.rle_string(counts)

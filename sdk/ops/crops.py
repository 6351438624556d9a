"""Masks that live inside boxes: the form in which masks travel until somebody asks for a full picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk import _core
from sdk.errors import InputError


@dataclass(frozen=True, eq=False)
class MaskCrops:
    """N binary masks, each a crop of the picture.

    Attributes:
        boxes: (N, 4) int32, x1 y1 x2 y2 in pixels, x2 and y2 excluded; a crop without pixels has width or height 0.
        offsets: (N+1,) int64, where each crop's pixels begin in `data`; begins with 0.
        data: (total,) uint8, row-major crops one after the other, 0 or 1.

    Raises:
        InputError: the three arrays do not agree with each other.

    Example:
        >>> import numpy as np
        >>> masks = dense_to_crops(np.eye(3, dtype=bool)[None])
        >>> masks.crop(0)
        array([[1, 0, 0],
               [0, 1, 0],
               [0, 0, 1]], dtype=uint8)
    """

    boxes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _core.check_crops(self.boxes, self.offsets, self.data)

    @classmethod
    def empty(cls) -> MaskCrops:
        """No masks."""
        return cls(np.zeros((0, 4), np.int32), np.zeros(1, np.int64), np.zeros(0, np.uint8))

    @classmethod
    def concatenate(cls, parts: Sequence[MaskCrops]) -> MaskCrops:
        """The masks of all parts, in order; no part gives no masks."""
        if not parts:
            return cls.empty()
        starts = np.cumsum([0] + [len(part.data) for part in parts])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([*offsets, starts[-1:]]).astype(np.int64, copy=False),
            np.concatenate([part.data for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The crops, one after the other, as views."""
        return (self.crop(n) for n in range(len(self)))

    def __getitem__(self, index: slice | NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> MaskCrops:
        """The chosen masks, as copies.

        Args:
            index: A slice, indices, or (N,) bool. For one mask's pixels use `crop(n)`.

        Raises:
            InputError: an integer, indices out of range, or a bool array of another length.
        """
        chosen = chosen_positions(index, len(self))
        pieces = [self.data[self.offsets[n] : self.offsets[n + 1]] for n in chosen]
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        data = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
        return MaskCrops(self.boxes[chosen], offsets, data)

    def crop(self, n: int) -> NDArray[np.uint8]:
        """Mask n inside its box: (h, w) uint8, 0 or 1, a view.

        Raises:
            InputError: there is no mask n (negative n counts from the end).
        """
        if not -len(self) <= n < len(self):
            raise InputError(f"n: expected an index of {len(self)} masks, got {n}")
        x1, y1, x2, y2 = (int(v) for v in self.boxes[n])
        n %= len(self)
        return self.data[self.offsets[n] : self.offsets[n + 1]].reshape(y2 - y1, x2 - x1)

    def areas(self) -> NDArray[np.int64]:
        """Foreground pixels of every mask: (N,) int64."""
        total = np.zeros(len(self.data) + 1, np.int64)
        np.cumsum(self.data != 0, out=total[1:])
        areas: NDArray[np.int64] = total[self.offsets[1:]] - total[self.offsets[:-1]]
        return areas


def crops_to_dense(crops: MaskCrops, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Full-size masks.

    Args:
        crops: N masks.
        shape: (H, W) of the picture; every crop must lie inside.

    Returns:
        (N, H, W) bool.

    Raises:
        InputError: a crop reaches outside the picture.
    """
    return _core.crops_to_dense(crops.boxes, crops.offsets, crops.data, shape)


def dense_to_crops(masks: NDArray[np.bool_]) -> MaskCrops:
    """The tight crops of full-size masks.

    Args:
        masks: (N, H, W) bool.

    Returns:
        N crops; a mask without foreground gives the box 0, 0, 0, 0.

    Raises:
        InputError: wrong dtype or shape.
    """
    return MaskCrops(*_core.dense_to_crops(masks))


def chosen_positions(index: slice | NDArray[np.integer] | NDArray[np.bool_] | Sequence[int], count: int) -> NDArray[np.integer]:
    """The chosen indices, each 0 to count - 1."""
    if isinstance(index, slice):
        return np.arange(count)[index]
    array = np.asarray(index)
    if array.dtype == np.bool_ and array.shape == (count,):
        return np.flatnonzero(array)
    if array.ndim == 1 and array.size == 0:
        return np.zeros(0, np.int64)
    is_index = array.ndim == 1 and np.issubdtype(array.dtype, np.integer) and array.min() >= -count and array.max() < count
    if not is_index:
        raise InputError(
            f"index: expected a slice, ({count},) bool or indices below {count}, got {array.dtype} of shape {array.shape}: {index}"
        )
    positions: NDArray[np.integer] = array % count
    return positions

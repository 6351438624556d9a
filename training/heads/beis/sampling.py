"""Which pixels of a crop are contrasted: the two sides of its boundary, hard queries, keys. Nothing here has a gradient.

Side 0 is background, side 1 foreground. Tensors (N, 2, B) list the band's pixels of each RoI and side, padded to the longest list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Band:
    """The boundary region of N crops."""

    pixels: Tensor  # (N, 2, B) int64, cell of the flattened grid; padding is 0
    inside: Tensor  # (N, 2, B) bool, False on the padding

    def sides(self) -> Tensor:
        """Which sides have pixels, (N, 2) bool."""
        return self.inside.any(-1)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Cells drawn from each row."""

    pixels: Tensor  # (N, 2, k) int64, cell of the flattened grid
    real: Tensor  # (N, 2, k) bool, False where a row had too few candidates


@torch.no_grad()
def boundary_sides(masks: Tensor, width: int) -> Tensor:
    """Cells (N, 2, S, S) bool of either side with a cell of the other side within ``width`` (Chebyshev distance).

    Outside of ``masks`` (N, S, S) counts as background, so an object cut off by its crop has a boundary there on its side only.
    """
    inside = masks > 0.5
    near_inside = _any_within(F.pad(inside, (width,) * 4), width)
    near_outside = _any_within(F.pad(~inside, (width,) * 4, value=True), width)
    return torch.stack([near_inside & ~inside, near_outside & inside], 1)


def _any_within(padded: Tensor, width: int) -> Tensor:
    """Whether any cell of the square of side 2 width + 1 is set, by rows and then columns: (N, S + 2 width, S + 2 width) -> (N, S, S)."""
    for axis in (1, 2):
        length = padded.shape[axis] - 2 * width
        padded = reduce(torch.logical_or, [padded.narrow(axis, i, length) for i in range(2 * width + 1)])
    return padded


@torch.no_grad()
def make_band(masks: Tensor, width: int) -> Band:
    """The band of ``masks`` (N, S, S), N >= 1, as lists."""
    sides = boundary_sides(masks, width).flatten(2)  # N, 2, S*S
    rows = sides.flatten(0, 1)
    counts = rows.sum(1)
    longest = max(1, int(counts.max()))
    row, cell = torch.nonzero(rows, as_tuple=True)
    position = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    pixels = torch.zeros((len(rows), longest), dtype=torch.int64, device=row.device)
    pixels[row, position] = cell
    inside = torch.arange(longest, device=row.device) < counts[:, None]
    return Band(pixels=pixels.unflatten(0, (-1, 2)), inside=inside.unflatten(0, (-1, 2)))


@torch.no_grad()
def draw(band: Band, weights: Tensor, count: int) -> Draw:
    """Draw ``count`` pixels of each row without replacement, in proportion to ``weights`` (N, 2, B); all there are if they are fewer.

    A race of exponential clocks: the order of arrival is the order of such a draw, of every row at once and without a test of its sum.
    """
    arrival = weights / -torch.rand_like(weights).log_()
    index = arrival.topk(min(count, weights.shape[-1]), -1).indices  # N, 2, k
    return Draw(pixels=band.pixels.gather(-1, index), real=weights.gather(-1, index) > 0)


@torch.no_grad()
def query_weights(band: Band, logits: Tensor, hardness: float | None) -> Tensor:
    """Candidates (N, 2, B) for queries, 1 or 0: the band's pixels, or with ``hardness`` its hard ones (BEIS, AQS).

    A foreground pixel is hard while its probability is below ``hardness``, a background pixel while it is above 1 - ``hardness``.

    Args:
        band: of N crops.
        logits: (N, S, S), the mask predicted from the same features.
        hardness: delta of the paper, or None.
    """
    if hardness is None:
        return band.inside.float()
    probability = torch.sigmoid(logits.detach().float()).flatten(1)  # N, S*S
    probability = probability.gather(1, band.pixels.flatten(1)).view_as(band.pixels)
    wrong = torch.stack([probability[:, 0], 1 - probability[:, 1]], 1)
    return (band.inside & (wrong > 1 - hardness)).float()


@torch.no_grad()
def key_weights(band: Band, classes: Tensor, probability: Tensor) -> Tensor:
    """Weights (N, B) of the background pixels as negative keys: the class by its ``probability``, any pixel inside a class alike.

    Args:
        band: of N crops.
        classes: (N, B) class of each background pixel.
        probability: (N, K + 1), 0 for classes that the row does not have.
    """
    inside = band.inside[:, 0]
    return torch.where(inside, (probability / class_counts(band, classes, probability.shape[1]).clamp(min=1)).gather(1, classes), 0.0)


def class_counts(band: Band, classes: Tensor, total: int) -> Tensor:
    """Background pixels of each class in each row, (N, ``total``) float32, for ``classes`` (N, B)."""
    inside = band.inside[:, 0].float()
    return inside.new_zeros((len(inside), total)).scatter_add_(1, classes, inside)


def take(features: Tensor, pixels: Tensor) -> Tensor:
    """Float32 features (N, 2, k, C) of ``pixels`` (N, 2, k) from maps (N, C, S, S), with their gradient."""
    n, channels = features.shape[:2]
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)  # N, C, 2k
    taken = features.flatten(2).gather(2, index).float()
    return taken.transpose(1, 2).reshape(n, 2, -1, channels)

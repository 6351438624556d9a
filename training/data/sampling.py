"""Which pictures an iteration sees. Each sampler is a function of the seed and the iteration alone, so nothing of it has to be saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sampler(Protocol):
    """Chooses pictures."""

    def chosen(self, iteration: int) -> NDArray[np.int64]:
        """Indices (B,) of the pictures of one iteration."""
        ...


class AreaSampler:
    """Independent draws; a large picture holds more crops, but not so many that it should crowd out the small ones: square root.

    Args:
        areas: pixels of every picture.
        batch: pictures of an iteration.
        seed: another seed is another order.
    """

    def __init__(self, areas: Sequence[int], batch: int, seed: int) -> None:
        weight = np.sqrt(np.asarray(areas, np.float64))
        self.probability, self.batch, self.seed = weight / weight.sum(), batch, seed

    def chosen(self, iteration: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, iteration]).choice(len(self.probability), self.batch, p=self.probability)


class EpochSampler:
    """Shuffled epochs in which picture i comes ``factors[i]`` times on average, at least once.

    The fraction of a factor is rounded at random in every epoch, as Gupta et al. (2019) do it. An iteration that begins in one epoch
    may end in the next.

    Args:
        factors: how often every picture comes in an epoch, each at least 1; all 1 = plain epochs.
        batch: pictures of an iteration.
        seed: another seed is another order.
    """

    def __init__(self, factors: NDArray[np.float64], batch: int, seed: int) -> None:
        self.factors, self.batch, self.seed = factors, batch, seed
        self._ends: list[int] = []  # pictures seen after each epoch
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def chosen(self, iteration: int) -> NDArray[np.int64]:
        first, last = iteration * self.batch, (iteration + 1) * self.batch
        parts: list[NDArray[np.int64]] = []
        while first < last:
            epoch, begin = self._epoch_of(first)
            part = self._epoch(epoch)[first - begin : last - begin]
            parts.append(part)
            first += len(part)
        return np.concatenate(parts)

    def _epoch_of(self, position: int) -> tuple[int, int]:
        """The epoch that the picture at ``position`` of the run belongs to, and the position at which it begins."""
        while not self._ends or self._ends[-1] <= position:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + int(self._counts(len(self._ends)).sum()))
        epoch = int(np.searchsorted(self._ends, position, side="right"))
        return epoch, self._ends[epoch - 1] if epoch else 0

    def _counts(self, epoch: int) -> NDArray[np.int64]:
        """How often every picture comes in an epoch."""
        whole = np.floor(self.factors)
        chance = np.random.default_rng([self.seed, epoch, 0]).random(len(whole))
        return (whole + (chance < self.factors - whole)).astype(np.int64)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._order[0] != epoch:
            order = np.repeat(np.arange(len(self.factors)), self._counts(epoch))
            self._order = epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(order)
        return self._order[1]


def repeat_factors(categories: Sequence[Sequence[int]], threshold: float) -> NDArray[np.float64]:
    """Repeat factor (R,) of every picture from the categories in it (Gupta et al. 2019, section 4.1).

    With f the share of pictures that hold a category, r(category) = max(1, sqrt(threshold / f)), and a picture has the largest of its
    categories; one without objects has 1.

    >>> repeat_factors([[1], [1], [1], [1, 2]], 1.0).tolist()
    [1.0, 1.0, 1.0, 2.0]
    """
    held = Counter(c for picture in categories for c in set(picture))
    factor = {c: max(1.0, (threshold * len(categories) / n) ** 0.5) for c, n in held.items()}
    return np.array([max((factor[c] for c in picture), default=1.0) for picture in categories], np.float64)

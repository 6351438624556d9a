"""Feature banks of cross-image contrast: queues of the boundary features of earlier RoIs (BEIS, section on CBDL)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class FeatureBank(nn.Module):
    """Two first-in, first-out queues, of background (0) and foreground (1) sides; every entry knows the class of its RoI.

    All of it is buffers, so that a checkpoint resumes with the same keys.
    """

    features: Tensor  # (2, L, C) float32
    classes: Tensor  # (2, L) int32
    next: Tensor  # (2,) int64, where the next entry goes
    filled: Tensor  # (2,) int64, entries so far, at most L

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(2, length, channels))
        self.register_buffer("classes", torch.zeros(2, length, dtype=torch.int32))
        self.register_buffer("next", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(2, dtype=torch.int64))

    @torch.no_grad()
    def push(self, side: int, features: Tensor, classes: Tensor) -> None:
        """Append ``features`` (M, C) with ``classes`` (M,); the oldest entries make room."""
        length = self.features.shape[1]
        features, classes = features[-length:], classes[-length:]
        place = (self.next[side] + torch.arange(len(features), device=features.device)) % length
        self.features[side, place] = features.to(self.features.dtype)
        self.classes[side, place] = classes.to(self.classes.dtype)
        self.next[side] = (self.next[side] + len(features)) % length
        self.filled[side] = (self.filled[side] + len(features)).clamp(max=length)

    @torch.no_grad()
    def draw(self, side: int, rows: int, count: int) -> Tensor:
        """For each of ``rows``, ``count`` different entries (rows, min(count, filled)), uniform.

        Rows are windows of one shuffled queue: each is a uniform draw without replacement, at the price of one shuffle for all.
        """
        filled = int(self.filled[side])
        device = self.features.device
        shuffled = torch.randperm(filled, device=device)
        offset = torch.randint(max(1, filled), (rows, 1), device=device)
        return shuffled[(offset + torch.arange(min(count, filled), device=device)) % max(1, filled)]

    def class_counts(self, side: int, classes: int) -> Tensor:
        """Entries of each class, (classes,)."""
        return torch.bincount(self.classes[side, : int(self.filled[side])], minlength=classes)

    @torch.no_grad()
    def draw_by_class(self, side: int, probability: Tensor, count: int) -> Tensor:
        """For each row of ``probability`` (rows, K), ``count`` entries (rows, count): a class by its probability, then an entry of it.

        Classes without entries must have probability 0. Within a row the entries of a class differ until it has no more of them, then they
        come again, so that shares stay those of ``probability``.
        """
        rows = len(probability)
        filled = int(self.filled[side])
        device = self.features.device
        if rows == 0:
            return torch.zeros((0, count), dtype=torch.int64, device=device)
        shuffled = torch.randperm(filled, device=device)
        grouped = shuffled[torch.sort(self.classes[side, shuffled], stable=True).indices]  # by class, shuffled inside each
        counts = self.class_counts(side, probability.shape[1])
        first = counts.cumsum(0) - counts
        drawn = torch.multinomial(probability, count, replacement=True).sort(-1).values  # rows, count
        start = torch.searchsorted(drawn, drawn)  # where the run of the same class begins
        rank = torch.arange(count, device=device) - start
        shift = torch.rand((rows, count), device=device).gather(1, start)  # one for each class of a row
        size = counts[drawn]
        shift = torch.minimum((shift * size).long(), size - 1)  # in float32, a number just below 1 may round to the size
        return grouped[first[drawn] + (shift + rank) % size]


def gather_rows(rows: Tensor) -> Tensor:
    """``rows`` (M, ...) of every process, in the order of their ranks; M may differ. Without distributed training, ``rows``."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(s) for s in sizes)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])

"""Batches: which pictures, decoded, augmented and stacked. A batch is a function of the seed, the iteration and the part alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdk.errors import ConfigError
from sdk.ops import rle_decode
from training.config import TrainConfig
from training.data.augment import pad, training_crop, training_picture
from training.data.sampling import AreaSampler, EpochSampler, Sampler, repeat_factors
from training.data.source import DataError, Encoded, FileSource, InstanceSource, encoded
from training.models.targets import Target

DIVISOR = 32  # sides of what the detector sees are multiples of this


@dataclass(frozen=True)
class Batch:
    """What one forward and backward pass sees."""

    images: Tensor  # (B, 3, H, W) float32, normalised, then zero-padded to the right and below
    sizes: list[tuple[int, int]]  # (h, w) before padding
    targets: list[Target]
    ids: list[int]  # of the pictures

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        targets = [replace(t, boxes=t.boxes.to(device), labels=t.labels.to(device), masks=t.masks.to(device)) for t in self.targets]
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)


class TrainingSet(Dataset[Batch]):
    """Batches from a source; decoded pictures stay in memory, masks as run lengths, up to ``config.cache_mb``.

    Args:
        data: the pictures.
        config: sampling, augmentation, batch and seed.

    Raises:
        DataError: no picture is left to draw.
        ConfigError: the source has nothing that the sampler needs.
    """

    def __init__(self, data: InstanceSource, config: TrainConfig) -> None:
        self.data, self.config = data, config
        self.drawn, self.sampler = _sampler(data, config)
        self.parts = config.accumulate  # of a batch; the trainer multiplies it by its processes
        self._cache: OrderedDict[int, Encoded] = OrderedDict()
        self._room = config.cache_mb * 2**20 // max(1, config.workers)

    @property
    def epoch(self) -> float:
        """Pictures in one pass over the data, on average."""
        return float(self.sampler.factors.sum()) if isinstance(self.sampler, EpochSampler) else float(len(self.drawn))

    def _load(self, index: int) -> Encoded:
        if index in self._cache:
            return self._cache[index]
        sample = encoded(self.data, index)
        self._room -= sample.nbytes
        while self._cache and self._room < 0:
            self._room += self._cache.popitem(last=False)[1].nbytes
        if self._room < 0:  # larger than the whole cache
            self._room += sample.nbytes
        else:
            self._cache[index] = sample
        return sample

    def batch(self, iteration: int, part: int = 0) -> Batch:
        """One of the ``parts`` of an iteration's batch."""
        share = self.config.batch // self.parts
        chosen = self.drawn[self.sampler.chosen(iteration)]
        view = training_crop if self.config.augment.mode == "crop" else training_picture
        pictures: list[Tensor] = []
        targets: list[Target] = []
        for position in range(part * share, (part + 1) * share):
            rng = np.random.default_rng([self.config.seed, iteration, position])
            sample = self._load(int(chosen[position]))
            masks = rle_decode(sample.counts, sample.image.shape[:2])
            pixels, target = view(sample.image, masks, sample.labels, self.config.model, self.config.augment, rng)
            pictures.append(pixels)
            targets.append(target)
        ids = [self.data.records[int(i)].image_id for i in chosen[part * share : (part + 1) * share]]
        return collate(pictures, targets, ids)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.batch(*key)

    def stream(self, first: int, parts: list[int]) -> Iterator[Batch]:
        """The given parts of every iteration from ``first`` on, in order, prepared ahead by ``config.workers`` processes."""
        keys = [(i, p) for i in range(first, self.config.iterations) for p in parts]
        if not self.config.workers:
            return map(self.__getitem__, keys)
        return iter(DataLoader(self, batch_size=None, sampler=keys, num_workers=self.config.workers))


def collate(pictures: list[Tensor], targets: list[Target], ids: list[int]) -> Batch:
    """Pictures (3, h, w) of different sizes as one batch; pictures and masks are zero-padded to a common multiple of 32."""
    sizes = [(p.shape[1], p.shape[2]) for p in pictures]
    height, width = (-(-max(side) // DIVISOR) * DIVISOR for side in zip(*sizes, strict=True))
    padded = [pad(p, t, (height, width)) for p, t in zip(pictures, targets, strict=True)]
    return Batch(torch.stack([p for p, _ in padded]), sizes, [t for _, t in padded], ids)


def _sampler(data: InstanceSource, config: TrainConfig) -> tuple[np.ndarray, Sampler]:
    """Indices of the records that may be drawn, and the sampler over them."""
    drawn = np.arange(len(data.records))
    needs = [name for name, wanted in (("skip_empty", config.skip_empty), ("sampler 'repeat'", config.sampler == "repeat")) if wanted]
    if needs and not isinstance(data, FileSource):
        raise ConfigError(f"{' and '.join(needs)}: this source does not list the objects of a picture without drawing it; switch it off")
    if config.skip_empty:
        drawn = np.array([i for i, r in enumerate(data.records) if r.annotations], np.int64)
    if not len(drawn):
        raise DataError("no picture to train on: none has an object")
    records = [data.records[int(i)] for i in drawn]
    if config.sampler == "area":
        return drawn, AreaSampler([r.height * r.width for r in records], config.batch, config.seed)
    factors = np.ones(len(records))
    if config.sampler == "repeat":
        factors = repeat_factors([[a["category_id"] for a in r.annotations] for r in records], config.repeat_threshold)
    return drawn, EpochSampler(factors, config.batch, config.seed)

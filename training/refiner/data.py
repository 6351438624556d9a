"""Batches of patches, cut on the fly. A batch is a function of the seed, the iteration and the part alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdk.evaluate.boundary import Window, grow_window, render, union_window, window_of
from sdk.ops import rle_decode
from training.data.coarse import simulate
from training.data.source import DataError
from training.refiner.augment import shade
from training.refiner.config import PatchConfig, RefinerTrainConfig
from training.refiner.model import normalised
from training.refiner.patches import boxes_inside, centres_of, cut
from training.refiner.sources import PatchSource, Picture, PictureCache

Rng = np.random.Generator
TRIES = 50  # pictures that are drawn before a source is given up


@dataclass(frozen=True)
class PatchBatch:
    """What one forward and backward pass sees."""

    patches: Tensor  # (B, C, S, S) float32, normalised
    targets: Tensor  # (B, S, S) uint8, the true mask
    ids: list[str]  # source and picture of each

    def to(self, device: torch.device) -> PatchBatch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        return replace(self, patches=self.patches.to(device, non_blocking=True), targets=self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Triple:
    """One patch at the size it has in the picture."""

    image: NDArray[np.uint8]  # (P, P, 3) RGB
    coarse: NDArray[np.uint8]  # (P, P), 0 or 1
    truth: NDArray[np.uint8]  # (P, P), 0 or 1
    picture: str


class Patches:
    """Draws patches from one source.

    Args:
        source: the pictures.
        config: the run: how coarse masks are made, and which patches of them are taken.
    """

    def __init__(self, source: PatchSource, config: RefinerTrainConfig) -> None:
        self.source, self.config = source, config

    def draw(self, rng: Rng) -> list[Triple]:
        """All patches that one picture gives to a batch: ``patches.masks`` times ``patches.per_mask``.

        Raises:
            DataError: the source has no mask that a patch can be cut from.
        """
        picks = self.config.patches
        for _ in range(TRIES):
            index = self.source.draw(rng)
            picture = self.source.picture(index)
            usable = np.flatnonzero(picture.areas >= picks.min_area)
            if min(picture.shape) < self.config.model.patch or not len(usable):
                continue  # a picture smaller than a patch is not refined either
            triples: list[Triple] = []
            for _ in range(2 * picks.masks):
                triples += self._of_mask(picture, usable, self.source.image_id(index), rng)
                if len(triples) == picks.masks * picks.per_mask:
                    return triples
        raise DataError(
            f"{self.source.config.data}: {TRIES} pictures drawn, none has a mask of at least {picks.min_area} pixels with a coarse mask of "
            f"IoU above {self.config.coarse.min_iou} and is at least {self.config.model.patch} pixels high and wide"
        )

    def _of_mask(self, picture: Picture, usable: NDArray[np.int64], name: str, rng: Rng) -> list[Triple]:
        """Patches of one coarse mask; none if this one is of no use."""
        given = [pair for pair in picture.given if pair[0] in usable]
        if given and rng.random() >= self.source.config.simulate:
            n, counts = given[int(rng.integers(len(given)))]
            crops = rle_decode([counts], picture.shape)
            window = grow_window(union_window(window_of(crops, 0), window_of(picture.masks, n)), 2, picture.shape)
            coarse = render(crops, 0, window)
        else:
            n = int(rng.choice(usable))
            x1, y1, x2, y2 = window_of(picture.masks, n)
            window = grow_window((x1, y1, x2, y2), 8 + max(x2 - x1, y2 - y1) // 5, picture.shape)
            made = simulate(render(picture.masks, n, window), _others(picture, n, window), self.config.coarse, rng)
            if made is None:
                return []
            coarse = made
        picks = self.config.patches
        centres = centres_of(coarse, window[:2], picture.shape, self.config.model, picks)
        if not len(centres):
            return []
        # All different ones first; a small mask has fewer than are wanted.
        order = np.concatenate([rng.permutation(len(centres)) for _ in range(math.ceil(picks.per_mask / len(centres)))])
        chosen = centres[order[: picks.per_mask]]
        return [self._cut(picture, coarse, window, n, centre, name, rng) for centre in chosen]

    def _cut(
        self, picture: Picture, coarse: NDArray[np.uint8], window: Window, n: int, centre: NDArray[np.int64], name: str, rng: Rng
    ) -> Triple:
        picks, model = self.config.patches, self.config.model
        if picks.jitter:
            centre = centre + np.round(rng.uniform(-picks.jitter, picks.jitter, 2)).astype(np.int64)
        factor = math.exp(rng.uniform(*np.log(picks.scale))) if picks.scale != (1.0, 1.0) else 1.0
        patch = min(2 * round(model.patch * factor / 2), min(picture.shape))
        pad = round(model.pad * factor)
        box = boxes_inside(centre[None], patch, picture.shape)[0] + (-pad, -pad, pad, pad)
        truth = render(picture.masks, n, (int(box[0]), int(box[1]), int(box[2]), int(box[3])))
        return Triple(cut(picture.image, box), cut(coarse, box, (window[0], window[1])), truth, name)


def _others(picture: Picture, n: int, window: Window) -> NDArray[np.uint8]:
    """1 where other objects are in a window."""
    boxes = picture.masks.boxes
    near = (boxes[:, 0] < window[2]) & (boxes[:, 2] > window[0]) & (boxes[:, 1] < window[3]) & (boxes[:, 3] > window[1])
    near[n] = False
    result = np.zeros((window[3] - window[1], window[2] - window[0]), np.uint8)
    for k in np.flatnonzero(near):
        result |= render(picture.masks, int(k), window)
    return result


def augmented(triple: Triple, config: PatchConfig, rng: Rng) -> Triple:
    """A patch with other light, mirrored and turned."""
    image, coarse, truth = shade(triple.image, config, rng), triple.coarse, triple.truth
    if config.flip and rng.random() < 0.5:
        image, coarse, truth = image[:, ::-1], coarse[:, ::-1], truth[:, ::-1]
    if config.rotate90:
        turns = int(rng.integers(4))
        image, coarse, truth = np.rot90(image, turns), np.rot90(coarse, turns), np.rot90(truth, turns)
    return Triple(image, coarse, truth, triple.picture)


def resized(triples: list[Triple], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches at the network's size: pictures (B, 3, S, S) bilinear, coarse and true masks (B, S, S) to the nearest pixel; all uint8."""
    size = (side, side)
    images = [cv2.resize(np.ascontiguousarray(t.image), size, interpolation=cv2.INTER_LINEAR) for t in triples]
    masks = [
        [cv2.resize(np.ascontiguousarray(m), size, interpolation=cv2.INTER_NEAREST_EXACT) for m in (t.coarse, t.truth)] for t in triples
    ]
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # B, 3, S, S
    both = torch.from_numpy(np.stack([np.stack(pair) for pair in masks], 1))  # 2, B, S, S
    return pictures, both[0], both[1]


class PatchSet(Dataset[PatchBatch]):
    """Batches from several sources.

    Args:
        sources: what is drawn from, by their weights.
        config: the run.
    """

    def __init__(self, sources: list[PatchSource], config: RefinerTrainConfig) -> None:
        self.config = config
        self.draws = [Patches(source, config) for source in sources]
        weights = np.array([source.config.weight for source in sources])
        self.probability = weights / weights.sum()
        self.parts = config.accumulate  # of a batch; the trainer multiplies it by its processes
        cache = PictureCache(config.cache_mb * 2**20 // max(1, config.workers))
        for source in sources:
            source.cache = cache

    def batch(self, iteration: int, part: int = 0) -> PatchBatch:
        """One of the ``parts`` of an iteration's batch."""
        config = self.config
        group = config.patches.masks * config.patches.per_mask
        share = config.batch // self.parts // group  # pictures
        triples: list[Triple] = []
        for position in range(part * share, (part + 1) * share):
            rng = np.random.default_rng([config.seed, iteration, position])
            drawn = self.draws[int(rng.choice(len(self.draws), p=self.probability))].draw(rng)
            triples += [augmented(t, config.patches, rng) for t in drawn]
        pictures, coarse, truth = resized(triples, config.model.input)
        return PatchBatch(normalised(pictures, coarse, config.model), truth, [t.picture for t in triples])

    def __getitem__(self, key: tuple[int, int]) -> PatchBatch:
        return self.batch(*key)

    def stream(self, first: int, parts: list[int]) -> Iterator[PatchBatch]:
        """The given parts of every iteration from ``first`` on, in order, prepared ahead by ``config.workers`` processes."""
        keys = [(i, p) for i in range(first, self.config.iterations) for p in parts]
        if not self.config.workers:
            return map(self.__getitem__, keys)
        return iter(DataLoader(self, batch_size=None, sampler=keys, num_workers=self.config.workers))

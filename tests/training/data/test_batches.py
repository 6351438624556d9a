import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from sdk.ops import crops_to_dense, rle_decode
from tests.training.short import SHORT
from training.data.batches import TrainingSet, collate
from training.data.coco import CocoInstances
from training.data.scenes import Scenes
from training.data.source import DataError, encoded
from training.models.targets import Target


def test_resume_with_workers_sees_the_same_batches(ellipses: Path, tmp_path: Path) -> None:
    config = SHORT.replace(iterations=3)
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    alone, helped = (TrainingSet(data, config.replace(workers=n)) for n in (0, 1))
    for one, other in zip(alone.stream(1, [0]), helped.stream(1, [0]), strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)


def test_processes_share_a_batch_evenly(ellipses: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be computed in 3 equal parts"):
        SHORT.replace(accumulate=3)
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    whole, parted = TrainingSet(data, SHORT), TrainingSet(data, SHORT)
    parted.parts = 2
    assert [i for part in (0, 1) for i in parted.batch(5, part).ids] == whole.batch(5).ids
    assert torch.equal(parted.batch(5, 1).images[0], whole.batch(5).images[1])


def test_pictures_of_different_sizes_are_padded_to_a_multiple_of_32() -> None:
    sizes = [(40, 70), (64, 33)]
    pictures = [torch.ones(3, *size) for size in sizes]
    targets = [
        Target(boxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.int64), masks=torch.ones(1, *size, dtype=torch.uint8))
        for size in sizes
    ]
    batch = collate(pictures, targets, [5, 6])
    assert batch.images.shape == (2, 3, 64, 96) and batch.sizes == sizes and batch.ids == [5, 6]
    for (height, width), image, target in zip(sizes, batch.images, batch.targets, strict=True):
        assert image.sum() == 3 * height * width and image[:, :height, :width].all()
        assert target.masks.shape == (1, 64, 96) and target.masks.sum() == height * width


def test_memory_is_bounded_and_changes_nothing(ellipses: Path) -> None:
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    config = SHORT.replace(sampler="epochs", batch=12)
    unbounded, bounded, none = (TrainingSet(data, config.replace(cache_mb=mb)) for mb in (100, 1, 0))
    bounded._room = 150_000  # two pictures of 61 kB
    batches = [[d.batch(i).images for i in range(2)] for d in (unbounded, bounded, none)]
    assert len(unbounded._cache) == 12 and len(bounded._cache) == 2 and len(none._cache) == 0
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*batches, strict=True))


def test_pictures_without_objects_can_stay_out(ellipses: Path) -> None:
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    data.records[4] = dataclasses.replace(data.records[4], annotations=[])
    config = SHORT.replace(sampler="epochs", batch=11, skip_empty=True)
    drawn = TrainingSet(data, config)
    assert drawn.epoch == 11 and sorted(drawn.batch(0).ids) == [i for i in range(1, 13) if i != 5]
    data.records = [dataclasses.replace(r, annotations=[]) for r in data.records]
    with pytest.raises(DataError, match="none has an object"):
        TrainingSet(data, config)


def test_procedural_pictures_are_a_source() -> None:
    scenes = Scenes(3, size=64, seed=1)
    batch = TrainingSet(scenes, SHORT).batch(0)
    assert batch.images.shape == (2, 3, 64, 64)
    image, masks, labels = scenes.load(2)
    sample = encoded(scenes, 2)
    assert np.array_equal(sample.image, image) and np.array_equal(sample.labels, labels)
    assert np.array_equal(crops_to_dense(rle_decode(sample.counts, (64, 64)), (64, 64)), masks.astype(bool))
    with pytest.raises(ConfigError, match="sampler 'repeat'"):
        TrainingSet(scenes, SHORT.replace(sampler="repeat"))

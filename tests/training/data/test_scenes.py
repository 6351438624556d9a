"""The procedural data set: exact masks, everything from a seed, objects that a 28x28 mask cannot follow."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from training.data.scenes import SHAPES, Scenes
from training.data.source import encoded


def test_a_picture_depends_on_seed_and_index_alone() -> None:
    few, many, other = Scenes(2, 96, 5), Scenes(9, 96, 5), Scenes(2, 96, 6)
    for a, b in zip(few.load(1), many.load(1), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(few.load(0)[0], few.load(1)[0])
    assert not np.array_equal(few.load(0)[0], other.load(0)[0])


@pytest.mark.parametrize("size", [32, 64, 150])
def test_any_size(size: int) -> None:
    data = Scenes(6, size)
    found = [data.load(i) for i in range(6)]
    for image, masks, labels in found:
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert masks.shape == (len(labels), size, size) and set(np.unique(masks)) <= {0, 1}
        assert len(labels) == 0 or (labels.min() >= 0 and labels.max() < len(SHAPES))
    assert sum(len(labels) for _, _, labels in found) >= 12


def test_objects_are_large_overlap_and_stay_visible() -> None:
    """100 to 400 pixels on 512, none hidden for the most part; a pixel belongs to one object."""
    data = Scenes(8, 512, 1)
    sides, touching, labels = [], 0, set()
    for index in range(8):
        _, masks, own = data.load(index)
        assert 1 <= len(own) <= 5
        assert masks.sum(0).max() <= 1
        assert (masks.sum((1, 2)) >= 0.1 * 0.004 * 512**2).all()
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            sides.append(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1)
        grown = [np.pad(m, 1)[2:, 1:-1] | np.pad(m, 1)[:-2, 1:-1] for m in masks]
        touching += any((grown[i] & masks[j]).any() for i in range(len(masks)) for j in range(len(masks)) if i != j)
        labels |= set(own.tolist())
    assert np.percentile(sides, 10) >= 60 and np.median(sides) >= 100 and max(sides) <= 512
    assert touching >= 2 and len(labels) >= 4


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_closed_and_about_one_across(name: str) -> None:
    for seed in range(5):
        curves = SHAPES[name](np.random.default_rng(seed))
        radius = np.hypot(*np.concatenate(curves).T)
        assert 0.6 < radius.max() < 1.4
    assert (len(curves) == 2) == (name == "gear")  # the one with a hole


def test_a_coarse_mask_loses_the_outline() -> None:
    """What the set is for: 28x28 cells over an object's box, enlarged again, miss far more of it than 112x112."""
    import cv2

    data, found = Scenes(6, 512, 2), {28: [], 112: []}
    for index in range(6):
        for mask in data.load(index)[1]:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
            for size, ious in found.items():
                small = (cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) >= 0.5).astype(np.float32)
                back = cv2.resize(small, crop.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
                ious.append((back & (crop > 0)).sum() / (back | (crop > 0)).sum())
    assert 1 - np.mean(found[28]) > 3 * (1 - np.mean(found[112]))


def test_ground_truth_in_coco_format() -> None:
    data = Scenes(3, 128, 4)
    content = data.to_coco()
    assert [c["name"] for c in content["categories"]] == list(SHAPES) and [i["id"] for i in content["images"]] == [1, 2, 3]
    for index in range(3):
        _, masks, labels = data.load(index)
        own = [a for a in content["annotations"] if a["image_id"] == index + 1]
        assert [a["category_id"] for a in own] == (labels + 1).tolist()
        for annotation, mask in zip(own, masks, strict=True):
            assert np.array_equal(coco_mask.decode(annotation["segmentation"]), mask)
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])


def test_run_lengths_for_the_trainer() -> None:
    data = Scenes(1, 64)
    image, masks, labels = data.load(0)
    sample = encoded(data, 0)
    assert np.array_equal(sample.image, image) and np.array_equal(sample.labels, labels)
    decoded = [coco_mask.decode({"size": [64, 64], "counts": c}) for c in sample.counts]
    assert all(np.array_equal(a, b) for a, b in zip(decoded, masks, strict=True)) and len(decoded) == len(masks)


@pytest.mark.parametrize(("arguments", "message"), [((0,), "count"), ((3, 16), "size"), ((3, 64, -1), "seed must not be negative")])
def test_impossible_sets_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(*arguments)
    with pytest.raises(IndexError, match="picture 2 of 2"):
        Scenes(2, 64).load(2)

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sdk.config import ResizeRule
from sdk.errors import ConfigError
from sdk.ops import dense_to_crops
from tests.trained import TINY
from training.config import AugmentConfig, ModelConfig
from training.data.augment import CHUNK, training_crop, training_picture
from training.data.coco import CocoInstances
from training.models.targets import Target

PLAIN = ModelConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=ResizeRule(short=40, long=1000))
STILL = AugmentConfig(mode="full", flip=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(count: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of 40 x 60 with ellipses, their masks and labels."""
    masks = np.zeros((count, 40, 60), np.uint8)
    for index, mask in enumerate(masks):
        cv2.ellipse(mask, (10 + 2 * index, 20), (6, 12), 20.0 * index, 0, 360, 1, -1)
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    return image, masks, np.arange(count)


def boxes_fit(target: Target) -> None:
    assert len(target.boxes) == len(target.labels) == len(target.masks)
    for box, mask in zip(target.boxes, target.masks, strict=True):
        rows, columns = torch.nonzero(mask.any(1)), torch.nonzero(mask.any(0))
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_crop_targets_agree_with_their_boxes(ellipses: Path) -> None:
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train", TINY.model.category_ids)
    seen = 0
    for seed in range(20):
        image, target = training_crop(*data.load(seed % len(data)), TINY.model, TINY.augment, rng(seed))
        assert image.shape == (3, 128, 128) and image.dtype == torch.float32
        boxes_fit(target)
        seen += len(target.boxes)
    assert seen > 20


def test_a_picture_at_its_own_scale_is_left_as_it_is() -> None:
    image, masks, labels = picture()
    pixels, target = training_picture(image, masks, labels, PLAIN, STILL, rng())
    assert np.array_equal(pixels.numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(target.masks.numpy(), masks) and target.labels.tolist() == [0, 1, 2]
    boxes_fit(target)


def test_mirrored_and_turned_masks_follow_their_pixels() -> None:
    image, masks, labels = picture(1)
    image = (masks[0] * 255)[:, :, None].repeat(3, 2)  # the picture is the mask
    config = AugmentConfig(mode="full", flip=True, rotate90=True)
    shapes = set()
    for seed in range(60):
        pixels, target = training_picture(image, masks, labels, PLAIN, config, rng(seed))
        assert torch.equal(pixels[0] > 128, target.masks[0].bool())
        shapes.add((tuple(pixels.shape), tuple(target.boxes[0].tolist())))
    assert {s[0] for s in shapes} == {(3, 40, 60), (3, 60, 40)} and len(shapes) == 8


def test_crops_follow_their_pixels_and_compressed_masks_are_the_same() -> None:
    image, masks, labels = picture(1)
    image = (masks[0] * 255)[:, :, None].repeat(3, 2)
    config = AugmentConfig(crop=64, scale=(0.8, 2.0), rotate90=True, min_visible=0.0)
    kept = 0
    for seed in range(16):
        pixels, target = training_crop(image, masks, labels, PLAIN, config, rng(seed))
        again = training_crop(image, dense_to_crops(masks.astype(bool)), labels, PLAIN, config, rng(seed))
        assert torch.equal(pixels, again[0]) and torch.equal(target.masks, again[1].masks)
        if len(target.masks):
            clear = (pixels[0] - 127.5).abs() > 0.01  # exactly one half is up to rounding
            assert torch.equal((pixels[0] > 127.5)[clear], target.masks[0].bool()[clear]) and clear.float().mean() > 0.99
            kept += 1
    assert kept > 8


def test_scales_are_drawn_as_configured() -> None:
    image, masks, labels = picture(1)

    def heights(config: AugmentConfig) -> list[int]:
        return [training_picture(image, masks, labels, PLAIN, config, rng(seed))[0].shape[1] for seed in range(40)]

    assert set(heights(STILL.replace(short=(20, 44, 60)))) == {20, 44, 60}
    drawn = heights(STILL.replace(short=(20, 60), short_range=True))
    assert min(drawn) >= 20 and max(drawn) <= 60 and len(set(drawn)) > 10
    assert set(heights(STILL.replace(short=(60,), long=75))) == {50}  # the longer side may have 75
    with pytest.raises(ConfigError, match="short_range"):
        AugmentConfig(short=(60, 20), short_range=True)


def test_many_objects_are_resampled_in_chunks() -> None:
    image, masks, labels = picture(3)
    many = np.concatenate([masks] * 12)[: 2 * CHUNK + 1]
    _, target = training_picture(image, many, np.arange(len(many)), PLAIN, STILL.replace(short=(80,)), rng())
    _, few = training_picture(image, masks, labels, PLAIN, STILL.replace(short=(80,)), rng())
    assert target.labels.tolist() == list(range(2 * CHUNK + 1))
    assert all(torch.equal(m, few.masks[i % 3]) for i, m in enumerate(target.masks))


def test_only_what_is_hardly_visible_is_dropped() -> None:
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[0, 10:54, 10:54] = 1  # in every crop
    masks[1, :, 0] = 1  # one column
    model = PLAIN.replace(resize=ResizeRule(factor=1.0, long=1000))
    config = AugmentConfig(crop=32, scale=(1.0, 1.0), flip=False, min_visible=0.2)
    labels = np.array([0, 1])
    for seed in range(30):
        _, target = training_crop(np.zeros((64, 64, 3), np.uint8), masks, labels, model, config, rng(seed))
        boxes_fit(target)
        share = {int(k): int(m.sum()) / int(masks[k].sum()) for k, m in zip(target.labels, target.masks, strict=True)}
        assert all(s >= 0.2 for s in share.values())
    _, tiny = training_picture(np.zeros((64, 64, 3), np.uint8), masks, labels, model, STILL.replace(short=(8,)), rng())
    assert tiny.labels.tolist() == [0]  # an eighth of a column is no pixel any more


def test_padding_is_zero_after_normalisation() -> None:
    image, masks, labels = picture()
    pixels, target = training_crop(
        image, masks, labels, PLAIN.replace(mean=(9.0, 9.0, 9.0)), AugmentConfig(crop=160, scale=(1.0, 1.0)), rng()
    )
    assert pixels.shape == (3, 160, 160) and target.masks.shape[1:] == (160, 160)
    assert not pixels[:, 40:].any() and not pixels[:, :, 60:].any() and not target.masks[:, 40:].any()


def test_pictures_without_objects_pass() -> None:
    image, masks, labels = picture(0)
    for view in (training_crop, training_picture):
        pixels, target = view(image, masks, labels, PLAIN, AugmentConfig(crop=32), rng())
        assert target.boxes.shape == (0, 4) and target.masks.shape[1:] == pixels.shape[1:]

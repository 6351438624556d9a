import numpy as np
import torch

from sdk.ops import boundary_patches, cut_patches, dense_to_crops
from training.refiner.config import PatchConfig, RefinerConfig
from training.refiner.data import Triple, resized
from training.refiner.model import normalised
from training.refiner.patches import boxes_inside, centres_of, cut


def test_centres_are_those_of_inference() -> None:
    mask = np.zeros((90, 130), np.uint8)
    mask[20:75, 30:] = 1  # goes on over the right edge
    picks = PatchConfig(nms_threshold=0.3)
    inference = boundary_patches(dense_to_crops(mask[None].view(bool)), mask.shape, size=32, threshold=0.3).boxes
    window = mask[15:85, 22:130]
    centres = centres_of(window, (22, 15), mask.shape, RefinerConfig(patch=32), picks)
    assert boxes_inside(centres, 32, mask.shape).tolist() == inference.tolist()
    without = centres_of(window, (22, 15), mask.shape, RefinerConfig(patch=32), picks.replace(border=False))
    assert 0 < len(without) < len(centres)
    assert centres_of(np.zeros_like(window), (22, 15), mask.shape, RefinerConfig(), picks).shape == (0, 2)


def test_boxes_stay_inside_and_keep_their_size() -> None:
    centres = np.array([[0, 0], [99, 79], [50, 40], [3, 79]])
    boxes = boxes_inside(centres, 64, (80, 100))
    assert boxes.tolist() == [[0, 0, 64, 64], [36, 16, 100, 80], [18, 8, 82, 72], [0, 16, 64, 80]]


def test_cut_fills_with_zeros_outside() -> None:
    array = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    assert cut(array, np.array([2, 1, 6, 4])).tolist() == [[7, 8, 0, 0], [11, 12, 0, 0], [0, 0, 0, 0]]
    assert cut(array, np.array([9, 9, 11, 11]), (10, 10)).tolist() == [[0, 0], [0, 1]]  # a window that begins at 10, 10


def test_the_network_sees_in_training_what_it_sees_at_inference() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (100, 140, 3), dtype=np.uint8)
    mask = np.zeros((100, 140), np.uint8)
    mask[30:80, 40:120] = 1
    crops = dense_to_crops(mask[None].view(bool))
    for pad, side in ((0, 64), (0, 128), (5, 96)):
        config = RefinerConfig(pad=pad, input=side)
        patches = boundary_patches(crops, mask.shape, padding=pad)
        wanted = cut_patches(image, crops, patches, input_size=side, mean=config.mean, std=config.std)
        boxes = patches.boxes.astype(np.int64) + np.array([-pad, -pad, pad, pad])
        triples = [Triple(cut(image, box), cut(mask, box), cut(mask, box), "") for box in boxes]
        pictures, coarse, truth = resized(triples, side)
        ours = normalised(pictures, coarse, config)
        assert torch.equal(coarse, truth) and ours.shape == wanted.shape
        # Training resizes in fixed point and rounds to bytes.
        np.testing.assert_allclose(ours.numpy(), wanted, atol=1.0 / min(config.std))

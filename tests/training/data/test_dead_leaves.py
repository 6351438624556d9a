import numpy as np
import pytest

from training.data.dead_leaves import LEAVES, DeadLeaves


def test_pictures_come_from_the_seed() -> None:
    first, again, other = DeadLeaves(4, 128, 1), DeadLeaves(9, 128, 1), DeadLeaves(4, 128, 2)
    for ours, theirs in zip(first.load(2), again.load(2), strict=True):
        assert np.array_equal(ours, theirs)  # whatever the count
    assert not np.array_equal(first.load(2)[0], other.load(2)[0])
    assert not np.array_equal(first.load(2)[0], first.load(3)[0])


def test_masks_are_apart_and_large_enough() -> None:
    data, seen = DeadLeaves(6, 160), 0
    for index in range(len(data)):
        image, masks, labels = data.load(index)
        assert image.shape == (160, 160, 3) and image.dtype == np.uint8 and masks.shape == (len(labels), 160, 160)
        assert masks.sum(0).max() <= 1  # a pixel shows one leaf
        assert masks.reshape(len(masks), -1).sum(1).min() >= 150
        assert not labels.any()
        seen += len(masks)
    assert seen >= 24


def test_the_picture_changes_at_the_outline() -> None:
    """Across an outline grey levels differ more than inside: the masks lie where the leaves were painted."""
    data, inside, across = DeadLeaves(8, 160), [], []
    for index in range(len(data)):
        image, masks, _ = data.load(index)
        step = np.abs(np.diff(image.astype(float), axis=1)).mean(2)  # H, W-1
        for mask in masks:
            edge = mask[:, 1:] != mask[:, :-1]
            across.append(step[edge].mean())
            inside.append(step[(mask[:, 1:] & mask[:, :-1]) > 0].mean())
    assert np.mean(across) > 2 * np.mean(inside)


def test_every_leaf_is_an_outline_of_radius_one() -> None:
    rng = np.random.default_rng(0)
    for leaf in LEAVES:
        for _ in range(5):
            radius = max(float(np.hypot(*curve.T).max()) for curve in leaf(rng))
            assert 0.3 < radius < 1.35


@pytest.mark.parametrize("arguments", [(0, 128), (3, 64)])
def test_impossible_sets_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        DeadLeaves(*arguments)
    with pytest.raises(IndexError):
        DeadLeaves(2, 96).load(2)

import cv2
import numpy as np
import pytest

from training.refiner.patches import boundary_scores, boxes_inside, cut, pick_centres


def slow_scores(mask: np.ndarray, border: bool) -> np.ndarray:
    """The definition, pixel by pixel."""
    padded = np.pad(mask.astype(int), 1, mode="constant") if border else np.pad(mask.astype(int), 1, mode="edge")
    result = np.zeros(mask.shape)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            s = padded[y : y + 3, x : x + 3].sum()
            result[y, x] = min(9 - s, s) / 4.5
    return result


@pytest.mark.parametrize("border", [True, False])
def test_scores_are_those_of_the_definition(border: bool) -> None:
    rng = np.random.default_rng(0)
    for size in ((1, 1), (1, 7), (9, 12)):
        mask = (cv2.GaussianBlur(rng.random(size), (0, 0), 1.5) > 0.5).astype(np.uint8)
        np.testing.assert_allclose(boundary_scores(mask, border), slow_scores(mask, border))


@pytest.mark.parametrize(("threshold", "expected"), [(0.25, 36), (0.55, 74)])
def test_ellipse_gives_the_known_number_of_patches(threshold: float, expected: int) -> None:
    y, x = np.mgrid[:600, :800]
    mask = (((x - 400) / 250) ** 2 + ((y - 300) / 180) ** 2 <= 1).astype(np.uint8)
    centres = pick_centres(boundary_scores(mask), 64, threshold)
    assert len(centres) == expected


def test_no_boundary_gives_no_patch() -> None:
    assert pick_centres(boundary_scores(np.zeros((20, 20), np.uint8)), 64, 0.25).shape == (0, 2)
    full = np.ones((20, 20), np.uint8)
    assert len(pick_centres(boundary_scores(full), 8, 0.25)) > 0  # the picture's edge counts
    assert pick_centres(boundary_scores(full, border=False), 8, 0.25).shape == (0, 2)


def test_boxes_stay_inside_and_keep_their_size() -> None:
    centres = np.array([[0, 0], [99, 79], [50, 40], [3, 79]])
    boxes = boxes_inside(centres, 64, (80, 100))
    assert boxes.tolist() == [[0, 0, 64, 64], [36, 16, 100, 80], [18, 8, 82, 72], [0, 16, 64, 80]]


def test_cut_fills_with_zeros_outside() -> None:
    array = np.arange(1, 13, dtype=np.uint8).reshape(3, 4)
    assert cut(array, np.array([2, 1, 6, 4])).tolist() == [[7, 8, 0, 0], [11, 12, 0, 0], [0, 0, 0, 0]]
    assert cut(array, np.array([9, 9, 11, 11]), (10, 10)).tolist() == [[0, 0], [0, 1]]  # a window that begins at 10, 10

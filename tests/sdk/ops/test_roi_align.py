from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import Pyramid, reference
from tests.sdk.ops.cases import DEGENERATE_BOXES, feature_pyramid, random_boxes

SIZES = [(48, 64), (24, 32), (12, 16), (6, 8)]
STRIDES = [4, 8, 16, 32]
PICTURE = (192, 256)


def _assert_equal(
    features: list[np.ndarray], strides: list[float], boxes: np.ndarray, batch: np.ndarray, size: int, **rule: Any
) -> np.ndarray:
    got = Pyramid(features, strides).roi_align(boxes, batch, size, **rule)
    want = reference.roi_align(features, strides, boxes, batch, size, **rule)
    largest = max(float(np.abs(f).max()) for f in features)
    np.testing.assert_allclose(got, want, atol=1e-5 * largest, rtol=0)
    assert got.dtype == np.float32
    return got


@pytest.mark.parametrize("channels", [1, 3, 16, 37])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [1, 7, 14])
def test_equals_the_definition(channels: int, sampling_ratio: int, size: int) -> None:
    rng = np.random.default_rng(channels)
    features = feature_pyramid(rng, 2, channels, SIZES)
    boxes = random_boxes(rng, 40, PICTURE)
    batch = rng.integers(0, 2, 40).astype(np.int32)
    _assert_equal(features, STRIDES, boxes, batch, size, sampling_ratio=sampling_ratio)


@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_forced_level_takes_every_box(level: int) -> None:
    rng = np.random.default_rng(level)
    features = feature_pyramid(rng, 1, 5, SIZES)
    boxes = random_boxes(rng, 30, PICTURE)
    _assert_equal(features, STRIDES, boxes, np.zeros(30, np.int32), 14, level=level)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_degenerate_boxes(sampling_ratio: int) -> None:
    features = feature_pyramid(np.random.default_rng(0), 1, 4, SIZES)
    # The adaptive count of the enormous boxes is 1e8 samples a bin: too slow for the definition, tested below.
    sane = np.abs(np.nan_to_num(DEGENERATE_BOXES, posinf=0, neginf=0)).max(axis=1) < 1e6
    boxes = DEGENERATE_BOXES[sane | (sampling_ratio > 0)]
    got = _assert_equal(features, STRIDES, boxes, np.zeros(len(boxes), np.int32), 7, sampling_ratio=sampling_ratio)
    empty = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    assert not got[empty].any()
    assert got[~empty].any()


def test_enormous_adaptive_boxes_end_in_time_and_are_nearly_zero() -> None:
    features = feature_pyramid(np.random.default_rng(0), 1, 4, SIZES)
    boxes = np.array([[-1e9, -1e9, 1e9, 1e9], [-3e38, -3e38, 3e38, 3e38], [0, 0, 3e38, 3e38]], np.float32)
    got = Pyramid(features, STRIDES).roi_align(boxes, np.zeros(3, np.int32), 7, sampling_ratio=0)
    assert np.abs(got).max() < 1e-3


def test_levels_change_exactly_at_powers_of_two() -> None:
    constant = [np.full((1, 1, 8, 8), float(level), np.float32) for level in range(4)]
    pyramid = Pyramid(constant, [100.0] * 4)  # large cells: every box lies inside the map
    sides = np.array([55.9, 111.9, 112, 223.9, 224, 447.9, 448, 700], np.float32)
    boxes = np.stack([sides * 0 + 40, sides * 0 + 40, sides + 40, sides + 40], axis=1)
    got = pyramid.roi_align(boxes, np.zeros(len(boxes), np.int32), 1)
    assert got.reshape(-1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_ramp_returns_bin_centres() -> None:
    """Aligned: the map f(x) = x + 1/2 (in cells) pools to the centre of each bin."""
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32) + 0.5, (1, 1, 32, 32)).copy()
    got = Pyramid([ramp], [1]).roi_align(np.array([[4, 4, 18, 18]], np.float32), np.zeros(1, np.int32), 7)
    np.testing.assert_allclose(got[0, 0], np.tile(np.arange(5, 18, 2.0), (7, 1)), rtol=1e-6)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_not_aligned_equals_the_definition(sampling_ratio: int) -> None:
    rng = np.random.default_rng(9)
    features = feature_pyramid(rng, 2, 5, SIZES)
    tiny = np.array([[8, 8, 8.5, 9], [100.2, 30, 100.3, 90], [-3, -3, -2.5, 40]], np.float32)  # narrower than a cell
    boxes = np.concatenate([random_boxes(rng, 40, PICTURE), tiny])
    batch = rng.integers(0, 2, len(boxes)).astype(np.int32)
    got = _assert_equal(features, STRIDES, boxes, batch, 7, sampling_ratio=sampling_ratio, aligned=False)
    assert np.abs(got - Pyramid(features, STRIDES).roi_align(boxes, batch, 7, sampling_ratio=sampling_ratio)).max() > 0.1


def test_not_aligned_a_ramp_returns_bin_centres_plus_a_half() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32) + 0.5, (1, 1, 32, 32)).copy()
    pyramid, image = Pyramid([ramp], [1]), np.zeros(1, np.int32)
    got = pyramid.roi_align(np.array([[4, 4, 18, 18]], np.float32), image, 7, aligned=False)
    np.testing.assert_allclose(got[0, 0], np.tile(np.arange(5.5, 18, 2.0), (7, 1)), rtol=1e-6)
    narrow = pyramid.roi_align(np.array([[4, 4, 4.25, 18]], np.float32), image, 2, aligned=False)  # as if it were one cell wide
    np.testing.assert_allclose(narrow[0, 0], [[4.75, 5.25]] * 2, rtol=1e-6)


def test_one_cell_maps_and_samples_on_the_border() -> None:
    features = feature_pyramid(np.random.default_rng(1), 1, 2, [(1, 1), (1, 6), (6, 1)])
    boxes = np.array([[0, 0, 1, 1], [-1, -1, 0, 0], [-0.5, -0.5, 1.5, 1.5], [1, 1, 3, 3], [-2, 0, 7, 1], [0.5, 0.5, 6.5, 6.5]], np.float32)
    for level in range(3):
        _assert_equal(features, [1, 1, 1], boxes, np.zeros(len(boxes), np.int32), 3, level=level)


def test_boxes_just_over_every_border() -> None:
    features = feature_pyramid(np.random.default_rng(2), 1, 3, [(5, 7)])
    corners = np.linspace(-3, 9, 25, dtype=np.float32)
    boxes = np.array([[x, y, x + 1.5, y + 1.5] for x in corners for y in corners], np.float32)
    for sampling_ratio in (0, 1, 2):
        _assert_equal(features, [1], boxes, np.zeros(len(boxes), np.int32), 2, sampling_ratio=sampling_ratio)


def test_no_boxes() -> None:
    features = feature_pyramid(np.random.default_rng(0), 1, 6, SIZES)
    got = Pyramid(features, STRIDES).roi_align(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 7)
    assert got.shape == (0, 6, 7, 7)


def test_ten_thousand_boxes() -> None:
    rng = np.random.default_rng(3)
    features = feature_pyramid(rng, 1, 8, SIZES)
    boxes = random_boxes(rng, 10_000, PICTURE)
    got = Pyramid(features, STRIDES).roi_align(boxes, np.zeros(10_000, np.int32), 7)
    some = rng.choice(10_000, 100, replace=False)
    want = reference.roi_align(features, STRIDES, boxes[some], np.zeros(100, np.int32), 7)
    np.testing.assert_allclose(got[some], want, atol=1e-4)


def test_later_calls_use_and_extend_the_copy_of_earlier_ones() -> None:
    rng = np.random.default_rng(4)
    features = feature_pyramid(rng, 2, 20, SIZES)
    pyramid = Pyramid(features, STRIDES)
    for size in (7, 14, 7):
        boxes = random_boxes(rng, 25, PICTURE)
        batch = rng.integers(0, 2, 25).astype(np.int32)
        want = reference.roi_align(features, STRIDES, boxes, batch, size)
        np.testing.assert_allclose(pyramid.roi_align(boxes, batch, size), want, atol=1e-4)


def test_set_replaces_the_maps_and_may_change_their_size() -> None:
    rng = np.random.default_rng(5)
    pyramid = Pyramid(feature_pyramid(rng, 2, 20, SIZES), STRIDES)
    boxes = random_boxes(rng, 25, PICTURE)
    pyramid.roi_align(boxes, np.zeros(25, np.int32), 7)
    for batch_size, channels, scale in ((1, 3, 1), (3, 40, 2), (1, 20, 1)):
        features = feature_pyramid(rng, batch_size, channels, [(h * scale, w * scale) for h, w in SIZES])
        pyramid.set(features)
        batch = rng.integers(0, batch_size, 25).astype(np.int32)
        want = reference.roi_align(features, STRIDES, boxes, batch, 7)
        np.testing.assert_allclose(pyramid.roi_align(boxes, batch, 7), want, atol=1e-4)


def test_the_pyramid_keeps_its_arrays_alive() -> None:
    rng = np.random.default_rng(6)
    features = feature_pyramid(rng, 1, 8, SIZES)
    boxes = random_boxes(rng, 10, PICTURE)
    want = reference.roi_align(features, STRIDES, boxes, np.zeros(10, np.int32), 7)
    pyramid = Pyramid([f.copy() for f in features], STRIDES)
    scratch = [np.full_like(f, 9e9) for f in features]  # would take the freed memory
    np.testing.assert_allclose(pyramid.roi_align(boxes, np.zeros(10, np.int32), 7), want, atol=1e-4)
    assert len(scratch) == 4


def test_clear_lets_go_of_the_arrays() -> None:
    feature = np.random.default_rng(5).standard_normal((1, 4, 8, 8)).astype(np.float32)
    boxes, batch = np.array([[0, 0, 8, 8]], np.float32), np.zeros(1, np.int32)
    counts = [sys.getrefcount(feature)]
    pyramid = Pyramid([feature], [1])
    counts.append(sys.getrefcount(feature))
    expected = pyramid.roi_align(boxes, batch, 2)
    pyramid.clear()
    counts.append(sys.getrefcount(feature))
    assert counts == [counts[0], counts[0] + 1, counts[0]]
    with pytest.raises(InputError, match="cleared"):
        pyramid.roi_align(boxes, batch, 2)
    pyramid.clear()
    pyramid.set([feature])
    np.testing.assert_array_equal(pyramid.roi_align(boxes, batch, 2), expected)


def test_values_that_are_not_finite_stay_where_they_are() -> None:
    features = feature_pyramid(np.random.default_rng(7), 1, 2, [(16, 16)])
    features[0][0, 1, 3, 3] = np.nan
    boxes = np.array([[1, 1, 5, 5], [8, 8, 14, 14]], np.float32)
    got = Pyramid(features, [1]).roi_align(boxes, np.zeros(2, np.int32), 4)
    assert np.isnan(got[0, 1]).any()
    assert np.isfinite(got[0, 0]).all()
    assert np.isfinite(got[1]).all()


def test_out_is_written_and_returned() -> None:
    rng = np.random.default_rng(8)
    pyramid = Pyramid(feature_pyramid(rng, 1, 5, SIZES), STRIDES)
    boxes = np.concatenate([random_boxes(rng, 5, PICTURE), DEGENERATE_BOXES[:3]])
    out = np.full((8, 5, 7, 7), np.nan, np.float32)
    assert pyramid.roi_align(boxes, np.zeros(8, np.int32), 7, out=out) is out
    np.testing.assert_array_equal(out, pyramid.roi_align(boxes, np.zeros(8, np.int32), 7))


def _pyramid() -> Pyramid:
    return Pyramid([np.zeros((1, 2, 4, 4), np.float32)], [4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes: expected float32 array of shape \(N, 4\), got"),
        ({"batch": np.zeros(2, np.int64)}, "batch: expected int32 .* got int64"),
        ({"batch": np.zeros(3, np.int32)}, r"batch: expected .*N=2"),
        ({"batch": np.array([0, 1], np.int32)}, r"batch\[1\]: expected 0 to 0, got 1"),
        ({"batch": np.array([-1, 0], np.int32)}, r"batch\[0\]: expected 0 to 0, got -1"),
        ({"output_size": 0}, "output_size: expected 1 to 256, got 0"),
        ({"sampling_ratio": -1}, "sampling_ratio"),
        ({"level": 1}, "level: expected 0 to 0, got 1"),
        ({"level": -1}, "level"),
        ({"out": np.zeros((2, 2, 7, 6), np.float32)}, r"out: expected float32 array of shape \(N=2, C=2, 7, 7\), got"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"boxes": np.zeros((2, 4), np.float32), "batch": np.zeros(2, np.int32), "output_size": 7}
    with pytest.raises(InputError, match=message):
        _pyramid().roi_align(**{**arguments, **change})


@pytest.mark.parametrize(
    ("features", "strides", "message"),
    [
        ([], [], "strides: expected 1 to 16 levels, got 0"),
        ([np.zeros((1, 2, 4, 4), np.float32)], [4, 8], r"features: expected one array per stride \(2\), got 1"),
        ([np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 3, 2, 2), np.float32)], [4, 8], r"features\[1\]: expected .*B=1, C=2"),
        ([np.zeros((1, 2, 0, 4), np.float32)], [4], r"features\[0\]: expected B, C, H and W of at least 1"),
        ([np.zeros((2, 4, 4), np.float32)], [4], r"features\[0\]: expected float32 array of shape \(B, C, H, W\)"),
        ([np.zeros((1, 2, 4, 4), np.float32)], [0], "strides"),
    ],
)
def test_wrong_pyramids_are_named(features: list[np.ndarray], strides: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pyramid(features, strides)


def test_threads_that_replace_the_maps_never_free_what_others_read() -> None:
    """Values are at most 8 in every map, so anything else was read from memory that is not theirs."""
    pyramid = Pyramid([np.ones((1, 16, 8, 8), np.float32)], [1])
    stop, problems = threading.Event(), []

    def replace(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            side = int(rng.integers(4, 200))
            pyramid.set([np.full((1, 16, side, side), float(rng.integers(1, 9)), np.float32)])

    def pool() -> None:
        boxes, batch = random_boxes(np.random.default_rng(0), 50, (100, 100)), np.zeros(50, np.int32)
        while not stop.is_set():
            largest = float(np.abs(pyramid.roi_align(boxes, batch, 3)).max())
            if not largest <= 8.001:
                problems.append(largest)

    threads = [threading.Thread(target=replace, args=(n,)) for n in range(4)] + [threading.Thread(target=pool) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []

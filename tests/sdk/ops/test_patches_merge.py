"""Refined patches back into masks, and how unsure a mask head was in each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.ops import (
    MaskCrops,
    Patches,
    boundary_patches,
    crops_to_dense,
    cut_patches,
    dense_to_crops,
    merge_patches,
    merge_patches_soft,
    patch_uncertainty,
    reference_patches,
)
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes, random_masks


def _dense_means(crops: MaskCrops, means: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    result = np.zeros((len(crops), *shape), np.float32)
    for n, (x1, y1, x2, y2) in enumerate(crops.boxes.tolist()):
        result[n, y1:y2, x1:x2] = means[crops.offsets[n] : crops.offsets[n + 1]].reshape(y2 - y1, x2 - x1)
    return result


def _assert_equal(masks: np.ndarray, patches: Patches, values: np.ndarray, *, logits: bool = False, threshold: float = 0.5) -> MaskCrops:
    crops = dense_to_crops(masks)
    merged, means = merge_patches_soft(crops, patches, values, logits=logits, threshold=threshold)
    dense, dense_means = crops_to_dense(merged, patches.shape), _dense_means(merged, means, patches.shape)
    for n, mask in enumerate(masks):
        own = np.flatnonzero(patches.instance == n)
        boxes = [tuple(patches.boxes[i].tolist()) for i in own]
        want, covered = reference_patches.merge_patches(mask, boxes, values[own], padding=patches.padding, logits=logits)
        np.testing.assert_allclose(dense_means[n], want, rtol=0, atol=1e-6 * max(1.0, float(np.abs(want).max(initial=0))))
        np.testing.assert_array_equal(dense[n], np.where(covered, dense_means[n] > np.float32(threshold), mask))
    assert set(np.unique(merged.data)) <= {0, 1}
    plain = merge_patches(crops, patches, values, logits=logits, threshold=threshold)
    np.testing.assert_array_equal(plain.data, merged.data)
    np.testing.assert_array_equal(plain.boxes, merged.boxes)
    return merged


def _random_patches(rng: np.random.Generator, count: int, shape: tuple[int, int], masks: int, padding: int) -> Patches:
    low = rng.integers(0, shape[::-1], (count, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 40, (count, 2))], axis=1).astype(np.int32)
    return Patches(boxes, rng.integers(0, masks, count, np.int32), np.zeros(count, np.float32), shape, padding)


@pytest.mark.parametrize("logits", [False, True])
def test_random_patches_equal_the_definition(logits: bool) -> None:
    """In any order, of any size, over the border, on masks of every kind."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        shape = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        patches = _random_patches(rng, int(rng.integers(0, 12)), shape, 3, int(rng.choice([0, 1, 5])))
        size = int(rng.integers(1, 40))
        values = rng.random((len(patches), size, size), np.float32)
        _assert_equal(random_masks(rng, 3, shape), patches, (8 * values - 4) if logits else values, logits=logits)


@pytest.mark.parametrize(("size", "padding", "value_size"), [(64, 0, 128), (64, 5, 128), (32, 0, 64), (64, 0, 64)])
def test_the_sizes_of_the_paper(size: int, padding: int, value_size: int) -> None:
    rng = np.random.default_rng(1)
    masks = random_masks(np.random.default_rng(6), 3, (120, 150))
    patches = boundary_patches(dense_to_crops(masks), (120, 150), size=size, padding=padding, threshold=0.55)
    patches = patches[rng.permutation(len(patches))[:40]]
    values = rng.normal(0, 4, (len(patches), value_size, value_size)).astype(np.float32)
    _assert_equal(masks, patches, values, logits=True)
    _assert_equal(masks, patches, values, threshold=0.0)  # the paper's text: means of logits


def test_many_patches_on_one_pixel() -> None:
    rng = np.random.default_rng(2)
    boxes = np.tile(np.array([[3, 4, 9, 10]], np.int32), (500, 1))
    patches = Patches(boxes, np.zeros(500, np.int32), np.zeros(500, np.float32), (20, 20))
    _assert_equal(np.zeros((1, 20, 20), bool), patches, rng.random((500, 6, 6), np.float32))


def test_cutting_and_merging_give_the_masks_back() -> None:
    """A network that returns its mask channel changes nothing."""
    masks = random_masks(np.random.default_rng(3), 8, (70, 90))
    crops, image = dense_to_crops(masks), np.zeros((70, 90, 3), np.uint8)
    for padding in (0, 5):
        patches = boundary_patches(crops, (70, 90), size=16, padding=padding)
        seen = cut_patches(image, crops, patches, input_size=16 + 2 * padding, mean=(0, 0, 0), std=(1, 1, 1))
        merged = merge_patches(crops, patches, (seen[:, 3] + 1) / 2)
        np.testing.assert_array_equal(crops_to_dense(merged, (70, 90)), masks)


def test_the_crop_grows_to_its_patches_and_no_further() -> None:
    masks = np.zeros((2, 50, 60), bool)
    masks[:, 20:25, 20:30] = True
    patches = Patches(
        np.array([[15, 22, 31, 38], [50, 40, 66, 56]], np.int32), np.array([0, 0], np.int32), np.zeros(2, np.float32), (50, 60)
    )
    merged = merge_patches(dense_to_crops(masks), patches, np.ones((2, 4, 4), np.float32))
    assert merged.boxes.tolist() == [[15, 20, 60, 50], [20, 20, 30, 25]]
    assert merged.areas().tolist() == [16 * 16 + 10 * 10 + 2 * 10, 50]
    empty = merge_patches(dense_to_crops(np.zeros((1, 50, 60), bool)), patches[:1], np.ones((1, 4, 4), np.float32))
    assert empty.boxes.tolist() == [[15, 22, 31, 38]]
    assert empty.areas().tolist() == [256]


def test_the_threshold_itself_is_background() -> None:
    patches = Patches(np.array([[0, 0, 8, 8]], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), (8, 8))
    crops = dense_to_crops(np.ones((1, 8, 8), bool))
    for value, area in ((0.5, 0), (np.nextafter(np.float32(0.5), np.float32(1)), 64)):
        assert merge_patches(crops, patches, np.full((1, 4, 4), value, np.float32)).areas()[0] == area


def test_what_is_not_a_number_leaves_the_mask_alone() -> None:
    rng = np.random.default_rng(4)
    mask = rng.random((1, 20, 20)) < 0.5
    patches = Patches(np.array([[2, 2, 18, 18]], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), (20, 20))
    for logits in (False, True):
        merged = merge_patches(dense_to_crops(mask), patches, np.full((1, 8, 8), np.nan, np.float32), logits=logits)
        np.testing.assert_array_equal(crops_to_dense(merged, (20, 20)), mask)


def test_without_patches_masks_come_out_as_they_went_in() -> None:
    crops = dense_to_crops(random_masks(np.random.default_rng(5), 5, (30, 30)))
    none = boundary_patches(MaskCrops.empty(), (30, 30))
    merged = merge_patches(crops, none, np.zeros((0, 8, 8), np.float32))
    np.testing.assert_array_equal(merged.boxes, crops.boxes)
    np.testing.assert_array_equal(merged.data, crops.data)
    assert len(merge_patches(MaskCrops.empty(), none, np.zeros((0, 8, 8), np.float32))) == 0


def test_uncertainty_equals_the_definition() -> None:
    rng = np.random.default_rng(6)
    for grid in ((28, 28), (5, 9), (1, 1)):
        boxes = np.concatenate([random_boxes(rng, 6, (60, 80)), DEGENERATE_BOXES])
        logits = rng.normal(0, 3, (len(boxes), *grid)).astype(np.float32)
        patches = _random_patches(rng, 60, (60, 80), len(boxes), 0)
        got = patch_uncertainty(patches, logits, boxes)
        with np.errstate(all="ignore"):
            rows = zip(patches.boxes.tolist(), patches.instance.tolist(), strict=True)
            want = [reference_patches.patch_uncertainty(tuple(box), logits[n], boxes[n]) for box, n in rows]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
        assert got.max() > 0.1


def test_uncertainty_is_highest_on_the_edge_that_the_head_left_open() -> None:
    logits = np.full((1, 28, 28), 9, np.float32)
    logits[0, :, 14:] = 0.2
    patches = Patches(np.array([[0, 0, 16, 16], [48, 0, 64, 16]], np.int32), np.zeros(2, np.int32), np.zeros(2, np.float32), (64, 64))
    sure, unsure = patch_uncertainty(patches, logits, np.array([[-4, -4, 68, 68]], np.float32))
    assert sure < 0.01 < 0.8 < unsure


MEMORY = """
import resource, numpy as np
from sdk import ops
rng = np.random.default_rng(0)
y, x = np.mgrid[-30:31, -30:31]
disc = (np.hypot(x, y) < 28).astype(np.uint8).reshape(-1)
left = rng.integers(0, [1900, 900], (500, 2))
boxes = np.concatenate([left, left + 61], axis=1).astype(np.int32)
masks = ops.MaskCrops(boxes, np.arange(501, dtype=np.int64) * 61 * 61, np.tile(disc, 500))
image = np.zeros((1024, 2048, 3), np.uint8)
out = np.empty((32, 4, 64, 64), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
patches = ops.boundary_patches(masks, (1024, 2048))
for chunk in patches.chunks(32):
    ops.cut_patches(image, masks, chunk, input_size=64, mean=(0, 0, 0), std=(1, 1, 1), out=out[: len(chunk)])
merged = ops.merge_patches(masks, patches, np.ones((len(patches), 8, 8), np.float32))
print(len(patches), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_does_not_grow_with_instances_times_picture() -> None:
    """500 masks on 1024 x 2048 pixels would be a gigabyte as bitmaps."""
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count > 1500
    assert kilobytes < 40_000


_ARGUMENTS: dict[str, Any] = {
    "masks": dense_to_crops(np.ones((1, 10, 10), bool)),
    "patches": Patches(np.array([[0, 0, 8, 8]], np.int32), np.zeros(1, np.int32), np.zeros(1, np.float32), (10, 10)),
    "values": np.zeros((1, 8, 8), np.float32),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((2, 8, 8), np.float32)}, r"values: expected float32 array of shape \(P=1, S, S\), got .*\(2, 8, 8\)"),
        ({"values": np.zeros((1, 8, 9), np.float32)}, r"values: .* got .*\(1, 8, 9\)"),
        ({"values": np.zeros((1, 0, 0), np.float32)}, "values: .* S of 1 to 1024"),
        ({"values": np.zeros((1, 8, 8))}, "values: .* got float64"),
        ({"threshold": float("nan")}, "threshold: expected a finite number"),
        ({"masks": MaskCrops.empty()}, r"instance\[0\]: expected an index of 0 masks, got 0"),
        ({"masks": dense_to_crops(np.ones((1, 11, 10), bool))}, r"boxes\[0\]: expected to lie inside 10 x 10 pixels"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    merge_patches(**_ARGUMENTS)
    with pytest.raises(InputError, match=message):
        merge_patches(**{**_ARGUMENTS, **change})


@pytest.mark.parametrize(
    ("logits", "boxes", "message"),
    [
        (np.zeros((1, 4, 4)), np.zeros((1, 4), np.float32), "mask_logits: .* got float64"),
        (np.zeros((2, 4, 4), np.float32), np.zeros((1, 4), np.float32), r"mask_logits: .* \(N=1, Hm, Wm\)"),
        (np.zeros((0, 4, 4), np.float32), np.zeros((0, 4), np.float32), r"instance\[0\]: expected an index of 0 mask_logits"),
        (np.zeros((1, 0, 4), np.float32), np.zeros((1, 4), np.float32), "mask_logits: expected Hm and Wm of at least 1"),
    ],
)
def test_wrong_grids_are_named(logits: np.ndarray, boxes: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        patch_uncertainty(_ARGUMENTS["patches"], logits, boxes)

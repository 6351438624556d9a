"""Where patches lie: equal to the slow definition, box by box and in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.ops import MaskCrops, Patches, boundary_band, boundary_patches, crops_to_dense, dense_to_crops, nms, reference_patches
from tests.sdk.ops.cases import random_masks

Masks = NDArray[np.bool_]


def _assert_exact(masks: Masks, crops: MaskCrops | None = None, **options: Any) -> Patches:
    """The patches of masks (N, H, W), cut into `crops`, are those of the definition, in its order."""
    patches = boundary_patches(crops or dense_to_crops(masks), masks.shape[1:], **options)
    assert patches.boxes.dtype == patches.instance.dtype == np.int32
    got = list(zip(patches.instance.tolist(), map(tuple, patches.boxes.tolist()), patches.scores.tolist(), strict=True))
    found = [reference_patches.boundary_patches(mask, **options) for mask in masks]
    assert got == [(n, box, float(np.float32(score))) for n, rows in enumerate(found) for box, score in rows]
    return patches


def _ellipse(shape: tuple[int, int], semi_axes: tuple[float, float]) -> Masks:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((x - shape[1] / 2) / semi_axes[0]) ** 2 + ((y - shape[0] / 2) / semi_axes[1]) ** 2 <= 1


def _loose_crops(rng: np.random.Generator, masks: Masks) -> MaskCrops:
    """Crops with background around the masks, as `paste_masks` makes them."""
    height, width = masks.shape[1:]
    tight = dense_to_crops(masks).boxes.astype(int)
    more = rng.integers(0, 9, tight.shape)
    boxes = np.clip(tight + more * [-1, -1, 1, 1], 0, [width, height, width, height]).astype(np.int32)
    cut = [mask[y1:y2, x1:x2].astype(np.uint8).reshape(-1) for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True)]
    return MaskCrops(boxes, np.cumsum([0] + [len(c) for c in cut]).astype(np.int64), np.concatenate(cut))


def test_200_random_masks_equal_the_definition() -> None:
    """Noise of every density, stripes, blobs with holes, several parts, one pixel, full, empty; most touch the border."""
    rng = np.random.default_rng(0)
    total = 0
    for case in range(50):
        shape = (int(rng.integers(12, 70)), int(rng.integers(12, 70)))
        masks = random_masks(rng, 4, shape)
        options = {"size": int(rng.integers(4, 25)), "threshold": float(rng.choice([0, 0.15, 0.25, 0.55, 0.65]))}
        patches = _assert_exact(masks, _loose_crops(rng, masks) if case % 2 else None, **options)
        total += len(patches)
    assert total > 1500


@pytest.mark.parametrize("scheme", ["dense", "grid", "instance"])
def test_every_option_equals_the_definition(scheme: str) -> None:
    rng = np.random.default_rng(1)
    for case in range(30):
        shape = (int(rng.integers(1, 50)), int(rng.integers(1, 50)))
        options = {"size": int(rng.integers(2, 30)), "threshold": float(rng.uniform(0, 0.8)), "enlarge": float(rng.choice([0, 0.1, 0.7]))}
        _assert_exact(random_masks(rng, 3, shape), scheme=scheme, frame=bool(case & 1), pad_small=bool(case & 2), **options)


@pytest.mark.parametrize("threshold", [0.8, 0.95, 1.0])
def test_thresholds_that_suppress_little(threshold: float) -> None:
    masks = random_masks(np.random.default_rng(2), 6, (20, 24))
    patches = _assert_exact(masks, size=6, threshold=threshold)
    assert threshold < 1 or len(patches) > 100


@pytest.mark.parametrize(("threshold", "count"), [(0.25, 36), (0.55, 74)])
def test_the_ellipse(threshold: float, count: int) -> None:
    """Semi-axes 250 x 180, patches of 64."""
    mask = _ellipse((480, 640), (250, 180))
    patches = _assert_exact(mask[None], threshold=threshold)
    assert len(patches) == count
    covered = np.zeros(mask.shape, bool)
    for x1, y1, x2, y2 in patches.boxes:
        covered[y1:y2, x1:x2] = True
    band = crops_to_dense(boundary_band(dense_to_crops(mask[None]), mask.shape), mask.shape)[0]
    # Suppressed candidates lie up to 38 pixels from a kept one at .25, which is more than half a patch, and up to 18 at .55.
    assert covered[band].mean() > 0.99
    assert covered[band].all() == (threshold == 0.55)


def test_candidates_are_the_band_and_suppression_is_nms() -> None:
    """The same patches put together from two other operators."""
    rng = np.random.default_rng(3)
    for mask in random_masks(rng, 30, (64, 90)):
        crops = dense_to_crops(mask[None])
        y, x = np.nonzero(crops_to_dense(boundary_band(crops, mask.shape), mask.shape)[0])
        balance = reference_patches.balance(mask, True)
        np.testing.assert_array_equal(balance > 0, crops_to_dense(boundary_band(crops, mask.shape), mask.shape)[0])
        boxes = np.stack([x - 8, y - 8, x + 8, y + 8], axis=1).astype(np.float32)
        keep = nms(boxes, balance[y, x].astype(np.float32), 0.3)
        inside = np.clip(boxes[keep, :2].astype(int), 0, [90 - 16, 64 - 16])
        expected = list(dict.fromkeys(map(tuple, inside.tolist())))
        assert list(map(tuple, boundary_patches(crops, mask.shape, size=16, threshold=0.3).boxes[:, :2].tolist())) == expected


def test_boxes_at_the_border_lie_inside_and_reach_it() -> None:
    mask = np.zeros((1, 100, 120), bool)
    mask[0, 95:, 110:] = True
    patches = _assert_exact(mask, size=32)
    assert patches.boxes[:, 2:].max(axis=0).tolist() == [120, 100]
    assert (patches.boxes[:, 2:] - patches.boxes[:, :2] == 32).all()
    assert (patches.boxes[:, :2] >= 0).all()


def test_a_cut_edge_is_boundary_only_with_the_frame() -> None:
    full = np.ones((1, 80, 90), bool)
    assert len(_assert_exact(full, size=16)) > 10
    assert len(_assert_exact(full, size=16, frame=False)) == 0


def test_pictures_smaller_than_a_patch() -> None:
    mask = np.zeros((1, 20, 200), bool)
    mask[0, 5:15, 50:150] = True
    for scheme in ("dense", "grid"):
        assert len(_assert_exact(mask, size=32, scheme=scheme)) == 0
        padded = _assert_exact(mask, size=32, scheme=scheme, pad_small=True)
        assert len(padded) > 2
        assert set(map(tuple, padded.boxes[:, [1, 3]].tolist())) == {(0, 32)}
    assert len(_assert_exact(mask, size=20)) > 2  # exactly one patch high


def test_nothing_to_find() -> None:
    patches = _assert_exact(np.zeros((3, 50, 60), bool), size=16)
    assert (len(patches), patches.boxes.shape, patches.scores.dtype) == (0, (0, 4), np.float32)
    none = boundary_patches(MaskCrops.empty(), (50, 60))
    assert (len(none), none.shape, none.padding) == (0, (50, 60), 0)
    assert len(boundary_patches(MaskCrops.empty(), (0, 0))) == 0


def test_patches_can_be_chosen_and_chunked() -> None:
    patches = boundary_patches(dense_to_crops(_ellipse((200, 300), (120, 70))[None]), (200, 300), padding=5)
    best = patches[np.argsort(-patches.scores, kind="stable")[:7]]
    assert (len(best), best.padding, best.shape) == (7, 5, (200, 300))
    assert [len(part) for part in patches.chunks(4)][:-1] == [4] * ((len(patches) - 1) // 4)
    np.testing.assert_array_equal(np.concatenate([part.boxes for part in patches.chunks(4)]), patches.boxes)
    with pytest.raises(InputError, match="index"):
        patches[[len(patches)]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 1}, "size: expected 2 to 1024, got 1"),
        ({"size": 1025}, "size"),
        ({"padding": -1}, "padding: expected 0 to 1024, got -1"),
        ({"threshold": 1.5}, "threshold: expected 0 to 1, got 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"enlarge": -0.1}, "enlarge: expected 0 to 4"),
        ({"scheme": "sparse"}, "scheme: expected dense, grid or instance, got sparse"),
        ({"shape": (9, 20)}, r"boxes\[0\]: expected to lie inside 20 x 9 pixels"),
        ({"shape": (-1, 20)}, "shape: expected"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"shape": (20, 20), **change}
    with pytest.raises(InputError, match=message):
        boundary_patches(dense_to_crops(np.ones((1, 20, 20), bool)), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((1, 4), np.int64)}, r"patches.boxes: expected int32 array of shape \(P, 4\), got int64"),
        ({"boxes": np.array([[0, 0, 0, 5]], np.int32)}, r"boxes\[0\]: expected x1 < x2 .* got \(0, 0, 0, 5\)"),
        ({"boxes": np.array([[-1, 0, 5, 5]], np.int32)}, r"boxes\[0\]"),
        ({"boxes": np.array([[0, 30, 5, 35]], np.int32)}, r"boxes\[0\]: .* inside 40 x 30 pixels"),
        ({"instance": np.array([-1], np.int32)}, r"instance\[0\]: expected at least 0, got -1"),
        ({"instance": np.array([0, 0], np.int32)}, r"patches.instance: expected int32 array of shape \(P=1,\)"),
        ({"scores": np.zeros(2, np.float32)}, r"patches.scores: expected float32 array of shape \(P=1,\)"),
        ({"padding": 1025}, "padding"),
    ],
)
def test_patches_that_do_not_agree_are_refused(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {
        "boxes": np.array([[0, 0, 5, 5]], np.int32),
        "instance": np.zeros(1, np.int32),
        "scores": np.zeros(1, np.float32),
        "shape": (30, 40),
    }
    Patches(**fields)
    with pytest.raises(InputError, match=message):
        Patches(**{**fields, **change})

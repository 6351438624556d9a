"""BPR's upper bound and RefineMask's band IoU against slow definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.evaluate import band_iou, evaluate, exact_band
from sdk.ops.reference import boundary_band
from tests.sdk.worlds import Dicts, Mask, blob, decode, rle, world

pytest.importorskip("pycocotools", reason="pycocotools is not installed")
cv2 = pytest.importorskip("cv2")


def distance_to_other_label(mask: Mask) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of every pixel to the nearest pixel of the other label, centre to centre; infinite without one."""
    points = np.argwhere(np.ones_like(mask)).reshape(*mask.shape, 2)
    result = np.full(mask.shape, np.inf)
    for label in (False, True):
        others = np.argwhere(mask != label)
        if len(others) and (mask == label).any():
            mine = points[mask == label]
            result[mask == label] = np.sqrt(((mine[:, None] - others[None]) ** 2).sum(axis=2)).min(axis=1)
    return result


def slow_corrections(truth: dict[str, Any], result: dict[str, Any], widths: Sequence[float]) -> Dicts:
    """The result with every width."""
    mask = decode(result)
    same = [(a["image_id"], a["category_id"]) == (result["image_id"], result["category_id"]) for a in truth["annotations"]]
    rivals = [decode(a) for a, is_rival in zip(truth["annotations"], same, strict=True) if is_rival and not a["iscrowd"]]
    overlap = [(mask & r).sum() / max((mask | r).sum(), 1) for r in rivals]
    if not rivals or max(overlap) == 0:
        return [result] * len(widths)
    distance = distance_to_other_label(mask)
    label = rivals[int(np.argmax(overlap))]
    return [{**result, "segmentation": rle(np.where((distance <= w) | (w == math.inf), label, mask))} for w in widths]


@pytest.mark.parametrize("seed", range(2))
def test_upper_bound_equals_the_slow_one(seed: int) -> None:
    truth, results = world(seed, shape=(48, 56), images=3, objects=4)
    rows = evaluate(truth, results, metrics=["upper_bound"])["upper_bound"]["rows"]
    slow = zip(*(slow_corrections(truth, result, (0, 1, 2, 3, math.inf)) for result in results), strict=True)
    for name, corrected in zip(("0px", "1px", "2px", "3px", "inf"), slow, strict=True):
        want = evaluate(truth, list(corrected), iou_types=["segm"])["segm"]
        for key in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR"):
            assert rows[name][key] == pytest.approx(want[key], nan_ok=True), (name, key)
    aps = [rows[name]["AP"] for name in ("0px", "1px", "2px", "3px", "inf")]
    assert aps == sorted(aps)
    assert aps[0] < aps[4]


def entry(mask: Mask, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "segmentation": rle(mask), "bbox": [0, 0, 9, 9], "area": int(mask.sum()), "iscrowd": 0, **more}


def bound(objects: Dicts, results: Dicts) -> Any:
    truth = {
        "images": [{"id": 1, "height": 30, "width": 30}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{**a, "id": i + 1} for i, a in enumerate(objects)],
    }
    found = evaluate(truth, results, metrics=["upper_bound"])["upper_bound"]
    return [found["rows"][name]["AP"] for name in ("0px", "1px", "2px", "3px", "inf")], found["corrected"]


def test_a_square_two_pixels_too_large() -> None:
    """One pixel on either side of the prediction's edge does not reach the object's; two do."""
    small, large = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    small[10:20, 10:20] = large[8:22, 8:22] = True
    aps, corrected = bound([entry(small)], [entry(large, score=0.5)])
    assert aps == pytest.approx([0.1, 0.1 * len([t for t in range(50, 100, 5) if t / 100 <= 100 / 144]), 1.0, 1.0, 1.0])
    assert corrected == 1


def test_the_pictures_border_is_no_boundary() -> None:
    """A prediction of the whole picture has no boundary, so only the whole mask can be corrected; nor has an empty one."""
    small, full, empty = np.zeros((30, 30), bool), np.ones((30, 30), bool), np.zeros((30, 30), bool)
    small[:10, :10] = True
    assert bound([entry(small)], [entry(full, score=0.5)]) == (pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0]), 1)
    assert bound([entry(small)], [entry(empty, score=0.5)]) == ([0.0] * 5, 0)


def test_crowd_regions_correct_nothing() -> None:
    region, guess = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    region[:20] = guess[:15] = True
    far = np.zeros((30, 30), bool)
    far[28:] = True
    assert bound([entry(region, iscrowd=1), entry(far)], [entry(guess, score=0.5)])[1] == 0


# -- the band -----------------------------------------------------------------------------------------------------------------------


def shapes(count: int, size: int = 56) -> list[Mask]:
    rng = np.random.default_rng(3)
    return [blob(rng, (size, size), size * 0.7) for _ in range(count)]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_exact_band_equals_the_slow_one(width: int) -> None:
    for mask in [*shapes(4, 24), np.ones((9, 7), bool), np.zeros((9, 7), bool)]:
        padded = np.pad(mask, width + 1)  # outside is background
        want = (distance_to_other_label(padded) <= width)[width + 1 : -width - 1, width + 1 : -width - 1]
        np.testing.assert_array_equal(exact_band(mask, width), want)


def test_band_iou_is_the_mean_of_masks_that_have_a_band() -> None:
    masks = shapes(5)
    pairs = [(exact_band(mask, 2), boundary_band(mask, 2, 0.1)) for mask in masks]
    want = np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])
    assert band_iou([*masks, np.zeros((5, 5), bool)], 2, 0.1) == pytest.approx(want)
    assert math.isnan(band_iou([np.zeros((5, 5), bool)], 1))


def test_table_of_smooth_shapes() -> None:
    """Smooth outlines give what was measured on photographs' objects: about .8 for the strict rule, above .9 for 0.1 at width 2 or 3."""
    truth, _ = world(0, shape=(160, 160), images=3, objects=6)
    values = evaluate(truth, [], metrics=["band"])["band"]
    assert values["masks"] == sum(not a["iscrowd"] and a["area"] > 0 for a in truth["annotations"])
    rows = values["rows"]
    assert list(rows) == ["w=1 strict", "w=1 0.1", "w=2 strict", "w=2 0.1", "w=3 strict", "w=3 0.1"]
    for size in ("28", "56", "112"):
        assert rows["w=1 strict"][size] == rows["w=1 0.1"][size]
        assert 0.7 < rows["w=2 strict"][size] < 0.85
        assert rows["w=2 0.1"][size] > 0.9


def test_bands_of_no_mask() -> None:
    with pytest.raises(InputError, match="width must be at least 1"):
        exact_band(np.ones((3, 3), bool), 0)
    with pytest.raises(InputError, match="mask: expected bool"):
        exact_band(np.ones((3, 3)), 1)  # type: ignore[arg-type]

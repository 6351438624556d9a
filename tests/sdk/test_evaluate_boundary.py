"""Boundary metrics against slow definitions written from the papers."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.evaluate import boundary_distance, boundary_f, boundary_iou, evaluate, mask_boundary
from tests.sdk.worlds import Dicts, Mask, blob, decode, moved, world

pytest.importorskip("pycocotools", reason="pycocotools is not installed")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def slow_boundary(mask: Mask, distance: int) -> Mask:
    """Foreground with background, or the outside of the picture, in the square of `distance` around it."""
    padded = np.pad(mask, distance)
    result = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        result[y, x] = not padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    return result


def slow_contour(mask: Mask) -> Mask:
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            right, down = x + 1 < width, y + 1 < height
            differs = right and mask[y, x] != mask[y, x + 1]
            differs |= down and mask[y, x] != mask[y + 1, x]
            differs |= right and down and mask[y, x] != mask[y + 1, x + 1]
            result[y, x] = differs
    return result


def slow_f(a: Mask, b: Mask, radius: int) -> float:
    first, second = (np.argwhere(slow_contour(mask)) for mask in (a, b))
    if not len(first) or not len(second):
        return float(len(first) == len(second))
    squares = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    precision = float((squares.min(axis=1) <= radius**2).mean())
    recall = float((squares.min(axis=0) <= radius**2).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def slow_boundary_overlap(dt: Mask, gt: Mask, crowd: int, ratio: float) -> float:
    if crowd:
        return float((dt & gt).sum() / max(dt.sum(), 1))
    distance = max(1, round(ratio * math.hypot(*gt.shape)))
    return min(iou(dt, gt), iou(slow_boundary(dt, distance), slow_boundary(gt, distance)))


def by_pycocotools(truth: dict[str, Any], results: Dicts, overlap: Any = None) -> Any:
    """COCOeval of masks; `overlap` replaces its IoU."""
    gt = COCO()
    gt.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        given = [{k: v for k, v in r.items() if k != "bbox"} for r in copy.deepcopy(results)]
        run = COCOeval(gt, gt.loadRes(given), "segm")
        if overlap is not None:

            def compute(image: int, category: int) -> Any:
                dts = sorted(run._dts[image, category], key=lambda d: -d["score"])[: run.params.maxDets[-1]]
                gts = run._gts[image, category]
                values = [[overlap(decode(d), decode(g), g["iscrowd"]) for g in gts] for d in dts]
                return np.array(values).reshape(len(dts), len(gts)) if dts and gts else []

            run.computeIoU = compute
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def figures(values: dict[str, Any]) -> list[float]:
    return [values[key] for key in KEYS]


def stats(run: Any) -> list[float]:
    return [math.nan if run.stats[i] < 0 else run.stats[i] for i in (0, 1, 2, 3, 4, 5, 8)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio", [0.02, 0.005])
def test_boundary_ap_equals_cocos_with_the_slow_overlap(seed: int, ratio: float) -> None:
    truth, results = world(seed, shape=(72, 96), images=3)
    mine = evaluate(truth, results, metrics=["boundary"], boundary_ratio=ratio)["boundary"]
    run = by_pycocotools(truth, results, lambda d, g, crowd: slow_boundary_overlap(d, g, crowd, ratio))
    np.testing.assert_allclose(figures(mine), stats(run), atol=1e-12)
    assert 0.02 < mine["AP"] < evaluate(truth, results)["segm"]["AP"]  # stricter than the mask IoU


def test_the_worlds_hold_what_is_hard() -> None:
    """Masks at the border, empty ones, crowd regions, equal scores: otherwise the comparisons above say less than they seem to."""
    truth, results = zip(*(world(seed, shape=(72, 96), images=3) for seed in range(3)), strict=True)
    objects = [a for t in truth for a in t["annotations"]]
    masks = [decode(a) for a in objects]
    assert sum(m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks) > 5
    guesses = [r for rs in results for r in rs]
    assert sum(not decode(r).any() for r in guesses) > 0
    assert sum(not m.any() for m in masks) > 0
    assert sum(a["iscrowd"] for a in objects) > 3
    assert len({r["score"] for r in guesses}) < len(guesses)


@pytest.mark.parametrize(
    ("shape", "ratio", "distance"),
    [((480, 640), 0.02, 16), ((1024, 2048), 0.005, 11), ((3, 4), 0.02, 1), ((30, 40), 0.05, 2), ((30, 40), 0.07, 4)],
)
def test_boundary_distance(shape: tuple[int, int], ratio: float, distance: int) -> None:
    """The last two are 2.5 and 3.5 pixels, halves that go to the even neighbour."""
    assert boundary_distance(shape, ratio) == distance


def masks_of_all_kinds() -> list[Mask]:
    rng = np.random.default_rng(5)
    shape = (23, 31)
    masks = [blob(rng, shape, side) for side in (4, 8, 16, 30, 60)]
    masks += [rng.random(shape) < p for p in (0.1, 0.5, 0.9)]
    masks += [np.zeros(shape, bool), np.ones(shape, bool), np.eye(*shape, dtype=bool)]
    corner = np.zeros(shape, bool)
    corner[-1, -1] = True
    return [*masks, corner]


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 40])
def test_mask_boundary_equals_the_slow_one(distance: int) -> None:
    for mask in masks_of_all_kinds():
        np.testing.assert_array_equal(mask_boundary(mask, distance), slow_boundary(mask, distance))


def test_boundary_iou_equals_the_slow_one() -> None:
    masks = masks_of_all_kinds()
    for ratio in (0.02, 0.1):
        distance = boundary_distance(masks[0].shape, ratio)
        for a in masks:
            for b in masks:
                want = iou(slow_boundary(a, distance), slow_boundary(b, distance)) if a.any() or b.any() else 1.0
                assert boundary_iou(a, b, ratio) == pytest.approx(want)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
def test_boundary_f_equals_the_slow_one(radius: int) -> None:
    masks = masks_of_all_kinds()
    for a in masks:
        for b in masks[::2]:
            assert boundary_f(a, b, radius) == pytest.approx(slow_f(a, b, radius), abs=1e-12)


def square(shift: int, shape: tuple[int, int] = (60, 60)) -> Mask:
    mask = np.zeros(shape, bool)
    mask[20:40, 20 + shift : 40 + shift] = True
    return mask


def test_the_square_that_moves() -> None:
    assert boundary_f(square(0), square(1)) == 1.0
    assert boundary_f(square(0), square(2)) == pytest.approx(0.525, abs=5e-4)
    assert boundary_f(square(0), square(2), 3) == 1.0


def test_masks_without_a_contour() -> None:
    empty, full = np.zeros((9, 9), bool), np.ones((9, 9), bool)
    assert boundary_f(empty, empty) == boundary_f(full, empty) == boundary_f(full, full) == 1.0
    assert boundary_f(empty, square(0)[16:25, 16:25]) == 0.0
    assert boundary_iou(empty, empty) == 1.0
    assert boundary_iou(empty, full) == 0.0


@pytest.mark.parametrize("compare", [boundary_iou, boundary_f])
def test_masks_that_cannot_be_compared(compare: Any) -> None:
    mask = square(0)
    with pytest.raises(InputError, match="b: expected bool of shape"):
        compare(mask, mask.astype(np.uint8))
    with pytest.raises(InputError, match="a: expected bool of shape"):
        compare(mask[None], mask)
    with pytest.raises(InputError, match="masks must be of one shape"):
        compare(mask, mask[1:])
    with pytest.raises(InputError, match="radius must be at least 1"):
        boundary_f(mask, mask, 0)
    with pytest.raises(InputError, match="distance must be at least 1"):
        mask_boundary(mask, 0)


# -- F over objects and over hits ---------------------------------------------------------------------------------------------------


def slow_fnpx(truth: dict[str, Any], results: Dicts, radius: int) -> list[tuple[int, float]]:
    """(category, F) of every object that counts, as RefineMask's tool goes about it."""
    values = []
    for gt in truth["annotations"]:
        rivals = [r for r in results if (r["image_id"], r["category_id"]) == (gt["image_id"], gt["category_id"])]
        if gt["iscrowd"] or not rivals:
            continue
        overlap = [iou(decode(r), decode(gt)) for r in rivals]
        if max(overlap) < 0.5:
            continue
        x, y, w, h = (int(v) for v in gt["bbox"])
        w, h = max(w, 1), max(h, 1)
        rows, columns = slice(max(y - h // 2, 0), y + h + h // 2), slice(max(x - w // 2, 0), x + w + w // 2)
        a, b = decode(rivals[int(np.argmax(overlap))])[rows, columns], decode(gt)[rows, columns]
        if min(a.shape) > 1:
            values.append((gt["category_id"], slow_f(a, b, radius)))
    return values


@pytest.mark.parametrize("seed", range(3))
def test_fnpx_equals_the_slow_one(seed: int) -> None:
    truth, results = world(seed, shape=(72, 96), images=3)
    mine = evaluate(truth, results, metrics=["fnpx"])["fnpx"]
    for radius in (1, 3, 5):
        slow = slow_fnpx(truth, results, radius)
        assert mine[f"F{radius}px"] == pytest.approx(np.mean([f for _, f in slow]))
    slow = slow_fnpx(truth, results, 1)
    assert mine["pairs"] == len(slow)
    for category in (3, 8):
        assert mine["per_class"][f"class {category}"] == pytest.approx(np.mean([f for c, f in slow if c == category]))


def annotation(mask: Mask, **more: Any) -> dict[str, Any]:
    from tests.sdk.worlds import box, rle

    return {"image_id": 1, "category_id": 1, "segmentation": rle(mask), "bbox": box(mask), "area": int(mask.sum()), "iscrowd": 0, **more}


def scene(objects: Dicts, categories: int = 1) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "categories": [{"id": 1 + i, "name": "abc"[i]} for i in range(categories)],
        "annotations": [{**entry, "id": i + 1} for i, entry in enumerate(objects)],
    }


def test_fnpx_of_squares() -> None:
    """One object with a good and a better result (of lesser score), one that is missed, a crowd region that is found exactly."""
    far = np.zeros((60, 60), bool)
    far[50:58, 2:10] = True
    crowd = np.zeros((60, 60), bool)
    crowd[2:10, 50:58] = True
    truth = scene([annotation(square(0)), annotation(far), annotation(crowd, iscrowd=1)])
    results = [annotation(square(3), score=0.9), annotation(square(2), score=0.1), annotation(crowd, score=0.5)]
    found = evaluate(truth, results, metrics=["fnpx"])["fnpx"]
    assert (found["F1px"], found["F3px"], found["pairs"]) == (pytest.approx(0.525, abs=5e-4), 1.0, 1)
    nothing = evaluate(truth, [], metrics=["fnpx"])["fnpx"]
    assert math.isnan(nothing["F1px"])
    assert nothing["pairs"] == 0


def test_fnpx_uses_one_result_for_two_objects() -> None:
    truth = scene([annotation(square(0)), annotation(square(1))])
    found = evaluate(truth, [annotation(square(0), score=0.5)], metrics=["fnpx"])["fnpx"]
    assert (found["F1px"], found["pairs"]) == (1.0, 2)


def test_fnpx_leaves_out_slivers() -> None:
    """An object of one column at the picture's border: the window around it is one column wide."""
    sliver = np.zeros((60, 60), bool)
    sliver[10:50, 59] = True
    truth = scene([annotation(sliver)])
    assert evaluate(truth, [annotation(sliver, score=1.0)], metrics=["fnpx"])["fnpx"]["pairs"] == 0


@pytest.mark.parametrize("seed", range(2))
def test_af_equals_the_slow_one(seed: int) -> None:
    truth, results = world(seed, shape=(72, 96), images=3)
    mine = evaluate(truth, results, metrics=["af"])["af"]
    run = by_pycocotools(truth, results)
    cells = [cell for cell in run.evalImgs if cell is not None and list(cell["aRng"]) == list(run.params.areaRng[0])]
    objects = {a["id"]: a for a in truth["annotations"]}
    hits: list[tuple[int, int, int, int]] = []  # threshold, category, result, object
    for cell in cells:
        t, k = np.nonzero((cell["dtMatches"] > 0) & ~cell["dtIgnore"])
        hits += [(int(i), cell["category_id"], cell["dtIds"][j] - 1, int(cell["dtMatches"][i, j])) for i, j in zip(t, k, strict=True)]

    @functools.cache
    def f(d: int, g: int, radius: int) -> float:
        return slow_f(decode(results[d]), decode(objects[g]), radius)

    def average(chosen: list[tuple[int, int, int, int]], radius: int) -> float:
        rows = [[f(d, g, radius) for i, _, d, g in chosen if i == t] for t in range(10)]
        return float(np.mean([np.mean(row) for row in rows if row]))

    assert mine["AF"] == pytest.approx(average(hits, 1))
    assert mine["AF3px"] == pytest.approx(average(hits, 3))
    classes = [average([hit for hit in hits if hit[1] == c], 1) for c in (3, 8)]
    assert list(mine["per_class"].values()) == pytest.approx(classes)
    assert mine["class_AF"] == pytest.approx(np.mean(classes))
    assert mine["hits"] == sum(hit[0] == 0 for hit in hits)


def test_af_by_hand() -> None:
    """Two classes. A square 2 px off (IoU 9/11 = .818, F .525) hits at .50 to .80, an exact one (F 1) at all: .7625 at seven thresholds."""
    truth = scene([annotation(square(0)), annotation(square(0), category_id=2)], categories=2)
    results = [annotation(square(2), score=0.5), annotation(square(0), category_id=2, score=0.5)]
    f = boundary_f(square(0), square(2))
    found = evaluate(truth, results, metrics=["af"])["af"]
    assert found["AF"] == pytest.approx((7 * (1 + f) / 2 + 3) / 10)
    assert found["per_class"] == pytest.approx({"a": f, "b": 1.0})
    assert found["class_AF"] == pytest.approx((1 + f) / 2)


def test_a_mask_that_is_moved_loses_more_at_the_boundary() -> None:
    rng = np.random.default_rng(1)
    mask: NDArray[np.bool_] = blob(rng, (200, 200), 150)
    near = moved(rng, mask, 2)
    assert boundary_iou(mask, near) < iou(mask, near)

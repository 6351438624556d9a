"""Everything of Boundary Patch Refinement but the network: a 1024 x 2048 picture, 20 instances, about 135 and 330 patches of 64 x 64.

Two peers in Python give the same patches, inputs and masks. One works as the published code does: maps of the whole picture for every
instance, by torch's convolution, and full-size sums and counts to merge. The other is careful: NumPy and OpenCV inside the box of each
mask. The first peer's suppression is our own `nms`, in place of the compiled one that the published code calls. With `--threads 1` the
times are processor times, so that a busy machine does not disturb them. The last table shows the cost of 1 to 500 instances against the
length of their boundaries.

    python -m benchmarks.ops_patches --threads 1 [--json]
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ops_timing import Row, arguments, measure, report
from sdk import ops
from sdk.ops import MaskCrops, Patches

SHAPE = (1024, 2048)
SIZE, INPUT, CHUNK = 64, 128, 32
MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
Array = NDArray[np.generic]
Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]
Found = list[NDArray[np.int64]]  # per instance, (P, 4) boxes


def blobs(rng: np.random.Generator, count: int, low: float, high: float) -> MaskCrops:
    """Star-shaped masks with radii from `low` to `high` pixels, log-uniform, inside the picture."""
    crops = []
    for radius in np.exp(rng.uniform(np.log(low), np.log(high), count)):
        reach = int(1.4 * radius) + 2
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        angle = np.arctan2(y, x)
        edge = radius * (1 + 0.2 * np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6)) + 0.05 * np.sin(11 * angle))
        mask = (np.hypot(x, y) <= edge).astype(np.uint8)
        left, top = (int(rng.integers(0, extent - 2 * reach - 1)) for extent in SHAPE[::-1])
        box = np.array([[left, top, left + 2 * reach + 1, top + 2 * reach + 1]], np.int32)
        crops.append(MaskCrops(box, np.array([0, mask.size], np.int64), mask.reshape(-1)))
    return MaskCrops.concatenate(crops)


def moved_inside(centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 4) boxes around centres x, y, moved into the picture, without those that became equal."""
    low = np.clip(centres - SIZE // 2, 0, np.array(SHAPE[::-1]) - SIZE)
    low = low[np.sort(np.unique(low, axis=0, return_index=True)[1])]
    return np.concatenate([low, low + SIZE], axis=1)


# -- as the published code: whole pictures ------------------------------------------------------------------------------------------


def whole_extract(masks: Masks, threshold: float) -> Found:
    kernel, found = torch.ones(1, 1, 3, 3), []
    for mask in masks:
        total = torch.nn.functional.conv2d(torch.from_numpy(mask).float()[None, None], kernel, padding=1)[0, 0]
        balance = torch.minimum(9 - total, total) / 4.5
        y, x = (index.numpy() for index in torch.nonzero(balance > 0, as_tuple=True))
        scores = balance[y, x].numpy()
        boxes = np.stack([x - 32, y - 32, x + 32, y + 32], axis=1).astype(np.float32)
        keep = ops.nms(boxes, scores, threshold)
        found.append(moved_inside(np.stack([x, y], axis=1)[keep]))
    return found


def whole_cut(image: Array, masks: Masks, found: Found) -> Floats:
    patches = []
    for mask, boxes in zip(masks, found, strict=True):
        for x1, y1, x2, y2 in boxes:
            picture = cv2.resize(image[y1:y2, x1:x2], (INPUT, INPUT), interpolation=cv2.INTER_LINEAR)
            label = cv2.resize(mask[y1:y2, x1:x2].astype(np.uint8), (INPUT, INPUT), interpolation=cv2.INTER_NEAREST)
            picture = (picture.astype(np.float32) - MEAN) / STD
            patches.append(np.concatenate([picture.transpose(2, 0, 1), (label[None].astype(np.float32) - 0.5) / 0.5]))
    return np.stack(patches)


def whole_merge(masks: Masks, found: Found, values: Floats) -> Masks:
    merged, start = masks.copy(), 0
    for n, boxes in enumerate(found):
        total, count = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
        for (x1, y1, x2, y2), value in zip(boxes, values[start : start + len(boxes)], strict=True):
            total[y1:y2, x1:x2] += cv2.resize(value, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
            count[y1:y2, x1:x2] += 1
        start += len(boxes)
        covered = count > 0
        merged[n][covered] = total[covered] / count[covered] > 0.5
    return merged


# -- careful: NumPy and OpenCV inside the boxes -------------------------------------------------------------------------------------


def boxed_extract(masks: MaskCrops, threshold: float) -> Found:
    least, found = 2 * SIZE * SIZE * threshold / (1 + threshold), []
    for n, (x1, y1, _, _) in enumerate(masks.boxes.tolist()):
        total = cv2.boxFilter(np.pad(masks.crop(n), 2), cv2.CV_8U, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)[1:-1, 1:-1]
        balance = np.minimum(9 - total, total)
        y, x = np.nonzero(balance)
        score, x, y = balance[y, x], x + (x1 - 1), y + (y1 - 1)
        inside = (x >= 0) & (y >= 0) & (x < SHAPE[1]) & (y < SHAPE[0])
        order = np.argsort(-score[inside].astype(np.int8), kind="stable")
        x, y = x[inside][order], y[inside][order]
        kept = []
        while len(x):
            kept.append((x[0], y[0]))
            shared = np.maximum(SIZE - np.abs(x - x[0]), 0) * np.maximum(SIZE - np.abs(y - y[0]), 0)
            alone = shared <= least
            x, y = x[alone], y[alone]
        found.append(moved_inside(np.array(kept)))
    return found


def boxed_cut(image: Array, masks: MaskCrops, found: Found, out: Floats) -> Floats:
    """Normalised before it is enlarged, four times fewer values; straight into `out`."""
    i = 0
    for n, boxes in enumerate(found):
        left, top, right, bottom = masks.boxes[n].tolist()
        crop = masks.crop(n)
        for x1, y1, x2, y2 in boxes.tolist():
            picture = (image[y1:y2, x1:x2] - MEAN) * (1 / STD)
            out[i, :3] = cv2.resize(picture, (INPUT, INPUT), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
            label = np.full((SIZE, SIZE), -1, np.float32)
            a, b, c, d = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
            label[b - y1 : d - y1, a - x1 : c - x1] = 2.0 * crop[b - top : d - top, a - left : c - left] - 1
            cv2.resize(label, (INPUT, INPUT), dst=out[i, 3], interpolation=cv2.INTER_NEAREST)
            i += 1
    return out


def boxed_merge(masks: MaskCrops, found: Found, values: Floats) -> MaskCrops:
    merged, start = [], 0
    for n, boxes in enumerate(found):
        box = masks.boxes[n].astype(np.int64)
        x1, y1 = np.minimum(box[:2], boxes[:, :2].min(axis=0)).tolist()
        x2, y2 = np.maximum(box[2:], boxes[:, 2:].max(axis=0)).tolist()
        label = np.zeros((y2 - y1, x2 - x1), np.uint8)
        label[box[1] - y1 : box[3] - y1, box[0] - x1 : box[2] - x1] = masks.crop(n)
        total, count = np.zeros(label.shape, np.float32), np.zeros(label.shape, np.float32)
        for (a, b, c, d), value in zip((boxes - [x1, y1, x1, y1]).tolist(), values[start : start + len(boxes)], strict=True):
            total[b:d, a:c] += cv2.resize(value, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
            count[b:d, a:c] += 1
        start += len(boxes)
        label = np.where(count > 0, total > 0.5 * count, label).astype(np.uint8)
        merged.append(MaskCrops(np.array([[x1, y1, x2, y2]], np.int32), np.array([0, label.size], np.int64), label.reshape(-1)))
    return MaskCrops.concatenate(merged)


# -- the tables ---------------------------------------------------------------------------------------------------------------------


def ours_cut(image: Array, masks: MaskCrops, patches: Patches, out: Floats) -> None:
    """Chunk by chunk into the same memory, as it goes to a network."""
    for chunk in patches.chunks(CHUNK):
        ops.cut_patches(image, masks, chunk, input_size=INPUT, mean=MEAN, std=STD, out=out[: len(chunk)])


def assert_same(image: Array, masks: MaskCrops, patches: Patches, values: Floats, threshold: float) -> None:
    """All three find the same patches, cut the same input and merge to the same masks."""
    dense = ops.crops_to_dense(masks, SHAPE)
    found = boxed_extract(masks, threshold)
    for other in (whole_extract(dense, threshold), found):
        np.testing.assert_array_equal(np.concatenate(other), patches.boxes)
    inputs = ops.cut_patches(image, masks, patches, input_size=INPUT, mean=MEAN, std=STD)
    np.testing.assert_allclose(boxed_cut(image, masks, found, np.empty_like(inputs)), inputs, atol=1e-4)
    np.testing.assert_allclose(whole_cut(image, dense, found), inputs, atol=0.02)  # rounded to grey levels on the way
    merged = ops.crops_to_dense(ops.merge_patches(masks, patches, values), SHAPE)
    for other_masks in (whole_merge(dense, found, values), ops.crops_to_dense(boxed_merge(masks, found, values), SHAPE)):
        assert (other_masks != merged).sum() <= 5  # pixels whose mean is within rounding of the threshold


def candidates(image: Array, masks: MaskCrops, values: Floats, threshold: float) -> dict[str, Callable[[], object]]:
    dense, found = ops.crops_to_dense(masks, SHAPE), boxed_extract(masks, threshold)
    patches = ops.boundary_patches(masks, SHAPE, threshold=threshold)
    big, small = np.empty((len(patches), 4, INPUT, INPUT), np.float32), np.empty((CHUNK, 4, INPUT, INPUT), np.float32)

    def everything() -> None:
        chosen = ops.boundary_patches(masks, SHAPE, threshold=threshold)
        ours_cut(image, masks, chosen, small)
        ops.merge_patches(masks, chosen, values)

    return {
        "whole picture: extract": lambda: whole_extract(dense, threshold),
        "whole picture: cut": lambda: whole_cut(image, dense, found),
        "whole picture: merge": lambda: whole_merge(dense, found, values),
        "boxes, NumPy and OpenCV: extract": lambda: boxed_extract(masks, threshold),
        "boxes, NumPy and OpenCV: cut": lambda: boxed_cut(image, masks, found, big),
        "boxes, NumPy and OpenCV: merge": lambda: boxed_merge(masks, found, values),
        "Kerf: extract": lambda: ops.boundary_patches(masks, SHAPE, threshold=threshold),
        "Kerf: cut": lambda: ours_cut(image, masks, patches, small),
        "Kerf: merge": lambda: ops.merge_patches(masks, patches, values),
        "Kerf: all three in one": everything,
    }


def with_sums(rows: list[Row]) -> list[Row]:
    """The rows, and for each version the sum of its three steps with its ratio to Kerf's."""
    sums = {}
    for version in ("whole picture", "boxes, NumPy and OpenCV", "Kerf"):
        steps = [row for row in rows if row.name in {f"{version}: {step}" for step in ("extract", "cut", "merge")}]
        sums[version] = (sum(row.min for row in steps), sum(row.median for row in steps))
    ours = sums["Kerf"][1]
    return rows + [Row(f"sum of {name}; ratio: over Kerf's", low, median, median / ours) for name, (low, median) in sums.items()]


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SHAPE, 3), np.uint8)
    masks = blobs(rng, 20, 18, 66)
    tables = {}
    for threshold in (0.25, 0.55):
        patches = ops.boundary_patches(masks, SHAPE, threshold=threshold)
        seen = ops.cut_patches(image, masks, patches, input_size=INPUT, mean=MEAN, std=STD)[:, 3]
        noise = 0.2 * rng.standard_normal(seen.shape, np.float32)
        values = np.stack([cv2.GaussianBlur(patch, (0, 0), 4) for patch in np.clip(seen * 0.5 + 0.5 + noise, 0, 1)])
        assert_same(image, masks, patches, values, threshold)
        calls = candidates(image, masks, values, threshold)
        title = f"20 instances, {len(patches)} patches (threshold {threshold})"
        tables[title] = with_sums(measure(calls, max(3, options.rounds // 3), clock=clock))
    tables["Kerf, all three in one; ratio: microseconds per 1,000 boundary pixels"] = scaling(rng, image, options.rounds, clock)
    report(tables, options.json)


def scaling(rng: np.random.Generator, image: Array, rounds: int, clock: Callable[[], float]) -> list[Row]:
    """1 to 500 instances; the column of ratios holds microseconds per 1,000 boundary pixels."""
    calls: dict[str, Callable[[], object]] = {}
    lengths = {}
    for count in (1, 5, 20, 100, 500):
        masks = blobs(rng, count, 20, 60)
        patches = ops.boundary_patches(masks, SHAPE)
        values = rng.random((len(patches), INPUT, INPUT), np.float32)
        length = int(ops.boundary_band(masks, SHAPE).areas().sum()) // 2
        name = f"{count} instances, {len(patches)} patches, {length:,} boundary pixels"
        calls[name], lengths[name] = candidates(image, masks, values, 0.25)["Kerf: all three in one"], length
    return [Row(row.name, row.min, row.median, 1e6 * row.median / lengths[row.name]) for row in measure(calls, rounds, clock=clock)]


if __name__ == "__main__":
    main()

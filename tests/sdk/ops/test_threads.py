"""Results do not depend on the number of threads, nor on who calls at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sdk import ops
from sdk.errors import InputError
from tests.sdk.ops.cases import feature_pyramid, random_boxes, random_crops

RNG = np.random.default_rng(0)
PICTURE = (120, 160)
BOXES = random_boxes(RNG, 200, PICTURE)
FEATURES = feature_pyramid(RNG, 1, 19, [(30, 40), (15, 20)])
CROPS = random_crops(RNG, 40, PICTURE)
IMAGE = RNG.integers(0, 256, (*PICTURE, 3), np.uint8)
MASK_LOGITS = RNG.standard_normal((200, 14, 14), np.float32)
SCORES = RNG.random((200, 5), np.float32)
BOX_DELTAS = RNG.standard_normal((200, 20), np.float32)
OBJECTNESS = [RNG.standard_normal((1, 30, 40), np.float32), RNG.standard_normal((1, 15, 20), np.float32)]
DELTAS = [RNG.standard_normal((4, 30, 40), np.float32), RNG.standard_normal((4, 15, 20), np.float32)]
PATCHES = ops.boundary_patches(CROPS[:12], PICTURE, size=24)[::5]
PATCH_VALUES = RNG.random((len(PATCHES), 16, 16), np.float32)
ANCHORS = [np.array([[-8, -8, 8, 8]], np.float32), np.array([[-16, -16, 16, 16]], np.float32)]


def _fields(patches: ops.Patches) -> list[Any]:
    return [patches.boxes, patches.instance, patches.scores]


CALLS: dict[str, Callable[[], Any]] = {
    "preprocess": lambda: ops.preprocess(IMAGE, (97, 130), (128, 160), (1, 2, 3), (4, 5, 6)),
    "proposals": lambda: ops.proposals(OBJECTNESS, DELTAS, ANCHORS, [4, 8], PICTURE, pre_nms=500, post_nms=300, nms_threshold=0.7),
    "nms": lambda: ops.nms(BOXES, SCORES[:, 0].copy(), 0.5),
    "roi_align": lambda: ops.Pyramid(FEATURES, [4, 8]).roi_align(BOXES, np.zeros(200, np.int32), 7),
    "decode_boxes": lambda: ops.decode_boxes(BOX_DELTAS[:, :4].copy(), BOXES, PICTURE, coder_weights=(10, 10, 5, 5)),
    "select_detections": lambda: ops.select_detections(
        SCORES, BOX_DELTAS, BOXES, PICTURE, coder_weights=(10, 10, 5, 5), score_threshold=0.05, nms_threshold=0.5, max_detections=300
    ),
    "paste_masks": lambda: ops.paste_masks(MASK_LOGITS, BOXES, PICTURE),
    "paste_rle": lambda: ops.paste_rle(MASK_LOGITS, BOXES, PICTURE),
    "boundary_band": lambda: ops.boundary_band(CROPS, PICTURE, width=3),
    "boundary_patches": lambda: _fields(ops.boundary_patches(CROPS[:12], PICTURE, size=24)),
    "cut_patches": lambda: ops.cut_patches(IMAGE, CROPS, PATCHES, input_size=20, mean=(1, 2, 3), std=(4, 5, 6)),
    "merge_patches": lambda: ops.merge_patches(CROPS, PATCHES, PATCH_VALUES),
    "merge_patches_soft": lambda: ops.merge_patches_soft(CROPS, PATCHES, PATCH_VALUES, logits=True),
    "patch_uncertainty": lambda: ops.patch_uncertainty(PATCHES, MASK_LOGITS, BOXES),
    "crops_to_dense": lambda: ops.crops_to_dense(CROPS, PICTURE),
    "dense_to_crops": lambda: ops.dense_to_crops(ops.crops_to_dense(CROPS, PICTURE)),
    "rle_encode": lambda: ops.rle_encode(CROPS, PICTURE),
    "rle_decode": lambda: ops.rle_decode(ops.rle_encode(CROPS, PICTURE), PICTURE),
    "polygons": lambda: ops.polygons(CROPS),
}


def _frozen(value: Any) -> Any:
    """Something that compares bit for bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, ops.MaskCrops):
        return _frozen(value.boxes), _frozen(value.offsets), _frozen(value.data)
    if isinstance(value, (list, tuple)):
        return [_frozen(item) for item in value]
    return value


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = ops.num_threads()
    yield
    ops.set_num_threads(before)


def test_every_operator_is_here() -> None:
    not_parallel = {"MaskCrops", "Patches", "Pyramid", "num_threads", "set_num_threads", "rle_area", "rle_counts", "rle_string"}
    assert set(CALLS) - {"roi_align"} == set(ops.__all__) - not_parallel


@pytest.mark.parametrize("name", CALLS)
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    results = []
    for count in (1, 2, 8):
        ops.set_num_threads(count)
        assert ops.num_threads() == count
        results.append(_frozen(CALLS[name]()))
    assert results[0] == results[1] == results[2]


def test_eight_callers_at_once_get_what_one_gets() -> None:
    ops.set_num_threads(2)
    expected = {name: _frozen(call()) for name, call in CALLS.items()}
    jobs = [name for _ in range(12) for name in CALLS]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: _frozen(CALLS[name]()), jobs))
    assert [result == expected[name] for name, result in zip(jobs, results, strict=True)] == [True] * len(jobs)


def test_callers_that_share_a_pyramid_take_turns() -> None:
    ops.set_num_threads(2)
    pyramid = ops.Pyramid(FEATURES, [4, 8])
    parts = [slice(i, i + 25) for i in range(0, 200, 25)]
    expected = [_frozen(ops.Pyramid(FEATURES, [4, 8]).roi_align(BOXES[part], np.zeros(25, np.int32), 7)) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            pyramid.set(FEATURES)
            assert list(pool.map(lambda part: _frozen(pyramid.roi_align(BOXES[part], np.zeros(25, np.int32), 7)), parts)) == expected


def test_resizing_the_pool_while_others_compute() -> None:
    expected = _frozen(CALLS["paste_masks"]())
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(lambda: _frozen(CALLS["paste_masks"]())) for _ in range(40)]
        for count in (1, 3, 2, 5, 1, 8):
            ops.set_num_threads(count)
        assert all(job.result() == expected for job in running)


def test_a_failing_job_leaves_the_pool_usable() -> None:
    ops.set_num_threads(4)
    good = ops.rle_encode(CROPS, PICTURE)
    for _ in range(20):
        with pytest.raises(InputError, match=r"counts\[17\]"):
            ops.rle_decode([*good[:17], b"P", *good[18:]], PICTURE)
    assert _frozen(ops.rle_decode(good, PICTURE)) == _frozen(CALLS["rle_decode"]())


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_wrong_number_of_threads_is_named(count: int) -> None:
    with pytest.raises(InputError, match=f"num_threads: expected 1 to 256, got {count}"):
        ops.set_num_threads(count)


FORK = """
import os, sys, numpy as np
from sdk import ops
ops.set_num_threads(4)
rng = np.random.default_rng(0)
masks = rng.random((50, 60, 70)) < 0.5
before = ops.rle_encode(ops.dense_to_crops(masks), (60, 70))   # the parent's helpers run now
child = os.fork()
if child == 0:
    same = ops.rle_encode(ops.dense_to_crops(masks), (60, 70)) == before and ops.num_threads() == 4
    ops.set_num_threads(2)
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_child_has_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK], check=True, timeout=30)

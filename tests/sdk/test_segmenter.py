from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdk.config import ResizeRule
from sdk.engine import Engine
from sdk.errors import BackendError, BatchError, ImageError, InputError
from sdk.instances import Instances
from sdk.manifest import BoxSpec, MaskSpec, PoolSpec
from sdk.ops import reference
from sdk.segmenter import Segmenter
from tests.sdk import tiny

STAGES = ["read", "preprocess", "trunk", "proposals", "pool_box", "box", "select", "pool_mask", "mask", "total"]


@pytest.fixture(scope="module")
def segmenter(tiny_engine: Path) -> Segmenter:
    return Segmenter(tiny_engine, color="rgb", device="cpu")


def same(a: Instances, b: Instances) -> bool:
    fields = ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels), (a.mask_logits, b.mask_logits))
    return all(np.array_equal(x, y) for x, y in fields) and a.rle() == b.rle()  # type: ignore[arg-type]


def noise(seed: int, height: int = 90, width: int = 110) -> NDArray[np.uint8]:
    """Blocks of random colours: many detections."""
    blocks = np.random.default_rng(seed).integers(0, 2, (height // 30 + 1, width // 30 + 1, 3), dtype=np.uint8) * 255
    return np.repeat(np.repeat(blocks, 30, 0), 30, 1)[:height, :width]


def test_squares_are_found_where_they_are(segmenter: Segmenter) -> None:
    found = segmenter.predict(tiny.squares())
    by_name = {segmenter.names[label]: mask for label, mask in zip(found.labels, found.masks, strict=True)}
    assert len(found) == 2
    for name, (x1, y1, x2, y2) in (("warm", tiny.RED), ("cold", tiny.BLUE)):
        expected = np.zeros(found.shape, bool)
        expected[y1:y2, x1:x2] = True
        assert (by_name[name] & expected).sum() / (by_name[name] | expected).sum() > 0.95
    assert found.names == ("warm", "cold")
    assert found.category_ids == (3, 7)
    assert list(found.speed) == STAGES
    assert found.speed["total"] >= sum(found.speed[stage] for stage in STAGES[:-1]) > 0


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(tiny.squares()).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        lambda folder: folder / "squares.png",
        lambda folder: str(folder / "squares.png"),
        lambda folder: encoded("PNG"),
        lambda folder: encoded("BMP"),
        lambda folder: Image.fromarray(tiny.squares()),
        lambda folder: (tiny.squares() / 255).astype(np.float32),
        lambda folder: np.asfortranarray(tiny.squares()),
        lambda folder: tiny.squares()[::-1][::-1],
    ],
)
def test_every_kind_of_picture_gives_the_same(source: Callable[[Path], Any], segmenter: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "squares.png").write_bytes(encoded("PNG"))
    assert same(segmenter(source(tmp_path)), segmenter(tiny.squares()))


def test_colour_order_is_declared(tiny_engine: Path) -> None:
    rgb = tiny.squares()
    right = Segmenter(tiny_engine).predict(rgb[:, :, ::-1])  # BGR is the default for arrays
    assert same(right, Segmenter(tiny_engine, color="rgb").predict(rgb))
    swapped = Segmenter(tiny_engine).predict(rgb)
    np.testing.assert_array_equal(sorted(swapped.labels), sorted(1 - right.labels))
    assert not same(swapped, right)


def test_a_bgr_network_gets_bgr(tmp_path: Path) -> None:
    spec = tiny.manifest().input
    Engine.write(tmp_path / "bgr.engine", tiny.manifest(input=spec.replace(color="bgr")), tiny.graphs())
    found = Segmenter(tmp_path / "bgr.engine", color="rgb").predict(tiny.squares())
    assert found.labels[np.argmin(found.boxes[:, 0])] == 1  # the network now sees blue where red is


def test_grey_pictures(segmenter: Segmenter) -> None:
    grey = tiny.squares().max(axis=2)
    repeated = np.repeat(grey[:, :, None], 3, 2)
    assert same(segmenter(grey, conf=0.1), segmenter(repeated, conf=0.1))
    assert same(segmenter(grey[:, :, None], conf=0.1), segmenter(repeated, conf=0.1))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_boxes_and_masks_come_back_in_original_pixels(scale: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.engine"
    spec = tiny.manifest().input
    Engine.write(path, tiny.manifest(input=spec.replace(resize=ResizeRule(short=96, long=128))), tiny.graphs())
    small = tiny.squares()
    large = np.repeat(np.repeat(small, scale, 0), scale, 1)
    found = Segmenter(path, color="rgb").predict(large)
    assert found.shape == large.shape[:2]
    assert sorted(found.labels) == [0, 1]
    for label, (x1, y1, x2, y2) in ((0, tiny.RED), (1, tiny.BLUE)):
        rows, columns = np.nonzero(found.masks[list(found.labels).index(label)])
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scale
        np.testing.assert_allclose(edges, [x1, y1, x2, y2], atol=0.75)


def test_axes_scale_separately(tmp_path: Path) -> None:
    """333 x 200 resized to 53 x 32: each axis has its own exact factor."""
    spec = tiny.manifest().input
    Engine.write(tmp_path / "t.engine", tiny.manifest(input=spec.replace(resize=ResizeRule(short=32, long=999))), tiny.graphs())
    picture = np.zeros((200, 333, 3), np.uint8)
    picture[:, :, 0] = 255
    found = Segmenter(tmp_path / "t.engine", color="rgb").predict(picture, conf=0.1)
    assert spec.replace(resize=ResizeRule(short=32, long=999)).resize.size_for(200, 333) == (32, 53)
    assert found.boxes[:, 2].max() == pytest.approx(333)
    assert found.boxes[:, 3].max() == pytest.approx(200)
    assert found.boxes.min() == 0


def test_results_equal_the_references_step_by_step(tiny_engine: Path) -> None:
    """The whole way again with the slow definitions of the operators and plain sessions."""
    engine, picture = Engine.open(tiny_engine), noise(5)
    found = Segmenter(tiny_engine, color="rgb").predict(picture, conf=0.3)
    sessions = {name: onnxruntime.InferenceSession(engine.graph(name)) for name in ("trunk", "box", "mask")}
    size, padded = picture.shape[:2], (96, 128)
    image = reference.preprocess(picture, size, padded, (0, 0, 0), (255, 255, 255)).astype(np.float32)
    outputs = sessions["trunk"].run(None, {"image": image[None]})
    maps = dict(zip([node.name for node in sessions["trunk"].get_outputs()], outputs, strict=True))
    spec = engine.manifest.proposals
    proposals, _ = reference.proposals(
        [maps[f"objectness{k}"][0] for k in tiny.LEVELS],
        [maps[f"deltas{k}"][0] for k in tiny.LEVELS],
        [np.float32(anchors) for anchors in spec.anchors],
        list(spec.strides),
        size,
        pre_nms=spec.pre_nms,
        post_nms=spec.post_nms,
        nms_threshold=spec.nms_threshold,
    )
    features, strides = [maps[f"p{k}"] for k in (2, 3, 4, 5)], [4, 8, 16, 32]
    rois = pooled(features, strides, proposals, 7)
    class_scores, deltas = sessions["box"].run(None, {"rois": rois})
    boxes, scores, labels = reference.select_detections(
        class_scores,
        deltas,
        np.float32(proposals),
        size,
        coder_weights=(10, 10, 5, 5),
        score_threshold=0.3,
        nms_threshold=0.2,
        max_detections=20,
    )
    logits = sessions["mask"].run(None, {"rois0": pooled(features, strides, boxes, 14), "labels": labels})[0]
    assert len(found) > 3
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.mask_logits, logits, atol=1e-3)


def pooled(features: list[NDArray[np.float32]], strides: list[int], boxes: NDArray[Any], size: int) -> NDArray[np.float32]:
    rois = reference.roi_align(features, strides, np.float32(boxes), np.zeros(len(boxes), np.int32), size, sampling_ratio=2)
    return np.ascontiguousarray(rois, np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (31, 33), (32, 32), (7, 5, 3)])
def test_pictures_of_any_size(shape: tuple[int, ...], segmenter: Segmenter) -> None:
    found = segmenter.predict(np.full(shape, 200, np.uint8))
    assert found.shape == shape[:2]
    assert found.masks.shape[1:] == shape[:2]


def test_nothing_found(segmenter: Segmenter) -> None:
    none = segmenter.predict(np.zeros((50, 70, 3), np.uint8))
    assert (len(none), none.boxes.shape, none.masks.shape, none.mask_logits.shape) == (0, (0, 4), (0, 50, 70), (0, 28, 28))  # type: ignore[union-attr]
    assert (none.labels.dtype, none.mask_logits.dtype) == (np.int64, np.float32)  # type: ignore[union-attr]


def test_no_proposals_run_no_head(tmp_path: Path) -> None:
    proposals = tiny.manifest().proposals.replace(min_size=1e6)
    Engine.write(tmp_path / "none.engine", tiny.manifest(proposals=proposals), tiny.graphs())
    segmenter = Segmenter(tmp_path / "none.engine")
    graphs: list[str] = []
    run = segmenter._backend.run
    segmenter._backend.run = lambda graph, feeds: graphs.append(graph) or run(graph, feeds)  # type: ignore
    assert len(segmenter.predict(tiny.squares())) == 0
    assert graphs == ["trunk"]


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"conf": 0.99}, lambda found: (found.scores > 0.99).all()),
        ({"threshold": 0.99}, lambda found: (found.scores > 0.99).all()),
        ({"conf": 1.0}, lambda found: len(found) == 0),
        ({"conf": 0.0, "max_det": 3}, lambda found: len(found) == 3),
        ({"conf": 0.0, "iou": 1.0, "max_det": 1000}, lambda found: len(found) > 100),
        ({"classes": "cold"}, lambda found: set(found.labels) == {1}),
        ({"classes": [0]}, lambda found: set(found.labels) == {0}),
        ({"classes": ["warm", 1]}, lambda found: set(found.labels) == {0, 1}),
        ({"classes": []}, lambda found: len(found) == 0),
    ],
)
def test_options_of_a_call(options: dict[str, Any], check: Callable[[Instances], bool], segmenter: Segmenter) -> None:
    assert check(segmenter.predict(tiny.squares(), **options))
    assert len(segmenter.predict(tiny.squares())) == 2  # the next call has the defaults again


def test_classes_are_chosen_before_the_limit_counts(segmenter: Segmenter) -> None:
    everything = segmenter.predict(noise(3), conf=0.05, max_det=1000)
    for label in (0, 1):
        expected = everything[everything.labels == label][:4]
        assert same(segmenter.predict(noise(3), conf=0.05, max_det=4, classes=label), expected)


def test_mask_threshold_grows_and_shrinks_masks(segmenter: Segmenter) -> None:
    areas = [int(segmenter.predict(tiny.squares(), mask_threshold=t).masks.sum()) for t in (0.05, 0.5, 0.95)]
    assert areas[0] > areas[1] > areas[2] > 0


def test_constructor_thresholds_are_defaults(tiny_engine: Path) -> None:
    segmenter = Segmenter(tiny_engine, color="rgb", conf=0.0, iou=1.0, max_det=7, mask_threshold=0.05)
    assert len(segmenter.predict(tiny.squares())) == 7
    assert len(segmenter.predict(tiny.squares(), max_det=2)) == 2
    described = segmenter.describe()
    assert [described[key] for key in ("conf", "iou", "max_det", "mask_threshold")] == [0.0, 1.0, 7, 0.05]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"conf": 1.5}, "conf must be a number from 0 to 1, got 1.5"),
        ({"conf": True}, "conf must be"),
        ({"conf": float("nan")}, "conf must be"),
        ({"iou": -0.1}, "iou must be"),
        ({"iou": "0.5"}, "iou must be"),
        ({"max_det": 0}, "max_det must be"),
        ({"max_det": 2.0}, "max_det must be"),
        ({"mask_threshold": 0}, "mask_threshold must be greater than 0"),
        ({"classes": "dog"}, "'dog' is neither a class name nor a label; classes: warm, cold"),
        ({"classes": [2]}, "2 is neither"),
        ({"conf": 0.1, "threshold": 0.1}, "two names for one option"),
    ],
)
def test_bad_options(options: dict[str, Any], word: str, segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match=word):
        segmenter.predict(tiny.squares(), **options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"color": "hsv"}, "color"),
        ({"threads": 0}, "threads"),
        ({"conf": 2}, "conf"),
        ({"device": "gpu"}, "device"),
        ({"alpha": 1}, "alpha"),
    ],
)
def test_bad_constructor_options(options: dict[str, Any], word: str, tiny_engine: Path) -> None:
    with pytest.raises(InputError, match=word):
        Segmenter(tiny_engine, **options)


def test_a_list_gives_a_list(segmenter: Segmenter) -> None:
    pictures = [tiny.squares(), noise(1), np.zeros((20, 20), np.uint8)]
    results = segmenter.predict(pictures)
    assert isinstance(results, list)
    assert all(same(result, segmenter.predict(picture)) for result, picture in zip(results, pictures, strict=True))
    assert segmenter.predict([]) == []
    assert len(segmenter.predict((tiny.squares(),))) == 1


def test_a_list_goes_on_past_bad_pictures_and_says_so(segmenter: Segmenter) -> None:
    with pytest.raises(BatchError) as caught:
        segmenter.predict([tiny.squares(), "gone.png", np.zeros((0, 5, 3), np.uint8), noise(1)])
    error = caught.value
    assert [result is None for result in error.results] == [False, True, True, False]
    assert {index: failure.code for index, failure in error.failures.items() if isinstance(failure, ImageError)} == {
        1: "missing",
        2: "empty",
    }
    assert same(error.results[0], segmenter.predict(tiny.squares()))  # type: ignore[arg-type]
    for word in ("2 of 4 pictures failed", "[1] gone.png: no such file", "[2] "):
        assert word in str(error)


def test_reading_options_reach_the_reader(tiny_engine: Path) -> None:
    rgba = np.dstack([tiny.squares(), np.full((96, 128), 7, np.uint8)])
    with pytest.raises(ImageError, match="alpha"):
        Segmenter(tiny_engine).predict(rgba)
    assert len(Segmenter(tiny_engine, alpha="drop").predict(rgba)) == 2
    with pytest.raises(ImageError, match="the limit is 10"):
        Segmenter(tiny_engine, max_pixels=10).predict(tiny.squares())
    assert len(Segmenter(tiny_engine, max_pixels=None).predict(tiny.squares())) == 2


def test_eight_threads_equal_one(segmenter: Segmenter) -> None:
    pictures = [noise(seed, 60 + 13 * seed, 150 - 9 * seed) for seed in range(8)]
    alone = [segmenter.predict(picture, conf=0.1) for picture in pictures]
    assert sum(len(found) for found in alone) > 40
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: segmenter.predict(pictures[i % 8], conf=0.1), range(160)))
    assert all(same(found, alone[i % 8]) for i, found in enumerate(together))
    assert 1 <= len(segmenter._workspaces._free) <= 8


def test_a_failed_prediction_gives_its_buffers_back(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter.predict(tiny.squares())
    before = len(segmenter._workspaces._free)

    def fail(graph: str, feeds: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(segmenter._backend, "run", fail)
        with pytest.raises(RuntimeError, match="no"):
            segmenter.predict(tiny.squares())
    assert len(segmenter._workspaces._free) == before


def test_results_do_not_share_the_buffers_of_the_next_call(segmenter: Segmenter) -> None:
    first = segmenter.predict(noise(1), conf=0.1)
    copies = [first.boxes.copy(), first.scores.copy(), first.labels.copy(), first.mask_logits.copy()]  # type: ignore[union-attr]
    for seed in range(2, 6):
        segmenter.predict(noise(seed), conf=0.1)
    for now, then in zip((first.boxes, first.scores, first.labels, first.mask_logits), copies, strict=True):
        np.testing.assert_array_equal(now, then)  # type: ignore[arg-type]


def test_a_head_that_pools_other_maps_needs_no_change(tmp_path: Path) -> None:
    """The mask head reads p2 alone by name, and as level 0 of the pyramid: the same picture of the world."""
    boxes = BoxSpec(pool=PoolSpec(size=7), score_threshold=0.9, nms_threshold=0.2)
    results = []
    for name, pool in (("named", PoolSpec(feature="p2", stride=4, size=14)), ("level", PoolSpec(level=0, size=14))):
        manifest = tiny.manifest(box=boxes, mask=MaskSpec(pools=(pool,), size=(28, 28)))
        Engine.write(tmp_path / name, manifest, tiny.graphs())
        results.append(Segmenter(tmp_path / name, color="rgb").predict(tiny.squares()))
    assert len(results[0]) == 2
    assert same(*results)


def test_describe_says_what_runs_and_why(tiny_engine: Path) -> None:
    described = Segmenter(tiny_engine).describe()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert (described["device"], described["reason"]) == ("cpu", "auto: this ONNX Runtime has no CUDA provider")
    assert (described["backend"], described["classes"], described["name"]) == ("onnxruntime", ["warm", "cold"], "tiny")
    assert Segmenter(tiny_engine, device="cpu").describe()["reason"] == "asked for"
    assert "tiny.engine" in repr(Segmenter(tiny_engine))


def test_asking_for_cuda_without_it_says_what_to_install(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="pip install onnxruntime-gpu") as caught:
        Segmenter(tiny_engine, device="cuda:0")
    assert isinstance(caught.value, ImportError)


def test_an_engine_for_another_backend(tmp_path: Path) -> None:
    manifest = tiny.manifest().to_dict() | {"runtime": {"backends": ["abacus"]}, "graphs": {}}
    Engine.write(tmp_path / "a.engine", type(tiny.manifest()).from_dict(manifest), tiny.graphs())
    with pytest.raises(BackendError, match="made for abacus; this version of Kerf has onnxruntime"):
        Segmenter(tmp_path / "a.engine")


def test_warmup(segmenter: Segmenter) -> None:
    segmenter.warmup(40, 50)
    assert len(segmenter.predict(tiny.squares())) == 2

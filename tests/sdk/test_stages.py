"""What an engine may have beyond the plain model: boxes that all classes share, a cascade, scored masks, maps of a head's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sdk.engine import Engine
from sdk.errors import EngineError
from sdk.instances import Instances
from sdk.manifest import BoxSpec, BoxStage, MaskSpec, PoolSpec
from sdk.ops import reference
from sdk.segmenter import Segmenter
from tests.sdk import tiny
from tests.sdk.test_segmenter import noise, same

BOX = tiny.manifest().box
MASK = tiny.manifest().mask


def segmenter(folder: Path, graphs: dict[str, bytes] | None = None, **changes: Any) -> Segmenter:
    """A tiny engine with other graphs and another manifest."""
    path = folder / f"{len(list(folder.iterdir()))}.engine"
    Engine.write(path, tiny.manifest(**changes), tiny.graphs() | (graphs or {}))
    return Segmenter(path, color="rgb", device="cpu")


def cascade(*weights: tuple[float, float, float, float]) -> BoxSpec:
    names = ("box", "box2", "box3")
    stages = tuple(BoxStage(graph=name, coder_weights=w) for name, w in zip(names, weights, strict=False))
    return BOX.replace(stages=stages, class_agnostic=True)


def test_boxes_that_all_classes_share(tmp_path: Path) -> None:
    shared = segmenter(tmp_path, {"box": tiny.box(deltas=4, move=0.5)}, box=BOX.replace(class_agnostic=True))
    each = segmenter(tmp_path, {"box": tiny.box(move=0.5)})
    assert same(shared.predict(noise(3), conf=0.1), each.predict(noise(3), conf=0.1))
    assert len(each.predict(noise(3), conf=0.1)) > 3


def test_a_cascade_of_stages_that_move_nothing_is_its_last_stage(tmp_path: Path) -> None:
    graph = tiny.box(deltas=4)
    three = segmenter(tmp_path, {"box": graph, "box2": graph, "box3": graph}, box=cascade(*[(10, 10, 5, 5)] * 3))
    one = segmenter(tmp_path, {"box": graph}, box=cascade((10, 10, 5, 5)))
    a, b = three.predict(noise(4), conf=0.1), one.predict(noise(4), conf=0.1)
    assert len(a) > 3
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-6)
    assert list(a.speed) == list(b.speed)


def test_a_cascade_equals_the_references_step_by_step(tmp_path: Path) -> None:
    weights = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
    moves = (1.0, -1.5, 2.0)
    names = ("box", "box2", "box3")
    graphs = {name: tiny.box(deltas=4, move=move) for name, move in zip(names, moves, strict=True)}
    model = segmenter(tmp_path, graphs, box=cascade(*weights))
    feeds: list[tuple[str, np.ndarray]] = []
    scores: list[np.ndarray] = []
    run = model._backend.run

    def spy(graph: str, inputs: Any) -> Any:
        outputs = run(graph, inputs)
        if graph in names:
            feeds.append((graph, inputs["rois"].copy()))
            scores.append(outputs[0])
        if graph == "trunk":
            maps.extend(outputs)
        return outputs

    maps: list[np.ndarray] = []
    model._backend.run = spy  # type: ignore[method-assign]
    picture = noise(5)
    found = model.predict(picture, conf=0.1)
    assert [name for name, _ in feeds] == list(names)

    spec, size = model.manifest.proposals, picture.shape[:2]
    boxes, _ = reference.proposals(
        [m[0] for m in maps[4:9]], [m[0] for m in maps[9:14]], [np.float32(a) for a in spec.anchors], list(spec.strides), size,
        pre_nms=spec.pre_nms, post_nms=spec.post_nms, nms_threshold=spec.nms_threshold,
    )  # fmt: skip
    for (_, rois), move, stage in zip(feeds, moves, weights, strict=True):
        pooled = reference.roi_align(maps[:4], [4, 8, 16, 32], np.float32(boxes), np.zeros(len(boxes), np.int32), 7)
        np.testing.assert_allclose(rois, pooled, atol=1e-3)
        sources, deltas = boxes, np.full((len(boxes), 4), move, np.float32)
        boxes = reference.decode_boxes(deltas, sources, size, coder_weights=stage)
    want_boxes, want_scores, want_labels = reference.select_detections(
        np.mean(scores, axis=0), deltas, sources, size,
        coder_weights=weights[2], score_threshold=0.1, nms_threshold=BOX.nms_threshold, max_detections=20,
    )  # fmt: skip
    assert len(found) > 3
    np.testing.assert_allclose(found.boxes, want_boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, want_scores, atol=1e-6)
    np.testing.assert_array_equal(found.labels, want_labels)


def test_boxes_that_a_stage_moves_out_of_the_picture_are_harmless(tmp_path: Path) -> None:
    graphs = {"box": tiny.box(deltas=4, move=1e6), "box2": tiny.box(deltas=4)}
    model = segmenter(tmp_path, graphs, box=cascade((10, 10, 5, 5), (10, 10, 5, 5)))
    assert len(model.predict(noise(5), conf=0.0)) == 0
    graphs["box"] = tiny.box(deltas=4, move=float("nan"))
    model = segmenter(tmp_path, graphs, box=cascade((10, 10, 5, 5), (10, 10, 5, 5)))
    assert len(model.predict(noise(5), conf=0.0)) == 0


@pytest.mark.parametrize("graph", ["box", "box2", "box3"])
def test_a_cascade_lacking_a_graph(graph: str, tmp_path: Path) -> None:
    graphs = tiny.graphs() | dict.fromkeys(("box", "box2", "box3"), tiny.box(deltas=4))
    del graphs[graph]
    with pytest.raises(EngineError, match="needs the graphs trunk, box, box2, box3, mask; got trunk"):
        Engine.write(tmp_path / "x.engine", tiny.manifest(box=cascade(*[(10, 10, 5, 5)] * 3)), graphs)


def test_scored_masks_scale_and_reorder(tmp_path: Path) -> None:
    scored = segmenter(tmp_path, {"mask": tiny.mask(scored=True)}, mask=MASK.replace(scored=True)).predict(noise(3), conf=0.5)
    plain = segmenter(tmp_path).predict(noise(3), conf=0.5)
    assert set(plain.labels) == {0, 1}
    expected = plain.scores * np.where(plain.labels == 0, np.float32(0.9), np.float32(0.5))
    order = np.argsort(-expected, kind="stable")
    assert (np.diff(scored.scores) <= 0).all()
    np.testing.assert_array_equal(scored.scores, expected[order])
    for name in ("boxes", "labels", "mask_logits"):
        np.testing.assert_array_equal(getattr(scored, name), getattr(plain, name)[order])
    assert scored.rle() == [plain.rle()[i] for i in order]


def test_the_threshold_is_for_the_score_of_the_box(tmp_path: Path) -> None:
    """An instance that its mask's score takes below it stays, as in the paper."""
    model = segmenter(tmp_path, {"mask": tiny.mask(scored=True)}, mask=MASK.replace(scored=True))
    found = model.predict(tiny.squares(), conf=0.9)
    assert len(found) == 2
    assert found.labels.tolist() == [0, 1]
    assert found.scores[1] < 0.5 < found.scores[0]
    assert len(model.predict(np.zeros((50, 70, 3), np.uint8))) == 0


def test_an_engine_that_promises_mask_scores_and_has_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="graph 'mask' has no output 'mask_scores'"):
        segmenter(tmp_path, mask=MASK.replace(scored=True))


def with_own_map(channels: int, *, stride: int = 4) -> bytes:
    """The tiny trunk with one more output: `own`, p2's colours and constant channels, or a map that is too small for stride 4."""
    model = onnx.load_from_string(tiny.trunk())
    weights = np.zeros((channels, 4, 1, 1), np.float32)
    weights[:4, :4, 0, 0] = np.eye(4)
    model.graph.initializer.append(numpy_helper.from_array(weights, "widen"))
    model.graph.node.append(helper.make_node("Conv", ["p2", "widen"], ["own"], strides=[stride // 4] * 2))
    model.graph.output.append(tiny.value("own", ["B", channels, "h_own", "w_own"]))
    return model.SerializeToString()


def mask_of(channels: int) -> bytes:
    model = onnx.load_from_string(tiny.mask())
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    wide = np.zeros((2, channels, 1, 1), np.float32)
    wide[:, :4] = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(wide, "weights"))
    return model.SerializeToString()


def test_a_head_may_bring_a_map_with_channels_of_its_own(tmp_path: Path) -> None:
    own = MaskSpec(pools=(PoolSpec(feature="own", stride=4, size=14),), size=(28, 28))
    found = segmenter(tmp_path, {"trunk": with_own_map(11), "mask": mask_of(11)}, mask=own).predict(tiny.squares())
    p2 = MaskSpec(pools=(PoolSpec(level=0, size=14),), size=(28, 28))
    expected: Instances = segmenter(tmp_path, mask=p2).predict(tiny.squares())
    assert len(found) == 2
    assert same(found, expected)


def test_the_box_head_may_pool_a_map_of_its_own_too(tmp_path: Path) -> None:
    named = BOX.replace(pool=PoolSpec(feature="own", stride=4, size=7))
    found = segmenter(tmp_path, {"trunk": with_own_map(4)}, box=named).predict(tiny.squares())
    assert same(found, segmenter(tmp_path, box=BOX.replace(pool=PoolSpec(level=0, size=7))).predict(tiny.squares()))


def test_a_map_of_another_size_than_its_stride_says(tmp_path: Path) -> None:
    own = MaskSpec(pools=(PoolSpec(feature="own", stride=4, size=14),), size=(28, 28))
    model = segmenter(tmp_path, {"trunk": with_own_map(4, stride=8)}, mask=own)
    with pytest.raises(EngineError, match=r"graph 'trunk', output 'own': expected float32 \(1, C, 24, 32\), got float32 \(1, 4, 12, 16\)"):
        model.predict(tiny.squares())


def test_a_map_of_too_many_channels_for_its_head(tmp_path: Path) -> None:
    own = MaskSpec(pools=(PoolSpec(feature="own", stride=4, size=14),), size=(28, 28))
    model = segmenter(tmp_path, {"trunk": with_own_map(11)}, mask=own)
    with pytest.raises(EngineError, match="graph 'mask' failed"):
        model.predict(tiny.squares())

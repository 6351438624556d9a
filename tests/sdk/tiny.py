"""A segmenter small enough to check by hand: it finds red ("warm") and blue ("cold") areas by their colour.

The features are the mean colours of 4 x 4 pixels, boxes are the anchors, a box's class is the colour that fills it, and its mask is where
that colour is bright. So a test knows what must come out, and a swapped channel order, a wrong scale or a shift shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sdk.config import ResizeRule
from sdk.manifest import BoxSpec, InputSpec, Manifest, MaskSpec, PoolSpec, ProposalSpec

OPSET = 18
LEVELS = (2, 3, 4, 5, 6)


def manifest(**changes: Any) -> Manifest:
    """The manifest of the tiny engine, graphs not filled in."""
    anchors = tuple(((-s / 2, -s / 2, s / 2, s / 2),) for s in (48.0, 64.0, 96.0, 128.0, 256.0))
    return Manifest(
        name="tiny",
        method="colour",
        class_names=("warm", "cold"),
        category_ids=(3, 7),
        input=InputSpec(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), resize=ResizeRule(factor=1.0, long=512)),
        proposals=ProposalSpec(strides=(4, 8, 16, 32, 64), anchors=anchors, pre_nms=200, post_nms=100),
        box=BoxSpec(pool=PoolSpec(size=7), score_threshold=0.9, nms_threshold=0.2, max_detections=20),
        mask=MaskSpec(pools=(PoolSpec(size=14),), size=(28, 28)),
        provenance={"created": "2026-11-21T10:00:00Z", "data": [{"name": "none", "licence": "CC0-1.0", "source": "made up"}]},
    ).replace(**changes)


def graphs() -> dict[str, bytes]:
    """The three graphs."""
    return {"trunk": trunk(), "box": box(), "mask": mask()}


# xyxy of what `squares` draws.
RED, BLUE = (16, 20, 48, 52), (72, 40, 104, 72)


def squares(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """An RGB picture: black, with the squares `RED` and `BLUE`. At its default thresholds the engine finds each once."""
    picture = np.zeros((height, width, 3), np.uint8)
    for (x1, y1, x2, y2), channel in ((RED, 0), (BLUE, 2)):
        picture[y1:y2, x1:x2, channel] = 255
    return picture


def trunk(**changes: Any) -> bytes:
    colours = np.zeros((4, 3, 1, 1), np.float32)
    colours[[0, 1, 2], [0, 1, 2]] = 1
    colours[3] = 1 / 3
    objectness = np.array([20, 0, 20, 0], np.float32).reshape(1, 4, 1, 1)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["mean4"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["mean4", "colours"], ["p2"]),
        *(helper.make_node("AveragePool", [f"p{k - 1}"], [f"p{k}"], kernel_shape=[2, 2], strides=[2, 2]) for k in (3, 4, 5)),
        helper.make_node("MaxPool", ["p5"], ["p6"], kernel_shape=[1, 1], strides=[2, 2]),
        *(helper.make_node("Conv", [f"p{k}", "objectness", "minus10"], [f"objectness{k}"]) for k in LEVELS),
        *(helper.make_node("Conv", [f"p{k}", "deltas"], [f"deltas{k}"]) for k in LEVELS),
    ]
    constants = {"colours": colours, "objectness": objectness, "minus10": np.float32([-10]), "deltas": np.zeros((4, 4, 1, 1), np.float32)}
    outputs = [("p", "C"), ("objectness", 1), ("deltas", 4)]
    names = [(f"{name}{k}", channels) for name, channels in outputs for k in (LEVELS[:4] if name == "p" else LEVELS)]
    return serialise(
        "trunk",
        nodes,
        constants,
        [value("image", ["B", 3, "H", "W"])],
        [value(name, ["B", 4 if channels == "C" else channels, f"h_{name}", f"w_{name}"]) for name, channels in names],
        **changes,
    )


def box(classes: int = 2, *, deltas: int | None = None, move: float = 0.0, **changes: Any) -> bytes:
    """`deltas` are the columns of `box_deltas`, all of them `move`."""
    weights = np.zeros((4, classes + 1), np.float32)
    weights[0, :2], weights[2, :2] = (12, -12), (-12, 12)
    bias = np.zeros(classes + 1, np.float32)
    bias[-1] = 1
    nodes = [
        helper.make_node("GlobalAveragePool", ["rois"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["class_logits"]),
        helper.make_node("Softmax", ["class_logits"], ["probabilities"], axis=1),
        helper.make_node("Slice", ["probabilities", "first", "last", "first_axis"], ["scores"]),
        helper.make_node("Gemm", ["flat", "zeros", "moves"], ["box_deltas"]),
    ]
    deltas = 4 * classes if deltas is None else deltas
    constants = {
        "weights": weights,
        "bias": bias,
        "first": np.int64([0]),
        "last": np.int64([classes]),
        "first_axis": np.int64([1]),
        "zeros": np.zeros((4, deltas), np.float32),
        "moves": np.full(deltas, move, np.float32),
    }
    return serialise(
        "box",
        nodes,
        constants,
        [value("rois", ["N", "C", 7, 7])],
        [value("scores", ["N", classes]), value("box_deltas", ["N", deltas])],
        **changes,
    )


def mask(*, scored: bool = False, **changes: Any) -> bytes:
    """`scored` adds the output of Mask Scoring: 0.9 for "warm", 0.5 for "cold"."""
    weights = np.zeros((2, 4, 1, 1), np.float32)
    weights[0, 0] = weights[1, 2] = 20
    nodes = [
        helper.make_node("Conv", ["rois0", "weights", "bias"], ["coarse"]),
        helper.make_node("Resize", ["coarse", "", "scales"], ["fine"], mode="linear"),
        helper.make_node("Unsqueeze", ["labels", "one"], ["index"]),
        helper.make_node("GatherND", ["fine", "index"], ["mask_logits"], batch_dims=1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "weights": weights,
        "bias": np.float32([-10, -10]),
        "scales": np.float32([1, 1, 2, 2]),
        "one": np.int64([1]),
    }
    inputs = [value("rois0", ["N", "C", 14, 14]), value("labels", ["N"], TensorProto.INT64)]
    outputs = [value("mask_logits", ["N", 28, 28])]
    if scored:
        nodes.append(helper.make_node("Gather", ["class_scores", "labels"], ["mask_scores"]))
        constants["class_scores"] = np.float32([0.9, 0.5])
        outputs.append(value("mask_scores", ["N"]))
    return serialise("mask", nodes, constants, inputs, outputs, **changes)


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def serialise(
    name: str,
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    *,
    external: bool = False,
) -> bytes:
    initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    if external:  # a tensor that claims to live in another file
        initializers[0].ClearField("raw_data")
        initializers[0].data_location = TensorProto.EXTERNAL
        initializers[0].external_data.add(key="location", value="elsewhere.bin")
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return model.SerializeToString()

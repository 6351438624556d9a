"""RoIAlign of 1,000 boxes over P2..P5 (256 channels, 800 x 1344 input, 7 x 7 bins, 2 samples) beside ONNX Runtime's.

The peer is ONNX Runtime's RoiAlign operator in its fastest fair form: one operator per level on the boxes of that level (its outputs
are not even put back into order). Ours starts from the same channels-first maps, so the transposition is counted. ONNX Runtime reuses
its output memory through its arena; ours writes to a kept `out`.

    python -m benchmarks.ops_roi_align [--json]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.ops_timing import arguments, measure, report
from sdk.ops import Pyramid
from sdk.ops.reference import roi_level

STRIDES = [4, 8, 16, 32]
PICTURE = (800, 1344)
Boxes = NDArray[np.float32]


def spread_boxes(rng: np.random.Generator, count: int) -> Boxes:
    """Boxes all over the picture, sides 16 to 600 pixels log-uniform: touches as many cells as 1,000 boxes can."""
    side = np.exp(rng.uniform(np.log(16), np.log(600), (count, 1)))
    aspect = np.exp(rng.uniform(-0.7, 0.7, (count, 1)))
    extent = np.concatenate([side * np.sqrt(aspect), side / np.sqrt(aspect)], axis=1)
    centre = rng.uniform(0, 1, (count, 2)) * PICTURE[::-1]
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    return np.clip(boxes, 0, [*PICTURE[::-1], *PICTURE[::-1]]).astype(np.float32)


def crowded_boxes(rng: np.random.Generator, count: int) -> Boxes:
    """Proposals as a network makes them: 25 near-copies of each of 40 objects."""
    objects = spread_boxes(rng, count // 25)
    extent = np.tile(objects[:, 2:] - objects[:, :2], 2)
    jittered = np.repeat(objects, 25, axis=0) + rng.normal(0, 0.1, (count, 4)) * np.repeat(extent, 25, axis=0)
    boxes = np.concatenate([np.minimum(jittered[:, :2], jittered[:, 2:] - 4), jittered[:, 2:]], axis=1)
    return np.clip(boxes, 0, [*PICTURE[::-1], *PICTURE[::-1]]).astype(np.float32)


def onnx_runtime(features: list[Boxes], boxes: Boxes, size: int, threads: int) -> Callable[[], list[Boxes]]:
    """One RoiAlign per level; the boxes are assigned to levels beforehand, for free."""
    inputs, nodes, outputs, feeds = [], [], [], {}
    levels = np.array([roi_level(box, len(STRIDES)) for box in boxes.astype(np.float64)])
    for level, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        names = [f"x{level}", f"rois{level}", f"batch{level}"]
        chosen = boxes[levels == level]
        feeds.update(zip(names, (feature, chosen, np.zeros(len(chosen), np.int64)), strict=True))
        inputs.append(helper.make_tensor_value_info(names[0], TensorProto.FLOAT, feature.shape))
        inputs.append(helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [None, 4]))
        inputs.append(helper.make_tensor_value_info(names[2], TensorProto.INT64, [None]))
        outputs.append(helper.make_tensor_value_info(f"y{level}", TensorProto.FLOAT, None))
        attributes = {"output_height": size, "output_width": size, "sampling_ratio": 2, "spatial_scale": 1 / stride, "mode": "avg"}
        nodes.append(helper.make_node("RoiAlign", names, [f"y{level}"], coordinate_transformation_mode="half_pixel", **attributes))
    model = helper.make_model(helper.make_graph(nodes, "roi_align", inputs, outputs), opset_imports=[helper.make_opsetid("", 16)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def candidates(features: list[Boxes], boxes: Boxes, size: int, threads: int) -> dict[str, Callable[[], object]]:
    peer = onnx_runtime(features, boxes, size, threads)
    pyramid, batch = Pyramid(features, STRIDES), np.zeros(len(boxes), np.int32)
    out = pyramid.roi_align(boxes, batch, size)
    levels = np.array([roi_level(box, len(STRIDES)) for box in boxes.astype(np.float64)])
    for level, want in enumerate(peer()):
        np.testing.assert_allclose(out[levels == level], want, atol=2e-3)  # the peer's sample positions are float32

    def from_maps() -> None:
        pyramid.set(features)
        pyramid.roi_align(boxes, batch, size, out=out)

    def from_maps_new_output() -> None:
        pyramid.set(features)
        pyramid.roi_align(boxes, batch, size)

    return {
        "ONNX Runtime RoiAlign, one per level": peer,
        "Kerf, transposition included": from_maps,
        "Kerf, transposition included, fresh output memory": from_maps_new_output,
        "Kerf, again on the same pyramid": lambda: pyramid.roi_align(boxes, batch, size, out=out),
    }


def main() -> None:
    options = arguments(__doc__)
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((1, 256, PICTURE[0] // s, PICTURE[1] // s), np.float32) for s in STRIDES]
    tables = {}
    cases = [
        ("1,000 boxes all over the picture", spread_boxes(rng, 1000), 7),
        ("1,000 proposals of 40 objects", crowded_boxes(rng, 1000), 7),
    ]
    cases.append(("100 detections", spread_boxes(rng, 100), 14))
    for name, boxes, size in cases:
        calls = candidates(features, boxes, size, options.threads)
        tables[f"{name}, {size} x {size}"] = measure(calls, options.rounds, "ONNX Runtime RoiAlign, one per level")
    report(tables, options.json)


if __name__ == "__main__":
    main()

"""The manifest of an exported detector and the engine file around its graphs."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any

from export.graphs import OPSET, export_graphs, stage_names
from sdk.config import Config
from sdk.engine import Engine
from sdk.manifest import BoxSpec, BoxStage, GraphSpec, InputSpec, Manifest, MaskSpec, ProposalSpec
from sdk.version import __version__
from training.config import ModelConfig
from training.models.detector import Detector
from training.models.rpn import STRIDES, base_anchors

# Score from which an engine reports an instance unless it is told otherwise: what people expect to see. Evaluation passes a lower one.
DEFAULT_CONF = 0.25


def manifest_of(model: Detector, name: str, provenance: dict[str, Any]) -> Manifest:
    """Everything the runtime needs to know about ``model``, graphs still without their checksums."""
    config: ModelConfig = model.config
    side = model.mask_head.mask_size
    return Manifest(
        name=name,
        method=config.head.name,
        class_names=config.class_names,
        category_ids=config.category_ids,
        input=InputSpec(color=config.color, mean=config.mean, std=config.std, resize=config.resize, size_divisor=32),
        proposals=ProposalSpec(
            strides=STRIDES,
            anchors=tuple(
                tuple(_box(row) for row in base_anchors(size, config.rpn.anchor_ratios, config.rpn.round_anchors).tolist())
                for size in config.rpn.anchor_sizes
            ),
            pre_nms=config.rpn.pre_nms_test,
            post_nms=config.rpn.post_nms_test,
            nms_threshold=config.rpn.nms_threshold,
            min_size=config.rpn.min_size,
        ),
        box=BoxSpec(
            pool=model.box_pool(),
            stages=tuple(
                BoxStage(graph=name, coder_weights=head.config.coder_weights)
                for name, head in zip(stage_names(model), model.box_heads, strict=True)
            ),
            class_agnostic=model.box_heads[-1].config.class_agnostic,
            score_threshold=DEFAULT_CONF,
            nms_threshold=config.box.nms_threshold,
            max_detections=config.box.max_detections,
        ),
        mask=MaskSpec(pools=model.mask_head.pools, size=(side, side), scored=model.mask_scoring is not None),
        graphs={name: GraphSpec(file=f"{name}.onnx", opset=OPSET) for name in ("trunk", *stage_names(model), "mask")},
        provenance=provenance,
    )


def _box(values: list[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2


def provenance_of(checkpoint: Path, config: Config, data: list[dict[str, str]], metrics: dict[str, Any]) -> dict[str, Any]:
    """Where an engine comes from: checkpoint hash, training configuration, data with licences, measured metrics."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return {
        "created": now.isoformat().replace("+00:00", "Z"),
        "kerf_version": __version__,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "training": config.to_dict(),
        "data": data,
        "metrics": metrics,
    }


def pack(model: Detector, out: Path, name: str, provenance: dict[str, Any]) -> Manifest:
    """Export ``model`` and write the engine ``out``, not yet verified; returns its manifest."""
    manifest = manifest_of(model, name, provenance)
    Engine.write(out, manifest, export_graphs(model))
    return manifest

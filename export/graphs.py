"""The dense parts of a detector as three pure ONNX graphs (``docs/engine.md``, graph contracts).

The wrappers live here, outside the model, so that no model code knows about tracing.
"""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from sdk.manifest import PoolSpec
from training.models.box_head import BoxHead
from training.models.detector import Detector
from training.models.resnet import FrozenBatchNorm

OPSET = 18
LEVELS = (2, 3, 4, 5, 6)


class Trunk(nn.Module):
    """Picture -> P2..P5, then objectness and deltas of P2..P6, then the maps of its own that the mask head pools."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.backbone, self.fpn, self.head, self.mask_head = model.backbone, model.fpn, model.rpn.head, model.mask_head
        self.maps = own_maps(model)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.fpn(self.backbone(image))
        objectness, deltas = self.head(pyramid)
        maps = self.mask_head.maps(pyramid) if self.maps else {}
        return (*pyramid[:4], *objectness, *deltas, *(maps[name] for name in self.maps))

    def names(self) -> list[str]:
        """Of the outputs."""
        return [*(f"p{i}" for i in LEVELS[:4]), *(f"objectness{i}" for i in LEVELS), *(f"deltas{i}" for i in LEVELS), *self.maps]


class BoxGraph(nn.Module):
    """One stage of the box head: pooled features -> scores (N, K) without background, deltas (N, 4K) or (N, 4)."""

    def __init__(self, head: BoxHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.head(rois)
        return self.head.probabilities(logits), deltas


class MaskGraph(nn.Module):
    """The mask head with one positional input per pool, as a graph needs it: logits, and with Mask Scoring the score of each mask."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.head, self.scoring = model.mask_head, model.mask_scoring

    def forward(self, labels: Tensor, *rois: Tensor) -> tuple[Tensor, ...]:
        output = self.head(list(rois), labels)
        return (output.logits,) if self.scoring is None else (output.logits, self.scoring.quality(output, labels))


def own_maps(model: Detector) -> list[str]:
    """Names of the trunk outputs that the mask head adds: what it pools beside the pyramid."""
    return list(dict.fromkeys(pool.feature for pool in model.mask_head.pools if pool.feature != "pyramid"))


def stage_names(model: Detector) -> list[str]:
    """Names of the box graphs: ``box``, and of a cascade ``box2``, ``box3`` too."""
    return ["box", *(f"box{i}" for i in range(2, len(model.box_heads) + 1))]


def plain_batch_norm(model: nn.Module) -> None:
    """Replace every frozen batch norm by an ordinary one of the same numbers, in place.

    Torch's ONNX exporter folds an ordinary one into the convolution before it. It does so on the finished graph, where it is plain which
    values flow where, and only if nothing else reads what the convolution gives: no pair is guessed from names or positions.
    """
    for name, norm in list(model.named_modules()):
        if isinstance(norm, FrozenBatchNorm):
            plain = nn.BatchNorm2d(len(norm.weight), norm.eps)
            plain.load_state_dict(norm.state_dict())
            model.set_submodule(name, plain.eval())


def export_graphs(model: Detector) -> dict[str, bytes]:
    """Serialised graphs of a model in evaluation mode: ``trunk``, ``box`` (``box2``, ... of a cascade) and ``mask``.

    Picture size (multiples of 32), batch and number of RoIs are dynamic.
    """
    model = copy.deepcopy(model).cpu().eval()
    plain_batch_norm(model)
    channels = map_channels(model)
    batch, rois = torch.export.Dim("batch"), torch.export.Dim("rois")
    height, width = (32 * torch.export.Dim(name, min=1, max=2048) for name in ("cells_y", "cells_x"))

    def pooled(pool: PoolSpec) -> Tensor:
        return torch.zeros(3, channels[pool.feature], pool.size, pool.size)

    trunk = Trunk(model)
    graphs = {"trunk": export_module(trunk, (torch.zeros(2, 3, 96, 128),), ({0: batch, 2: height, 3: width},), ["image"], trunk.names())}
    for name, head in zip(stage_names(model), model.box_heads, strict=True):
        graphs[name] = export_module(BoxGraph(head), (pooled(model.box_pool()),), ({0: rois},), ["rois"], ["scores", "box_deltas"])
    pools = model.mask_head.pools
    graphs["mask"] = export_module(
        MaskGraph(model),
        (torch.zeros(3, dtype=torch.int64), *map(pooled, pools)),
        ({0: rois}, tuple({0: rois} for _ in pools)),
        ["labels", *[f"rois{i}" for i in range(len(pools))]],
        ["mask_logits"] if model.mask_scoring is None else ["mask_logits", "mask_scores"],
    )
    return graphs


@torch.no_grad()
def map_channels(model: Detector) -> dict[str, int]:
    """Channels of every map that a pool may name, the pyramid's under ``pyramid``: the model is run once, on a small picture."""
    pyramid = model.pyramid(torch.zeros(1, 3, 64, 64))
    return {"pyramid": pyramid[0].shape[1], **{name: x.shape[1] for name, x in model.mask_head.maps(pyramid).items()}}


def export_module(module: nn.Module, example: tuple[Tensor, ...], dynamic: tuple[Any, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """One graph, checked, without the exporter's doc strings (they hold paths of this machine)."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=dynamic,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    graph = program.model_proto
    strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


def strip(graph: onnx.ModelProto) -> None:
    """Drop what only debugging needs: stack traces and module paths that the exporter attaches to nodes and values."""
    graph.doc_string = ""
    graph.graph.doc_string = ""
    for item in [*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        item.doc_string = ""
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
    del graph.graph.metadata_props[:]

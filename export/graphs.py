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

from training.models.detector import Detector
from training.models.resnet import FrozenBatchNorm

OPSET = 18
LEVELS = (2, 3, 4, 5, 6)


class Trunk(nn.Module):
    """Picture -> P2..P5, then objectness and deltas of P2..P6."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.backbone, self.fpn, self.head = model.backbone, model.fpn, model.rpn.head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.fpn(self.backbone(image))
        objectness, deltas = self.head(pyramid)
        return (*pyramid[:4], *objectness, *deltas)


class MaskGraph(nn.Module):
    """The mask head with one positional input per pool, as a graph needs it."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.head = model.mask_head

    def forward(self, labels: Tensor, *rois: Tensor) -> Tensor:
        logits: Tensor = self.head(list(rois), labels).logits
        return logits


def fold_batch_norm(model: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place: same function, one operator less per layer."""
    for module in list(model.modules()):
        for convolution, norm in _norm_pairs(module):
            conv, bn = module.get_submodule(convolution), module.get_submodule(norm)
            if not isinstance(bn, nn.BatchNorm2d | FrozenBatchNorm) or not isinstance(conv, nn.Conv2d):
                continue
            if bn.running_mean is None or bn.running_var is None:
                raise ValueError(f"batch norm {norm} keeps no running statistics; it cannot be folded")
            scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
            conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float())
            conv.bias = nn.Parameter((bn.bias.double() - bn.running_mean.double() * scale).float())
            module.set_submodule(norm, nn.Identity())


def _norm_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """(convolution, norm) child names: ``conv1``/``bn1`` of blocks and stem, or ``0``/``1`` of a shortcut."""
    names = [name for name, _ in module.named_children()]
    pairs = [(f"conv{n[2:]}", n) for n in names if n.startswith("bn")]
    if isinstance(module, nn.Sequential) and names[:2] == ["0", "1"]:
        pairs.append(("0", "1"))
    return pairs


def export_graphs(model: Detector) -> dict[str, bytes]:
    """Serialised ``trunk``, ``box`` and ``mask`` graphs of a model in evaluation mode.

    Picture size (multiples of 32), batch and number of RoIs are dynamic.
    """
    model = copy.deepcopy(model).cpu().eval()
    with torch.no_grad():
        fold_batch_norm(model)
    channels = model.config.fpn_channels
    batch, rois = torch.export.Dim("batch"), torch.export.Dim("rois")
    height, width = (32 * torch.export.Dim(name, min=1, max=2048) for name in ("cells_y", "cells_x"))
    trunk = _export(
        Trunk(model),
        (torch.zeros(2, 3, 96, 128),),
        ({0: batch, 2: height, 3: width},),
        ["image"],
        [f"p{i}" for i in LEVELS[:4]] + [f"objectness{i}" for i in LEVELS] + [f"deltas{i}" for i in LEVELS],
    )
    side = model.config.box.pool_size
    box = _export(
        model.box_head,
        (torch.zeros(3, channels, side, side),),
        ({0: rois},),
        ["rois"],
        ["class_logits", "box_deltas"],
    )
    pools = model.mask_head.pools
    inputs = [torch.zeros(3, channels, p.size, p.size) for p in pools]
    mask = _export(
        MaskGraph(model),
        (torch.zeros(3, dtype=torch.int64), *inputs),
        ({0: rois}, tuple({0: rois} for _ in pools)),
        ["labels", *[f"rois{i}" for i in range(len(pools))]],
        ["mask_logits"],
    )
    return {"trunk": trunk, "box": box, "mask": mask}


def _export(module: nn.Module, example: tuple[Tensor, ...], dynamic: tuple[Any, ...], inputs: list[str], outputs: list[str]) -> bytes:
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

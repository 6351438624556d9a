"""What the layouts have in common: the body's shape read off the weights, class names, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.checkpoint import CheckpointError
from training.config import ModelConfig
from training.importing.coco_classes import COCO
from training.importing.source import Source
from training.models.resnet import RESNETS, BasicBlock, BlockStyle, Bottleneck, FrozenBatchNorm, build_resnet


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A model in our names."""

    config: ModelConfig
    weights: dict[str, Tensor]
    notes: tuple[str, ...] = ()  # what whoever asked for the import should know


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a file of weights does not say. None = as the layout's published models."""

    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    color: str | None = None  # "rgb" or "bgr"
    mean: tuple[float, float, float] | None = None  # grey levels 0..255, in that order
    std: tuple[float, float, float] | None = None
    stride_in_1x1: bool | None = None
    bn_eps: float | None = None  # added to the variance of batch norms


def find_body(source: Source, their_name: Callable[[str], str], stride_in_1x1: bool = False) -> tuple[str, int]:
    """Name in ``RESNETS`` and width of a body.

    Args:
        source: the weights.
        their_name: what a layer of ours ("conv1", "layer2.0.bn3") is called there.
        stride_in_1x1: which kind of bottleneck it is: weights do not show that.

    Raises:
        CheckpointError: no ResNet or ResNeXt that we have.
    """
    depths = tuple(_blocks(source, their_name(f"layer{stage}.0.conv1").rpartition("0.conv1")[0]) for stage in (1, 2, 3, 4))
    width = source.peek(f"{their_name('conv1')}.weight").shape[0]
    block, style = BasicBlock, BlockStyle()
    if source.names(their_name("layer1.0.conv3")):
        inner, group_inputs = source.peek(f"{their_name('layer1.0.conv2')}.weight").shape[:2]
        groups = inner // group_inputs
        group_width = 64 if groups == 1 else group_inputs * 64 // width
        block, style = Bottleneck, BlockStyle(groups=groups, group_width=group_width, stride_in_1x1=stride_in_1x1)
    for name, known in RESNETS.items():
        if known == (block, depths, style):
            return name, width
    raise CheckpointError(f"{source.where}: no backbone here has {depths} blocks of {block.__name__} in {style}")


def _blocks(source: Source, prefix: str) -> int:
    """Number of blocks whose names begin with the prefix and a number."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in source.names(prefix)]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


def resnet(source: Source, name: str, width: int, their_name: Callable[[str], str], eps: float) -> dict[str, Tensor]:
    """The weights of the body ``name``, layer by layer as ours has them."""
    weights: dict[str, Tensor] = {}
    with torch.device("meta"):
        body = build_resnet(name, width, "frozen")
    for layer, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            weights[f"backbone.{layer}.weight"] = source.take(f"{their_name(layer)}.weight")
        elif isinstance(module, FrozenBatchNorm):
            weights |= source.norm(their_name(layer), f"backbone.{layer}", eps)
    return weights


def name_classes(
    source: Source, count: int, options: Options, with_gaps: bool = False
) -> tuple[tuple[str, ...], tuple[int, ...], list[str]]:
    """Class names, category ids and notes for ``count`` classes; ``with_gaps``: 90 classes are COCO's category ids 1 to 90."""
    names, ids, notes = options.class_names or source.class_names, options.category_ids, []
    if names and len(names) != count:
        raise CheckpointError(f"{source.where}: the model has {count} classes, {len(names)} names were given")
    if ids and len(ids) != count:
        raise CheckpointError(f"{source.where}: the model has {count} classes, {len(ids)} category ids were given")
    if with_gaps and count == 90:
        ids = ids or tuple(range(1, 91))
        names = names or tuple(dict(COCO).get(i, f"unused {i}") for i in range(1, 91))
    elif count == 80 and (not names or names == tuple(name for _, name in COCO)):
        ids = ids or tuple(i for i, _ in COCO)
        names = names or tuple(name for _, name in COCO)
    if not names:
        names = tuple(f"class {i}" for i in range(count))
        notes.append(f"the file does not name its {count} classes: they are called class 0 to class {count - 1}; --classes FILE names them")
    if not ids:
        ids = tuple(range(1, count + 1))
        notes.append(f"category ids are 1 to {count}; --category-ids gives others")
    return tuple(names), tuple(ids), notes


def box_features(source: Source, name: str, channels: int) -> int:
    """Side of the box head's input, from the weight of its first layer."""
    side = round((source.peek(name).shape[1] / channels) ** 0.5)
    if side * side * channels != source.peek(name).shape[1]:
        raise CheckpointError(f"{source.where}: {name} has {source.peek(name).shape[1]} inputs, which is no square of {channels} channels")
    return side


def predictor(source: Source, name: str, to: str, first: int = 0) -> dict[str, Tensor]:
    """A 1x1 convolution that predicts a map per class, without the classes before ``first``."""
    return {f"{to}.weight": source.take(f"{name}.weight")[first:, :, 0, 0], f"{to}.bias": source.take(f"{name}.bias")[first:]}


def fpn(source: Source, laterals: list[str], outputs: list[str]) -> dict[str, Tensor]:
    """The layers of the pyramid, finest first."""
    weights: dict[str, Tensor] = {}
    for i, (lateral, output) in enumerate(zip(laterals, outputs, strict=True)):
        weights |= source.layer(lateral, f"fpn.lateral.{i}") | source.layer(output, f"fpn.output.{i}")
    return weights

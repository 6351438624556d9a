"""RefineMask's released checkpoints, which follow mmdet 2's names; also mmdet 2's own Mask R-CNN."""

from __future__ import annotations

from torch import Tensor

from sdk.config import ResizeRule
from training.checkpoint import CheckpointError
from training.config import BoxConfig, HeadConfig, ModelConfig, RPNConfig
from training.heads.fcn import FCNConfig
from training.heads.refinemask import RefineMaskConfig
from training.importing.parts import Converted, Options, box_features, find_body, fpn, name_classes, predictor, resnet
from training.importing.source import OUR_EPS, Source

MASK = "roi_head.mask_head"
BOX = "roi_head.bbox_head"


def matches(source: Source) -> bool:
    """Whether the names are mmdet 2's."""
    return "neck.lateral_convs.0.conv.weight" in source and f"{BOX}.fc_cls.weight" in source


def convert(source: Source, options: Options) -> Converted:
    """The model in our names; background is the last class there too.

    Raises:
        CheckpointError: weights that are missing, or that make no such model.
    """
    backbone, width = find_body(source, their_name)
    weights = resnet(source, backbone, width, their_name, OUR_EPS if options.bn_eps is None else options.bn_eps)
    weights |= fpn(source, [f"neck.lateral_convs.{i}.conv" for i in range(4)], [f"neck.fpn_convs.{i}.conv" for i in range(4)])
    for theirs, ours in (("rpn_conv", "conv"), ("rpn_cls", "objectness"), ("rpn_reg", "deltas")):
        weights |= source.layer(f"rpn_head.{theirs}", f"rpn.head.{ours}")
    channels = weights["fpn.output.0.weight"].shape[0]
    side = box_features(source, f"{BOX}.shared_fcs.0.weight", channels)
    for theirs, ours in (("shared_fcs.0", "fc1"), ("shared_fcs.1", "fc2"), ("fc_cls", "classes"), ("fc_reg", "deltas")):
        weights |= source.layer(f"{BOX}.{theirs}", f"box_head.{ours}")
    mask_weights, head = _refinemask(source) if source.names(f"{MASK}.stages.") else _fcn(source)
    weights |= mask_weights
    names, ids, notes = name_classes(source, len(weights["box_head.classes.bias"]) - 1, options)
    config = ModelConfig(
        class_names=names,
        category_ids=ids,
        backbone=backbone,
        width=width,
        fpn_channels=channels,
        color=options.color or "rgb",
        mean=options.mean or (123.675, 116.28, 103.53),
        std=options.std or (58.395, 57.12, 57.375),
        resize=ResizeRule(short=800, long=1333, antialias=False),
        rpn=RPNConfig(),
        box=BoxConfig(pool_size=side, sampling_ratio=0, hidden=len(weights["box_head.fc1.bias"])),
        head=head,
    )
    return Converted(config=config, weights=weights, notes=tuple(notes))


def their_name(layer: str) -> str:
    """What a layer of the body is called there."""
    return f"backbone.{layer}"


def _stack(source: Source, theirs: str, ours: str) -> dict[str, Tensor]:
    """``theirs.0.conv``, ``theirs.1.conv``, ..."""
    weights: dict[str, Tensor] = {}
    while f"{MASK}.{theirs}.{len(weights) // 2}.conv.weight" in source:
        count = len(weights) // 2
        weights |= source.layer(f"{MASK}.{theirs}.{count}.conv", f"mask_head.{ours}.{count}")
    return weights


def _refinemask(source: Source) -> tuple[dict[str, Tensor], HeadConfig]:
    """The names of the release (Zhang et al. 2021)."""
    if f"{MASK}.semantic_logits.weight" not in source:
        raise CheckpointError(f"{source.where}: RefineMask without a semantic map (the release's faster variant) cannot be imported")
    instance, semantic = (_stack(source, f"{kind}_convs", f"{kind}_convs") for kind in ("instance", "semantic"))
    weights, stages = instance | semantic, 0
    while f"{MASK}.stages.{stages}.instance_logits.weight" in source:
        theirs, ours = f"{MASK}.stages.{stages}", f"mask_head.stages.{stages}"
        weights |= predictor(source, f"{theirs}.instance_logits", f"mask_head.predictors.{stages}")
        for a, b in (("semantic_transform_in", "picture_map"), ("semantic_transform_out", "pooled"), ("fuse_conv.0", "fuse")):
            weights |= source.layer(f"{theirs}.{a}", f"{ours}.{b}")
        for branch in range(3):
            weights |= source.layer(f"{theirs}.fuse_conv.1.dilation_conv_{branch + 1}.conv", f"{ours}.branches.{branch}")
        weights |= source.layer(f"{theirs}.fuse_conv.1.merge_conv.conv", f"{ours}.merge")
        weights |= source.layer(f"{theirs}.fuse_transform_out", f"{ours}.reduce")
        stages += 1
    weights |= predictor(source, f"{MASK}.final_instance_logits", f"mask_head.predictors.{stages}")
    weights |= source.layer(f"{MASK}.semantic_logits", "mask_head.semantic_predictor")
    classes = [len(weights[f"mask_head.predictors.{k}.bias"]) for k in range(stages + 1)]
    config = RefineMaskConfig(
        channels=weights["mask_head.stages.0.fuse.bias"].shape[0],
        stages=stages,
        instance_convs=max(len(instance) // 2, 1),
        semantic_convs=max(len(semantic) // 2, 1),
        sampling_ratio=0,
        last_stage_agnostic=classes[-1] == 1 < classes[0],  # LVIS: one class in the last stage
    )
    return weights, config


def _fcn(source: Source) -> tuple[dict[str, Tensor], HeadConfig]:
    weights = _stack(source, "convs", "convs")
    count = len(weights) // 2
    weights |= source.layer(f"{MASK}.upsample", "mask_head.deconv") | predictor(source, f"{MASK}.conv_logits", "mask_head.predictor")
    return weights, FCNConfig(channels=weights["mask_head.deconv.weight"].shape[0], convs=max(count, 1), sampling_ratio=0)

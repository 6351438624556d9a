"""torchvision's Mask R-CNN (``maskrcnn_resnet50_fpn`` and its relatives with another ResNet)."""

from __future__ import annotations

from torch import Tensor

from sdk.config import ResizeRule
from training.config import BoxConfig, ModelConfig, RPNConfig
from training.heads.fcn import FCNConfig
from training.importing.parts import Converted, Options, box_features, find_body, fpn, name_classes, predictor, resnet
from training.importing.source import OUR_EPS, Source

# The published COCO weights were trained without anything added to the variances; torchvision sets that when it loads this very file. Its
# name carries the first eight digits of its SHA-256.
WITHOUT_EPS = ("bf2d0c1e",)
BODY = "backbone.body"


def matches(source: Source) -> bool:
    """Whether the names are torchvision's."""
    return f"{BODY}.conv1.weight" in source and "roi_heads.box_head.fc6.weight" in source


def convert(source: Source, options: Options) -> Converted:
    """The model in our names; background is class 0 there and comes last here.

    Raises:
        CheckpointError: weights that are missing, or that make no such model.
    """
    backbone, width = find_body(source, their_name)
    eps = 0.0 if source.digest.startswith(WITHOUT_EPS) else OUR_EPS
    weights = resnet(source, backbone, width, their_name, eps if options.bn_eps is None else options.bn_eps)
    # Each layer has two names: the first ones are of releases before 0.13, and the published file has those.
    inner, layer = ([_first(source, f"backbone.fpn.{kind}.{i}", ".0") for i in range(4)] for kind in ("inner_blocks", "layer_blocks"))
    weights |= fpn(source, inner, layer)
    weights |= source.layer(_first(source, "rpn.head.conv", ".0.0"), "rpn.head.conv")
    weights |= source.layer("rpn.head.cls_logits", "rpn.head.objectness") | source.layer("rpn.head.bbox_pred", "rpn.head.deltas")
    channels = weights["fpn.output.0.weight"].shape[0]
    side = box_features(source, "roi_heads.box_head.fc6.weight", channels)
    weights |= _box_head(source)
    mask_weights, head = _mask_head(source)
    weights |= mask_weights
    names, ids, notes = name_classes(source, len(weights["box_head.classes.bias"]) - 1, options, with_gaps=True)
    config = ModelConfig(
        class_names=names,
        category_ids=ids,
        backbone=backbone,
        width=width,
        fpn_channels=channels,
        color=options.color or "rgb",
        mean=options.mean or (123.675, 116.28, 103.53),
        std=options.std or (58.395, 57.12, 57.375),
        resize=ResizeRule(short=800, long=1333, antialias=False, rounding="floor"),
        rpn=RPNConfig(post_nms_train=2000, min_size=1e-3, round_anchors=True, even_cells=True),
        box=BoxConfig(pool_size=side, aligned=False, hidden=len(weights["box_head.fc1.bias"])),
        head=head,
    )
    return Converted(config=config, weights=weights, notes=tuple(notes))


def their_name(layer: str) -> str:
    """What a layer of the body is called there."""
    return f"{BODY}.{layer}"


def _first(source: Source, old: str, suffix: str) -> str:
    """The old name of a layer if the file has it, else the new one."""
    return old if f"{old}.weight" in source else old + suffix


def _box_head(source: Source) -> dict[str, Tensor]:
    box = "roi_heads.box_predictor"
    logits = source.layer(f"{box}.cls_score", "box_head.classes")
    deltas = source.layer(f"{box}.bbox_pred", "box_head.deltas")
    return {
        **source.layer("roi_heads.box_head.fc6", "box_head.fc1"),
        **source.layer("roi_heads.box_head.fc7", "box_head.fc2"),
        **{name: value.roll(-1, 0) for name, value in logits.items()},  # background from the first row to the last
        **{name: value[4:] for name, value in deltas.items()},  # the background's box was never used
    }


def _mask_head(source: Source) -> tuple[dict[str, Tensor], FCNConfig]:
    weights: dict[str, Tensor] = {}
    old = "roi_heads.mask_head.mask_fcn1.weight" in source
    count = 0
    while (name := f"roi_heads.mask_head.{f'mask_fcn{count + 1}' if old else f'{count}.0'}") + ".weight" in source:
        weights |= source.layer(name, f"mask_head.convs.{count}")
        count += 1
    weights |= source.layer("roi_heads.mask_predictor.conv5_mask", "mask_head.deconv")
    weights |= predictor(source, "roi_heads.mask_predictor.mask_fcn_logits", "mask_head.predictor", first=1)
    return weights, FCNConfig(channels=weights["mask_head.deconv.weight"].shape[0], convs=max(count, 1), aligned=False)

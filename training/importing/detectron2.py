"""Detectron2's Mask R-CNN with FPN, and BMask R-CNN, which is built on it; with one box stage or a cascade."""

from __future__ import annotations

from torch import Tensor

from sdk.config import ResizeRule
from training.checkpoint import CheckpointError
from training.config import BoxConfig, CascadeConfig, HeadConfig, ModelConfig, RPNConfig
from training.heads.bmask import BMaskConfig
from training.heads.fcn import FCNConfig
from training.importing.parts import Converted, Options, box_features, find_body, fpn, name_classes, predictor, resnet
from training.importing.source import OUR_EPS, Source
from training.models.rpn import base_anchors

BODY = "backbone.bottom_up"
CELLS = "proposal_generator.anchor_generator.cell_anchors"
MASK = "roi_heads.mask_head"


def matches(source: Source) -> bool:
    """Whether the names are Detectron2's."""
    return f"{BODY}.stem.conv1.weight" in source and "proposal_generator.rpn_head.conv.weight" in source


def convert(source: Source, options: Options) -> Converted:
    """The model in our names; background is the last class there too.

    Raises:
        CheckpointError: weights that are missing, or that make no such model.
    """
    stride_in_1x1 = True if options.stride_in_1x1 is None else options.stride_in_1x1
    backbone, width = find_body(source, their_name, stride_in_1x1)
    weights = resnet(source, backbone, width, their_name, OUR_EPS if options.bn_eps is None else options.bn_eps)
    weights |= fpn(source, [f"backbone.fpn_lateral{i}" for i in (2, 3, 4, 5)], [f"backbone.fpn_output{i}" for i in (2, 3, 4, 5)])
    for theirs, ours in (("conv", "conv"), ("objectness_logits", "objectness"), ("anchor_deltas", "deltas")):
        weights |= source.layer(f"proposal_generator.rpn_head.{theirs}", f"rpn.head.{ours}")
    channels = weights["fpn.output.0.weight"].shape[0]
    cascade = "roi_heads.box_head.0.fc1.weight" in source
    stages = len(CascadeConfig().ious) if cascade else 1
    side = box_features(source, f"roi_heads.box_head{'.0' if cascade else ''}.fc1.weight", channels)
    for stage in range(stages):
        at = f".{stage}" if cascade else ""
        weights |= _box_head(source, at, "box_head" if stage == 0 else f"later_box_heads.{stage - 1}")
    mask_weights, head = _bmask(source) if f"{MASK}.downsample.weight" in source else _fcn(source)
    weights |= mask_weights
    names, ids, notes = name_classes(source, len(weights["box_head.classes.bias"]) - 1, options)
    if options.stride_in_1x1 is None and f"{BODY}.res2.0.conv3.weight" in source:
        notes.append("bottlenecks stride in their first 1x1, as in Detectron2's own models; --stride-in 3x3 if this one was made otherwise")
    mean, std = _pixels(source)
    config = ModelConfig(
        class_names=names,
        category_ids=ids,
        backbone=backbone,
        width=width,
        fpn_channels=channels,
        color=options.color or "bgr",
        mean=options.mean or mean or (103.53, 116.28, 123.675),
        std=options.std or std or (1.0, 1.0, 1.0),
        resize=ResizeRule(short=800, long=1333, antialias=True),
        rpn=_anchors(source),
        box=BoxConfig(pool_size=side, sampling_ratio=0, hidden=len(weights["box_head.fc1.bias"]), class_agnostic=cascade),
        head=head,
        cascade=CascadeConfig() if cascade else None,
    )
    return Converted(config=config, weights=weights, notes=tuple(notes))


def their_name(layer: str) -> str:
    """What a layer of the body is called there: ``layer1.0.bn1`` is ``res2.0.conv1.norm``."""
    *stage, last = layer.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm").split(".")
    if last.startswith("bn"):
        last = f"conv{last.removeprefix('bn')}.norm"
    at = [f"res{int(stage[0].removeprefix('layer')) + 1}", *stage[1:]] if stage else ["stem"]
    return ".".join([BODY, *at, last])


def _box_head(source: Source, at: str, to: str) -> dict[str, Tensor]:
    head, box = f"roi_heads.box_head{at}", f"roi_heads.box_predictor{at}"
    weights = source.layer(f"{head}.fc1", f"{to}.fc1") | source.layer(f"{head}.fc2", f"{to}.fc2")
    return weights | source.layer(f"{box}.cls_score", f"{to}.classes") | source.layer(f"{box}.bbox_pred", f"{to}.deltas")


def _convs(source: Source, theirs: str, ours: str) -> dict[str, Tensor]:
    """``mask_fcn1``, ``mask_fcn2``, ... as a stack."""
    weights: dict[str, Tensor] = {}
    while f"{MASK}.{theirs}{len(weights) // 2 + 1}.weight" in source:
        count = len(weights) // 2
        weights |= source.layer(f"{MASK}.{theirs}{count + 1}", f"mask_head.{ours}.{count}")
    return weights


def _fcn(source: Source) -> tuple[dict[str, Tensor], HeadConfig]:
    weights = _convs(source, "mask_fcn", "convs")
    count = len(weights) // 2
    weights |= source.layer(f"{MASK}.deconv", "mask_head.deconv") | predictor(source, f"{MASK}.predictor", "mask_head.predictor")
    return weights, FCNConfig(channels=weights["mask_head.deconv.weight"].shape[0], convs=max(count, 1), sampling_ratio=0)


def _bmask(source: Source) -> tuple[dict[str, Tensor], HeadConfig]:
    """The names of BMask R-CNN's release (Cheng et al. 2020)."""
    mask, boundary = _convs(source, "mask_fcn", "mask_convs"), _convs(source, "boundary_fcn", "boundary_convs")
    weights = mask | boundary
    for theirs, ours in (("downsample", "boundary_input"), ("mask_final_fusion", "mask_fusion")):
        weights |= source.layer(f"{MASK}.{theirs}", f"mask_head.{ours}")
    for both in ("mask_to_boundary", "boundary_to_mask"):
        weights |= source.layer(f"{MASK}.{both}", f"mask_head.{both}")
    for kind in ("mask", "boundary"):
        weights |= source.layer(f"{MASK}.{kind}_deconv", f"mask_head.{kind}_predictor.deconv")
        weights |= predictor(source, f"{MASK}.{kind}_predictor", f"mask_head.{kind}_predictor.predictor")
    width = weights["mask_head.boundary_input.bias"].shape[0]
    config = BMaskConfig(channels=width, convs=max(len(mask) // 2, 1), boundary_convs=max(len(boundary) // 2, 1), sampling_ratio=0)
    return weights, config


def _anchors(source: Source) -> RPNConfig:
    """Detectron2's anchors; older files hold them, and then they are read from there."""
    rows = [source.take(f"{CELLS}.{level}") for level in range(len(source.names(f"{CELLS}.")))]
    if not rows:
        return RPNConfig()
    sides = [row[:, 2:] - row[:, :2] for row in rows]  # A, 2
    sizes = tuple(round(float(side.prod(1)[0].sqrt()), 3) for side in sides)
    ratios = tuple(round(float(r), 3) for r in sides[0][:, 1] / sides[0][:, 0])
    if len(sizes) != 5 or any((base_anchors(s, ratios) - row).abs().max() > 1e-2 for s, row in zip(sizes, rows, strict=True)):
        raise CheckpointError(f"{source.where}: anchors must be of one size for each of P2 to P6, found {[row.tolist() for row in rows]}")
    return RPNConfig(anchor_sizes=sizes, anchor_ratios=ratios)


def _pixels(source: Source) -> tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]:
    """Mean and deviation that older files hold."""
    found = [source.take(name).flatten().tolist() if name in source else None for name in ("pixel_mean", "pixel_std")]
    mean, std = ((v[0], v[1], v[2]) if v else None for v in found)
    return mean, std

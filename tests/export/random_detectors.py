"""Detectors of random weights that find something, small enough to be exported within seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sdk.config import ResizeRule
from training.config import BoxConfig, ModelConfig, RPNConfig
from training.heads import HEADS
from training.heads.layers import ClassSlice
from training.models.detector import Detector


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Blocks of random colours with a little noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 230, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.repeat(np.repeat(blocks, 20, 0), 20, 1)[:height, :width] + rng.integers(0, 25, (height, width, 3), dtype=np.uint8)


def small_config(head: str = "fcn", *, head_options: dict[str, Any] | None = None, **options: Any) -> ModelConfig:
    """ResNet-18 of an eighth of its width under an FPN of 16 channels and a head of 32."""
    settings: dict[str, Any] = {
        "class_names": ("a", "b", "c"),
        "category_ids": (1, 2, 3),
        "backbone": "resnet18",
        "width": 8,
        "norm": "batch",
        "fpn_channels": 16,
        "resize": ResizeRule(factor=1.0, long=512),
        "rpn": RPNConfig(anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0), pre_nms_test=200, post_nms_test=100),
        "box": BoxConfig(hidden=32, max_detections=30),
        "head": HEADS[head].config_type(name=head, channels=32, **(head_options or {})),
    }
    return ModelConfig(**{**settings, **options})


@torch.no_grad()
def random_detector(config: ModelConfig, seed: int = 0) -> Detector:
    """A detector as after training: statistics that keep the signal in range, outputs that tell proposals, classes and pixels apart."""
    torch.manual_seed(seed)
    model = Detector(config)
    small = torch.from_numpy(picture(0, 128, 160)).permute(2, 0, 1)[None].float() / 64 - 2
    _settle_norms(model, small)
    pyramid = model.pyramid(small)
    hidden = torch.relu(model.rpn.head.conv(pyramid[0]))
    for layer, spread in ((model.rpn.head.objectness, 2.0), (model.rpn.head.deltas, 0.5)):
        layer.weight.mul_(spread / layer(hidden).std())
        layer.bias.normal_(0, 0.1)
    corners = torch.rand(100, 2) * 80
    boxes = torch.cat([corners, corners + 10 + torch.rand(100, 2) * 50], 1)
    pooled = model.pool(pyramid, boxes, torch.zeros(100, dtype=torch.int64), model.box_pool())
    for head in model.box_heads:
        logits, deltas = head(pooled)
        head.classes.weight.mul_(2 / (logits - logits.mean(0)).std())
        head.deltas.weight.mul_(1 / deltas.std())
        head.classes.bias.sub_(head(pooled)[0].mean(0))
    _spread_masks(model, pyramid, boxes)
    return model.eval()


def _spread_masks(model: Detector, pyramid: list[torch.Tensor], boxes: torch.Tensor) -> None:
    """Logits on both sides of zero, and scores of masks that differ."""
    batch, labels = torch.zeros(100, dtype=torch.int64), torch.arange(100) % 3
    inputs = model.mask_inputs(pyramid, model.mask_head.maps(pyramid), boxes, batch)
    slices = [layer for layer in model.mask_head.modules() if isinstance(layer, ClassSlice)]
    spread = model.mask_head(inputs, labels).logits.std()
    for layer in slices:
        layer.weight.mul_(2 / spread)
        layer.bias.normal_(0, 0.5)
    if model.mask_scoring is not None:
        iou = model.mask_scoring(model.mask_head(inputs, labels), labels)
        model.mask_scoring.iou.weight.mul_(0.15 / iou.std())
        model.mask_scoring.iou.bias.fill_(0.6)


def _settle_norms(model: nn.Module, image: torch.Tensor) -> None:
    """Batch norms take the statistics of a picture, and affines that are not one and zero."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(0, 0.2)
    model.train()
    model.pyramid(image)
    model.eval()

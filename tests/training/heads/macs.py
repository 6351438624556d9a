"""Parameters and multiply-accumulates of heads, counted on shapes alone: nothing is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.config import HeadConfig
from training.heads import HEADS, MaskHead
from training.heads.layers import ClassSlice


def meta_head(config: HeadConfig, channels: int = 256, classes: int = 80) -> MaskHead:
    """A head without memory."""
    with torch.device("meta"):
        return HEADS[config.name](config, channels, classes)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count(module: nn.Module, *inputs: Any, all_classes: bool = True, method: str = "forward") -> dict[str, int]:
    """Multiply-accumulates of every convolution and predictor by name, for one call of ``method``.

    ``all_classes`` counts a predictor as if it made the maps of all classes, as the papers' code does and ours need not.
    """
    found: dict[str, int] = {}

    def note(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        if isinstance(layer, ClassSlice):
            found[name] = y.numel() * layer.weight.shape[1] * (layer.weight.shape[0] if all_classes else 1)
        elif isinstance(layer, nn.ConvTranspose2d):
            found[name] = x.numel() * layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
        elif isinstance(layer, nn.Conv2d):
            found[name] = y.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    handles = [
        layer.register_forward_hook(lambda layer, args, y, name=name: note(name, layer, args[0], y))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | ClassSlice)
    ]
    with torch.no_grad():
        getattr(module, method)(*inputs)
    for handle in handles:
        handle.remove()
    return found


def per_roi(head: MaskHead, channels: int = 256, **options: bool) -> dict[str, int]:
    """Multiply-accumulates of one RoI at inference, by layer."""
    maps = head.maps([torch.empty((1, channels, 8, 8), device="meta")])
    inputs = [
        torch.empty((1, channels if p.feature == "pyramid" else maps[p.feature].shape[1], p.size, p.size), device="meta")
        for p in head.pools
    ]
    return count(head, inputs, torch.zeros(1, dtype=torch.int64, device="meta"), **options)


def giga(layers: dict[str, int], *, without: tuple[str, ...] = ()) -> float:
    """Sum in units of 1e9, without the layers whose name holds one of ``without``."""
    return sum(n for name, n in layers.items() if not any(part in name for part in without)) / 1e9

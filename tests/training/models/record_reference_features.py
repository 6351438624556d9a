"""Records what torchvision's and timm's backbones compute, for ``test_backbones.py``.

    python -m tests.training.models.record_reference_features

Needs torchvision and timm, which the tests do not: they compare with the recorded ``reference_features.json``. Weights are filled from the
parameters' names, so that both sides have the same ones without any file of weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name("reference_features.json")
BACKBONES = (
    *("resnet18", "resnet50", "resnet101", "resnext101_32x8d", "resnext101_64x4d"),
    *("swin_t", "swin_b", "hrnet_w18_small_v2", "hrnet_w32"),
)
SIZE = (64, 96)
COUNTER = ".num_batches_tracked"


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Weights of a sensible scale that depend on nothing but their names."""
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            filled = rng.uniform(0.5, 1.0, value.shape)
        elif value.ndim == 1:
            filled = rng.normal(0, 0.1, value.shape)
        else:
            filled = rng.normal(0, 1 / math.sqrt(value[0].numel()), value.shape)
        value.copy_(torch.from_numpy(filled.astype(np.float32)))


def picture() -> Tensor:
    """(1, 3, H, W)."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32))


def layout_digest(state: Mapping[str, Tensor], without: tuple[str, ...]) -> str:
    """SHA-256 of all names and shapes of a state, less the layers that begin with one of ``without``."""
    rows = [f"{n} {tuple(v.shape)}" for n, v in sorted(state.items()) if not n.startswith(without) and not n.endswith(COUNTER)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def summary(levels: list[Tensor]) -> list[dict[str, object]]:
    """Per level its shape, its largest magnitude and sixteen of its values."""
    rows: list[dict[str, object]] = []
    for level in levels:
        flat = level.flatten()
        chosen = torch.linspace(0, len(flat) - 1, 16, dtype=torch.float64).long()
        rows.append({"shape": list(level.shape), "largest": float(flat.abs().max()), "values": [float(v) for v in flat[chosen]]})
    return rows


def _reference_levels(name: str, model: nn.Module, x: Tensor) -> list[Tensor]:
    if name.startswith("hrnet"):
        x = model.act1(model.bn1(model.conv1(x)))
        return list(model.stages(model.act2(model.bn2(model.conv2(x)))))
    levels = []
    if name.startswith("swin"):
        for index, layer in enumerate(model.features):
            x = layer(x)
            if index in (1, 3, 5):  # a detector's own output norms start as the identity affine
                levels.append(nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
        return [*levels, model.norm(x).permute(0, 3, 1, 2)]
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        levels.append(x)
    return levels


def main() -> None:
    """Write ``reference_features.json``."""
    import timm
    import torchvision

    recorded = {}
    for name in BACKBONES:
        is_timms = name.startswith("hrnet")
        model = timm.create_model(name, pretrained=False) if is_timms else getattr(torchvision.models, name)(weights=None)
        fill(model.eval())
        classifier = ("fc.", "head.", "incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
        with torch.no_grad():
            levels = summary(_reference_levels(name, model, picture()))
        recorded[name] = {"layout": layout_digest(model.state_dict(), classifier), "levels": levels}
    content = {"torchvision": torchvision.__version__, "timm": timm.__version__, "backbones": recorded}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

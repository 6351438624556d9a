"""A refinement network as an engine: its one graph, its manifest, and the check against PyTorch."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.graphs import OPSET, export_module, plain_batch_norm
from export.verify import TOLERANCE
from sdk.backends import open_backend
from sdk.engine import Engine
from sdk.manifest import GraphSpec, PatchSpec, RefinerManifest
from training.refiner.model import Refiner

# What `quality` chooses: NMS thresholds are those of the paper's table 9 (patches per picture 103, 135 and 332 there).
NMS_THRESHOLDS = {"fast": 0.15, "balanced": 0.25, "best": 0.55}


class RefinerGraph(nn.Module):
    """Patches (N, C, H, W) -> logits (N, H, W)."""

    def __init__(self, model: Refiner) -> None:
        super().__init__()
        self.net = model.net

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.net(patches)
        return logits.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class RefinerAgreement:
    """Greatest difference over all patches."""

    patches: int
    logits: float

    @property
    def ok(self) -> bool:
        return self.logits <= TOLERANCE

    @property
    def compared(self) -> str:
        """What was compared, for people."""
        return f"{self.patches} patches"

    @property
    def problem(self) -> str:
        """Why it is not ok."""
        return f"differs from PyTorch by more than {TOLERANCE}"

    def to_dict(self) -> dict[str, Any]:
        return {"against": "torch", "tolerance": TOLERANCE, **asdict(self)}


def export_refiner(model: Refiner) -> dict[str, bytes]:
    """The serialised graph ``refiner`` of a network in evaluation mode; number and size of the patches are dynamic."""
    model = copy.deepcopy(model).cpu().eval()
    plain_batch_norm(model)
    step = model.config.size_divisor
    height, width = (step * torch.export.Dim(name, min=1, max=1024 // step) for name in ("cells_y", "cells_x"))
    example = torch.zeros(3, 3 + model.config.mask_channel, 2 * step, 3 * step)
    shapes = ({0: torch.export.Dim("patches"), 2: height, 3: width},)
    return {"refiner": export_module(RefinerGraph(model), (example,), shapes, ["patches"], ["logits"])}


def refiner_manifest(model: Refiner, name: str, provenance: dict[str, Any]) -> RefinerManifest:
    """Everything the runtime needs to know about ``model``, the graph still without its checksum."""
    config = model.config
    return RefinerManifest(
        name=name,
        method=f"bpr, {config.network}",
        color=config.color,
        mean=config.mean,
        std=config.std,
        mask_channel=config.mask_channel,
        size_divisor=config.size_divisor,
        qualities={
            quality: PatchSpec(size=config.patch, padding=config.pad, input_size=config.input, nms_threshold=threshold)
            for quality, threshold in NMS_THRESHOLDS.items()
        },
        graphs={"refiner": GraphSpec(file="refiner.onnx", opset=OPSET)},
        provenance=provenance,
    )


@torch.no_grad()
def compare_refiner(model: Refiner, engine: Path) -> RefinerAgreement:
    """Run both over patches of smooth noise, one and several at a time, of the size it was trained for and of others."""
    config, backend = model.config, open_backend(Engine.open(engine, RefinerManifest), "cpu", None)
    step, generator = config.size_divisor, torch.Generator().manual_seed(0)
    count, worst = 0, torch.zeros(())
    for number, (height, width) in ((1, (config.input, config.input)), (5, (config.input, config.input)), (2, (step, 3 * step))):
        coarse = torch.randn(number, 3 + config.mask_channel, height // 8 + 2, width // 8 + 2, generator=generator)
        patches = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        patches[:, 3:] = patches[:, 3:].sign()
        expected = RefinerGraph(model.eval())(patches)
        found = backend.run("refiner", {"patches": np.ascontiguousarray(patches.numpy())})[0]
        count, worst = count + number, torch.maximum(worst, (expected - torch.from_numpy(found)).abs().max())  # keeps NaN
    return RefinerAgreement(patches=count, logits=float(worst))

"""Checkpoints: written atomically, rebuilding the model without any other file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig
from training.models.detector import Detector

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` always holds a whole checkpoint, the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save({"format": FORMAT, **content}, temporary)
    os.replace(temporary, path)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, never code."""
    content: dict[str, Any] = torch.load(Path(path), map_location="cpu", weights_only=True)
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: checkpoint format {content.get('format')}, this version reads {FORMAT}")
    return content


def load_model(path: str | Path) -> tuple[Detector, TrainConfig]:
    """The trained model (its averaged weights where training kept them) in evaluation mode, and its training config."""
    content = load(path)
    config = TrainConfig.from_dict(content["config"])
    model = Detector(config.model)
    model.load_state_dict(content["ema"] or content["model"])
    return model.eval(), config

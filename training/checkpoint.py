"""Checkpoints: written atomically, rebuilding the model without any other file."""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path
from typing import Any, TypeVar

import torch

from training.config import ModelConfig, TrainConfig
from training.models.detector import Detector

FORMAT = 1
T = TypeVar("T")


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """A (nested) config dataclass from plain values; lists become tuples again, unknown keys are an error."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}; it has {', '.join(sorted(hints))}")
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, dict):
            value = from_dict(typing.cast(type, hints[name]), value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return kind(**made)


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
    config = from_dict(TrainConfig, content["config"])
    model = Detector(typing.cast(ModelConfig, config.model))
    model.load_state_dict(content["ema"] or content["model"])
    return model.eval(), config

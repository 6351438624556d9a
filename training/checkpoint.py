"""Checkpoints: written atomically, rebuilding the model without any other file.

``python -m training.checkpoint RUN.pt WEIGHTS.pt`` keeps the trained weights alone (averaged where there are such): a quarter of the size,
and what ``kerf export`` and fine-tuning need.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from sdk.errors import KerfError
from training.config import TrainConfig
from training.models.detector import Detector

FORMAT = 1


class CheckpointError(KerfError, ValueError):
    """A file is no checkpoint, or one of another version."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` always holds a whole checkpoint, the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    torch.save({"format": FORMAT, **content}, temporary)
    os.replace(temporary, path)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, never code."""
    try:
        content: dict[str, Any] = torch.load(Path(path), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a checkpoint that can be read ({str(error)[:200]})"
        raise CheckpointError(f"{path}: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: checkpoint format {found}, this version reads {FORMAT}")
    return content


def load_model(path: str | Path) -> tuple[Detector, TrainConfig]:
    """The trained model (its averaged weights where training kept them) in evaluation mode, and its training config."""
    content = load(path)
    try:
        config = TrainConfig.from_dict(content["config"])
        model = Detector(config.model)
        model.load_state_dict(content["ema"] or content["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:  # RuntimeError: missing, left-over or misshapen weights, all named
        raise CheckpointError(f"{path}: its weights and its configuration do not fit this version: {error}") from error
    return model.eval(), config


def slim(source: str | Path, target: Path) -> None:
    """Write the weights of ``source`` without the state that only resuming needs."""
    content = load(source)
    weights = content["ema"] or content["model"]
    save(target, {"config": content["config"], "iteration": content["iteration"], "model": weights, "ema": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m training.checkpoint RUN.pt WEIGHTS.pt")
    slim(sys.argv[1], Path(sys.argv[2]))

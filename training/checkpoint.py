"""Checkpoints: written atomically, rebuilding the model without any other file.

``python -m training.checkpoint RUN.pt WEIGHTS.pt`` keeps the trained weights alone (averaged where there are such): a quarter of the size,
and what ``kerf export`` and fine-tuning need.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator
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


def kind_of(content: dict[str, Any]) -> str:
    """What a checkpoint's model is: "segmenter" or "refiner"."""
    return str(content.get("kind", "segmenter"))  # checkpoints of version 0.1 say nothing and are segmenters


def of_kind(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint of this kind.

    Raises:
        CheckpointError: no checkpoint, or one of another kind.
    """
    content = load(path)
    if kind_of(content) != kind:
        raise CheckpointError(f"{path}: the checkpoint of a {kind_of(content)}, a {kind} is needed here")
    return content


@contextlib.contextmanager
def fitting(path: str | Path) -> Iterator[None]:
    """Turns what is raised when a checkpoint's content does not fit this version into a `CheckpointError` that names ``path``."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ) as error:  # RuntimeError: missing, left-over or misshapen weights
        raise CheckpointError(f"{path}: its weights and its configuration do not fit this version: {error}") from error


def training_only(model: Detector) -> tuple[str, ...]:
    """Beginnings of the names of the parameters and buffers that inference does not need."""
    return tuple(f"mask_head.{prefix}" for prefix in model.mask_head.training_only)


def load_model(path: str | Path) -> tuple[Detector, TrainConfig]:
    """The trained model (its averaged weights where training kept them) in evaluation mode, and its training config.

    What only training needs may be missing; it then has the values of a fresh model.

    Raises:
        CheckpointError: no checkpoint, or weights that are missing, left over or misshapen; they are named.
    """
    content = of_kind(path, "segmenter")
    with fitting(path):
        config = TrainConfig.from_dict(content["config"])
        model = Detector(config.model)
        weights = {**content["model"], **(content["ema"] or {})}
        spare = {k: v for k, v in model.state_dict().items() if k.startswith(training_only(model))}
        model.load_state_dict({**spare, **weights})
    return model.eval(), config


def slim(source: str | Path, target: Path) -> None:
    """Write the weights of ``source`` without the state that only training needs."""
    content = load(source)
    kind = kind_of(content)
    if kind == "refiner":
        from training.refiner.trainer import load_refiner

        weights = load_refiner(source)[0].state_dict()
    else:
        model, _ = load_model(source)
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith(training_only(model))}
    save(target, {"kind": kind, "config": content["config"], "iteration": content["iteration"], "model": weights, "ema": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m training.checkpoint RUN.pt WEIGHTS.pt")
    slim(sys.argv[1], Path(sys.argv[2]))

"""Weights to begin with: those of another checkpoint as far as they fit, or a public ImageNet body."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.checkpoint import CheckpointError
from training.models.backbones import load_imagenet
from training.models.detector import Detector


def load_matching(model: Detector, path: str | Path) -> list[str]:
    """Load the weights of a checkpoint that have the name and the shape of ours (its averaged ones where there are such).

    Returns:
        What was not taken from the file, and what of the file was not used, one name a line.

    Raises:
        CheckpointError: no checkpoint, or nothing in it matches.
    """
    content = checkpoint.load(path)
    with checkpoint.fitting(path):
        theirs: dict[str, Tensor] = {**content["model"], **(content["ema"] or {})}
    ours = model.state_dict()
    matching = {k: v for k, v in theirs.items() if k in ours and ours[k].shape == v.shape}
    if not matching:
        raise CheckpointError(f"{path}: none of its {len(theirs)} weights has the name and the shape of one of the model's {len(ours)}")
    model.load_state_dict(matching, strict=False)
    notes = [f"not in the file: {k} {list(v.shape)}" for k, v in ours.items() if k not in theirs]
    shapes = [(k, v.shape, theirs[k].shape) for k, v in ours.items() if k in theirs and k not in matching]
    notes += [f"of another shape: {k} {list(mine)}, in the file {list(other)}" for k, mine, other in shapes]
    return notes + [f"not in the model: {k}" for k in theirs if k not in ours]


def load_backbone(model: Detector, path: str | Path) -> None:
    """Load the state dict of an image classifier into the backbone; everything but the classifier's own layers must fit.

    Raises:
        CheckpointError: no state dict that can be read.
        ConfigError: one of another network; missing, left-over and misshapen weights are named.
    """
    load_imagenet(model.backbone, read_state_dict(path))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Weights by name from a file that others published.

    Raises:
        CheckpointError: no state dict that can be read.
    """
    try:
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a file of weights that can be read ({str(error)[:200]})") from error
    for key in ("state_dict", "model"):  # some publishers wrap it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: expected a dictionary of weights by name, got {type(content).__name__}")
    return content

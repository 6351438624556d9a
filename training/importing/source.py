"""The weights of a file of another project, each taken once by its name there."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import CheckpointError
from training.importing.pickled import read_pickle

WRAPPERS = ("model", "state_dict")  # where training programmes keep the weights beside their own state
OUR_EPS = 1e-5  # of the batch norms that the weights go into


class Source:
    """Weights by name, and which of them were taken.

    Attributes:
        where: what messages call the file.
        digest: SHA-256 of the file, hexadecimal; empty for weights that come from none.
        class_names: what the file says of its classes, if anything.
    """

    def __init__(self, weights: Mapping[str, Tensor], where: str, digest: str = "", class_names: tuple[str, ...] = ()) -> None:
        self.where, self.digest, self.class_names = where, digest, class_names
        self._weights = dict(weights)
        self._left = dict(weights)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def names(self, prefix: str = "") -> list[str]:
        """All names that begin so, taken or not."""
        return [name for name in self._weights if name.startswith(prefix)]

    def peek(self, name: str) -> Tensor:
        """A weight, without taking it.

        Raises:
            CheckpointError: there is none of that name.
        """
        if name not in self._weights:
            raise CheckpointError(f"{self.where}: {name} is missing; it has {_some(self._weights)}")
        return self._weights[name]

    def take(self, name: str) -> Tensor:
        """A weight, which then is no left-over.

        Raises:
            CheckpointError: there is none of that name.
        """
        value = self.peek(name)
        self._left.pop(name, None)
        return value.float() if value.is_floating_point() else value

    def take_first(self, *names: str) -> Tensor:
        """The weight that has one of these names."""
        return self.take(next((name for name in names if name in self._weights), names[0]))

    def drop(self, name: str) -> None:
        """Count a weight as taken although nothing needs it; there may be none of that name."""
        self._left.pop(name, None)

    def left_over(self) -> list[str]:
        """Names that were not taken."""
        return list(self._left)

    def check_empty(self) -> None:
        """Raises `CheckpointError` naming what was not taken."""
        if self._left:
            raise CheckpointError(f"{self.where}: {len(self._left)} weights have no place in the imported model: {_some(self._left)}")

    def layer(self, name: str, to: str) -> dict[str, Tensor]:
        """Weight and bias of a layer under its name ``to`` in our model."""
        return {f"{to}.{part}": self.take(f"{name}.{part}") for part in ("weight", "bias")}

    def norm(self, name: str, to: str, eps: float = OUR_EPS) -> dict[str, Tensor]:
        """A batch norm; ``eps`` is what was added to its variance when it was trained."""
        parts = {part: self.take(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")}
        self.drop(f"{name}.num_batches_tracked")
        if eps != OUR_EPS:
            variance = parts["running_var"].double()
            parts["weight"] = (parts["weight"].double() * ((variance + OUR_EPS) / (variance + eps)).sqrt()).float()
        return {**{f"{to}.{part}": value for part, value in parts.items()}, f"{to}.num_batches_tracked": torch.tensor(0)}


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "nothing"


def read_source(path: Path) -> Source:
    """The weights of a ``.pkl``, ``.pth`` or ``.pt`` file; nothing that the file says is executed.

    Raises:
        CheckpointError: it cannot be read, or does not hold weights by name.
    """
    content = read_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    weights, class_names = content, ()
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            weights, class_names = content[key], _class_names(content)
            break
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: expected weights by name, found {type(weights).__name__}")
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor | np.ndarray | np.generic | int | float):
            raise CheckpointError(f"{path}: expected weights by name, found {name!r:.80} with {type(value).__name__}")
        tensors[name] = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    return Source(tensors, str(path), hashlib.sha256(path.read_bytes()).hexdigest(), class_names)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (  # text and other files fail in any of these ways
        *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError),
        *(TypeError, AttributeError, IndexError, KeyError, MemoryError, OverflowError),
    ) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a file of weights that can be read ({str(error)[:300]})"
        raise CheckpointError(f"{path}: {reason}") from error


def _class_names(content: dict[str, Any]) -> tuple[str, ...]:
    """The class names that mmdet writes beside the weights."""
    meta = content.get("meta")
    names = meta.get("CLASSES") if isinstance(meta, dict) else None
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

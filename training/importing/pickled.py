"""Reading of ``.pkl`` files of weights without running what they say.

A pickle is a program: it names functions and the reader calls them. This reader knows few names, and each stands for code of its own:
NumPy's arrays, data types and scalars are rebuilt from their raw bytes, everything else is refused.
"""

from __future__ import annotations

import collections
import math
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from training.checkpoint import CheckpointError

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
_PLAIN = "fiub"  # kinds of plain numbers


class _DType:
    """A data type: one of plain numbers, of either byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.value = np.dtype(code) if isinstance(code, str) and len(code) <= 3 and code[-1:].isdigit() else None
        if self.value is None or self.value.kind not in _PLAIN:
            raise pickle.UnpicklingError(f"arrays of type {code!r} are not weights")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">") and self.value is not None:
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """An array whose content follows."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, columns_first, raw = state
        if isinstance(raw, str):  # Python 2 wrote bytes as text
            raw = raw.encode("latin1")
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes) or len(raw) != math.prod(shape) * dtype.value.itemsize:
            raise pickle.UnpicklingError(f"an array of shape {shape} with content that does not fit it")
        flat = np.frombuffer(raw, dtype.value)
        self.value = flat.reshape(tuple(shape), order="F" if columns_first else "C").astype(dtype.value.newbyteorder("="))


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _DType, raw: bytes | str) -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype.value, 1)[0]


def _encode(text: str, encoding: str = "") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _empty_array(*_: object) -> NoReturn:
    raise pickle.UnpicklingError("numpy.ndarray is called directly")


_KNOWN: dict[tuple[str, str], Any] = {
    **{(module, name): value for module in _MODULES for name, value in (("_reconstruct", _reconstruct), ("scalar", _scalar))},
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _empty_array,  # only ever an argument of _reconstruct
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and a file of weights needs no such code")
        return _KNOWN[module, name]

    def persistent_load(self, identifier: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to data outside the file")


def _plain(value: Any) -> Any:
    """The same containers with arrays in place of what was read."""
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value


def read_pickle(path: Path) -> Any:
    """What the file holds: plain containers, text, numbers and arrays.

    Raises:
        CheckpointError: it cannot be read, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file, encoding="latin1").load())
    except (
        *(pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError),
        *(AttributeError, IndexError, KeyError, MemoryError, RecursionError, OverflowError),
    ) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"not a pickle of weights ({str(error)[:200]})"
        raise CheckpointError(f"{path}: {reason}") from error

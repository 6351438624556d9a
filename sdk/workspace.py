"""Buffers that predictions reuse: fresh ones cost more than the arithmetic that fills them (a page fault is about 2 us)."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops


class Workspace:
    """The buffers of one prediction at a time. They grow to the largest use and stay."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}
        self._pyramids: dict[str, ops.Pyramid] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
        """Returns an uninitialised C-contiguous array; it is valid until the same name is asked for again."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)

    def pyramid(self, name: str, features: Sequence[NDArray[np.float32]], strides: Sequence[int]) -> ops.Pyramid:
        """Returns the channels-last copy of feature maps; `name` always has the same strides."""
        pyramid = self._pyramids.get(name)
        if pyramid is None:
            pyramid = self._pyramids[name] = ops.Pyramid(list(features), list(strides))
        else:
            pyramid.set(list(features))
        return pyramid

    def release(self) -> None:
        """Lets go of what belongs to the last picture, above all the trunk's outputs: the runtime can use their memory for the next one."""
        for pyramid in self._pyramids.values():
            pyramid.clear()


class WorkspacePool:
    """As many workspaces as predictions ever ran at once; safe to use from many threads."""

    def __init__(self) -> None:
        self._free: list[Workspace] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Workspace]:
        """Lends a workspace for the time of the block."""
        with self._lock:
            workspace = self._free.pop() if self._free else Workspace()
        try:
            yield workspace
        finally:
            workspace.release()
            with self._lock:
                self._free.append(workspace)

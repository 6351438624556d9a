"""Runtimes. A backend is one file here and one row in `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable

from sdk.backends.base import Backend
from sdk.engine import Engine
from sdk.errors import BackendError
from sdk.manifest import EngineManifest

OpenBackend = Callable[[Engine[EngineManifest], str, int | None], Backend]  # engine, device, threads


def _onnxruntime(engine: Engine[EngineManifest], device: str, threads: int | None) -> Backend:
    from sdk.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(engine, device, threads)


BACKENDS: dict[str, OpenBackend] = {"onnxruntime": _onnxruntime}


def open_backend(engine: Engine[EngineManifest], device: str, threads: int | None) -> Backend:
    """Opens the first backend that the engine names and that is known here.

    Raises:
        BackendError: no such backend, it is not installed, or the device is not there.
    """
    wanted = engine.manifest.runtime.backends
    for name in wanted:
        if name in BACKENDS:
            return BACKENDS[name](engine, device, threads)
    raise BackendError(f"{engine.path}: made for {', '.join(wanted)}; this version of Kerf has {', '.join(BACKENDS)}: upgrade Kerf")

"""ONNX Runtime: one session a graph, on the CPU or a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from sdk.backends.base import GraphContract, Tensor, graph_contracts
from sdk.engine import Engine
from sdk.errors import BackendError, EngineError, InputError
from sdk.manifest import EngineManifest

_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class OnnxRuntimeBackend:
    """Sessions for all graphs of an engine.

    Args:
        engine: an open engine.
        device: "auto", "cpu" or "cuda:N".
        threads: threads that one operator may use; None = every core this process may use.

    Raises:
        BackendError: ONNX Runtime or the device is not there; the message says what to install.
        InputError: `device` is none of these.
        EngineError: a graph cannot be loaded or is not what the manifest says; the graph is named.
    """

    name = "onnxruntime"

    def __init__(self, engine: Engine[EngineManifest], device: str, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(f"this engine needs ONNX Runtime ({error}); pip install onnxruntime") from error
        self.device, self.reason = _choose_device(device, onnxruntime.get_available_providers())
        self.threads = threads or usable_cores()
        self._errors = _errors(onnxruntime)
        self._path = engine.path
        self._outputs: dict[str, list[str]] = {}
        self._sessions: dict[str, Any] = {}
        for graph, contract in graph_contracts(engine.manifest).items():
            session = self._open(onnxruntime, engine, graph)
            _check(engine, graph, contract, session)
            self._sessions[graph] = session
            self._outputs[graph] = [tensor.name for tensor in contract.outputs]

    def run(self, graph: str, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs a graph; see `sdk.backends.base.Backend`."""
        try:
            outputs: list[NDArray[Any]] = self._sessions[graph].run(self._outputs[graph], feeds)
        except self._errors as error:
            raise EngineError(f"{self._path}: graph {graph!r} failed: {error}; export the engine again") from error
        return outputs

    def _open(self, onnxruntime: Any, engine: Engine[EngineManifest], graph: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3  # errors; they come as exceptions too
        # By default the threads of a session go on spinning when it has nothing to do, and take the cores from whatever runs next: the
        # native steps, the other two sessions, other processes. Waking them costs microseconds, a network takes milliseconds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.device != "cpu":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(self.device.partition(":")[2])}))
        try:
            return onnxruntime.InferenceSession(engine.graph(graph), options, providers=providers)
        except _errors(onnxruntime) as error:
            raise EngineError(f"{engine.path}: ONNX Runtime cannot load graph {graph!r}: {error}; export the engine again") from error


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a container or under `taskset`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions share no base but Exception; these are the ones that opening a model raises."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException", "EPFail")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _choose_device(device: str, providers: list[str]) -> tuple[str, str]:
    """Returns the device and the reason for it."""
    if not isinstance(device, str):
        raise InputError(f"device must be 'auto', 'cpu' or 'cuda:N', got {device!r}")
    has_cuda = "CUDAExecutionProvider" in providers
    if device == "auto":
        if has_cuda:
            return "cuda:0", "auto: ONNX Runtime has its CUDA provider"
        return "cpu", "auto: this ONNX Runtime has no CUDA provider"
    if device == "cpu":
        return "cpu", "asked for"
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise InputError(f"device must be 'auto', 'cpu' or 'cuda:N', got {device!r}")
    if not has_cuda:
        raise BackendError(
            f"device {device!r}: this ONNX Runtime has no CUDA provider (it has {', '.join(providers)}); "
            "pip uninstall onnxruntime && pip install onnxruntime-gpu, or use device='cpu'"
        )
    return f"cuda:{number or '0'}", "asked for"


def _check(engine: Engine[EngineManifest], graph: str, contract: GraphContract, session: Any) -> None:
    """Compares the inputs and outputs of a session with the contract."""
    for what, wanted, found in (
        ("input", contract.inputs, session.get_inputs()),
        ("output", contract.outputs, session.get_outputs()),
    ):
        by_name = {node.name: node for node in found}
        extra = set(by_name) - {tensor.name for tensor in wanted}
        if what == "input" and extra:
            raise EngineError(f"{engine.path}: graph {graph!r} wants inputs that no contract has: {', '.join(sorted(extra))}")
        for tensor in wanted:
            if tensor.name not in by_name:
                raise EngineError(f"{engine.path}: graph {graph!r} has no {what} {tensor.name!r}; it has {', '.join(by_name)}")
            problem = _difference(tensor, by_name[tensor.name], dynamic=what == "input")
            if problem:
                raise EngineError(f"{engine.path}: graph {graph!r}, {what} {tensor.name!r}: {problem}")


def _difference(tensor: Tensor, node: Any, *, dynamic: bool) -> str | None:
    """Says how a node differs from what the contract wants; None when it does not."""
    if _TYPES.get(node.type) != tensor.dtype:
        return f"expected {tensor.dtype}, got {node.type}"
    if not node.shape and not dynamic:
        return None  # shape inference gave up on this output
    if len(node.shape) != len(tensor.shape):
        return f"expected {len(tensor.shape)} dimensions {tensor.shape}, got {node.shape}"
    for letter, size in zip(tensor.shape, node.shape, strict=True):
        if isinstance(letter, int) and isinstance(size, int) and size != letter:
            return f"expected {tensor.shape}, got {node.shape}"
        if dynamic and isinstance(letter, str) and letter != "C" and isinstance(size, int):
            return f"dimension {letter} must be free, got {node.shape}; export with dynamic shapes"
    return None

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sdk.backends import BACKENDS, open_backend
from sdk.engine import Engine
from sdk.errors import BackendError, InputError
from sdk.segmenter import Segmenter


def test_outputs_come_in_the_order_of_the_contract(tiny_engine: Path) -> None:
    engine = Engine.open(tiny_engine)
    backend = open_backend(engine, "cpu", 1)
    outputs = backend.run("trunk", {"image": np.ones((1, 3, 64, 96), np.float32)})
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes[:4] == [(1, 4, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert shapes[4:9] == [(1, 1, 16, 24), (1, 1, 8, 12), (1, 1, 4, 6), (1, 1, 2, 3), (1, 1, 1, 2)]
    scores, deltas = backend.run("box", {"rois": np.ones((5, 4, 7, 7), np.float32)})
    assert (scores.shape, deltas.shape) == ((5, 2), (5, 8))


def test_sessions_do_not_spin(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    real = onnxruntime.InferenceSession

    def spy(model: bytes, options: Any, providers: Sequence[str]) -> Any:
        seen.append((options.intra_op_num_threads, options.get_session_config_entry("session.intra_op.allow_spinning")))
        return real(model, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    open_backend(Engine.open(tiny_engine), "auto", 3)
    assert seen == [(3, "0")] * 3


def test_a_machine_without_onnxruntime(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, real = Engine.open(tiny_engine), builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        open_backend(engine, "cpu", None)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "", "CPU"])
def test_what_is_no_device(device: str, tiny_engine: Path) -> None:
    with pytest.raises(InputError, match="'auto', 'cpu' or 'cuda:N'"):
        open_backend(Engine.open(tiny_engine), device, None)


@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_the_device_that_is_chosen_where_there_is_cuda(
    device: str, expected: str, tiny_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the choice: the provider itself is replaced by the CPU's."""
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def cpu_instead(model: bytes, options: Any, providers: Sequence[Any]) -> Any:
        asked.append(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", cpu_instead)
    backend = open_backend(Engine.open(tiny_engine), device, None)
    assert backend.device == expected
    if expected != "cpu":
        assert asked[0] == [("CUDAExecutionProvider", {"device_id": int(expected[-1])}), "CPUExecutionProvider"]


def test_a_backend_is_one_row(tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Echo:
        name, device, reason = "echo", "cpu", "asked for"

        def run(self, graph: str, feeds: Mapping[str, Any]) -> list[Any]:
            return [graph]

    monkeypatch.setitem(BACKENDS, "onnxruntime", lambda engine, device, threads: Echo())
    assert open_backend(Engine.open(tiny_engine), "cpu", None).run("box", {}) == ["box"]


@pytest.mark.parametrize("device", [0, None, ["cpu"]])
def test_a_device_that_is_no_text_is_an_input_error(device: object, tiny_engine: Path) -> None:
    with pytest.raises(InputError, match="device"):
        Segmenter(tiny_engine, device=device)  # type: ignore[arg-type]

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdk.formats.onnx import inspect
from tests.sdk import tiny


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def tensor(name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros(3, np.float32), name)


def model(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], functions: list[onnx.FunctionProto] | None = None) -> bytes:
    graph = helper.make_graph(nodes, "g", [], [], initializers)
    opsets = [helper.make_opsetid("kerf", 3), helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions or []).SerializeToString()


def constant(value: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=value)


def branch(inner: onnx.NodeProto) -> onnx.NodeProto:
    graph = helper.make_graph([inner], "branch", [], [])
    return helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)


def function(node: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("kerf", "F", [], ["y"], [node], [helper.make_opsetid("", 17)])


@pytest.mark.parametrize("name", ["trunk", "box", "mask"])
def test_facts_of_a_model(name: str) -> None:
    facts = inspect(memoryview(tiny.graphs()[name]))
    assert (facts.opset, facts.graphs, facts.external) == (18, 1, [])


def test_the_standard_opset_is_reported() -> None:
    assert inspect(memoryview(model([], []))).opset == 17


@pytest.mark.parametrize(
    "data",
    [
        lambda t: model([], [tensor("other"), t]),
        lambda t: model([constant(t)], []),
        lambda t: model([branch(constant(t))], []),
        lambda t: model([branch(branch(constant(t)))], []),
        lambda t: model([], [], [function(constant(t))]),
        lambda t: model([helper.make_node("Constant", [], ["y"], values=[t])], []),
        lambda t: model([constant(helper.make_sparse_tensor(t, tensor("indices"), [3]))], []),
    ],
)
def test_tensors_in_other_files_are_found_wherever_they_are(data) -> None:
    assert inspect(memoryview(data(tensor("weights")))).external == []
    found = inspect(memoryview(data(external(tensor("weights"))))).external
    assert set(found) == {"weights"}


@pytest.mark.parametrize("data", [b"", b"\x00", b"#!/bin/sh", b"\x08", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\xff" * 20, b"\x08\x01"])
def test_what_is_no_model(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - every message is about a different flaw
        inspect(memoryview(data))


def test_no_prefix_of_a_model_crashes() -> None:
    data = tiny.graphs()["mask"]
    for length in range(len(data)):
        try:
            inspect(memoryview(data[:length]))
        except ValueError:
            continue


def test_nesting_is_limited() -> None:
    node = constant(tensor("weights"))
    for _ in range(30):
        graph = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("Loop", [], ["z"], body=graph)
    with pytest.raises(ValueError, match="nested too deeply"):
        inspect(memoryview(model([node], [])))

"""What an engine must know about an ONNX file before any runtime opens it, read from the protocol-buffer wire format.

An ONNX model may keep tensors in other files ("external data"), which a runtime would read from wherever the model says. An engine
carries everything inside, so such a model is refused before a runtime sees it. The runtime of Kerf does not need the onnx package
for that: the walk below visits messages only and skips every payload, so it takes well under a millisecond a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# Message kind -> field number -> kind of the message inside, as in onnx.proto. Every way that leads to a tensor is here.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_MAX_DEPTH = 64  # nested graphs; real models stay below ten


@dataclass
class OnnxFacts:
    """What the walk found."""

    opset: int = 0  # version of the standard operators; 0 = not stated
    graphs: int = 0  # 0 = not a model
    external: list[str] = field(default_factory=list)  # names of tensors kept in other files


def inspect(data: memoryview) -> OnnxFacts:
    """Walks a serialised ONNX model.

    Args:
        data: bytes of the file.

    Raises:
        ValueError: the bytes are not a well-formed ONNX model.
    """
    facts = OnnxFacts()
    _walk(data, "model", facts, 0)
    if not facts.graphs:
        raise ValueError("no graph in it")
    return facts


def _walk(data: memoryview, kind: str, facts: OnnxFacts, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("messages are nested too deeply")
    if kind == "opset":
        _read_opset(data, facts)
        return
    if kind == "tensor":
        _read_tensor(data, facts)
        return
    children = _CHILDREN[kind]
    facts.graphs += kind == "graph"
    for number, value in _fields(data):
        if isinstance(value, memoryview) and number in children:
            _walk(value, children[number], facts, depth + 1)


def _read_opset(data: memoryview, facts: OnnxFacts) -> None:
    domain, version = b"", 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, memoryview):
            domain = bytes(value)
        elif number == 2 and isinstance(value, int):
            version = value
    if domain in (b"", b"ai.onnx"):
        facts.opset = version


def _read_tensor(data: memoryview, facts: OnnxFacts) -> None:
    name, external = "unnamed", False
    for number, value in _fields(data):
        if number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode("utf-8", "replace")
        elif number == 13 or (number == 14 and value == 1):  # external_data; data_location = EXTERNAL
            external = True
    if external:
        facts.external.append(name)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Yields (field number, value): an integer, the bytes of a length-delimited field, or None for fixed-width numbers."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if length > end - position:
            raise ValueError(f"a field claims {length} bytes where {end - position} are left")
        yield number, data[position : position + length] if wire == 2 else None
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("the file ends inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number has more than ten bytes")

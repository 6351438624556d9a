"""What the pipeline asks of a runtime, and what a runtime may ask of the graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from sdk.errors import EngineError
from sdk.manifest import PYRAMID_LEVELS, EngineManifest, Manifest, RefinerManifest

# A number for a dimension that is fixed; a letter for one that may change from call to call; "H/4" for a part of it, rounded up.
# "C" stands for any number of channels, which each map has of its own.
Dim = str | int


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph: name, dtype ("float32", "int64") and dimensions."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class GraphContract:
    """Inputs and outputs of a graph, in the order the pipeline uses."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Backend(Protocol):
    """Runs the graphs of one engine; several threads may call `run` at once."""

    name: str
    device: str  # "cpu", "cuda:0"
    reason: str  # why this device, for `Segmenter.describe`

    def run(self, graph: str, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs a graph.

        Args:
            graph: one of the manifest's `graph_names`.
            feeds: input name -> C-contiguous array; never with a zero-length dimension.

        Returns:
            The outputs in the order of the graph's contract.
        """


def graph_contracts(manifest: EngineManifest) -> dict[str, GraphContract]:
    """Returns what the graphs of an engine must look like (`docs/engine.md`, "Graph contracts"), in the order in which they run."""
    if isinstance(manifest, RefinerManifest):
        channels = 4 if manifest.mask_channel else 3
        patches, logits = Tensor("patches", "float32", ("N", channels, "H", "W")), Tensor("logits", "float32", ("N", "H", "W"))
        return {"refiner": GraphContract((patches,), (logits,))}
    assert isinstance(manifest, Manifest)  # there are no other kinds
    classes, box, mask = len(manifest.class_names), manifest.box, manifest.mask
    box_contract = GraphContract(
        (Tensor("rois", "float32", ("N", "C", box.pool.size, box.pool.size)),),
        (
            Tensor("scores", "float32", ("N", classes)),
            Tensor("box_deltas", "float32", ("N", 4 if box.class_agnostic else 4 * classes)),
        ),
    )
    rois = [Tensor(f"rois{i}", "float32", ("N", "C", pool.size, pool.size)) for i, pool in enumerate(mask.pools)]
    mask_outputs = [Tensor("mask_logits", "float32", ("N", *mask.size))]
    if mask.scored:
        mask_outputs.append(Tensor("mask_scores", "float32", ("N",)))
    return {
        "trunk": GraphContract((Tensor("image", "float32", ("B", 3, "H", "W")),), _trunk_outputs(manifest)),
        **{stage.graph: box_contract for stage in box.stages},
        "mask": GraphContract((*rois, Tensor("labels", "int64", ("N",))), tuple(mask_outputs)),
    }


def _trunk_outputs(manifest: Manifest) -> tuple[Tensor, ...]:
    """The pyramid, what proposals are made of, and the maps of their own that heads pool."""
    spec = manifest.proposals
    levels = list(zip(spec.levels, spec.strides, spec.anchors, strict=True))
    outputs = [_map(f"p{level}", "C", 2**level) for level in PYRAMID_LEVELS]
    outputs += [_map(f"objectness{level}", len(anchors), stride) for level, stride, anchors in levels]
    outputs += [_map(f"deltas{level}", 4 * len(anchors), stride) for level, stride, anchors in levels]
    known = {tensor.name for tensor in outputs}
    for pool in (manifest.box.pool, *manifest.mask.pools):
        if pool.stride is not None and pool.feature not in known:
            known.add(pool.feature)
            outputs.append(_map(pool.feature, "C", pool.stride))
    return tuple(outputs)


def _map(name: str, channels: Dim, stride: int) -> Tensor:
    return Tensor(name, "float32", ("B", channels, f"H/{stride}", f"W/{stride}"))


def check_outputs(where: str, contract: GraphContract, outputs: Sequence[NDArray[Any]], sizes: Mapping[str, int]) -> None:
    """Compares what a graph returned with its contract: declared shapes are mostly free, and a graph may not do what it declares.

    Args:
        where: the engine and the graph, for the message.
        contract: the graph's.
        outputs: in the order of the contract.
        sizes: what the letters stood for in this call.

    Raises:
        EngineError: an output has another dtype or shape.
    """
    for tensor, array in zip(contract.outputs, outputs, strict=True):
        expected = tuple(_size(dim, sizes) for dim in tensor.shape)
        fits = array.dtype.name == tensor.dtype and len(expected) == array.ndim
        if not fits or any(e is not None and e != a for e, a in zip(expected, array.shape, strict=True)):
            shape = ", ".join("C" if e is None else str(e) for e in expected)
            raise EngineError(
                f"{where}, output {tensor.name!r}: expected {tensor.dtype} ({shape}), got {array.dtype.name} {array.shape}; "
                "export the engine again"
            )


def _size(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """What a dimension is in this call; None when any size will do."""
    if isinstance(dim, int):
        return dim
    letter, _, divisor = dim.partition("/")
    if letter not in sizes:
        return None
    return -(-sizes[letter] // int(divisor or 1))

"""What the pipeline asks of a runtime, and what a runtime may ask of the graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from sdk.config import PYRAMID_LEVELS, Manifest

Dim = str | int  # a letter for a dimension that may change from call to call, a number for a fixed one


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
            graph: "trunk", "box" or "mask".
            feeds: input name -> C-contiguous array; never with a zero-length dimension.

        Returns:
            The outputs in the order of the graph's contract.
        """


def graph_contracts(manifest: Manifest) -> dict[str, GraphContract]:
    """Returns what the graphs of an engine must look like (`docs/engine.md`, "Graph contracts")."""
    classes = len(manifest.class_names)
    trunk = [Tensor(f"p{level}", "float32", ("B", "C", "H", "W")) for level in PYRAMID_LEVELS]
    for level, anchors in zip(manifest.proposals.levels, manifest.proposals.anchors, strict=True):
        trunk.append(Tensor(f"objectness{level}", "float32", ("B", len(anchors), "H", "W")))
    for level, anchors in zip(manifest.proposals.levels, manifest.proposals.anchors, strict=True):
        trunk.append(Tensor(f"deltas{level}", "float32", ("B", 4 * len(anchors), "H", "W")))
    known = {tensor.name for tensor in trunk}
    for pool in (manifest.box.pool, *manifest.mask.pools):
        if pool.feature != "pyramid" and pool.feature not in known:
            known.add(pool.feature)
            trunk.append(Tensor(pool.feature, "float32", ("B", "C", "H", "W")))
    rois = [Tensor(f"rois{i}", "float32", ("N", "C", pool.size, pool.size)) for i, pool in enumerate(manifest.mask.pools)]
    side = manifest.box.pool.size
    return {
        "trunk": GraphContract((Tensor("image", "float32", ("B", 3, "H", "W")),), tuple(trunk)),
        "box": GraphContract(
            (Tensor("rois", "float32", ("N", "C", side, side)),),
            (Tensor("class_logits", "float32", ("N", classes + 1)), Tensor("box_deltas", "float32", ("N", 4 * classes))),
        ),
        "mask": GraphContract(
            (*rois, Tensor("labels", "int64", ("N",))),
            (Tensor("mask_logits", "float32", ("N", *manifest.mask.size)),),
        ),
    }

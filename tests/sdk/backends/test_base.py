from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.backends.base import GraphContract, Tensor, check_outputs, graph_contracts
from sdk.errors import EngineError
from sdk.manifest import BoxSpec, BoxStage, MaskSpec, PoolSpec
from tests.sdk import tiny


def test_contracts_follow_from_the_manifest() -> None:
    contracts = graph_contracts(tiny.manifest())
    assert list(contracts) == ["trunk", "box", "mask"]
    names = [tensor.name for tensor in contracts["trunk"].outputs]
    assert names == [
        f"{kind}{k}" for kind, levels in (("p", range(2, 6)), ("objectness", range(2, 7)), ("deltas", range(2, 7))) for k in levels
    ]
    shapes = [contracts["trunk"].outputs[i].shape for i in (0, 8, 13)]
    assert shapes == [("B", "C", "H/4", "W/4"), ("B", 1, "H/64", "W/64"), ("B", 4, "H/64", "W/64")]
    assert [(tensor.name, tensor.shape) for tensor in contracts["box"].outputs] == [("scores", ("N", 2)), ("box_deltas", ("N", 8))]
    assert [(tensor.name, tensor.shape) for tensor in contracts["mask"].outputs] == [("mask_logits", ("N", 28, 28))]


def test_pools_of_other_maps_add_trunk_outputs_and_mask_inputs() -> None:
    pools = (PoolSpec(size=14), PoolSpec(feature="semantic", stride=4, size=28), PoolSpec(feature="semantic", stride=4, size=56))
    contracts = graph_contracts(tiny.manifest(mask=MaskSpec(pools=pools, size=(112, 112))))
    assert contracts["trunk"].outputs[14:] == (Tensor("semantic", "float32", ("B", "C", "H/4", "W/4")),)
    assert [(tensor.name, tensor.shape) for tensor in contracts["mask"].inputs] == [
        ("rois0", ("N", "C", 14, 14)),
        ("rois1", ("N", "C", 28, 28)),
        ("rois2", ("N", "C", 56, 56)),
        ("labels", ("N",)),
    ]


def test_a_cascade_has_a_graph_for_each_stage() -> None:
    stages = tuple(BoxStage(graph=name) for name in ("box", "box2", "box3"))
    manifest = tiny.manifest(box=BoxSpec(pool=PoolSpec(size=7), stages=stages, class_agnostic=True))
    contracts = graph_contracts(manifest)
    assert tuple(contracts) == manifest.graph_names == ("trunk", "box", "box2", "box3", "mask")
    assert contracts["box"] == contracts["box2"] == contracts["box3"]
    assert contracts["box"].outputs[1].shape == ("N", 4)


def test_mask_scoring_adds_an_output() -> None:
    scored = graph_contracts(tiny.manifest(mask=tiny.manifest().mask.replace(scored=True)))["mask"]
    assert scored.outputs[1] == Tensor("mask_scores", "float32", ("N",))


CONTRACT = GraphContract((), (Tensor("map", "float32", ("B", "C", "H/4", "W/64")), Tensor("n", "int64", ("N", 4))))
SIZES = {"B": 1, "H": 96, "W": 160, "N": 5}


def outputs(**changes: Any) -> list[Any]:
    return list({"map": np.zeros((1, 17, 24, 3), np.float32), "n": np.zeros((5, 4), np.int64), **changes}.values())


def test_sound_outputs_pass() -> None:
    check_outputs("e: graph 'x'", CONTRACT, outputs(), SIZES)  # 160 / 64 is rounded up


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"map": np.zeros((1, 17, 23, 3), np.float32)},
            r"e: graph 'x', output 'map': expected float32 \(1, C, 24, 3\), got float32 \(1, 17, 23, 3\)",
        ),
        ({"map": np.zeros((2, 17, 24, 3), np.float32)}, r"got float32 \(2, 17"),
        ({"map": np.zeros((1, 17, 24, 2), np.float32)}, "output 'map'"),
        ({"map": np.zeros((1, 17, 24), np.float32)}, "output 'map'"),
        ({"map": np.zeros((1, 17, 24, 3), np.float16)}, "got float16"),
        ({"n": np.zeros((5, 3), np.int64)}, r"output 'n': expected int64 \(5, 4\), got int64 \(5, 3\); export the engine again"),
        ({"n": np.zeros((6, 4), np.int64)}, "output 'n'"),
    ],
)
def test_an_output_that_breaks_the_contract_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_outputs("e: graph 'x'", CONTRACT, outputs(**changes), SIZES)

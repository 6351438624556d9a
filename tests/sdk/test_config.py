from __future__ import annotations

import json
from typing import Any

import pytest

from sdk.config import Config, ResizeRule
from sdk.errors import ConfigError
from sdk.manifest import BoxSpec, BoxStage, GraphSpec, InputSpec, Manifest, MaskSpec, PoolSpec, ProposalSpec
from tests.sdk import tiny


def test_a_manifest_survives_json() -> None:
    manifest = tiny.manifest(graphs={"trunk": GraphSpec(file="trunk.onnx", opset=18, sha256="0" * 64, bytes=5)})
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def changed(path: str, value: Any) -> dict[str, Any]:
    """The tiny manifest as a dictionary, with one entry set (or removed, for `...`)."""
    values = json.loads(json.dumps(tiny.manifest().to_dict()))
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    inner: Any = values
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nmae", 1, "manifest: unknown key 'nmae'; did you mean 'name'?"),
        ("box.pool.sampling", 2, "manifest.box.pool: unknown key 'sampling'; did you mean 'sampling_ratio'?"),
        ("mask.pools.0.zzz", 2, "manifest.mask.pools[0]: unknown key 'zzz'; known keys: feature,"),
        ("name", ..., "manifest: the key 'name' is missing"),
        ("input.resize", 7, "manifest.input.resize: expected an object with named values, got int 7"),
        ("input.mean", [1, 2], "manifest.input.mean: expected 3 values, got 2"),
        ("input.mean.0", "1", "manifest.input.mean[0]: expected a finite number, got str"),
        ("input.mean.0", True, "expected a finite number, got bool"),
        ("input.mean.0", float("inf"), "expected a finite number"),
        ("input.std.0", 0, "std must be positive"),
        ("input.color", "grb", "manifest.input: color must be 'rgb' or 'bgr', got 'grb'"),
        ("input.size_divisor", 16, "multiple of 32"),
        ("input.resize.factor", None, "manifest.input.resize: give 'short' (pixels) or 'factor'"),
        ("input.resize.antialias", 1, "expected bool, got int 1"),
        ("class_names", "nucleus", "manifest.class_names: expected a list, got str"),
        ("class_names", [], "at least one class"),
        ("class_names", ["warm", "warm"], "twice"),
        ("category_ids", [1], "one entry per class: 2 expected, got 1"),
        ("proposals.strides.0", 5, "powers of two, got 5"),
        ("proposals.anchors", [], "one list per stride: 5 expected, got 0"),
        ("proposals.anchors.1.0", [1, 2, 1, 3], "anchors[1]: [1.0, 2.0, 1.0, 3.0] is not x1 < x2"),
        ("proposals.pre_nms", 0, "at least 1"),
        ("proposals.pre_nms", 1.5, "expected int, got float 1.5"),
        ("box.score_threshold", 1.5, "score_threshold must be a number from 0 to 1, got 1.5"),
        ("box.max_detections", True, "expected int, got bool True"),
        ("box.coder_weights", [1, 1, 1, 1], "manifest.box: unknown key 'coder_weights'"),
        ("box.stages", [], "stages must hold at least one"),
        ("box.stages.0.coder_weights.0", -1, "manifest.box.stages[0]: coder_weights must be positive"),
        ("box.stages.0.graph", "trunk", "graph must be 'box' or 'box' with a digit, got 'trunk'"),
        ("box.stages", [{"graph": "box"}, {"graph": "box2"}], "several need class_agnostic"),
        ("box", {"pool": {"size": 7}, "class_agnostic": True, "stages": [{}, {}]}, "stages share a graph: ['box', 'box']"),
        ("box.class_agnostic", "no", "expected bool"),
        ("mask.scored", 1, "expected bool"),
        (
            "mask.pools",
            [{"feature": "own", "stride": 4, "size": 7}, {"feature": "own", "stride": 8, "size": 7}],
            "'own' has stride 4, a pool says 8",
        ),
        ("mask.pools", [{"feature": "p3", "stride": 4, "size": 7}], "'p3' has stride 8, a pool says 4"),
        ("box.pool.level", 4, "level must be 0 to 3 or null, got 4"),
        ("box.pool.stride", 4, "stride belongs to a single named feature"),
        ("box.pool.feature", "semantic", "the feature 'semantic' needs a stride"),
        ("mask.pools", [], "at least one entry"),
        ("mask.activation", "softmax", "activation must be 'sigmoid'"),
        ("mask.threshold", 0, "greater than 0"),
        ("mask.frame", "picture", "frame must be 'box'"),
        ("graphs", {"backbone": {"file": "a.onnx", "opset": 18}}, "graphs: unknown ['backbone']; this segmenter has trunk, box, mask"),
        ("graphs", {"box2": {"file": "a.onnx", "opset": 18}}, "graphs: unknown ['box2']"),
        ("graphs", {"trunk": {"file": "../a.onnx", "opset": 18}}, "file must be a plain file name, got '../a.onnx'"),
        ("graphs", {"trunk": {"file": "manifest.json", "opset": 18}}, "plain file name"),
        ("graphs", {"trunk": {"file": "a", "opset": 18, "sha256": "xyz"}}, "64 lower-case hexadecimal digits"),
        ("graphs", {"trunk": {"file": "a", "opset": 18}, "box": {"file": "a", "opset": 18}}, "share a file"),
        ("runtime.backends", [], "at least one"),
    ],
)
def test_a_bad_value_is_named_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Manifest.from_dict(changed(path, value), where="manifest")
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_classes_are_frozen_and_keyword_only() -> None:
    rule = ResizeRule(factor=1.0)
    with pytest.raises(AttributeError):
        rule.long = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        PoolSpec(7)  # type: ignore[misc]
    assert rule.replace(long=5).long == 5
    with pytest.raises(ConfigError):
        rule.replace(long=0)


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (ResizeRule(short=800, long=1333), (480, 640), (800, 1067)),
        (ResizeRule(short=800, long=1333), (480, 6400), (100, 1333)),
        (ResizeRule(short=800, long=1333, factor=3.0), (800, 800), (800, 800)),
        (ResizeRule(factor=2.0, long=1280), (256, 320), (512, 640)),
        (ResizeRule(factor=2.0, long=1280), (1000, 1000), (1280, 1280)),
        (ResizeRule(factor=0.5, long=1280), (5, 3), (3, 2)),
        (ResizeRule(factor=1.0, long=100), (1, 100_000), (1, 100)),
        (ResizeRule(factor=0.01, long=100), (1, 1), (1, 1)),
    ],
)
def test_resize_rule(rule: ResizeRule, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rule.size_for(*size) == expected


def test_padding_goes_to_the_next_multiple() -> None:
    spec = tiny.manifest().input
    assert [spec.padded_size(*size) for size in ((1, 32), (33, 64), (320, 31))] == [(32, 32), (64, 64), (320, 32)]


def test_levels_follow_from_strides() -> None:
    assert tiny.manifest().proposals.levels == (2, 3, 4, 5, 6)


def test_every_stored_class_rejects_unknown_keys() -> None:
    for kind in (ResizeRule, InputSpec, ProposalSpec, PoolSpec, BoxStage, BoxSpec, MaskSpec, GraphSpec, Manifest):
        assert issubclass(kind, Config)
        with pytest.raises(ConfigError, match="unknown key 'nonsense'"):
            kind.from_dict({"nonsense": 1})

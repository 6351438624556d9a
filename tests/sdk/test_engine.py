from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import sdk.engines
from sdk.config import ResizeRule
from sdk.engine import MAX_MANIFEST, Engine
from sdk.errors import ConfigError, EngineError, EngineMismatchError
from sdk.manifest import Manifest
from sdk.segmenter import Segmenter
from tests.sdk import tiny

Members = dict[str, bytes]


@pytest.fixture(scope="session")
def members(tiny_engine: Path) -> Members:
    with zipfile.ZipFile(tiny_engine) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def with_manifest(members: Members, **changes: Any) -> Members:
    return members | {"manifest.json": json.dumps({**json.loads(members["manifest.json"]), **changes}).encode()}


def with_graph(members: Members, name: str, data: bytes, **facts: Any) -> Members:
    """Another graph, with a manifest that agrees with it."""
    graphs = json.loads(members["manifest.json"])["graphs"]
    graphs[name] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **facts}
    return with_manifest(members, graphs=graphs) | {graphs[name]["file"]: data}


def twice(members: Members) -> bytes:
    stream = io.BytesIO(pack(members))
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("box.onnx", b"another")
    return stream.getvalue()


def overlapping(members: Members) -> bytes:
    """Two table entries that point at the same bytes (the usual zip bomb)."""
    data = pack({**members, "bomb.onnx": b""})
    start = data.rindex(b"PK\x01\x02", 0, data.rindex(b"bomb.onnx"))
    box = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02"))
    offset = data[box + 42 : box + 46]  # the first member's
    return data[: start + 42] + offset + data[start + 46 :]


def claims_more(members: Members) -> bytes:
    """The table says the last member is longer than the file."""
    data = pack(members)
    last = data.rindex(b"PK\x01\x02")
    huge = (1 << 30).to_bytes(4, "little")
    return data[: last + 20] + huge + huge + data[last + 28 :]


def flipped(data: bytes, at: bytes, offset: int) -> bytes:
    position = data.index(at) + offset
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def deep_json(members: Members) -> bytes:
    return pack(members | {"manifest.json": b'{"format": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"})


# What the file is -> words that the error must hold.
BAD_FILES: dict[str, tuple[Callable[[Members], bytes], tuple[str, ...]]] = {
    "empty": (lambda m: b"", ("empty file",)),
    "text": (lambda m: b"hello", ("not an engine file", "kerf export")),
    "ONNX": (lambda m: m["box.onnx"], ("not an engine file", "kerf export")),
    "LFS pointer": (lambda m: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("git lfs pull",)),
    "truncated": (lambda m: pack(m)[:-100], ("truncated", "download it again")),
    "half": (lambda m: pack(m)[: len(pack(m)) // 2], ("truncated",)),
    "first bytes": (lambda m: pack(m)[:10], ("truncated",)),
    "altered graph": (lambda m: flipped(pack(m), m["box.onnx"], 200), ("graph 'box' was altered", "download it again")),
    "altered table": (lambda m: flipped(pack(m), b"PK\x01\x02", 50), ("damaged",)),
    "member longer than the file": (claims_more, ("truncated",)),
    "compressed": (lambda m: pack(m, zipfile.ZIP_DEFLATED), ("compressed", "zip -0")),
    "zip bomb": (lambda m: pack({**m, "trunk.onnx": bytes(50 << 20)}, zipfile.ZIP_DEFLATED), ("compressed",)),
    "overlapping members": (overlapping, ("bomb.onnx",)),
    "duplicate member": (twice, ("'box.onnx' twice",)),
    "path up": (lambda m: pack({**m, "../evil.py": b""}), ("'../evil.py' leads outside",)),
    "absolute path": (lambda m: pack({**m, "/etc/passwd": b""}), ("leads outside",)),
    "folder inside": (lambda m: pack({**m, "sub/": b""}), ("leads outside",)),
    "drive": (lambda m: pack({**m, "C:evil": b""}), ("leads outside",)),
    "too many members": (lambda m: pack({**m, **{f"x{i}": b"" for i in range(100)}}), ("at most 64",)),
    "no manifest": (lambda m: pack({"box.onnx": m["box.onnx"]}), ("no manifest.json",)),
    "missing graph": (lambda m: pack({k: v for k, v in m.items() if k != "box.onnx"}), ("lacks box.onnx",)),
    "extra member": (lambda m: pack({**m, "plugin.so": b"\x7fELF"}), ("plugin.so", "does not name")),
    "manifest not JSON": (lambda m: pack(m | {"manifest.json": b"{'a': 1}"}), ("not JSON",)),
    "manifest not UTF-8": (lambda m: pack(m | {"manifest.json": b'{"a": "\xff"}'}), ("not JSON",)),
    "manifest too large": (lambda m: pack(m | {"manifest.json": b" " * (MAX_MANIFEST + 1)}), (f"at most {MAX_MANIFEST}",)),
    "manifest too deep": (deep_json, ("not JSON",)),
    "manifest with NaN": (lambda m: pack(m | {"manifest.json": m["manifest.json"].replace(b"0.9", b"NaN")}), ("NaN",)),
    "manifest with a key twice": (
        lambda m: pack(m | {"manifest.json": m["manifest.json"].replace(b'"kind"', b'"name"')}),
        ("'name' appears twice",),
    ),
    "manifest is a list": (lambda m: pack(m | {"manifest.json": b"[]"}), ("not an engine",)),
    "other format": (lambda m: pack(with_manifest(m, format="zip")), ('"format": "kerf-engine"',)),
    "unknown key": (lambda m: pack(with_manifest(m, clas_names=[])), ("unknown key 'clas_names'; did you mean 'class_names'?",)),
    "version not a number": (lambda m: pack(with_manifest(m, format_version="1")), ("positive integer",)),
    "no trunk in the manifest": (lambda m: pack(with_manifest(m, graphs={})), ("lacks the graphs trunk, box, mask",)),
    "wrong size": (lambda m: pack(m | {"box.onnx": m["box.onnx"] + b"x"}), ("bytes, the manifest says",)),
    "wrong opset": (lambda m: pack(with_graph(m, "box", m["box.onnx"], opset=17)), ("opset 18, the manifest says 17",)),
    "graph is not ONNX": (lambda m: pack(with_graph(m, "box", b"#!/bin/sh\nrm -rf /")), ("graph 'box' is not an ONNX model",)),
    "graph is empty": (lambda m: pack(with_graph(m, "box", b"")), ("graph 'box' is not an ONNX model",)),
    "external data": (lambda m: pack(with_graph(m, "box", tiny.box(external=True))), ("graph 'box'", "'weights'", "other files")),
}


@pytest.mark.parametrize("row", BAD_FILES)
def test_a_bad_file_is_refused_before_any_graph_is_opened(
    row: str, members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = BAD_FILES[row]
    path = tmp_path / "bad.engine"
    path.write_bytes(make(members))
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    with pytest.raises(EngineError) as caught:
        Segmenter(path)
    for word in (*words, str(path)):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 3, "unheard_of": {}}, ("version 3", "reads version 2", "upgrade Kerf")),
        ({"format_version": 1, "box": {"coder_weights": [10, 10, 5, 5]}}, ("version 1", "reads version 2", "kerf export CHECKPOINT --out")),
        ({"kind": "tracker", "proposals": None}, ("'tracker'", "segmenter, refiner")),
    ],
)
def test_a_sound_file_that_does_not_fit_is_a_mismatch(
    changes: dict[str, Any], words: tuple[str, ...], members: Members, tmp_path: Path
) -> None:
    path = tmp_path / "other.engine"
    path.write_bytes(pack(with_manifest(members, **changes)))
    with pytest.raises(EngineMismatchError) as caught:
        Engine.open(path)
    for word in words:
        assert word in str(caught.value)


def test_no_prefix_of_an_engine_opens(tiny_engine: Path, tmp_path: Path) -> None:
    data = tiny_engine.read_bytes()
    path = tmp_path / "cut.engine"
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(EngineError):
            Engine.open(path)


def test_any_flipped_byte_is_noticed_or_harmless(tiny_engine: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_engine.read_bytes())
    original = Engine.open(tiny_engine)
    path = tmp_path / "flipped.engine"
    for position in range(0, len(data), 29):
        data[position] ^= 0x20
        path.write_bytes(data)
        data[position] ^= 0x20
        try:
            opened = Engine.open(path)
        except EngineError:
            continue
        assert all(opened.graph(name) == original.graph(name) for name in ("trunk", "box", "mask"))


def test_opening_runs_no_code(tiny_engine: Path) -> None:
    """Python's own audit events: nothing is compiled, executed, unpickled, imported or spawned while an engine is opened."""
    program = (
        "import sys, sdk.engine\n"
        "sdk.engine.Engine.open(sys.argv[1])\n"  # the first time, Python may import modules of its own
        "events = []\n"
        "sys.addaudithook(lambda event, args: events.append(event))\n"
        "sdk.engine.Engine.open(sys.argv[1])\n"
        "print(*sorted(set(events)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program, tiny_engine], check=True, capture_output=True, text=True)
    events = set(run.stdout.split())
    assert "open" in events  # the hook works
    assert not {event for event in events if event.partition(".")[0] not in ("open", "os", "mmap", "pathlib")}
    assert not events & {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}


@pytest.mark.parametrize(
    ("graph", "model", "words"),
    [
        ("box", lambda: tiny.box(classes=3), ("graph 'box', output 'scores'", "expected")),
        ("box", lambda: renamed(tiny.box(), "scores", "logits"), ("graph 'box' has no output 'scores'; it has logits",)),
        ("box", lambda: tiny.box(deltas=4), ("graph 'box', output 'box_deltas'", "('N', 8)", "['N', 4]")),
        ("mask", lambda: renamed(tiny.mask(), "rois0", "rois"), ("graph 'mask'", "rois")),
        ("mask", lambda: renamed(tiny.mask(), "mask_logits", "masks"), ("graph 'mask' has no output 'mask_logits'; it has masks",)),
        ("trunk", lambda: renamed(tiny.trunk(), "p3", "q3"), ("graph 'trunk' has no output 'p3'",)),
        ("trunk", lambda: fixed(tiny.trunk(), 2, 64), ("graph 'trunk', input 'image'", "dimension H must be free")),
        ("trunk", lambda: fixed(tiny.trunk(), 1, 4), ("graph 'trunk'",)),
        ("box", lambda: broken(tiny.box()), ("ONNX Runtime cannot load graph 'box'", "export")),
    ],
)
def test_a_graph_that_breaks_its_contract_is_named(
    graph: str, model: Callable[[], bytes], words: tuple[str, ...], members: Members, tmp_path: Path
) -> None:
    path = tmp_path / "odd.engine"
    path.write_bytes(pack(with_graph(members, graph, model())))
    with pytest.raises(EngineError) as caught:
        Segmenter(path)
    for word in (*words, str(path)):
        assert word in str(caught.value)


def renamed(data: bytes, old: str, new: str) -> bytes:
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for node in (*model.graph.input, *model.graph.output):
        node.name = new if node.name == old else node.name
    return model.SerializeToString()


def fixed(data: bytes, axis: int, size: int) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    return model.SerializeToString()


def broken(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.graph.node[0].op_type = "NoSuchOperator"
    return model.SerializeToString()


def test_writing_is_deterministic_and_complete(tiny_engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "again.engine"
    Engine.write(path, tiny.manifest(), tiny.graphs())
    assert path.read_bytes() == tiny_engine.read_bytes()
    engine = Engine.open(path)
    for name, data in tiny.graphs().items():
        spec = engine.manifest.graphs[name]
        assert engine.graph(name) == data
        assert (spec.file, spec.opset, spec.bytes, spec.sha256) == (f"{name}.onnx", 18, len(data), hashlib.sha256(data).hexdigest())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [info.filename for info in archive.infolist()] == ["manifest.json", "trunk.onnx", "box.onnx", "mask.onnx"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_folder_is_an_engine_too(members: Members, tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, data in members.items():
        (folder / name).write_bytes(data)
    assert Engine.open(folder).manifest == Engine.open(tiny_engine).manifest
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(EngineError, match=r"notes\.txt"):
        Engine.open(folder)
    (folder / "notes.txt").unlink()
    (folder / "box.onnx").write_bytes(members["trunk.onnx"])
    with pytest.raises(EngineError, match="graph 'box'"):
        Engine.open(folder)
    (folder / "box.onnx").unlink()
    (folder / "box.onnx").mkdir()
    with pytest.raises(EngineError, match=r"'box\.onnx' is none"):
        Engine.open(folder)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new.engine"
    for graphs in ({}, tiny.graphs() | {"extra": b""}, tiny.graphs() | {"box": b"junk"}, tiny.graphs() | {"box": tiny.box(external=True)}):
        with pytest.raises(EngineError):
            Engine.write(path, tiny.manifest(), graphs)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failed_write(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.engine"
    shutil.copy(tiny_engine, path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        Engine.write(path, tiny.manifest(name="other"), tiny.graphs())
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.engine"]
    assert path.read_bytes() == tiny_engine.read_bytes()


def test_shipped_engines_are_found_by_name(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    shutil.copy(tiny_engine, shipped / "small.engine")
    monkeypatch.setattr(sdk.engines, "__file__", str(shipped / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert Engine.open("small").path == shipped / "small.engine"
    (tmp_path / "small").mkdir()  # a folder of that name does not hide it
    assert Engine.open("small").path == shipped / "small.engine"
    with pytest.raises(EngineError, match=r"no manifest\.json"):
        Engine.open("./small")
    with pytest.raises(EngineError, match=r"smal: no such file, and no shipped engine has this name \(shipped: small\)"):
        Engine.open("smal")
    with pytest.raises(EngineError, match="no such file"):
        Engine.open("missing.engine")
    with pytest.raises(EngineError, match="path or name, got int"):
        Engine.open(7)  # type: ignore[arg-type]


def test_an_open_engine_passes_through(tiny_engine: Path) -> None:
    engine = Engine.open(tiny_engine)
    assert Engine.open(engine) is engine
    assert "tiny.engine" in repr(engine)
    with pytest.raises(EngineError, match="no graph 'refiner'; it has trunk, box, mask"):
        engine.graph("refiner")


def test_every_shipped_engine_opens() -> None:
    for name in sdk.engines.shipped():
        assert Engine.open(name).manifest.name == name


def test_every_flipped_bit_of_the_manifest_is_noticed(tiny_engine: Path, tmp_path: Path) -> None:
    data = tiny_engine.read_bytes()
    first = data.index(b"{")  # the manifest is the first member
    damaged = tmp_path / "x.engine"
    for position in range(first, first + 300, 7):
        damaged.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(EngineError, match="checksum"):
            Engine.open(damaged)


def test_numbers_beyond_any_use_are_refused() -> None:
    for value in (10**400, 10**30, 2**31):
        with pytest.raises(ConfigError, match="too large"):
            Manifest.from_dict({**tiny.manifest().to_dict(), "format_version": value})
        with pytest.raises(ConfigError, match="too large"):
            ResizeRule.from_dict({"factor": value})

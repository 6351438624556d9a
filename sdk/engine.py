"""The engine file: a manifest beside pure ONNX graphs; `docs/engine.md` describes it.

`Engine.open` checks everything it can before a runtime sees a graph: the container, the manifest, the members, their checksums, and
that no graph reads other files. Nothing from the file is ever run as code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from sdk import engines
from sdk.errors import ConfigError, EngineError, EngineMismatchError
from sdk.files import PathLike
from sdk.formats import archive, onnx
from sdk.manifest import FORMAT, FORMAT_VERSION, MANIFESTS, EngineManifest, GraphSpec, Manifest
from sdk.version import __version__

MANIFEST = "manifest.json"
MAX_MANIFEST = 4 << 20  # bytes; real ones have a few kilobytes


M = TypeVar("M", bound=EngineManifest, covariant=True)


class Engine(Generic[M]):
    """An engine whose manifest and checksums are known to be good.

    Attributes:
        path: the file or folder it was read from.
        manifest: everything the runtime needs to know.

    >>> Engine.open("no-such-engine")
    Traceback (most recent call last):
    sdk.errors.EngineError: no-such-engine: no such file, and no shipped engine has this name...
    """

    def __init__(self, path: Path, manifest: M, members: Mapping[str, memoryview]) -> None:
        self.path = path
        self.manifest = manifest
        self._members = dict(members)

    def __repr__(self) -> str:
        return f"Engine({str(self.path)!r}, name={self.manifest.name!r}, method={self.manifest.method!r})"

    @overload
    @staticmethod
    def open(source: PathLike | Engine[EngineManifest]) -> Engine[Manifest]: ...
    @overload
    @staticmethod
    def open(source: PathLike | Engine[EngineManifest], kind: type[M]) -> Engine[M]: ...
    @staticmethod
    def open(source: PathLike | Engine[EngineManifest], kind: Any = Manifest) -> Engine[Any]:
        """Opens and checks an engine.

        Args:
            source: the path of an engine file or folder, or the name of a shipped engine ("nuclei"). A name is a string without
                a separator and without the ending ".engine"; a shipped engine wins over a file of that name, which
                "./nuclei" still means. An open engine is returned as it is.
            kind: the class of the manifest: `Manifest` for a segmenter, `RefinerManifest` for a refiner, `EngineManifest` for any.

        Raises:
            EngineError: missing, truncated, altered or not an engine.
            EngineMismatchError: a sound engine of a format version that this version of Kerf cannot run, or of another kind.
        """
        if isinstance(source, Engine):
            _check_kind(source.path, source.manifest, kind)
            return source
        path = find_engine(source)
        members = archive.read_members(path)
        manifest = _read_manifest(path, members)
        _check_kind(path, manifest, kind)
        _check_members(path, manifest, members)
        for name, spec in manifest.graphs.items():
            _check_graph(path, name, spec, members[spec.file])
        return Engine(path, manifest, members)

    def graph(self, name: str) -> bytes:
        """Returns the bytes of a graph ("trunk", "box", "mask"; "refiner").

        Raises:
            EngineError: the engine has no such graph.
        """
        if name not in self.manifest.graphs:
            raise EngineError(f"{self.path}: no graph {name!r}; it has {', '.join(self.manifest.graphs)}")
        return bytes(self._members[self.manifest.graphs[name].file])

    @staticmethod
    def write(path: PathLike, manifest: EngineManifest, graphs: Mapping[str, bytes]) -> None:
        """Writes an engine file. Equal input gives equal bytes, and the file appears whole or not at all.

        Args:
            path: where to; by convention the name ends in ".engine".
            manifest: `graphs` may be empty or state file names and precisions; opset, checksum and size are filled in.
            graphs: graph name -> serialised ONNX model without external data.

        Raises:
            EngineError: a graph is missing, unknown, not ONNX, or keeps tensors in other files.
        """
        names = manifest.graph_names
        if set(graphs) != set(names):
            raise EngineError(f"{path}: this {manifest.kind} needs the graphs {', '.join(names)}; got {', '.join(graphs) or 'none'}")
        specs: dict[str, GraphSpec] = {}
        for name in names:
            facts = _inspect(Path(path), name, memoryview(graphs[name]))
            given = manifest.graphs.get(name) or GraphSpec(file=f"{name}.onnx", opset=facts.opset)
            sha256 = hashlib.sha256(graphs[name]).hexdigest()
            specs[name] = given.replace(opset=facts.opset, sha256=sha256, bytes=len(graphs[name]))
        complete = manifest.replace(graphs=specs)
        text = json.dumps(complete.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        archive.write_zip(path, {MANIFEST: text.encode(), **{specs[name].file: graphs[name] for name in names}})


def find_engine(source: PathLike) -> Path:
    """Returns the path that a path or a shipped name stands for.

    Raises:
        EngineError: neither a file, nor a folder, nor a shipped engine.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise EngineError(f"an engine is given by its path or name, got {type(source).__name__}")
    text = os.fspath(source)
    is_name = isinstance(source, str) and text == os.path.basename(text) and not text.endswith(engines.SUFFIX)
    shipped = engines.shipped()
    if is_name and text in shipped:
        return shipped[text]
    path = Path(text)
    if text and path.exists():
        return path
    if is_name:
        known = ", ".join(shipped) or "none"
        raise EngineError(f"{text}: no such file, and no shipped engine has this name (shipped: {known})")
    raise EngineError(f"{text}: no such file; give the path of an engine or the name of a shipped one")


def _read_manifest(path: Path, members: Mapping[str, memoryview]) -> EngineManifest:
    if MANIFEST not in members:
        raise EngineError(f"{path}: no {MANIFEST} in it, so this is not an engine; pack ONNX files with `kerf export`")
    raw = members[MANIFEST]
    if len(raw) > MAX_MANIFEST:
        raise EngineError(f"{path}: {MANIFEST} has {len(raw)} bytes, at most {MAX_MANIFEST} expected; {archive.AGAIN}")
    try:
        values = json.loads(bytes(raw), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path}: {MANIFEST} is not JSON ({error}); {archive.AGAIN}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise EngineError(f'{path}: {MANIFEST} does not say "format": "{FORMAT}", so this is not an engine')
    _check_version(path, values)
    try:
        return MANIFESTS[values["kind"]].from_dict(values, where="manifest")
    except ConfigError as error:
        raise EngineError(f"{path}: {error}; the file is damaged or was not written by Kerf {__version__}; {archive.AGAIN}") from error


def _check_version(path: Path, values: Mapping[str, Any]) -> None:
    """Version and kind come before everything else: a newer manifest has keys that are unknown here."""
    version, kind = values.get("format_version"), values.get("kind")
    if type(version) is not int or version < 1:
        raise EngineError(f"{path}: manifest.format_version must be a positive integer, got {version!r:.60}; {archive.AGAIN}")
    if version > FORMAT_VERSION:
        raise EngineMismatchError(
            f"{path}: engine format version {version}, but Kerf {__version__} reads version {FORMAT_VERSION}; "
            "upgrade Kerf, or export the engine again with this version"
        )
    if version < FORMAT_VERSION:
        raise EngineMismatchError(
            f"{path}: engine format version {version}, but Kerf {__version__} reads version {FORMAT_VERSION}; "
            "make the engine again from its checkpoint: kerf export CHECKPOINT --out NAME.engine"
        )
    if not isinstance(kind, str) or kind not in MANIFESTS:
        raise EngineMismatchError(
            f"{path}: an engine of kind {kind!r:.60}, but Kerf {__version__} knows {', '.join(MANIFESTS)}; upgrade Kerf, or {archive.AGAIN}"
        )


def _check_kind(path: Path, manifest: EngineManifest, wanted: type[EngineManifest]) -> None:
    if not isinstance(manifest, wanted):
        raise EngineMismatchError(
            f"{path}: an engine of kind {manifest.kind!r}, but a {wanted.KIND} is needed here; sdk.{manifest.kind.capitalize()} runs it"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return values


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _check_members(path: Path, manifest: EngineManifest, members: Mapping[str, memoryview]) -> None:
    absent = [name for name in manifest.graph_names if name not in manifest.graphs]
    if absent:
        raise EngineError(f"{path}: the manifest lacks the graphs {', '.join(absent)}; {archive.AGAIN}")
    expected = {MANIFEST, *(spec.file for spec in manifest.graphs.values())}
    missing, extra = sorted(expected - set(members)), sorted(set(members) - expected)
    if missing:
        raise EngineError(f"{path}: lacks {', '.join(missing)}, which the manifest names; {archive.AGAIN}")
    if extra:
        raise EngineError(f"{path}: holds {', '.join(extra)}, which the manifest does not name; remove or {archive.AGAIN}")


def _check_graph(path: Path, name: str, spec: GraphSpec, data: memoryview) -> None:
    if len(data) != spec.bytes:
        raise EngineError(f"{path}: graph {name!r} has {len(data)} bytes, the manifest says {spec.bytes}; {archive.AGAIN}")
    if hashlib.sha256(data).hexdigest() != spec.sha256:
        raise EngineError(f"{path}: graph {name!r} was altered, its sha256 is not the manifest's; {archive.AGAIN}")
    facts = _inspect(path, name, data)
    if facts.opset != spec.opset:
        raise EngineError(f"{path}: graph {name!r} has opset {facts.opset}, the manifest says {spec.opset}; {archive.AGAIN}")


def _inspect(path: Path, name: str, data: memoryview) -> onnx.OnnxFacts:
    try:
        facts = onnx.inspect(data)
    except ValueError as error:
        raise EngineError(f"{path}: graph {name!r} is not an ONNX model ({error}); export it again") from error
    if facts.external:
        raise EngineError(
            f"{path}: graph {name!r} keeps {len(facts.external)} tensors in other files ({facts.external[0]!r}, ...); an engine "
            "carries everything inside: save the model with its tensors embedded (onnx.save without save_as_external_data)"
        )
    return facts

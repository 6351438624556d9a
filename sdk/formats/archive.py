"""The container of an engine: a zip whose members are stored uncompressed, or a folder with the same files.

Members are mapped, not read: a graph costs memory when it is used. Everything that could surprise a reader of zips (compression,
encryption, members that share bytes, names that lead elsewhere) is refused, so a member is always one plain range of the file.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from sdk.errors import EngineError
from sdk.files import PathLike, atomic_writer

MAX_MEMBERS = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # signature, ..., name length, extra length
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: equal members give equal bytes
AGAIN = "copy or download it again, or export it again"


def read_members(path: Path) -> dict[str, memoryview]:
    """Maps the members of an engine.

    Args:
        path: an existing file or folder.

    Returns:
        Member name -> its bytes, read-only; the mapping lives as long as they do.

    Raises:
        EngineError: not such a container, or one that does anything but store plain files.
    """
    return _read_folder(path) if path.is_dir() else _read_zip(path)


def write_zip(path: PathLike, members: Mapping[str, bytes | memoryview]) -> None:
    """Writes members, in their order, as a stored zip; equal input gives equal bytes, and the file appears whole or not at all."""
    with atomic_writer(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # the same bytes on every system
            info.external_attr = 0o644 << 16
            info.file_size = len(data)  # tells zipfile whether the 64-bit fields are needed
            with archive.open(info, "w") as member:
                member.write(data)


def _map(path: Path) -> memoryview:
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_folder(path: Path) -> dict[str, memoryview]:
    members: dict[str, memoryview] = {}
    for entry in sorted(path.iterdir()):
        if not entry.is_file():
            raise EngineError(f"{path}: an engine folder holds files only, but {entry.name!r} is none")
        if len(members) == MAX_MEMBERS:
            raise EngineError(f"{path}: not an engine folder: it holds more than {MAX_MEMBERS} files")
        members[entry.name] = _map(entry)
    return members


def _read_zip(path: Path) -> dict[str, memoryview]:
    data = _map(path)
    start = bytes(data[:64])
    if not start.startswith(b"PK\x03\x04"):
        raise EngineError(f"{path}: {_not_a_zip(start)}")
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
        raise EngineError(f"{path}: truncated or damaged, the table of its members cannot be read ({error}); {AGAIN}") from error
    if len(infos) > MAX_MEMBERS:
        raise EngineError(f"{path}: not an engine: {len(infos)} members, at most {MAX_MEMBERS} expected")
    _check_names(path, (info.filename for info in infos))
    ranges = {info.filename: _locate(path, data, info) for info in infos}
    _check_overlap(path, ranges)
    members = {name: data[first:last] for name, (first, last) in ranges.items()}
    for info in infos:  # the graphs have SHA-256 sums in the manifest; this protects the manifest itself
        if info.filename.endswith(".json") and zlib.crc32(members[info.filename]) != info.CRC:
            raise EngineError(f"{path}: the checksum of member {info.filename!r} is wrong, the file was altered or damaged; {AGAIN}")
    return members


def _not_a_zip(start: bytes) -> str:
    if not start:
        return f"an empty file; {AGAIN}"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the engine itself; run `git lfs pull`"
    return "not an engine file (an engine is a zip with a manifest); pack ONNX files and checkpoints with `kerf export`"


def _check_names(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or name.startswith(".") or any(c in name for c in '/\\:\0"') or not name.isprintable():
            raise EngineError(f"{path}: the member name {name!r} leads outside the engine; do not use this file")
        if name in seen:
            raise EngineError(f"{path}: holds the member {name!r} twice; {AGAIN}")
        seen.add(name)


def _locate(path: Path, data: memoryview, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Finds where the bytes of a member lie, from its local header, which must agree with the table."""
    where = f"{path}: member {info.filename!r}"
    if info.flag_bits & 0x1:
        raise EngineError(f"{where} is encrypted; an engine is not")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise EngineError(f"{where} is compressed; pack it again with `sdk.Engine.write` or `zip -0`")
    header_end = info.header_offset + _LOCAL_HEADER.size
    if info.header_offset < 0 or header_end > len(data):
        raise EngineError(f"{where} lies outside the file, which is truncated or damaged; {AGAIN}")
    fields = _LOCAL_HEADER.unpack(data[info.header_offset : header_end])
    signature, name_length, extra_length = fields[0], fields[-2], fields[-1]
    name = bytes(data[header_end : header_end + name_length])
    if signature != b"PK\x03\x04" or name != info.orig_filename.encode("utf-8", "replace"):
        raise EngineError(f"{where} is not where the table says; the file is damaged; {AGAIN}")
    first = header_end + name_length + extra_length
    if first + info.file_size > len(data):
        raise EngineError(f"{where} is cut off; the file is truncated; {AGAIN}")
    return first, first + info.file_size


def _check_overlap(path: Path, ranges: Mapping[str, tuple[int, int]]) -> None:
    end = 0
    for name, (first, last) in sorted(ranges.items(), key=lambda item: item[1]):
        if first < end:
            raise EngineError(f"{path}: the member {name!r} shares bytes with another; do not use this file")
        end = last

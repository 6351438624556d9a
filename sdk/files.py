"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_writer(path: PathLike) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` and renames it to `path` when the block ends well.

    When the block raises, `path` stays as it was and the temporary file is gone. Missing folders are made. A link is followed; what is no
    regular file (a terminal, a pipe, /dev/null) is written to directly.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, "wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # A short name: the target's own may already be as long as the file system allows.
    handle, temporary = tempfile.mkstemp(prefix=".kerf-", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        # mkstemp makes files that only their owner may read; give the result the mode that open() would have given.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_bytes(path: PathLike, data: bytes | memoryview) -> None:
    """Writes a whole file atomically."""
    with atomic_writer(path) as stream:
        stream.write(data)


def write_json(path: PathLike, value: object) -> None:
    """Writes compact JSON atomically; NaN and infinity are refused, as JSON has no such numbers."""
    write_bytes(path, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def _umask() -> int:
    # The mask can only be read by setting it, which other threads would see; Linux also tells it.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022

"""What was found out about files, remembered while they do not change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sdk.files import write_json

VERSION = 1


def stamp_of(*paths: Path | None) -> list[int]:
    """Sizes and times of change of files; differs when one of them was written again. A missing file counts as -1."""
    stamp: list[int] = []
    for path in paths:
        if path is not None:
            try:
                info = os.stat(path)
                stamp += [info.st_size, info.st_mtime_ns]
            except OSError:
                stamp += [-1, -1]
    return stamp


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have (too long, with a NUL in it) is not there either."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


class FileCache:
    """A JSON file of values by name, each valid for one stamp.

    A file that is missing, broken or of another purpose is no error: everything is then found out again.

    Args:
        path: where it lies; None = remember nothing.
        purpose: what the values are about; those of another purpose are not used.
    """

    def __init__(self, path: Path | None, purpose: str) -> None:
        self.path, self.purpose, self._changed = path, purpose, False
        self._values: dict[str, list[Any]] = {}
        if path is not None and path.is_file():
            try:
                content = json.loads(path.read_bytes())
            except ValueError:
                return
            if isinstance(content, dict) and (content.get("version"), content.get("purpose")) == (VERSION, purpose):
                values = content.get("values")
                self._values = values if isinstance(values, dict) else {}

    def get(self, name: str, stamp: list[int]) -> Any:
        """The value of a name, None when there is none for this stamp."""
        known = self._values.get(name)
        return known[1] if known is not None and known[0] == stamp else None

    def put(self, name: str, stamp: list[int], value: Any) -> None:
        """Remember a value."""
        self._values[name] = [stamp, value]
        self._changed = True

    def write(self) -> None:
        """Keep what was put."""
        if self.path is not None and self._changed:
            write_json(self.path, {"version": VERSION, "purpose": self.purpose, "values": self._values})
            self._changed = False

"""Engines that ship with the package, found by name: `Segmenter("nuclei")`."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".engine"


def shipped() -> dict[str, Path]:
    """Returns name -> file of every shipped engine, sorted by name."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(Path(__file__).parent.glob(f"*{SUFFIX}"))}

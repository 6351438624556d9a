"""`kerf checks`: what this machine and installation have, for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from typing import Any

from sdk.backends.onnxruntime import usable_cores
from sdk.errors import KerfError
from sdk.version import __version__

_PACKAGES = {
    "numpy": "",
    "onnxruntime": "",
    "opencv-python-headless": "",
    "pillow": "",
    "pycocotools": "kerf eval",
    "torch": "kerf train",
    "onnx": "kerf export",
}
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser("checks", help="versions, CPU, providers and shipped engines, for bug reports")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the verb; 1 when something that prediction needs is missing."""
    found: dict[str, str] = {"kerf": __version__, "python": platform.python_version(), "system": platform.platform()}
    problems: list[str] = []
    for package, purpose in _PACKAGES.items():
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = f"not installed ({purpose} needs it)" if purpose else "not installed"
            if not purpose and not (package.startswith("opencv") and _has_other_opencv(found)):
                problems.append(f"{package} is missing: install Kerf again: pip install .")
    found.update(_cpu())
    found.update(_native(problems))
    found.update(_engines(problems))
    if options.json:
        print(json.dumps({**found, "problems": problems}))
    else:
        print("\n".join(f"{name:24} {value}" for name, value in found.items()))
        print("\n".join(f"problem: {problem}" for problem in problems) or "no problems")
    return 1 if problems else 0


def _has_other_opencv(found: dict[str, str]) -> bool:
    for package in ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        return True
    return False


def _cpu() -> dict[str, str]:
    info: dict[str, str] = {}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                info.setdefault(key.strip(), value.strip())
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cpu features": " ".join(name for name in _FEATURES if name in flags) or "none of those looked for",
        "cores usable": f"{usable_cores()} of {os.cpu_count()}",
    }


def _native(problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        import sdk.ops  # noqa: F401

        found["native core"] = "loads"
    except ImportError as error:
        found["native core"] = f"does not load: {error}"
        problems.append("the native core does not load: install Kerf again, pip install --force-reinstall . in the checkout")
    try:
        import onnxruntime

        found["onnxruntime providers"] = ", ".join(onnxruntime.get_available_providers())
    except ImportError as error:
        found["onnxruntime providers"] = f"does not load: {error}"
    return found


def _engines(problems: list[str]) -> dict[str, str]:
    from sdk import engines
    from sdk.engine import Engine
    from sdk.manifest import EngineManifest

    found: dict[str, str] = {}
    for name, path in engines.shipped().items():
        try:
            found[f"engine {name}"] = f"{Engine.open(path, EngineManifest).manifest.method}, {path.stat().st_size / 1e6:.1f} MB"
        except KerfError as error:
            found[f"engine {name}"] = str(error)
            problems.append(f"the shipped engine {name} is damaged: install Kerf again, pip install --force-reinstall . in the checkout")
    return found

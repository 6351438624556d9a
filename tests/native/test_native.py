"""Compiles the core with the C++ tests of this folder and runs them under sanitizers; no Python is linked in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "sdk" / "csrc"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-pthread",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-Werror",
    "-fno-omit-frame-pointer",
]

# The second watches the pool and the operators' shared memory; it cannot be combined with the first.
SANITIZERS = {"address,undefined": ["-fno-sanitize-recover=all"], "thread": []}


def _compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if not found:
        pytest.skip("no C++ compiler")
    return found


def _compile(compiler: str, sources: list[Path], target: Path, flags: list[str]) -> None:
    """All sources in two processes at a time."""
    objects = [target.with_name(f"{i}-{source.stem}.o") for i, source in enumerate(sources)]
    jobs = [[compiler, *FLAGS, *flags, f"-I{CORE}", "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects, strict=True)]
    for start in range(0, len(jobs), 2):
        running = [subprocess.Popen(job, stderr=subprocess.PIPE, text=True) for job in jobs[start : start + 2]]
        for process in running:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
    subprocess.run([compiler, *flags, "-pthread", *map(str, objects), "-o", str(target)], check=True)


def _has_sanitizer(compiler: str, name: str, folder: Path) -> bool:
    source = folder / "probe.cpp"
    source.write_text("int main() { return 0; }\n")
    probe = folder / "probe"
    built = subprocess.run([compiler, f"-fsanitize={name}", str(source), "-o", str(probe)], capture_output=True, check=False)
    return built.returncode == 0 and subprocess.run([str(probe)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_the_core_is_clean_under(sanitizer: str, tmp_path: Path) -> None:
    compiler = _compiler()
    if not _has_sanitizer(compiler, sanitizer, tmp_path):
        pytest.skip(f"{compiler} cannot build or run with -fsanitize={sanitizer} here")
    sources = sorted(CORE.glob("*.cpp")) + sorted(HERE.glob("*.cpp"))
    _compile(compiler, sources, tmp_path / "tests", [f"-fsanitize={sanitizer}", *SANITIZERS[sanitizer]])
    done = subprocess.run([str(tmp_path / "tests")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    assert "FAILED" not in done.stdout

"""Builds the native core `sdk._core`; everything else about the package is in pyproject.toml.

Environment: `KERF_WERROR=1` makes warnings errors (`make test` and CI do), `KERF_JOBS` sets the parallel compiles (2).
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

SOURCE = Path("sdk/csrc")

# Other people's headers as system headers: -Werror is for our own code only.
SYSTEM_HEADERS = [f"-isystem{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])]
# No contraction into fused multiply-adds: results are the same on every machine. No errno, no traps: more loops vectorise.
ARITHMETIC = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# psabi notes concern vector types in signatures across compilers; ours never leave a function.
WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", *(["-Werror"] if os.environ.get("KERF_WERROR") == "1" else [])]

core = Pybind11Extension(
    "sdk._core",
    sources=sorted(path.as_posix() for path in SOURCE.rglob("*.cpp")),
    depends=sorted(path.as_posix() for path in SOURCE.rglob("*.h")),
    include_dirs=[SOURCE.as_posix()],
    cxx_std=17,
    extra_compile_args=["-O3", "-g0", "-pthread", *SYSTEM_HEADERS, *ARITHMETIC, *WARNINGS],
    extra_link_args=["-pthread"],
)

with ParallelCompile("KERF_JOBS", default=2):
    setup(ext_modules=[core], cmdclass={"build_ext": build_ext})

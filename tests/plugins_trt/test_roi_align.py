"""The CUDA RoIAlign: its arithmetic through a host build, and that the kernel compiles. It has not run on a GPU here."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sdk.ops import reference
from tests.sdk.ops.cases import DEGENERATE_BOXES, random_boxes

ROOT = Path(__file__).parents[2]
STRIDES = (4.0, 8.0, 16.0, 32.0)
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120)


@pytest.fixture(scope="module")
def host_build(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("roi_align") / "host.so"
    source = Path(__file__).with_name("roi_align_host.cpp")
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{ROOT / 'plugins_trt'}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, features: list, boxes, batch, size: int, ratio: int, level: int | None, aligned: bool = True):  # type: ignore[no-untyped-def]
    out = np.full((len(boxes), features[0].shape[1], size, size), np.nan, np.float32)
    floats, ints = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int32)
    maps = (floats * len(features))(*[f.ctypes.data_as(floats) for f in features])
    sizes = np.array([f.shape[2:] for f in features], np.int32)
    strides = np.array(STRIDES[: len(features)], np.float32)
    library.roi_align_host(
        maps,
        sizes.ctypes.data_as(ints),
        strides.ctypes.data_as(floats),
        len(features),
        features[0].shape[0],
        features[0].shape[1],
        boxes.ctypes.data_as(floats),
        batch.ctypes.data_as(ints),
        len(boxes),
        size,
        ratio,
        -1 if level is None else level,
        ctypes.c_bool(aligned),
        out.ctypes.data_as(floats),
    )
    return out


def pyramid(rng: np.random.Generator, size: tuple[int, int]) -> list:
    return [rng.standard_normal((2, 3, max(1, int(size[0] / s)), max(1, int(size[1] / s)))).astype(np.float32) for s in STRIDES]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize(("size", "level"), [(7, None), (14, 0), (1, 3)])
def test_arithmetic_is_the_definition(host_build: ctypes.CDLL, ratio: int, size: int, level: int | None, aligned: bool) -> None:
    rng = np.random.default_rng(size)
    features = pyramid(rng, (160, 224))
    boxes, batch = random_boxes(rng, 40, (160, 224)), rng.integers(0, 2, 40).astype(np.int32)
    expected = reference.roi_align(features, STRIDES, boxes, batch, size, sampling_ratio=ratio, level=level, aligned=aligned)
    np.testing.assert_allclose(run(host_build, features, boxes, batch, size, ratio, level, aligned), expected, atol=1e-4)


def test_degenerate_boxes(host_build: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    features, batch = pyramid(rng, (96, 96)), np.zeros(len(DEGENERATE_BOXES), np.int32)
    expected = reference.roi_align(features, STRIDES, DEGENERATE_BOXES, batch, 3, sampling_ratio=2)
    np.testing.assert_allclose(run(host_build, features, DEGENERATE_BOXES, batch, 3, 2, None), expected, atol=1e-4)


def test_no_boxes_and_one_cell_maps(host_build: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    features = [np.ones((1, 1, 1, 1), np.float32)] * 4
    assert run(host_build, features, np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 7, 2, None).shape == (0, 1, 7, 7)
    boxes, batch = random_boxes(rng, 5, (8, 8)), np.zeros(5, np.int32)
    expected = reference.roi_align(features, STRIDES, boxes, batch, 2)
    np.testing.assert_allclose(run(host_build, features, boxes, batch, 2, 2, None), expected, atol=1e-5)


def test_kernel_compiles_for_every_architecture(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on this machine")
    known = set(
        map(int, re.findall(r"sm_(\d+)", subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout))
    )
    wanted = [a for a in ARCHITECTURES if a in known]
    assert wanted, f"this nvcc knows none of {ARCHITECTURES}"
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in wanted]
    command = [nvcc, "-std=c++17", "-O3", "--threads", "0", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror", *codes]
    subprocess.run([*command, "-c", str(ROOT / "plugins_trt/roi_align.cu"), "-o", str(tmp_path / "roi_align.o")], check=True)
    assert (tmp_path / "roi_align.o").stat().st_size > 0

"""What importing costs, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdk

ROOT = Path(sdk.__file__).parent
HEAVY = ("torch", "cv2", "matplotlib", "PIL", "onnxruntime", "onnx", "pycocotools", "scipy", "pandas")
BUDGET = 0.1  # CPU-seconds that `import sdk` may cost above numpy's


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_sdk_imports_nothing_heavy() -> None:
    assert run(f"import sdk, sys; print(*[name for name in {HEAVY} if name in sys.modules])") == ""


@pytest.mark.parametrize("name", ["Segmenter", "Instances", "Engine", "read_image"])
def test_public_names_import_nothing_heavy_either(name: str) -> None:
    assert run(f"import sys; from sdk import {name}; print(*[name for name in {HEAVY} if name in sys.modules])") == ""


def cpu_seconds(statement: str) -> float:
    """Processor time of an import in a fresh interpreter, the best of five: noise only ever adds."""
    program = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    return min(float(run(program)) for _ in range(5))


@pytest.mark.parametrize("statement", ["import sdk", "from sdk import Segmenter, Instances, Engine"])
def test_import_budget(statement: str) -> None:
    assert cpu_seconds(f"import numpy; {statement}") - cpu_seconds("import numpy") <= BUDGET


def imports(path: Path) -> Iterator[str]:
    """Top-level packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module).partition(".")[0]


ALLOWED = {"sdk", "numpy", "onnxruntime", "cv2", "PIL", "pycocotools", "typing_extensions"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_runtime_imports_only_its_own_and_what_it_declares(path: Path) -> None:
    """Never torch, never export, training or plugins_trt: imports point one way."""
    assert set(imports(path)) <= ALLOWED


LAZY = {"onnxruntime", "cv2", "PIL", "pycocotools"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    names = {alias.name.partition(".")[0] for node in top.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module).partition(".")[0] for node in top.body if isinstance(node, ast.ImportFrom)}
    assert not names & LAZY


def test_every_public_name_is_there() -> None:
    assert set(sdk.__all__) <= set(dir(sdk))
    for name in sdk.__all__:
        assert getattr(sdk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        sdk.Segmentor  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()

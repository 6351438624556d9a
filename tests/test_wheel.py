"""The wheel holds the runtime and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_holds_the_runtime_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("kerf_sdk-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        requirements = [
            line for line in archive.read(next(n for n in names if n.endswith("METADATA"))).decode().splitlines() if "Requires-Dist" in line
        ]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sdk", "kerf_sdk"}
    for wanted in ("sdk/engines/nuclei.engine", "sdk/py.typed", "sdk/_core.pyi", "sdk/segmenter.py"):
        assert wanted in names
    assert any(name.startswith("sdk/_core.") and name.endswith(".so") for name in names)
    assert not any("torch" in line for line in requirements if "extra ==" not in line)

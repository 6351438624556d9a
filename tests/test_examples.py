"""Every example runs, as a user would start it."""

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_demo(tmp_path: Path) -> None:
    printed = run("demo.py", "--out", str(tmp_path))
    results = json.loads((tmp_path / "coins.json").read_text())
    assert f"{len(results)} instances" in printed
    assert len(results) >= 20
    assert (tmp_path / "coins.png").stat().st_size > 10_000
    assert "mask" in printed


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text() + "".join(p.read_text() for p in Path(__file__).parent.rglob("test_*.py"))
    assert [p.name for p in EXAMPLES.glob("*.py") if p.name not in tested] == []

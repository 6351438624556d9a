from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from sdk.images import read_image
from tests.sdk import tiny

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "segment_picture.py"


def test_the_example_runs(tiny_engine: Path, tmp_path: Path) -> None:
    Image.fromarray(tiny.squares()).save(tmp_path / "squares.png")
    command = [sys.executable, EXAMPLE, tmp_path / "squares.png", "--engine", tiny_engine, "--out", tmp_path / "out", "--conf", "0.9"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.startswith("2 instances in ")
    assert "warm 0.99" in output
    assert "trunk" in output
    assert len(json.loads((tmp_path / "out/squares.json").read_text())) == 2
    assert read_image(tmp_path / "out/squares.png").shape == (96, 128)


def test_the_demo_finds_the_coins(tmp_path: Path) -> None:
    output = subprocess.run(
        [sys.executable, EXAMPLE, "--conf", "0.5", "--out", tmp_path], check=True, capture_output=True, text=True
    ).stdout
    results = json.loads((tmp_path / "coins.json").read_text())
    assert output.startswith(f"{len(results)} instances in ")
    assert len(results) >= 20
    assert read_image(tmp_path / "coins.png").shape == (303, 384)

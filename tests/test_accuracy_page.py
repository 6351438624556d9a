"""The page about accuracy says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
from benchmarks.accuracy import config
from benchmarks.accuracy.table import render

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_what_the_command_writes() -> None:
    measured = json.loads((DOCS / "accuracy.json").read_text())
    assert (DOCS / "accuracy.md").read_text() == render(measured)


def test_every_head_was_measured_with_its_seeds_and_budget() -> None:
    measured = json.loads((DOCS / "accuracy.json").read_text())
    assert list(measured["heads"]) == list(config.HEADS)
    for name, row in measured["heads"].items():
        assert [run["seed"] for run in row["runs"]] == list(range(config.SEEDS[name]))
        assert {run["iterations"] for run in row["runs"]} == {config.ITERATIONS}
    assert measured["setting"]["text"] == config.TEXT

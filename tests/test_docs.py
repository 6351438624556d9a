"""The commands and names that the documents show exist: every command line goes through its own program's parser."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from sdk.cli.evaluate import _metric_names
from sdk.cli.main import _parser as kerf_parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")


def commands() -> list[tuple[str, str]]:
    """Document and command line of every line that starts with one of our programs."""
    found = []
    for path in DOCUMENTS:
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if re.match(r"(    )?(python -m|kerf|torchrun) ", line):
                found.append((path.name, line.strip()))
    return found


def words(line: str) -> list[str]:
    """The arguments; what is optional or left out in the document is not there."""
    return [word for word in shlex.split(re.sub(r"\[--[^]]*\]", "", line), comments=True) if word != "..."]


def parse(module: str, arguments: list[str], line: str) -> None:
    if module == "training.train":
        from training.train import configure
        from training.train import parse as read

        if "..." in line:
            arguments = ["--data", "x", "--out", "y", *arguments]
        configure(read(arguments))
    elif module == "training.checkpoint":
        assert len(arguments) == 2
    else:
        assert importlib.util.find_spec(module) is not None, module
        program = importlib.import_module(module)
        if hasattr(program, "parse"):
            program.parse(arguments)


@pytest.mark.parametrize(("document", "line"), commands(), ids=lambda value: value[:60])
def test_commands_are_understood(document: str, line: str) -> None:
    program, *rest = words(line)
    if program == "torchrun":
        rest = rest[rest.index("-m") :]
    if program == "kerf" and rest[0] in ("train", "export"):
        parse({"train": "training.train", "export": "export.main"}[rest[0]], rest[1:], line)
    elif program == "kerf":
        options = kerf_parser().parse_args(rest)
        if rest[0] == "eval" and options.metrics:
            assert _metric_names(options.metrics)
    else:
        parse(rest[1], rest[2:], line)


def test_there_are_commands_of_every_kind() -> None:
    starts = {" ".join(words(line)[:3]) for _, line in commands()}
    assert {"python -m training.train", "python -m training.import_checkpoint", "python -m training.checkpoint"} <= starts
    assert any(s.startswith("kerf export") for s in starts) and any(s.startswith("kerf eval") for s in starts)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    named = re.findall(
        r"`((?:docs|sdk|training|export|tests|benchmarks|examples|plugins_trt)/[a-z_0-9./]+\.(?:py|md|json|pt|engine))`", text
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [link for link in re.findall(r"\]\(([\w./]+\.(?:md|py))\)", text) if not (path.parent / link).exists()]
    assert missing == []


def test_fields_that_the_training_guide_names_exist() -> None:
    """Words in backquotes that look like a field with its owner, and the column of fields."""
    from training.config import TrainConfig

    defaults = TrainConfig().to_dict()
    text = (ROOT / "docs/training.md").read_text()
    for name in set(re.findall(r"`((?:model|augment)\.[a-z_.0-9]+)[`=]", text)):
        value: object = defaults
        for key in name.split("."):
            assert isinstance(value, dict) and key in value, name
            value = value[key]


def test_the_manifest_in_the_guide_has_every_field() -> None:
    """The example of docs/engine.md names what a shipped engine's manifest holds, at any depth."""
    from sdk.engine import Engine

    example = re.search(r"```js\n(.*?)```", (ROOT / "docs/engine.md").read_text(), re.DOTALL)
    assert example is not None
    named = set(re.findall(r'"(\w+)":', example[1]))

    def keys(value: object) -> set[str]:
        if isinstance(value, list | tuple):
            return set().union(*map(keys, value))
        if not isinstance(value, dict):
            return set()
        free = {"provenance", "verified", "graphs"}  # their content differs from engine to engine
        return set(value).union(*(keys(v) for k, v in value.items() if k not in free))

    held = keys(Engine.open(ROOT / "sdk/engines/nuclei.engine").manifest.to_dict())
    assert held <= named, held - named

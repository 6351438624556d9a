from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdk import engines
from sdk.cli import forward
from sdk.cli.main import main
from sdk.cli.progress import Progress, line
from sdk.version import __version__
from tests.sdk import tiny


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("verb", ["", "predict", "eval", "info", "checks"])
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*([verb] if verb else []), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    if not verb:
        for word in ("predict", "eval", "info", "train", "export", "checks", "version", "exit codes"):
            assert word in text


def test_without_a_verb() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "sdk", "version"], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == __version__


def test_a_closed_pipe_is_quiet(tiny_engine: Path) -> None:
    command = f"{sys.executable} -m sdk info {tiny_engine} --json | head -c 10"
    run = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    assert run.stderr == ""


def test_info(tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_engine)]) == 0
    text = capsys.readouterr().out
    for words in ("tiny, a segmenter, method colour", "warm, cold", "rgb, scale 1", "graph trunk", "opset 18", "CC0-1.0", "verified"):
        assert words in text
    assert main(["info", str(tiny_engine), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["class_names"] == ["warm", "cold"]
    assert len(values["graphs"]["box"]["sha256"]) == 64


def test_info_on_a_broken_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.engine"
    path.write_bytes(b"PK\x03\x04")
    assert main(["info", str(path)]) == 2
    assert "truncated" in capsys.readouterr().err


def test_checks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert main(["checks", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kerf"] == __version__
    assert "CPUExecutionProvider" in found["onnxruntime providers"]
    assert found["problems"] == []
    (tmp_path / "bad.engine").write_bytes(b"junk")
    monkeypatch.setattr(engines, "__file__", str(tmp_path / "__init__.py"))
    assert main(["checks"]) == 1
    assert "problem: the shipped engine bad is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "module"), [("train", "training.train"), ("export", "export.main")])
def test_verbs_of_the_checkout_get_their_arguments(verb: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package, _, name = module.partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / package / f"{name}.py").write_text(
        "def main(arguments):\n    return len(arguments) if arguments == ['--a', 'b', '--help'] else 99\n"
    )
    (tmp_path / "sdk").mkdir()
    monkeypatch.setattr(forward.sdk, "__file__", str(tmp_path / "sdk" / "__init__.py"))
    monkeypatch.setattr(sys, "path", [])
    for loaded in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    assert main([verb, "--a", "b", "--help"]) == 3
    for loaded in (module, package):
        del sys.modules[loaded]  # not by monkeypatch, which would put the stand-in back


@pytest.mark.parametrize(
    ("missing", "words"),
    [("training", "needs the source checkout"), ("training.train", "needs the source checkout"), ("torch", "needs the package 'torch'")],
)
def test_what_to_install_is_said(missing: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(forward.importlib, "import_module", fail)
    assert main(["train", "--help"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "pip install -c constraints.txt -e '.[train]'" in error


def test_progress_is_for_terminals_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(50)
    progress.step()
    progress.close()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert not Progress(3).shown
    assert not Progress(50, enabled=False).shown
    progress = Progress(11)
    for _ in range(11):
        progress.step()
    progress.close()
    error = capsys.readouterr().err
    assert "11/11  100 %" in error
    assert error.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("done", "total", "seconds", "left"), [(1, 2, 61.0, "1:01 left"), (1, 4, 3600.0, "3:00:00 left"), (5, 5, 1.0, "0:00 left")]
)
def test_time_left(done: int, total: int, seconds: float, left: str) -> None:
    assert line(done, total, seconds).endswith(left)


def test_the_tiny_engine_has_what_info_prints() -> None:
    assert tiny.manifest().provenance["data"]

import json
from pathlib import Path

import pytest

from sdk.errors import ConfigError
from tests.training.refiner.short import SHORT
from training.refiner.presets import PRESETS
from training.refiner.trainer import load_refiner
from training.train_refiner import configure, main, parse


def test_two_iterations_on_scenes_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(PRESETS, "general", SHORT)
    arguments = ["--source", "scenes,count=2,size=128", "--out", str(tmp_path), "--seed", "4", "--set", "patches.jitter=0"]
    assert main([*arguments, "--iterations", "2"]) == 0
    model, config = load_refiner(tmp_path / "checkpoint.pt")
    assert (config.iterations, config.seed, config.patches.jitter, config.sources[0].size) == (2, 4, 0.0, 128)
    assert model.config == SHORT.model
    with pytest.raises(ConfigError, match="--resume goes on from it"):
        main([*arguments, "--iterations", "3"])
    assert main([*arguments, "--iterations", "3", "--resume"]) == 0
    assert "iterations: 2 before, 3 now" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert "val_scenes_f" in rows[1] and "val_scenes_f" not in rows[0]
    assert main([*arguments, "--iterations", "1", "--overwrite", "--init", str(tmp_path / "checkpoint.pt")]) == 0


def test_the_command_line_overrides_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    options = parse(["--preset", "paper", "--out", "x", "--source", "scenes", "--set", "model.network=hrnet_w48", "--batch", "8"])
    config = configure(options)
    assert (config.model.network, config.batch, config.optimizer, config.learning_rate) == ("hrnet_w48", 8, "sgd", 0.01)
    assert main(["--out", "x", "--source", "dead-leaves,weight=3", "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["weight"] == 3


def test_the_papers_numbers() -> None:
    paper = PRESETS["paper"]
    assert (paper.model.network, paper.model.patch, paper.model.pad, paper.model.input) == ("hrnet_w18_small_v2", 64, 0, 128)
    assert (paper.iterations, paper.batch, paper.optimizer, paper.learning_rate, paper.weight_decay) == (160_000, 32, "sgd", 0.01, 5e-4)
    assert (paper.schedule, paper.power, paper.floor) == ("poly", 0.9, 1e-4)
    assert (paper.patches.nms_threshold, paper.coarse.min_iou, paper.patches.jitter, paper.patches.scale) == (0.25, 0.5, 0.0, (1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "patches.flipp=1"], "did you mean 'flip'"),
        (["--set", "validate_every=30"], "multiple of log_every"),
        (["--batch", "30"], "whole pictures with 4 patches"),
        (["--source", "scenes,size=10"], "size at least 96"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(parse(["--out", "x", "--source", "scenes", *arguments]))

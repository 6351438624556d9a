import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from tests.trained import TINY
from training import checkpoint
from training.config import ModelConfig, TrainConfig
from training.data.augment import training_crop
from training.data.coco import CocoInstances
from training.presets import NUCLEI, PRESETS
from training.train import NonFiniteLossError, Trainer, TrainingSet, learning_rate, main

SHORT = dataclasses.replace(TINY, iterations=8, checkpoint_every=4, log_every=1)


def trainer(config: TrainConfig, folder: Path, out: Path) -> Trainer:
    data = CocoInstances(folder / "annotations/train.json", folder / "train", config.model.category_ids)
    return Trainer(config, TrainingSet(data, config), out)


def test_resume_repeats_the_uninterrupted_run(ellipses: Path, tmp_path: Path) -> None:
    whole = [row["loss"] for row in trainer(SHORT, ellipses, tmp_path / "a").run()]
    first = trainer(SHORT, ellipses, tmp_path / "b")
    losses = []
    for row in first.run():
        losses.append(row["loss"])
        if row["iteration"] == 5:
            first.stopping = True
    again = trainer(SHORT, ellipses, tmp_path / "b")
    again.resume()
    assert again.iteration == 5
    losses += [row["loss"] for row in again.run()]
    assert losses == whole


def test_checkpoint_rebuilds_the_model(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT, ellipses, tmp_path)
    list(run.run())
    model, config = checkpoint.load_model(tmp_path / "checkpoint.pt")
    assert config == SHORT
    for name, value in model.state_dict().items():
        assert run.ema is not None and torch.equal(value, run.ema[name])
    assert not list(tmp_path.glob("*.part"))


def test_slim_checkpoint_holds_the_same_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.slim(tiny_checkpoint, tmp_path / "weights.pt")
    whole, slim = checkpoint.load_model(tiny_checkpoint), checkpoint.load_model(tmp_path / "weights.pt")
    assert whole[1] == slim[1]
    assert all(torch.equal(v, whole[0].state_dict()[k]) for k, v in slim[0].state_dict().items())
    assert (tmp_path / "weights.pt").stat().st_size < 0.4 * tiny_checkpoint.stat().st_size


def test_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"format 99"):
        checkpoint.load(tmp_path / "x.pt")


def test_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"format": 1, "model": Evil()}, tmp_path / "x.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoint.load(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_sigterm_leaves_a_resumable_checkpoint(ellipses: Path, tmp_path: Path) -> None:
    code = (
        "import sys, dataclasses; from tests.trained import TINY; import training.presets as p, training.train as t;"
        "p.PRESETS['tiny'] = dataclasses.replace(TINY, iterations=100000, log_every=1);"
        f"sys.exit(t.main(['--preset', 'tiny', '--data', {str(ellipses)!r}, '--out', {str(tmp_path)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first iteration is done
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    process.stdout.close()
    content = checkpoint.load(tmp_path / "checkpoint.pt")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 1 <= content["iteration"] == rows[-1]["iteration"] < 100000


def test_non_finite_loss_names_the_pictures(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT, ellipses, tmp_path)
    with torch.no_grad():
        run.model.box_head.fc1.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"pictures \[\d+, \d+, \d+, \d+\]"):
        run.step()


def test_learning_rate_schedules() -> None:
    step = dataclasses.replace(PRESETS["coco-1x"], iterations=90_000, warmup=1000)
    rates = [learning_rate(step, i) for i in (0, 999, 59_999, 60_000, 80_000)]
    assert rates == pytest.approx([0.02 / 1000, 0.02 * 0.999001, 0.02, 0.002, 0.0002])
    assert learning_rate(NUCLEI, NUCLEI.iterations) == pytest.approx(0.0)


def test_command_line_overrides_the_preset(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", TINY)
    assert main(["--data", str(ellipses), "--out", str(tmp_path), "--iterations", "2", "--seed", "5"]) == 0
    config = TrainConfig.from_dict(checkpoint.load(tmp_path / "checkpoint.pt")["config"])
    assert (config.iterations, config.seed) == (2, 5)


def test_config_errors() -> None:
    with pytest.raises(ConfigError, match="did you mean 'iterations'"):
        TrainConfig.from_dict({"iteratons": 3})
    with pytest.raises(ConfigError, match="optimizer"):
        TrainConfig(optimizer="adam")
    with pytest.raises(ConfigError, match="pair up"):
        ModelConfig(class_names=("a", "b"))
    assert TrainConfig.from_dict(NUCLEI.to_dict()) == NUCLEI


def test_crop_targets_agree_with_their_boxes(ellipses: Path) -> None:
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train", TINY.model.category_ids)
    seen = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, target = training_crop(*data.load(seed % len(data)), TINY.model, TINY.augment, rng)
        assert image.shape == (3, 128, 128) and image.dtype == torch.float32
        assert len(target.boxes) == len(target.labels) == len(target.masks)
        for box, mask in zip(target.boxes, target.masks, strict=True):
            rows, columns = torch.nonzero(mask.any(1)), torch.nonzero(mask.any(0))
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append({"id": 77, "file_name": "gone.png", "height": 5, "width": 5}), "1 x missing picture"),
        (lambda c: c["annotations"].append(dict(c["annotations"][0])), "1 x duplicate annotation id"),
        (lambda c: c["annotations"].append({**c["annotations"][0], "id": 900, "category_id": 55}), "category 55"),
        (lambda c: c["annotations"].append({**c["annotations"][0], "id": 901, "area": 0}), "1 x empty mask"),
        (lambda c: c["annotations"].append({**c["annotations"][0], "id": 902, "image_id": 404}), "unknown picture"),
    ],
)
def test_bad_annotations_are_counted_and_named(ellipses: Path, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    content = json.loads((ellipses / "annotations/train.json").read_text())
    change(content)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        CocoInstances(path, ellipses / "train", (3, 7))
    kept = CocoInstances(path, ellipses / "train", (3, 7), skip_bad=True)
    assert len(kept) == 12 and message in kept.summary()


def test_training_time_is_logged(ellipses: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    rows = list(trainer(dataclasses.replace(SHORT, iterations=2), ellipses, tmp_path).run())
    assert 0 < rows[-1]["seconds_per_iteration"] * 2 <= time.monotonic() - started

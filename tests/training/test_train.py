import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdk.errors import ConfigError
from tests.trained import TINY
from tests.training.short import SHORT, with_norm
from training import checkpoint
from training.config import TrainConfig
from training.models.detector import Detector
from training.presets import PRESETS
from training.train import configure, main, parse


def test_sigterm_leaves_a_resumable_checkpoint(ellipses: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from tests.training.short import SHORT; import training.presets as p, training.train as t;"
        "p.PRESETS['tiny'] = SHORT.replace(iterations=100000, checkpoint_every=100000);"
        f"sys.exit(t.main(['--preset', 'tiny', '--data', {str(ellipses)!r}, '--out', {str(tmp_path)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first iteration is done
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0
    process.stdout.close()
    content = checkpoint.load(tmp_path / "checkpoint.pt")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 1 <= content["iteration"] == rows[-1]["iteration"] < 100000


def test_command_line_overrides_the_preset(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", SHORT.replace(model=TINY.model.replace(class_names=("other",), category_ids=(9,))))
    arguments = ["--data", str(ellipses), "--out", str(tmp_path), "--seed", "5", "--head", "bmask", "--set", "augment.min_visible=.3"]
    assert main([*arguments, "--iterations", "1"]) == 0
    config = TrainConfig.from_dict(checkpoint.load(tmp_path / "checkpoint.pt")["config"])
    assert (config.iterations, config.seed, config.model.head.name, config.augment.min_visible) == (1, 5, "bmask", 0.3)
    assert config.model.head.channels == TINY.model.head.channels
    assert (config.model.class_names, config.model.category_ids) == (("bright", "dark"), (3, 7))  # the file's, not the preset's
    with pytest.raises(ConfigError, match="--resume goes on from it"):
        main([*arguments, "--iterations", "2"])
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"iteration": 2, "loss": 77}\n{"iterat')  # a run that was killed after its last checkpoint
    assert main([*arguments, "--iterations", "2", "--resume"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2] and rows[1]["loss"] != 77


def configured(*arguments: str) -> TrainConfig:
    return configure(parse(["--data", "x", "--out", "y", *arguments]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "model.head.conv=8"], "unknown key 'conv'; did you mean 'convs'"),
        (["--set", "model.head.convs=many"], r"model\.head\.convs: expected int, got str 'many'"),
        (["--set", "seed.x=1"], "'seed' is one value"),
        (["--set", "seed"], "expected FIELD=VALUE"),
        (["--batch", "4.5"], r"TrainConfig\.batch: expected int"),
        (["--learning-rate", "fast"], r"learning_rate: expected a finite number"),
        (["--batch", "0"], "batch must be at least 1"),
        (["--schedule", "linear"], "schedule must be one of"),
    ],
)
def test_options_have_types(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(*arguments)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("model.std=[0,1,1]", "std must be positive"),
        ("model.width=0", "width must be at least 1"),
        ("model.fpn_channels=0", "fpn_channels must be at least 1"),
        ("model.rpn.samples=0", "samples must be at least 1"),
        ("model.rpn.low=.8", "low must not be above high"),
        ("model.rpn.high=3", "high must be a number from 0 to 1"),
        ("model.rpn.pre_nms_train=0", "pre_nms_train must be at least 1"),
        ("model.rpn.min_size=-1", "min_size must be at least 0"),
        ("model.rpn.anchor_sizes=[0,1,2,3,4]", "anchor_sizes must be positive"),
        ("model.rpn.anchor_ratios=[]", "anchor_ratios must be positive"),
        ("model.box.samples=-1", "samples must be at least 1"),
        ("model.box.sampling_ratio=-1", "sampling_ratio must be at least 0"),
        ("model.box.positive_fraction=2", "positive_fraction must be a number from 0 to 1"),
        ("model.box.class_weight=-1", "class_weight must be at least 0"),
        ("model.box.max_detections=-1", "max_detections must be at least 1"),
        ("model.head.sampling_ratio=-1", "sampling_ratio must be at least 0"),
        ('model.cascade={"ious": [0.5, 3, 1]}', "ious must be from 0 to 1"),
        ('model.scoring={"loss_weight": -1}', "loss_weight must be at least 0"),
        ("augment.min_visible=5", "min_visible must be a number from 0 to 1"),  # it would leave out every object, without a word
        ("augment.gamma=-1", "gamma must be at least 0"),
        ("augment.invert=3", "invert must be a number from 0 to 1"),
    ],
)
def test_values_out_of_their_range_are_named(field: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured("--set", field)


def test_options_reach_their_fields() -> None:
    config = configured("--learning-rate", ".5", "--freeze-stem", "false", "--set", "milestones=[0.5]", "--set", "model.head.convs=8")
    assert (config.learning_rate, config.freeze_stem, config.milestones, config.model.head.convs) == (0.5, False, (0.5,), 8)  # type: ignore[attr-defined]
    assert configured("--preset", "coco-1x", "--head", "refinemask").epochs == 12
    assert configured("--preset", "coco-1x", "--head", "refinemask", "--iterations", "7").epochs == 0


def test_epochs_decide_the_iterations(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", SHORT.replace(sampler="epochs", epochs=0.5, batch=4))
    assert main(["--data", str(ellipses), "--out", str(tmp_path)]) == 0
    assert checkpoint.load(tmp_path / "checkpoint.pt")["iteration"] == 2  # half of 12 pictures in batches of 4


def test_frozen_backbone_needs_weights(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", SHORT.replace(model=with_norm("frozen"), freeze_stem=True, iterations=1))
    arguments = ["--data", str(ellipses), "--out", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match="--backbone-weights"):
        main(arguments)
    torch.manual_seed(3)
    torch.save(Detector(TINY.model).backbone.state_dict(), tmp_path / "body.pth")
    assert main([*arguments, "--backbone-weights", str(tmp_path / "body.pth")]) == 0
    trained, given = checkpoint.load(tmp_path / "run/checkpoint.pt"), torch.load(tmp_path / "body.pth")
    assert torch.equal(trained["model"]["backbone.conv1.weight"], given["conv1.weight"])  # frozen
    assert torch.equal(trained["model"]["backbone.layer2.0.bn1.running_mean"], given["layer2.0.bn1.running_mean"])
    assert not torch.equal(trained["model"]["backbone.layer2.0.conv1.weight"], given["layer2.0.conv1.weight"])


def test_scenes_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", SHORT.replace(iterations=1))
    arguments = ["--data", "scenes", "--scenes-count", "3", "--scenes-size", "64", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert len(checkpoint.load_model(tmp_path / "checkpoint.pt")[1].model.class_names) > 1
    with pytest.raises(ConfigError, match="scenes: count"):
        main([*arguments, "--scenes-count", "0", "--overwrite"])


def test_bad_data_stops_before_training_with_everything_named(
    ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "nuclei", SHORT.replace(iterations=1))
    content = json.loads((ellipses / "annotations/train.json").read_text())
    content["annotations"][0]["segmentation"]["counts"] = "zz"
    content["annotations"][1]["category_id"] = 55
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    out = tmp_path / "run"
    arguments = ["--data", str(ellipses), "--annotations", str(path), "--out", str(out)]
    with pytest.raises(ValueError, match=r"1 x unknown category .*; 1 x malformed mask .*--skip-bad"):
        main(arguments)
    assert not (out / "checkpoint.pt").exists()
    assert len((out / "problems.txt").read_text().splitlines()) == 2
    assert main([*arguments, "--skip-bad"]) == 0
    assert "1 x malformed mask" in capsys.readouterr().err

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from tests.trained import TINY
from training import checkpoint
from training.config import ModelConfig, TrainConfig
from training.data.coco import CocoInstances
from training.initialise import load_backbone, load_matching
from training.models.detector import Detector
from training.presets import NUCLEI, PAPERS, PRESETS, RECIPES, with_head
from training.schedule import make_optimizer
from training.train import NonFiniteLossError, Trainer, TrainingSet, configure, learning_rate, main, parse

SHORT = TINY.replace(iterations=6, batch=2, checkpoint_every=4, log_every=1, augment=TINY.augment.replace(crop=64))


def with_norm(norm: str) -> ModelConfig:
    return TINY.model.replace(norm=norm)


def headed(name: str) -> ModelConfig:
    return with_head(TINY, "", name).model


def trainer(config: TrainConfig, folder: Path, out: Path) -> Trainer:
    data = CocoInstances(folder / "annotations/train.json", folder / "train", config.model.category_ids)
    return Trainer(config, TrainingSet(data, config), out)


# ------------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("head", ["fcn", "beis"])
def test_resume_repeats_the_uninterrupted_run(head: str, ellipses: Path, tmp_path: Path) -> None:
    config = SHORT.replace(model=headed(head), iterations=4, accumulate=2)
    whole = [row["loss"] for row in trainer(config, ellipses, tmp_path / "a").run()]
    first = trainer(config, ellipses, tmp_path / "b")
    losses = []
    for row in first.run():
        losses.append(row["loss"])
        if row["iteration"] == 2:
            first.stopping = True
    again = trainer(config, ellipses, tmp_path / "b")
    torch.rand(7)  # whatever happened to the random state since
    assert again.resume() == []
    assert again.iteration == 2
    losses += [row["loss"] for row in again.run()]
    assert losses == whole
    ends = [checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("a", "b")]
    assert all(torch.equal(v, ends[1]["model"][k]) for k, v in ends[0]["model"].items())
    assert all(torch.equal(v, ends[1]["ema"][k]) for k, v in ends[0]["ema"].items())


def test_resume_tells_what_is_not_as_before(ellipses: Path, tmp_path: Path) -> None:
    first = trainer(SHORT, ellipses, tmp_path)
    first.save()
    changed = trainer(SHORT.replace(learning_rate=0.5, log_every=7), ellipses, tmp_path)
    assert changed.resume() == [f"learning_rate: {SHORT.learning_rate} before, 0.5 now"]
    other = trainer(SHORT.replace(model=with_norm("group")), ellipses, tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="model differs in norm"):
        other.resume()


def test_resume_with_workers_sees_the_same_batches(ellipses: Path, tmp_path: Path) -> None:
    config = SHORT.replace(iterations=3)
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    alone, helped = (TrainingSet(data, config.replace(workers=n)) for n in (0, 1))
    for one, other in zip(alone.stream(1, [0]), helped.stream(1, [0]), strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)


# -------------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoint_rebuilds_the_model(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT.replace(iterations=2), ellipses, tmp_path)
    list(run.run())
    model, config = checkpoint.load_model(tmp_path / "checkpoint.pt")
    assert config == run.config
    for name, value in model.state_dict().items():
        assert run.ema is not None and torch.equal(value, run.ema[name])
    assert not list(tmp_path.glob("*.part"))


def test_slim_checkpoint_holds_the_same_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.slim(tiny_checkpoint, tmp_path / "weights.pt")
    whole, slim = checkpoint.load_model(tiny_checkpoint), checkpoint.load_model(tmp_path / "weights.pt")
    assert whole[1] == slim[1]
    assert all(torch.equal(v, whole[0].state_dict()[k]) for k, v in slim[0].state_dict().items())
    assert (tmp_path / "weights.pt").stat().st_size < 0.4 * tiny_checkpoint.stat().st_size


def test_slim_drops_what_only_training_needs_and_nothing_else_may_miss(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT.replace(model=headed("bmask")), ellipses, tmp_path)
    run.step()
    run.save()
    spare = [k for k in run.model.state_dict() if k.startswith(checkpoint.training_only(run.model))]
    assert spare and run.ema is not None and set(run.ema) == set(run.model.state_dict()) - set(spare)
    checkpoint.slim(tmp_path / "checkpoint.pt", tmp_path / "weights.pt")
    content = checkpoint.load(tmp_path / "weights.pt")
    assert set(content["model"]) == set(run.ema)
    loaded = checkpoint.load_model(tmp_path / "weights.pt")[0].state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in run.ema.items())
    missing = next(k for k in content["model"] if k.startswith("mask_head."))
    del content["model"][missing]
    checkpoint.save(tmp_path / "broken.pt", {k: v for k, v in content.items() if k != "format"})
    with pytest.raises(checkpoint.CheckpointError, match=missing):
        checkpoint.load_model(tmp_path / "broken.pt")


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


def test_init_takes_what_matches_and_tells_the_rest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Detector(TINY.model)
    checkpoint.save(tmp_path / "a.pt", {"config": TINY.to_dict(), "model": source.state_dict(), "ema": None, "iteration": 0})
    classes = TINY.model.replace(class_names=("a", "b", "c"), category_ids=(1, 2, 3))
    other = Detector(classes.replace(head=headed("bmask").head))
    notes = load_matching(other, tmp_path / "a.pt")
    assert torch.equal(other.backbone.conv1.weight, source.backbone.conv1.weight)
    assert "of another shape: box_head.classes.weight [4, 64], in the file [3, 64]" in notes
    assert any(n.startswith("not in the file: mask_head.") for n in notes)
    taken = {k for k, v in other.state_dict().items() if k in source.state_dict() and v.shape == source.state_dict()[k].shape}
    named = {n.split(": ")[1].split(" ")[0] for n in notes if not n.startswith("not in the model")}
    assert taken | named == set(other.state_dict()) and not taken & named
    content = {"config": TINY.to_dict(), "model": {"x": torch.zeros(1)}, "ema": None}
    checkpoint.save(tmp_path / "b.pt", content)
    with pytest.raises(checkpoint.CheckpointError, match="none of its 1 weights"):
        load_matching(other, tmp_path / "b.pt")


def test_backbone_weights_are_strict_but_for_the_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = Detector(TINY.model).backbone.state_dict()
    torch.save({**body, "fc.weight": torch.zeros(5, 3), "fc.bias": torch.zeros(5)}, tmp_path / "body.pth")
    model = Detector(with_norm("frozen"))
    load_backbone(model, tmp_path / "body.pth")
    assert torch.equal(model.backbone.layer1[0].conv1.weight, body["layer1.0.conv1.weight"])
    body.pop("layer4.0.conv1.weight")
    torch.save(body, tmp_path / "body.pth")
    with pytest.raises(ValueError, match=r"missing: layer4\.0\.conv1\.weight"):
        load_backbone(model, tmp_path / "body.pth")
    (tmp_path / "body.pth").write_text("not weights")
    with pytest.raises(checkpoint.CheckpointError, match="not a file of weights"):
        load_backbone(model, tmp_path / "body.pth")


# --------------------------------------------------------------------------------------------------- stopping and complaining


def test_sigterm_leaves_a_resumable_checkpoint(ellipses: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from tests.training.test_train import SHORT; import training.presets as p, training.train as t;"
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


def test_non_finite_loss_names_the_pictures(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT, ellipses, tmp_path)
    before = {k: v.clone() for k, v in run.model.named_parameters()}
    expected = run.data.batch(0).ids
    with torch.no_grad():
        run.model.box_head.fc1.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=rf"pictures \[{expected[0]}, {expected[1]}\]"):
        run.step()
    assert torch.equal(run.model.backbone.conv1.weight, before["backbone.conv1.weight"])


def test_non_finite_loss_names_the_one_picture(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(SHORT.replace(sampler="epochs", model=with_norm("group")), ellipses, tmp_path)
    batch = run.data.batch(0)
    batch.images[1] = float("nan")
    monkeypatch.setattr(run.data, "batch", lambda *_: batch)
    with pytest.raises(NonFiniteLossError, match=rf"on pictures \[{batch.ids[1]}\]"):
        run.step()


# ---------------------------------------------------------------------------------------------------------------- schedules


def test_learning_rate_schedules() -> None:
    step = PRESETS["coco-1x"]
    rates = [learning_rate(step, i) for i in (0, 500, 999, 1000, 59_999, 60_000, 79_999, 80_000)]
    assert rates == pytest.approx([0.02 * 0.001, 0.02 * 0.5005, 0.02 * 0.999001, 0.02, 0.02, 0.002, 0.002, 0.0002])
    assert learning_rate(NUCLEI, 0) == pytest.approx(1e-3 / 200)  # without a factor the ramp's first step
    assert learning_rate(NUCLEI, 199) == pytest.approx(1e-3)
    assert learning_rate(NUCLEI, NUCLEI.iterations) == pytest.approx(0.0)
    poly = TrainConfig(schedule="poly", warmup=0, iterations=100, learning_rate=0.01, floor=1e-4, power=0.9)
    rates = [learning_rate(poly, i) for i in (0, 50, 100)]
    assert rates == pytest.approx([0.01, 0.0099 * 0.5**0.9 + 1e-4, 1e-4])


def test_parameter_groups() -> None:
    model = Detector(with_norm("group"))
    config = TINY.replace(optimizer="sgd", weight_decay=0.5, bias_factor=2.0, decay_biases=True)
    groups = make_optimizer(model, config).param_groups
    found = {id(p): (g["lr_factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found[id(model.rpn.head.conv.weight)] == (1.0, 0.5)
    assert found[id(model.rpn.head.conv.bias)] == (2.0, 0.5)
    assert found[id(model.backbone.bn1.weight)] == found[id(model.backbone.bn1.bias)] == (1.0, 0.0)
    assert len(found) == len(list(model.parameters()))
    plain = make_optimizer(model, TINY).param_groups
    assert {(g["lr_factor"], g["weight_decay"]) for g in plain} == {(1.0, TINY.weight_decay), (1.0, 0.0)}


def test_bias_factor_reaches_the_step(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT.replace(bias_factor=2.0), ellipses, tmp_path)
    rate = run.step()["lr"]
    assert {g["lr"] / rate for g in run.optimizer.param_groups} == {1.0, 2.0}


# -------------------------------------------------------------------------------------------- accumulation, processes, precision


def test_accumulated_gradient_is_the_mean_of_the_parts(ellipses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SHORT.replace(model=with_norm("group"), accumulate=2, clip_norm=0.0, ema=0.0)
    run = trainer(config, ellipses, tmp_path)
    monkeypatch.setattr(run.optimizer, "step", lambda *_: None)
    loss = run.step()["loss"]
    summed = [p.grad.clone() for p in run.model.parameters()]
    again = trainer(config, ellipses, tmp_path)
    totals = []
    for part in (0, 1):
        batch = again.data.batch(0, part)
        assert len(batch.ids) == 1
        torch.manual_seed(int(np.random.SeedSequence([config.seed, 0, part]).generate_state(1, np.uint64)[0] >> 1))
        total = torch.stack(list(again.model.losses(batch.images, batch.sizes, batch.targets).values())).sum()
        (total / 2).backward()
        totals.append(total.item())
    assert loss == pytest.approx(np.mean(totals), rel=1e-6)
    for mine, parameter in zip(summed, again.model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


def test_two_processes_equal_one_with_the_same_batch(ellipses: Path, tmp_path: Path) -> None:
    """Two processes of two parts each against one with four: the same losses and weights but for the order of a sum."""
    config = SHORT.replace(model=with_norm("group"), iterations=2, batch=4, optimizer="sgd", learning_rate=0.02, warmup=0)
    rows = list(trainer(config.replace(accumulate=4), ellipses, tmp_path / "one").run())
    code = (
        "from tests.training.test_train import *;"
        f"config = TrainConfig.from_dict({config.replace(accumulate=2).to_dict()!r}); PRESETS['tiny'] = config;"
        f"main(['--preset', 'tiny', '--data', {str(ellipses)!r}, '--out', {str(tmp_path / 'two')!r}, '--device', 'cpu'])"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [subprocess.Popen([sys.executable, "-c", code], env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in (0, 1)]
    assert [p.wait(timeout=300) for p in processes] == [0, 0]
    logged = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    for mine, theirs in zip(rows, logged, strict=True):
        for name in set(mine) - {"seconds_per_iteration"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4), name
    one, two = (checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-6)
    assert len(two["buffers"]) == 1 and set(two["buffers"][0]) == {n for n, _ in Detector(config.model).named_buffers()}


def test_processes_share_a_batch_evenly(ellipses: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be computed in 3 equal parts"):
        SHORT.replace(accumulate=3)
    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train")
    whole, parted = TrainingSet(data, SHORT), TrainingSet(data, SHORT)
    parted.parts = 2
    assert [i for part in (0, 1) for i in parted.batch(5, part).ids] == whole.batch(5).ids
    assert torch.equal(parted.batch(5, 1).images[0], whole.batch(5).images[1])


def test_bfloat16_trains(ellipses: Path, tmp_path: Path) -> None:
    full, half = (trainer(SHORT.replace(precision=p), ellipses, tmp_path).step() for p in ("fp32", "bf16"))
    assert half["loss"] == pytest.approx(full["loss"], rel=0.1) and half["loss"] != full["loss"]


def test_precision_and_device_must_go_together(ellipses: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        trainer(SHORT.replace(precision="fp16", device="cpu"), ellipses, tmp_path)
    with pytest.raises(ConfigError, match="'tpu'"):
        trainer(SHORT.replace(device="tpu"), ellipses, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_cuda_trains_and_resumes(precision: str, ellipses: Path, tmp_path: Path) -> None:
    config = SHORT.replace(precision=precision, device="cuda", iterations=3)
    run = trainer(config, ellipses, tmp_path)
    assert all(np.isfinite(row["loss"]) for row in run.run())
    again = trainer(config.replace(iterations=4), ellipses, tmp_path)
    again.resume()
    assert again.scaler.state_dict() == run.scaler.state_dict()
    assert np.isfinite(again.step()["loss"])


# ------------------------------------------------------------------------------------------------------------- command line


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


# ---------------------------------------------------------------------------------------------------------------------- log


def test_training_time_is_logged(ellipses: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    rows = list(trainer(SHORT.replace(iterations=2), ellipses, tmp_path).run())
    assert 0 < rows[-1]["seconds_per_iteration"] * 2 <= time.monotonic() - started


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import log

    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            assert (folder, purge_step) == (str(tmp_path / "events"), None)

        def add_scalar(self, name: str, value: float, iteration: int) -> None:
            told.append((name, value, iteration))

        def close(self) -> None:
            told.append(("closed", 0, 0))

    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda name: name)
    run = log.RunLog(tmp_path, total=6300)
    line = run.add({"iteration": 300, "loss": 0.5, "lr": 0.1, "seconds_per_iteration": 1.0})
    run.close()
    assert told == [("loss", 0.5, 300), ("lr", 0.1, 300), ("seconds_per_iteration", 1.0, 300), ("closed", 0, 0)]
    assert line == "300/6300 loss 0.500, 1 h 40 min left"


# ------------------------------------------------------------------------------------------------------------------ presets


def test_config_errors() -> None:
    with pytest.raises(ConfigError, match="did you mean 'iterations'"):
        TrainConfig.from_dict({"iteratons": 3})
    with pytest.raises(ConfigError, match="optimizer"):
        TrainConfig(optimizer="adam")
    with pytest.raises(ConfigError, match="pair up"):
        ModelConfig(class_names=("a", "b"))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_storage(name: str) -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


@pytest.mark.parametrize("preset", PAPERS)
@pytest.mark.parametrize("head", sorted({*RECIPES, "fcn", "beis"}))
def test_every_head_has_its_schedule(preset: str, head: str) -> None:
    config = with_head(PRESETS[preset], preset, head)
    assert config.model.head.name == head
    assert config.learning_rate / config.batch == pytest.approx(0.02 / 16)  # all papers scale it with the batch
    assert config.freeze_stem and config.model.norm == "frozen" and config.augment.mode == "full"


def test_recipes_of_the_papers() -> None:
    refinemask = with_head(PRESETS["coco-1x"], "coco-1x", "refinemask")
    assert (refinemask.clip_norm, refinemask.model.box.class_weight, refinemask.model.box.box_weight) == (35, 2, 2)
    assert (refinemask.epochs, refinemask.milestones, refinemask.warmup) == (12, (8 / 12, 11 / 12), 500)
    brefine = with_head(PRESETS["coco-2x"], "coco-2x", "brefine")
    assert (brefine.batch, brefine.learning_rate, brefine.clip_norm, brefine.model.detection_loss) == (6, 0.0075, 0, "rs_giou")
    lvis = with_head(PRESETS["lvis-1x"], "lvis-1x", "refinemask")
    assert (lvis.sampler, lvis.model.box.score_threshold, lvis.model.box.max_detections) == ("repeat", 1e-4, 300)
    city = with_head(PRESETS["cityscapes"], "cityscapes", "bmask")
    assert (city.batch, city.learning_rate, city.iterations, city.augment.long, city.model.resize.short) == (8, 0.01, 24_000, 2048, 1024)
    assert dataclasses.asdict(with_head(PRESETS["coco-3x"], "coco-3x", "fcn")) == dataclasses.asdict(PRESETS["coco-3x"])

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from tests.training.short import SHORT, headed, trainer, with_norm
from training import checkpoint
from training.trainer import NonFiniteLossError


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


def test_non_finite_gradient_stops_before_the_step(ellipses: Path, tmp_path: Path) -> None:
    """Its loss is finite, so only the gradient tells; the weights must not take it."""
    run = trainer(SHORT.replace(clip_norm=0.0), ellipses, tmp_path)
    before = {k: v.clone() for k, v in run.model.named_parameters()}
    expected, losses = run.data.batch(0).ids, run.model.losses
    run.model.losses = lambda *a: {**losses(*a), "root": (0 * run.model.box_head.fc1.weight).abs().sqrt().sum()}
    with pytest.raises(NonFiniteLossError, match=rf"gradient of norm nan on pictures \[{expected[0]}, {expected[1]}\]"):
        run.step()
    assert all(torch.equal(v, before[k]) for k, v in run.model.named_parameters())


def test_bias_factor_reaches_the_step(ellipses: Path, tmp_path: Path) -> None:
    run = trainer(SHORT.replace(bias_factor=2.0), ellipses, tmp_path)
    rate = run.step()["lr"]
    assert {g["lr"] / rate for g in run.optimizer.param_groups} == {1.0, 2.0}


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
    state = torch.cuda.get_rng_state()
    torch.rand(7, device="cuda")
    again.resume()
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert again.scaler.state_dict() == run.scaler.state_dict()
    assert np.isfinite(again.step()["loss"])


def test_training_time_is_logged(ellipses: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    rows = list(trainer(SHORT.replace(iterations=2), ellipses, tmp_path).run())
    assert 0 < rows[-1]["seconds_per_iteration"] * 2 <= time.monotonic() - started

import os
from pathlib import Path

import pytest
import torch

from tests.training.short import SHORT, headed, trainer
from training import checkpoint


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

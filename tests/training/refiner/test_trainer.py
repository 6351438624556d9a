from pathlib import Path

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from tests.training.refiner.short import SHORT, trainer
from training import checkpoint
from training.checkpoint import slim
from training.data.coarse import CoarseConfig
from training.refiner.config import LiteConfig, PatchConfig, RefinerConfig
from training.refiner.data import PatchBatch
from training.refiner.trainer import load_refiner
from training.trainer import NonFiniteLossError


def test_a_batch_is_a_function_of_seed_iteration_and_part(tmp_path: Path) -> None:
    data, again = (trainer(SHORT.replace(accumulate=2), tmp_path).data for _ in range(2))
    again.batch(7)  # whatever was drawn before
    first, second = data.batch(1, 0), again.batch(1, 0)
    assert torch.equal(first.patches, second.patches) and torch.equal(first.targets, second.targets) and first.ids == second.ids
    other = data.batch(1, 1)
    assert not torch.equal(first.patches, other.patches)
    whole = trainer(SHORT, tmp_path).data.batch(1)
    assert torch.equal(whole.patches, torch.cat([first.patches, other.patches]))
    assert whole.patches.shape == (8, 4, 64, 64) and whole.patches.dtype == torch.float32 and whole.targets.dtype == torch.uint8
    assert whole.patches[:, 3].unique().tolist() == [-1.0, 1.0] and whole.targets.unique().tolist() == [0, 1]
    assert (whole.targets.flatten(1).float().mean(1) > 0).sum() >= 6


def test_workers_give_the_same_batches(tmp_path: Path) -> None:
    alone, parallel = (trainer(SHORT.replace(workers=w, iterations=2), tmp_path).data.stream(0, [0]) for w in (0, 1))
    for mine, theirs in zip(alone, parallel, strict=True):
        assert torch.equal(mine.patches, theirs.patches) and mine.ids == theirs.ids


def test_resume_repeats_the_uninterrupted_run(tmp_path: Path) -> None:
    whole = list(trainer(SHORT, tmp_path / "a").run())
    first = trainer(SHORT, tmp_path / "b")
    rows = []
    for row in first.run():
        rows.append(row)
        if row["iteration"] == 2:
            first.stopping = True
    again = trainer(SHORT, tmp_path / "b")
    torch.rand(7)  # whatever happened to the random state since
    assert again.resume() == [] and again.iteration == 2
    rows += list(again.run())
    assert [r["loss"] for r in rows] == [r["loss"] for r in whole]
    assert [r.get("val_scenes_f") for r in rows] == [r.get("val_scenes_f") for r in whole]
    ends = [checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("a", "b")]
    for part in ("model", "ema"):
        assert all(torch.equal(v, ends[1][part][k]) for k, v in ends[0][part].items())
    with pytest.raises(checkpoint.CheckpointError, match="model differs in lite"):
        trainer(SHORT.replace(model=SHORT.model.replace(lite=LiteConfig())), tmp_path / "b").resume()
    changed = trainer(SHORT.replace(learning_rate=0.5, validate_every=0), tmp_path / "b")
    assert changed.resume() == [f"learning_rate: {SHORT.learning_rate} before, 0.5 now"]


def test_overfits_a_few_patches(tmp_path: Path) -> None:
    model = RefinerConfig(network="lite", lite=LiteConfig(widths=(16, 32, 32), blocks=(1, 1, 1)), input=64)
    coarse = CoarseConfig(clean=0.0, noise=(0.3, 0.5))
    config = SHORT.replace(model=model, coarse=coarse, batch=4, learning_rate=5e-3, iterations=180, validate_every=0, ema=0.0)
    run = trainer(config, tmp_path)
    batch = run.data.batch(0)
    run._stream = iter(lambda: batch, None)
    before = iou((batch.patches[:, 3] > 0), batch.targets)
    for _ in range(180):
        run.step()
    with torch.no_grad():
        after = iou(run.model(batch.patches)[:, 0] > 0, batch.targets)
    assert before < 0.92 and after >= 0.95


@pytest.mark.slow
def test_the_papers_network_overfits_a_few_patches(tmp_path: Path) -> None:
    run = trainer(SHORT.replace(model=RefinerConfig(input=64), iterations=120, validate_every=0, ema=0.0), tmp_path)
    batch = run.data.batch(0)
    run._stream = iter(lambda: batch, None)
    for _ in range(120):
        run.step()
    with torch.no_grad():
        assert iou(run.model(batch.patches)[:, 0] > 0, batch.targets) >= 0.95


def iou(masks: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean IoU of patches."""
    a, b = masks.bool().flatten(1), targets.bool().flatten(1)
    return float(((a & b).sum(1) / (a | b).sum(1).clamp(min=1)).mean())


def test_validation_sees_the_averaged_weights_and_changes_nothing(tmp_path: Path) -> None:
    run = trainer(SHORT, tmp_path)
    before = [run.held[0].patches.clone(), {k: v.clone() for k, v in run.model.state_dict().items()}]
    row = run.measured()
    assert set(row) == {
        f"val_{name}_{what}{when}" for name in ("scenes", "dead-leaves") for what in ("f", "iou") for when in ("", "_before")
    }
    assert all(0 <= v <= 1 for v in row.values()) and row["val_scenes_iou_before"] > 0.5
    assert run.model.training and torch.equal(run.held[0].patches, before[0])
    assert all(torch.equal(v, before[1][k]) for k, v in run.model.state_dict().items())
    for name, average in run.ema.items():
        if name == "net.predictor.bias":
            average.fill_(100.0)  # everything is foreground for the averaged weights
    everything = run.measured()
    assert everything != row
    inside = np.mean([t.mean() for t in run.held[0].truth])
    assert everything[f"val_{run.held[0].name}_iou"] == pytest.approx(inside)  # IoU of a full patch is the truth's share


def test_bfloat16_trains(tmp_path: Path) -> None:
    full, half = (trainer(SHORT.replace(precision=p), tmp_path).step() for p in ("fp32", "bf16"))
    assert half["loss"] == pytest.approx(full["loss"], rel=0.1) and half["loss"] != full["loss"]


def test_non_finite_loss_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(SHORT.replace(model=SHORT.model.replace(norm="group")), tmp_path)
    batch = run.data.batch(0)
    batch.patches[5] = float("nan")
    monkeypatch.setattr(run, "_stream", iter([PatchBatch(batch.patches, batch.targets, [f"leaf:{i}" for i in range(8)])]))
    with pytest.raises(NonFiniteLossError, match=r"on pictures \['leaf:5'\]"):
        run.step()


def test_a_picture_is_not_shared_by_parts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole pictures with 3 patches"):
        SHORT.replace(patches=PatchConfig(per_mask=3))


def test_slim_keeps_what_inference_needs(tmp_path: Path) -> None:
    run = trainer(SHORT.replace(iterations=2), tmp_path)
    list(run.run())
    slim(tmp_path / "checkpoint.pt", tmp_path / "slim.pt")
    (small, config), (large, _) = load_refiner(tmp_path / "slim.pt"), load_refiner(tmp_path / "checkpoint.pt")
    assert config == run.config and not small.training
    x = torch.randn(1, 4, 64, 64)
    assert torch.equal(small(x), large(x))
    assert any(not torch.equal(v, run.model.state_dict()[k]) for k, v in small.state_dict().items())  # averaged
    assert (tmp_path / "slim.pt").stat().st_size < 0.6 * (tmp_path / "checkpoint.pt").stat().st_size
    content = checkpoint.load(tmp_path / "slim.pt")
    del content["model"]["net.predictor.bias"]
    checkpoint.save(tmp_path / "broken.pt", {k: v for k, v in content.items() if k != "format"})
    with pytest.raises(checkpoint.CheckpointError, match=r"net\.predictor\.bias"):
        load_refiner(tmp_path / "broken.pt")

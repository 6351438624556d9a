from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export import refiner
from export.main import main
from sdk import Refiner as Runtime
from sdk.engine import Engine
from sdk.manifest import RefinerManifest
from training import checkpoint
from training.checkpoint import CheckpointError
from training.refiner.config import LiteConfig, RefinerConfig, RefinerTrainConfig
from training.refiner.model import Refiner, normalised

LITE = RefinerConfig(network="lite", input=64, lite=LiteConfig(widths=(8, 12, 16), blocks=(1, 1, 1)))
CONFIGS = {
    "lite": LITE,
    "lite without the mask": LITE.replace(mask_channel=False, color="bgr"),
    "frozen norm": LITE.replace(norm="frozen"),
    "group norm": LITE.replace(norm="group"),
}


def network(config: RefinerConfig) -> Refiner:
    """Random weights and statistics that make every layer count."""
    torch.manual_seed(0)
    model = Refiner(config).eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.data.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            value.data.normal_(0, 0.1)
        elif name.endswith("prior"):
            value.data.fill_(0.1)  # or the mask that goes in comes out
        elif name.endswith("predictor.weight"):
            value.data.mul_(0.01)  # or logits are thousands, and float32 has no 1e-4 there
    return model


def save(model: Refiner, path: Path) -> Path:
    config = RefinerTrainConfig(model=model.config)
    checkpoint.save(path, {"kind": "refiner", "config": config.to_dict(), "iteration": 1, "model": model.state_dict(), "ema": None})
    return path


@pytest.mark.parametrize("name", [*CONFIGS, pytest.param("hrnet", marks=pytest.mark.slow)])
def test_the_engine_gives_the_network_s_logits(name: str, tmp_path: Path) -> None:
    model = network(CONFIGS.get(name, RefinerConfig()))
    Engine.write(tmp_path / "r.engine", refiner.refiner_manifest(model, "r", {}), refiner.export_refiner(model))
    agreement = refiner.compare_refiner(model, tmp_path / "r.engine")
    assert agreement.patches == 8 and agreement.logits < 1e-4
    for parameter in model.parameters():
        parameter.data *= 1.01
    assert not refiner.compare_refiner(model, tmp_path / "r.engine").ok
    next(model.parameters()).data.fill_(torch.nan)
    assert not refiner.compare_refiner(model, tmp_path / "r.engine").ok


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(network(LITE), tmp_path / "weights.pt")
    assert main([str(path), "--out", str(tmp_path / "r.engine"), "--data", '[{"name": "noise", "licence": "CC0-1.0"}]']) == 0
    assert "verified on 8 patches" in capsys.readouterr().out
    manifest = Engine.open(tmp_path / "r.engine", RefinerManifest).manifest
    assert manifest.verified and manifest.method == "bpr, lite" and manifest.provenance["data"]
    assert {q: p.nms_threshold for q, p in manifest.qualities.items()} == {"fast": 0.15, "balanced": 0.25, "best": 0.55}
    with pytest.raises(CheckpointError, match=r"a refiner, a segmenter is needed"):
        checkpoint.load_model(path)


@pytest.mark.parametrize("config", [LITE, LITE.replace(color="bgr", pad=5), LITE.replace(mask_channel=False)])
def test_the_whole_refiner_is_the_definition(config: RefinerConfig, tmp_path: Path) -> None:
    """`sdk.Refiner` against patches cut, refined and merged one by one in PyTorch."""
    model = network(config)
    model.config = config
    Engine.write(tmp_path / "r.engine", refiner.refiner_manifest(model, "r", {}), refiner.export_refiner(model))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (150, 170, 3), np.uint8)
    y, x = np.mgrid[:150, :170]
    masks = np.stack([(x - 80) ** 2 / 1600 + (y - 70) ** 2 / 2500 < 1, (x < 40) & (y > 100)])
    runtime = Runtime(tmp_path / "r.engine", color="rgb")
    found = runtime.refine(image, masks).masks
    expected = np.stack([_refined(model, image, mask, runtime) for mask in masks])
    wrong = (found != expected).sum()
    assert wrong <= 2 and (expected != masks).sum() > 50  # a mean within float error of the threshold may go either way


@torch.no_grad()
def _refined(model: Refiner, image: np.ndarray, mask: np.ndarray, runtime: Runtime) -> np.ndarray:
    from sdk import ops

    spec, pad = runtime.patches(), model.config.pad
    patches = ops.boundary_patches(ops.dense_to_crops(mask[None]), mask.shape, size=spec.size, threshold=spec.nms_threshold)
    total, count = np.zeros((2, *mask.shape))
    wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    wide_mask = np.pad(mask, pad)
    for x1, y1, x2, y2 in patches.boxes.tolist():
        window = np.s_[y1 : y2 + 2 * pad, x1 : x2 + 2 * pad]
        pixels = torch.from_numpy(wide[window].copy()).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, (spec.input_size,) * 2, mode="bilinear")
        seen = F.interpolate(
            torch.from_numpy(wide_mask[window].astype(np.float32))[None, None], (spec.input_size,) * 2, mode="nearest-exact"
        )
        logits = model(normalised(pixels, seen[:, 0], model.config))
        back = F.interpolate(logits, (spec.size + 2 * pad,) * 2, mode="bilinear")[0, 0].sigmoid().numpy()
        total[y1:y2, x1:x2] += back[pad : pad + spec.size, pad : pad + spec.size]
        count[y1:y2, x1:x2] += 1
    return np.where(count > 0, total / np.maximum(count, 1) > 0.5, mask)

"""The mask heads against the baseline on `scenes`.

    python -m benchmarks.accuracy run --work runs/accuracy   # everything that is not there yet, then docs/accuracy.json and .md
    python -m benchmarks.accuracy head --work ... --head beis --seed 1   # one run (several may go side by side)
    python -m benchmarks.accuracy table                      # docs/accuracy.md from docs/accuracy.json

The detector is trained once and frozen; its pyramids, proposals and detections go to disk; every head trains on them with the same budget
and is measured on the same boxes. About three hours on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy import config
from benchmarks.accuracy.cost import costs, published_size
from benchmarks.accuracy.features import FrozenFeatures, freeze
from benchmarks.accuracy.fit import ceiling, fit, measure
from benchmarks.accuracy.table import render
from training.checkpoint import load_model
from training.data.batches import TrainingSet
from training.data.scenes import Scenes
from training.heads import MaskHead
from training.trainer import Trainer

DOCS = Path(__file__).parents[2] / "docs"
TRAIN = Scenes(config.TRAIN_SCENES, seed=config.TRAIN_SEED)
VAL = Scenes(config.VAL_SCENES, seed=config.VAL_SEED)


def train_detector(work: Path) -> None:
    """``detector/checkpoint.pt``; goes on where an interrupted run stopped."""
    scenes = Scenes(config.DETECTOR_SCENES, seed=config.TRAIN_SEED)
    trainer = Trainer(config.DETECTOR, TrainingSet(scenes, config.DETECTOR), work / "detector")
    if (work / "detector/checkpoint.pt").exists():
        trainer.resume()
    for row in trainer.run():
        print(json.dumps(row), flush=True)


def make_features(work: Path) -> None:
    """``train/`` and ``val/``."""
    model, _ = load_model(work / "detector/checkpoint.pt")
    for name, scenes in (("val", VAL), ("train", TRAIN)):
        if not (work / name / "done").exists():
            freeze(model, scenes, work / name)
            (work / name / "done").touch()


def run_head(work: Path, name: str, seed: int, iterations: int) -> None:
    """``heads/NAME-SEED.json`` and ``.pt``."""
    out = work / "heads" / f"{name}-{seed}"
    out.parent.mkdir(exist_ok=True)
    data, started = FrozenFeatures(work / "train", TRAIN), time.monotonic()
    model, _ = load_model(work / "detector/checkpoint.pt")
    for step, losses in enumerate(fit(model, name, seed, data, iterations), 1):
        if step % 50 == 0:
            seconds = (time.monotonic() - started) / step
            print(f"{name} {seed}: {step}/{iterations}, {seconds:.2f} s each", {k: round(v, 3) for k, v in losses.items()}, flush=True)
    minutes = (time.monotonic() - started) / 60
    figures = measure(model, FrozenFeatures(work / "val", VAL), VAL.to_coco())
    head = model.mask_head
    torch.save({k: v for k, v in head.state_dict().items() if not k.startswith(head.training_only)}, out.with_suffix(".pt"))
    out.with_suffix(".json").write_text(json.dumps({"seed": seed, "iterations": iterations, "minutes": minutes, **figures}))
    print(name, seed, {k: round(v, 2) for k, v in figures.items()}, flush=True)


def collect(work: Path, machine: str) -> dict[str, Any]:
    """Everything measured, as ``docs/accuracy.json`` holds it."""
    runs = {n: [json.loads((work / "heads" / f"{n}-{s}.json").read_text()) for s in range(config.SEEDS[n])] for n in config.HEADS}
    detector, _ = load_model(work / "detector/checkpoint.pt")
    heads: dict[str, MaskHead] = {}
    for name in config.HEADS:
        heads[name] = config.make_head(name).eval()
        missing, extra = heads[name].load_state_dict(torch.load(work / "heads" / f"{name}-0.pt", weights_only=True), strict=False)
        if extra or any(not key.startswith(heads[name].training_only) for key in missing):
            raise ValueError(f"{name}: weights do not fit: missing {missing}, left over {extra}")
    cost = costs(detector, heads, VAL)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine,
        "setting": {"text": config.TEXT, "notes": list(config.NOTES)},
        "ceiling": ceiling(FrozenFeatures(work / "val", VAL), VAL.to_coco()),
        "heads": {n: {"runs": runs[n], "cost": cost[n], "published": published_size(n)} for n in config.HEADS},
    }


def write_table() -> None:
    """``docs/accuracy.md``."""
    (DOCS / "accuracy.md").write_text(render(json.loads((DOCS / "accuracy.json").read_text())))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("run", "detector", "features", "head", "collect", "table"))
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"), help="folder of everything in between")
    parser.add_argument("--head", choices=tuple(config.HEADS), default="fcn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=config.ITERATIONS, help="of one head")
    parser.add_argument("--machine", default="this machine", help="what docs/accuracy.md calls it")
    return parser.parse_args()


def main() -> int:
    """Entry point; returns the exit code."""
    options = parse()
    work: Path = options.work
    if options.step in ("run", "detector"):
        train_detector(work)
    if options.step in ("run", "features"):
        make_features(work)
    if options.step == "head":
        run_head(work, options.head, options.seed, options.iterations)
    if options.step == "run":
        for name, seeds in config.SEEDS.items():
            for seed in range(seeds):
                if not (work / "heads" / f"{name}-{seed}.json").exists():
                    run_head(work, name, seed, options.iterations)
    if options.step in ("run", "collect"):
        (DOCS / "accuracy.json").write_text(json.dumps(collect(work, options.machine), indent=1) + "\n")
    if options.step in ("run", "collect", "table"):
        write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())

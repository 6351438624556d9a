"""Train a detector: ``python -m training.train --preset nuclei --data FOLDER --out runs/nuclei [--resume]``.

``FOLDER`` holds ``train/`` and ``annotations/train.json`` (COCO format). The run leaves ``checkpoint.pt`` and ``log.jsonl`` in ``--out``.
What iteration i sees depends on the seed and i alone, so a resumed run continues exactly where the stopped one was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import checkpoint
from training.config import TrainConfig
from training.data.augment import training_crop
from training.data.coco import CocoInstances
from training.models.detector import Detector, Target
from training.presets import PRESETS


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message names the pictures of the batch."""


class TrainingSet:
    """Batches of random crops; decoded pictures stay in memory up to ``cache`` of them."""

    def __init__(self, data: CocoInstances, config: TrainConfig, cache: int = 2000) -> None:
        self.data, self.config, self.cache_size = data, config, cache
        self._cache: dict[int, Any] = {}
        # Large pictures hold more crops, but not so many that they should crowd out the small ones: square root.
        weight = np.sqrt([r.height * r.width for r in data.records])
        self.probability = weight / weight.sum()

    def _load(self, index: int) -> Any:
        if index not in self._cache:
            if len(self._cache) >= self.cache_size:
                self._cache.pop(next(iter(self._cache)))
            image, masks, labels = self.data.load(index)
            # Bit-packed: 400 bitmaps of a large picture would not fit otherwise.
            self._cache[index] = (image, np.packbits(masks, axis=-1), labels)
        image, packed, labels = self._cache[index]
        return image, np.unpackbits(packed, axis=-1, count=image.shape[1]), labels

    def batch(self, iteration: int) -> tuple[Tensor, list[Target], list[int]]:
        """Pictures (B, 3, S, S), their targets and their ids for one iteration."""
        rng = np.random.default_rng([self.config.seed, iteration])
        chosen = rng.choice(len(self.probability), self.config.batch, p=self.probability)
        crops = [training_crop(*self._load(int(i)), self.config.model, self.config.augment, rng) for i in chosen]
        return torch.stack([c[0] for c in crops]), [c[1] for c in crops], [self.data.records[i].image_id for i in chosen]


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Learning rate of an iteration: linear warm-up, then the schedule."""
    if iteration < config.warmup:
        return config.learning_rate * (iteration + 1) / config.warmup
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / config.iterations))
    drops = sum(iteration >= config.iterations * share for share in (2 / 3, 8 / 9))
    return config.learning_rate * 0.1**drops


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; no weight decay on norm parameters and biases."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate)
    return torch.optim.SGD(groups, config.learning_rate, momentum=0.9)


class Trainer:
    """State of one run: everything that a checkpoint has to hold."""

    def __init__(self, config: TrainConfig, data: TrainingSet, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data, self.out = config, data, out
        self.model = Detector(config.model).train()
        self.ema = {k: v.clone() for k, v in self.model.state_dict().items()} if config.ema else None
        self.optimizer = make_optimizer(self.model, config)
        self.iteration = 0
        self.stopping = False

    def save(self) -> None:
        """Write ``checkpoint.pt``."""
        content = {
            "config": self.config.to_dict(),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        checkpoint.save(self.out / "checkpoint.pt", content)

    def resume(self) -> None:
        """Go back to the state of ``checkpoint.pt``."""
        content = checkpoint.load(self.out / "checkpoint.pt")
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.ema, self.iteration = content["ema"], content["iteration"]
        torch.set_rng_state(content["rng"])

    def step(self) -> dict[str, float]:
        """One iteration; returns the losses by name."""
        images, targets, ids = self.data.batch(self.iteration)
        rate = learning_rate(self.config, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        size = (images.shape[2], images.shape[3])
        losses = self.model.losses(images, [size] * len(images), targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            values = {k: v.item() for k, v in losses.items()}
            raise NonFiniteLossError(f"iteration {self.iteration}: loss {values} on pictures {ids}; the last checkpoint is kept")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self._average()
        self.iteration += 1
        return {"loss": total.item(), **{k: v.item() for k, v in losses.items()}, "lr": rate}

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema is None:
            return
        # A young average must forget its random start quickly.
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def run(self) -> Iterator[dict[str, float]]:
        """Iterate to the end, yielding averaged losses every ``log_every`` iterations; checkpoints on the way."""
        gathered: list[dict[str, float]] = []
        started, first = time.monotonic(), self.iteration
        while self.iteration < self.config.iterations and not self.stopping:
            gathered.append(self.step())
            if self.iteration % self.config.log_every == 0 or self.iteration == self.config.iterations:
                mean = {k: sum(g[k] for g in gathered) / len(gathered) for k in gathered[0]}
                per_iteration = (time.monotonic() - started) / (self.iteration - first)
                yield {"iteration": self.iteration, **mean, "seconds_per_iteration": per_iteration}
                gathered.clear()
            if self.iteration % self.config.checkpoint_every == 0:
                self.save()
        self.save()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("training.train", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nuclei")
    parser.add_argument("--data", type=Path, required=True, help="folder with SPLIT/ and annotations/SPLIT.json")
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint.pt and log.jsonl")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable annotations instead of stopping")
    for name in ("iterations", "batch", "seed", "threads", "warmup", "checkpoint_every", "log_every"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"overrides the preset's {name}")
    parser.add_argument("--learning-rate", type=float, help="overrides the preset's learning_rate")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(arguments)
    fields = {f.name for f in dataclasses.fields(TrainConfig)}
    overrides = {k: v for k, v in vars(options).items() if k in fields and v is not None}
    config = dataclasses.replace(PRESETS[options.preset], **overrides)
    if config.threads:
        torch.set_num_threads(config.threads)
    data = CocoInstances(
        options.data / "annotations" / f"{options.split}.json",
        options.data / options.split,
        config.model.category_ids,
        skip_bad=options.skip_bad,
    )
    if data.problems:
        print(f"left out: {data.summary()}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, TrainingSet(data, config), options.out)
    if options.resume:
        trainer.resume()

    def stop(*_: object) -> None:
        trainer.stopping = True  # the current iteration ends, then a checkpoint is written

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    with (options.out / "log.jsonl").open("a") as log:
        for row in trainer.run():
            log.write(json.dumps(row) + "\n")
            log.flush()
            minutes = (config.iterations - row["iteration"]) * row["seconds_per_iteration"] / 60
            print(f"{row['iteration']}/{config.iterations} loss {row['loss']:.3f}, {minutes:.0f} min left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

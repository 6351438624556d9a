"""The training loop: one iteration, its numbers, and everything that a checkpoint has to hold.

What iteration i sees, and every random choice the model makes in it, depends on the seed, i and the part of the batch alone. So a resumed
run continues exactly where the stopped one was, and N processes compute what one does in N parts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdk.errors import ConfigError, KerfError
from training import checkpoint
from training.config import TrainConfig
from training.data.batches import Batch, TrainingSet
from training.distributed import World, choose_device
from training.models.backbones import freeze_stem
from training.models.detector import Detector
from training.schedule import learning_rate, make_optimizer

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Fields that may differ between a checkpoint and the run that goes on from it without changing a number.
HARMLESS = ("checkpoint_every", "log_every", "validate_every", "validate_patches", "threads", "workers", "cache_mb", "device")


class NonFiniteLossError(KerfError, RuntimeError):
    """A loss, or its gradient, became NaN or infinite; the message names the pictures."""


class Trainer:
    """State of one run: of a detector, or of what a subclass builds.

    Args:
        config: the run.
        data: its batches.
        out: folder of ``checkpoint.pt``.
        world: this process among all; None = alone, on ``config.device``.

    Raises:
        ConfigError: the batch does not divide over the processes, or the precision does not go with the device.
    """

    kind = "segmenter"  # what the checkpoint's model is

    def __init__(self, config: TrainConfig, data: TrainingSet, out: Path, world: World | None = None) -> None:
        self.config, self.data, self.out = config, data, out
        self.world = world or World(choose_device(config.device))
        self.device = self.world.device
        if config.precision == "fp16" and self.device.type != "cuda":
            raise ConfigError("precision 'fp16' needs a CUDA device; on the CPU use 'bf16' or 'fp32'")
        data.parts = config.accumulate * self.world.size
        if config.batch % data.parts:
            raise ConfigError(f"a batch of {config.batch} cannot be shared by {self.world.size} processes x {config.accumulate} parts")
        torch.manual_seed(config.seed)
        self.model = self.build().to(self.device).train()
        self.ema = self._averaged() if config.ema else None
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.iteration = 0
        self.stopping = False  # set by a signal; all processes stop after the same iteration
        self._stopped = False
        self._stream: Iterator[Batch] | None = None

    def build(self) -> nn.Module:
        """The model of ``config.model``; what is not to be trained is frozen."""
        model = Detector(self.config.model)
        if self.config.freeze_stem:
            freeze_stem(model.backbone)
        return model

    def training_only(self) -> tuple[str, ...]:
        """Beginnings of the names in the model's state that inference does not need."""
        return checkpoint.training_only(self.model)

    def measured(self) -> dict[str, float]:
        """What a row of the log tells beside the losses."""
        return {}

    def _averaged(self) -> dict[str, Tensor]:
        """A copy of the state that inference needs: training-only parts are not averaged."""
        left_out = self.training_only()
        return {k: v.clone() for k, v in self.model.state_dict().items() if not k.startswith(left_out)}

    def restart_average(self) -> None:
        """Begin the averaged weights anew from the model's: after weights were loaded."""
        self.ema = self._averaged() if self.config.ema else None

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write ``checkpoint.pt``; every process must call it after the same iteration."""
        # Running statistics, feature banks and the like are each process's own; the leader's are in "model".
        buffers = self.world.gather({k: v.cpu() for k, v in self.model.named_buffers()} if not self.world.leads else {})
        if not self.world.leads:
            return
        content = {
            "kind": self.kind,
            "config": self.config.to_dict(),
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "buffers": (buffers or [])[1:],
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        checkpoint.save(self.out / "checkpoint.pt", content)

    def resume(self) -> list[str]:
        """Go back to the state of ``checkpoint.pt``; returns what is not as it was there, in words.

        Raises:
            CheckpointError: no checkpoint, or that of another model.
        """
        path = self.out / "checkpoint.pt"
        content = checkpoint.load(path)
        notes = self._differences(path, content)
        with checkpoint.fitting(path):
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        self.restart_average()
        for name, average in (self.ema or {}).items():
            average.copy_((content["ema"] or {}).get(name, average))
        if content.get("scaler"):
            self.scaler.load_state_dict(content["scaler"])
        self.iteration, self._stream = content["iteration"], None
        torch.set_rng_state(content["rng"])
        if self.device.type == "cuda" and content.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(content["cuda_rng"], self.device)
        notes += self._own_buffers(content.get("buffers", []))
        return notes

    def _differences(self, path: Path, content: dict[str, Any]) -> list[str]:
        with checkpoint.fitting(path):
            before = type(self.config).from_dict(content["config"])
        if before.model != self.config.model:
            here, there = self.config.model.to_dict(), before.model.to_dict()
            names = [k for k in here if here[k] != there[k]]
            raise checkpoint.CheckpointError(f"{path}: its model differs in {', '.join(names)}; give the options of the first start")
        changed = [f.name for f in fields(self.config) if getattr(before, f.name) != getattr(self.config, f.name)]
        return [f"{k}: {getattr(before, k)} before, {getattr(self.config, k)} now" for k in changed if k not in HARMLESS]

    def _own_buffers(self, saved: list[dict[str, Tensor]]) -> list[str]:
        """Restore what is each process's own."""
        if len(saved) + 1 != self.world.size:
            return [f"{len(saved) + 1} processes before, {self.world.size} now: running statistics and banks begin as the first one's"]
        if not self.world.leads:
            for name, buffer in self.model.named_buffers():
                buffer.copy_(saved[self.world.rank - 1][name])
        return []

    # --------------------------------------------------------------------------------------------------------- iterations

    def _batches(self) -> Iterator[Batch]:
        if self._stream is None:
            own = [self.world.rank * self.config.accumulate + k for k in range(self.config.accumulate)]
            self._stream = self.data.stream(self.iteration, own)
        return self._stream

    def step(self) -> dict[str, float]:
        """One iteration; returns the losses by name.

        Raises:
            NonFiniteLossError: a loss or the gradient is not finite; the weights are those of the iteration before.
        """
        rate = learning_rate(self.config, self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        parts = [self._backward(next(self._batches()), k) for k in range(self.config.accumulate)]
        values = self._agree(parts)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.world.sum_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):  # the scaler skips such a step, and scales less from then on
            ids = [i for batches in self.world.gather_all([batch.ids for batch, _ in parts]) for own in batches for i in own]
            told = f"gradient of norm {norm.item()} on pictures {ids}"
            raise NonFiniteLossError(f"iteration {self.iteration}: {told}; the last checkpoint is kept")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        self.iteration += 1
        return {**values, "lr": rate}

    def _backward(self, batch: Batch, part: int) -> tuple[Batch, dict[str, Tensor]]:
        """Losses of one part; its share of the gradient is added."""
        batch = batch.to(self.device)
        number = self.world.rank * self.config.accumulate + part
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.iteration, number]).generate_state(1, np.uint64)[0] >> 1))
        losses = self._losses(batch)
        total = torch.stack([v.float() for v in losses.values()]).sum()
        self.scaler.scale(total / self.data.parts).backward()
        return batch, {"loss": total.detach(), **{k: v.detach().float() for k, v in losses.items()}}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        dtype = AUTOCAST.get(self.config.precision)
        with torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext():
            return self.model_losses(batch)

    def model_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the model on a batch, by name."""
        return self.model.losses(batch.images, batch.sizes, batch.targets)

    def _agree(self, parts: list[tuple[Batch, dict[str, Tensor]]]) -> dict[str, float]:
        """Mean losses over all parts of all processes; whether one wants to stop, and whether a loss is not finite, is agreed on."""
        names = list(dict.fromkeys(k for _, losses in parts for k in losses))
        zero = torch.zeros((), device=self.device)
        table = torch.stack([torch.stack([losses.get(k, zero) for k in names]) for _, losses in parts])  # parts, losses
        bad = ~torch.isfinite(table).all(1)
        flags = torch.stack([bad.any(), torch.tensor(self.stopping, device=self.device)]).float()
        summed = self.world.sum(torch.cat([table.nan_to_num().mean(0) / self.world.size, flags])).tolist()
        self._stopped = summed[-1] > 0
        if summed[-2] > 0:
            mine = [self._explain(batch, losses) for (batch, losses), b in zip(parts, bad.tolist(), strict=True) if b]
            told = "; ".join(text for texts in self.world.gather_all(mine) for text in texts)
            raise NonFiniteLossError(f"iteration {self.iteration}: {told}; the last checkpoint is kept")
        return dict(zip(names, summed, strict=False))

    def _explain(self, batch: Batch, losses: dict[str, Tensor]) -> str:
        """Which losses are not finite, and on which pictures: those that show it alone, otherwise the whole part."""
        values = {k: v.item() for k, v in losses.items()}
        alone = []
        for index, image_id in enumerate(batch.ids):
            single = type(batch)(*(getattr(batch, f.name)[index : index + 1] for f in fields(batch)))
            with torch.no_grad():
                if not all(torch.isfinite(v).all() for v in self._losses(single).values()):
                    alone.append(image_id)
        return f"loss {values} on pictures {alone or batch.ids}"

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema is None:
            return
        # A young average must forget its random start quickly.
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        state = self.model.state_dict()
        for name, average in self.ema.items():
            if average.is_floating_point():
                average.lerp_(state[name], 1 - decay)
            else:
                average.copy_(state[name])

    def _done(self) -> bool:
        """Whether the run ends here. Processes have to agree on a stop, which takes them one more iteration; one alone need not wait."""
        return self.iteration >= self.config.iterations or self._stopped or (self.stopping and self.world.size == 1)

    def run(self) -> Iterator[dict[str, float]]:
        """Iterate to the end, yielding averaged losses every ``log_every`` iterations; checkpoints on the way."""
        gathered: list[dict[str, float]] = []
        started, first = time.monotonic(), self.iteration
        while not self._done():
            gathered.append(self.step())
            if self.iteration % self.config.log_every == 0 or self._done():
                names = dict.fromkeys(k for g in gathered for k in g)
                mean = {k: sum(g.get(k, 0.0) for g in gathered) / len(gathered) for k in names}
                per_iteration = (time.monotonic() - started) / (self.iteration - first)
                yield {"iteration": self.iteration, **mean, "seconds_per_iteration": per_iteration, **self.measured()}
                gathered.clear()
            if self.iteration % self.config.checkpoint_every == 0:
                self.save()
        self._stream = None  # ends the workers
        self.save()

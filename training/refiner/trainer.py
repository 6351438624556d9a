"""The training loop of a refinement network, and its checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sdk.errors import ConfigError
from training import checkpoint
from training.distributed import World
from training.refiner.config import RefinerTrainConfig
from training.refiner.data import PatchBatch, PatchSet
from training.refiner.model import Refiner
from training.refiner.validate import HeldOut, measure
from training.trainer import AUTOCAST, Trainer


class RefinerTrainer(Trainer):
    """State of one run.

    Args:
        config: the run.
        data: its batches.
        out: folder of ``checkpoint.pt``.
        world: this process among all; None = alone, on ``config.device``.
        held: what the log's validation is measured on.

    Raises:
        ConfigError: as `Trainer`; or the patches of a picture would be shared by two processes.
    """

    kind = "refiner"

    def __init__(
        self, config: RefinerTrainConfig, data: PatchSet, out: Path, world: World | None = None, held: list[HeldOut] | None = None
    ) -> None:
        super().__init__(config, data, out, world)
        self.held = held or []
        group = config.patches.masks * config.patches.per_mask
        if config.batch % (data.parts * group):
            raise ConfigError(f"a batch of {config.batch} is not {data.parts} equal parts of whole pictures with {group} patches each")

    def build(self) -> nn.Module:
        # Convolutions with few channels are up to twice as fast so, on CPUs and GPUs.
        return Refiner(self.config.model).to(memory_format=torch.channels_last)

    def training_only(self) -> tuple[str, ...]:
        return ()

    def model_losses(self, batch: PatchBatch) -> dict[str, Tensor]:
        return self.model.losses(batch.patches.contiguous(memory_format=torch.channels_last), batch.targets)

    def measured(self) -> dict[str, float]:
        every = self.config.validate_every
        if not self.held or not every or not (self.iteration % every == 0 or self._done()):
            return {}
        weights = {**self.model.state_dict(), **(self.ema or {})}
        self.model.eval()
        dtype = AUTOCAST.get(self.config.precision)

        def predict(patches: Tensor) -> Tensor:
            patches = patches.to(self.device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                logits: Tensor = torch.func.functional_call(self.model, weights, (patches,))
            return logits.cpu()

        row = measure(predict, self.held, self.config.model.window, self.config.model.pad)
        self.model.train()
        return row


def load_refiner(path: str | Path) -> tuple[Refiner, RefinerTrainConfig]:
    """The trained network (its averaged weights where training kept them) in evaluation mode, and its training config.

    Raises:
        CheckpointError: no checkpoint of a refinement network, or weights that are missing, left over or misshapen; they are named.
    """
    content = checkpoint.of_kind(path, "refiner")
    with checkpoint.fitting(path):
        config = RefinerTrainConfig.from_dict(content["config"])
        model = Refiner(config.model)
        model.load_state_dict({**content["model"], **(content["ema"] or {})})
    return model.eval(), config

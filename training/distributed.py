"""Several processes, one model: each computes parts of the batch, gradients are summed before the step.

``torchrun --nproc-per-node N -m training.train ...`` starts them. The sum is one plain all-reduce after the backward pass, so that
accumulation, parameters without gradient and mixed precision need no special cases; it is not overlapped with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sdk.errors import ConfigError

PATIENCE = timedelta(hours=2)  # the check of a large data set runs in one process while the others wait
CPU = torch.device("cpu")
BUCKET = 64 * 2**20  # bytes of gradients that travel together


@dataclass(frozen=True)
class World:
    """This process among all."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The leader's value, everywhere."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: Any) -> list[Any] | None:
        """Every process's value, by rank, at the leader; None elsewhere."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.leads else None
        dist.gather_object(value, values, dst=0)
        return values

    def gather_all(self, value: Any) -> list[Any]:
        """Every process's value, by rank, everywhere."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of all processes. One that no process has stays away, as it would in a single process."""
        if self.size == 1:
            return
        listed = list(parameters)
        has = self.sum(torch.tensor([p.grad is not None for p in listed], device=self.device, dtype=torch.int32)).tolist()
        bucket: list[Tensor] = []
        for parameter, somewhere in zip(listed, has, strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                bucket.append(parameter.grad)
            if sum(g.numel() * g.element_size() for g in bucket) >= BUCKET:
                self._sum_bucket(bucket)
                bucket = []
        self._sum_bucket(bucket)

    def _sum_bucket(self, gradients: list[Tensor]) -> None:
        if not gradients:
            return
        flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this process.

    Args:
        name: "cpu", "cuda", "cuda:1", or "auto": cuda where there is one.
        local_rank: number of the process on its machine; each takes a GPU of its own.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ConfigError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use")
        device = torch.device("cuda", index)
    return device


def join(device: str) -> World:
    """This process's place in the world that torchrun describes in the environment; alone without torchrun.

    Raises:
        ConfigError: the device is not there.
    """
    size, rank, local_rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    mine = choose_device(device, local_rank)
    if mine.type == "cuda":
        torch.cuda.set_device(mine)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if mine.type == "cuda" else "gloo", timeout=PATIENCE)
    return World(mine, rank, size)


def leave() -> None:
    """End the processes' connection, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()

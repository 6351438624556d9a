"""What the training programmes share: fields of a configuration as options of the command line, and the loop around a trainer."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from sdk.config import Config
from sdk.errors import ConfigError
from training import distributed
from training.config import RunConfig
from training.log import RunLog
from training.trainer import Trainer

C = TypeVar("C", bound=RunConfig)


def scalars(config: type[Config]) -> dict[str, type]:
    """Fields with one plain value, and its type."""
    hints = typing.get_type_hints(config)
    return {f.name: hints[f.name] for f in dataclasses.fields(config) if hints[f.name] in (int, float, str, bool)}


def add_fields(parser: argparse.ArgumentParser, config: type[Config], example: str) -> None:
    """An option for every plain field, and ``--set`` for all of them."""
    fields = parser.add_argument_group(f"configuration (fields of {config.__name__})")
    fields.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=f"any field, e.g. {example}")
    for name, kind in scalars(config).items():
        fields.add_argument(f"--{name.replace('_', '-')}", metavar=kind.__name__.upper(), help=f"overrides the preset's {name}")


def set_fields(values: dict[str, Any], options: argparse.Namespace, config: type[Config]) -> None:
    """Put the plain fields that were given into a configuration's dictionary."""
    for name in scalars(config):
        if getattr(options, name) is not None:
            values[name] = read_value(getattr(options, name))


def set_paths(values: dict[str, Any], assignments: Sequence[str]) -> None:
    """Put what ``--set`` gave into a configuration's dictionary.

    Raises:
        ConfigError: not FIELD=VALUE, or a field inside one that has none.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: expected FIELD=VALUE")
        _assign(values, path.split("."), read_value(text), assignment)


def _assign(values: dict[str, Any], path: list[str], value: Any, said: str) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {said}: {key!r} is one value, it has no field {path[-1]!r}")
        values = inner
    values[path[-1]] = value


def read_value(text: str) -> Any:
    """JSON where it is JSON or a number (".02"), otherwise the text itself."""
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def begin(trainer: Trainer, options: argparse.Namespace, load: Callable[[], list[str]]) -> None:
    """Go on from the checkpoint in ``--out``, or begin anew with the weights that ``load`` puts in; tells what should be known about it.

    Raises:
        ConfigError: a checkpoint is there, and neither ``--resume`` nor ``--overwrite`` was given.
    """
    if options.resume:
        notes = [f"resuming: {note}" for note in trainer.resume()]
    else:
        checkpoint = options.out / "checkpoint.pt"
        if checkpoint.exists() and not options.overwrite:
            raise ConfigError(f"{checkpoint} is there already: --resume goes on from it, --overwrite begins anew")
        notes = load()
        trainer.restart_average()
    if trainer.world.leads:
        for note in notes:
            print(note, file=sys.stderr)


def run_programme(options: argparse.Namespace, config: C, prepare: Callable[[argparse.Namespace, C, distributed.World], Trainer]) -> int:
    """The whole programme once its configuration is known; returns the exit code."""
    if options.print_config:
        print(json.dumps(config.to_dict(), indent=1))
        return 0
    if config.threads:
        torch.set_num_threads(config.threads)
    world = distributed.join(config.device)
    try:
        trainer = prepare(options, config, world)
        iterate(trainer, options.out, resumed=trainer.iteration)
    finally:
        distributed.leave()
    return 0


def iterate(trainer: Trainer, out: Path, *, resumed: int) -> None:
    """Iterate to the end or to a signal."""

    def stop(*_: object) -> None:
        trainer.stopping = True  # the current iteration ends, then a checkpoint is written

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if not trainer.world.leads:
            for _ in trainer.run():
                pass
            return
        log = RunLog(out, trainer.config.iterations, resumed)
        for row in trainer.run():
            print(log.add(row), flush=True)
        log.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

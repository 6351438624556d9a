"""Train a refinement network: ``python -m training.train_refiner --source DAVIS,weight=2 --source dead-leaves --out runs/r [--resume]``.

Every ``--source`` is ``DATA,key=value,...``: a folder in COCO, LVIS or Cityscapes layout, or ``scenes`` or ``dead-leaves`` for procedural
pictures; the keys are the fields of `training.refiner.config.SourceConfig`, several values are separated by ``|``. Coarse masks are
simulated from the true ones, or come from ``results=FILE.json``, the COCO results of any model. The run leaves ``checkpoint.pt`` and
``log.jsonl`` in ``--out``. See ``docs/refiner.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sdk.errors import KerfError
from training import distributed
from training.initialise import load_matching, read_state_dict
from training.options import add_fields, begin, run_programme, set_fields, set_paths
from training.refiner.config import RefinerTrainConfig
from training.refiner.data import PatchSet
from training.refiner.model import load_imagenet_body
from training.refiner.presets import PRESETS
from training.refiner.sources import open_sources, parse_source
from training.refiner.trainer import RefinerTrainer
from training.refiner.validate import hold_out


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("training.train_refiner", description=__doc__.split("\n")[0], epilog=f"presets: {', '.join(PRESETS)}")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="general", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint.pt and log.jsonl")
    run = parser.add_argument_group("run")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    run.add_argument("--overwrite", action="store_true", help="begin anew although --out holds a checkpoint")
    run.add_argument("--init", type=Path, metavar="CHECKPOINT", help="begin with its weights, as far as names and shapes match")
    run.add_argument("--backbone-weights", type=Path, metavar="FILE", help="begin with an ImageNet state dict in an HRNet's body")
    run.add_argument("--print-config", action="store_true", help="print the configuration as JSON and stop")
    data = parser.add_argument_group("data")
    data.add_argument("--source", action="append", default=[], metavar="DATA,key=value,...", help="once per source of pictures")
    data.add_argument("--skip-bad", action="store_true", help="leave out what cannot be used instead of stopping")
    data.add_argument("--check-jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes that check the pictures first")
    add_fields(parser, RefinerTrainConfig, "model.network=hrnet_w18")
    return parser.parse_args(arguments)


def configure(options: argparse.Namespace) -> RefinerTrainConfig:
    """The preset with the sources and the fields of the command line.

    Raises:
        ConfigError: an unknown field, or a value that it cannot have.
    """
    values = PRESETS[options.preset].to_dict()
    set_fields(values, options, RefinerTrainConfig)
    values["sources"] = [parse_source(text).to_dict() for text in options.source]
    set_paths(values, options.set)
    return RefinerTrainConfig.from_dict(values)


def prepare(options: argparse.Namespace, config: RefinerTrainConfig, world: distributed.World) -> RefinerTrainer:
    """The run, ready to iterate: data checked, weights loaded.

    Raises:
        KerfError: the data, the configuration or the weights do not allow it.
    """
    sources, held, left_out = open_sources(
        config.sources, world, options.out, min_iou=config.coarse.min_iou, skip_bad=options.skip_bad, jobs=options.check_jobs
    )
    if left_out and world.leads:
        listing = options.out / "problems.txt"
        listing.write_text(left_out)
        print(f"left out: {left_out.count(chr(10))} entries, {listing} has all", file=sys.stderr)
    fixed = hold_out(held, config) if world.leads and config.validate_every else []
    trainer = RefinerTrainer(config, PatchSet(sources, config), options.out, world, fixed)
    begin(trainer, options, lambda: _load(trainer, options))
    return trainer


def _load(trainer: RefinerTrainer, options: argparse.Namespace) -> list[str]:
    """Load what the run begins with; returns what should be known about it."""
    if options.backbone_weights:
        load_imagenet_body(trainer.model, read_state_dict(options.backbone_weights))
    notes = [f"{options.init}: {note}" for note in load_matching(trainer.model, options.init)] if options.init else []
    return notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(arguments)
    return run_programme(options, configure(options), prepare)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KerfError, OSError) as error:
        sys.exit(f"training.train_refiner: error: {error}")

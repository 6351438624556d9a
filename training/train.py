"""Train a detector: ``python -m training.train --preset nuclei --data FOLDER --out runs/nuclei [--resume]``.

``FOLDER`` is a data set in COCO, LVIS or Cityscapes layout, or the word ``scenes`` for procedural pictures. The run leaves
``checkpoint.pt`` and ``log.jsonl`` in ``--out``. Every field of ``TrainConfig`` is an option, nested ones go through ``--set
model.head.convs=8``. Under torchrun the processes share every batch. See ``docs/training.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sdk.errors import ConfigError, KerfError
from training import distributed
from training.config import TrainConfig
from training.data.batches import TrainingSet
from training.data.sources import FORMATS, DataOptions, checked_source
from training.heads import HEADS
from training.initialise import load_backbone, load_matching
from training.options import add_fields, begin, run_programme, set_fields, set_paths
from training.presets import PRESETS, with_head
from training.schedule import learning_rate
from training.trainer import NonFiniteLossError, Trainer

__all__ = ["NonFiniteLossError", "Trainer", "TrainingSet", "learning_rate", "main"]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("training.train", description=__doc__.split("\n")[0], epilog=f"presets: {', '.join(PRESETS)}")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nuclei", metavar="NAME")
    parser.add_argument("--head", choices=sorted(HEADS), help="another mask head, with what its paper changes in the preset's schedule")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint.pt and log.jsonl")
    run = parser.add_argument_group("run")
    run.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    run.add_argument("--overwrite", action="store_true", help="begin anew although --out holds a checkpoint")
    run.add_argument("--init", type=Path, metavar="CHECKPOINT", help="begin with its weights, as far as names and shapes match")
    run.add_argument("--backbone-weights", type=Path, metavar="FILE", help="begin with an ImageNet state dict in the backbone")
    run.add_argument("--print-config", action="store_true", help="print the configuration as JSON and stop")
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, required=True, help="folder of a data set, or 'scenes'")
    data.add_argument("--split", default="train")
    data.add_argument("--format", choices=FORMATS, default="auto")
    data.add_argument("--annotations", type=Path, help="JSON file, where it is not DATA/annotations/SPLIT.json")
    data.add_argument("--images", type=Path, help="folder of the pictures, where it is not DATA/SPLIT (LVIS: DATA)")
    data.add_argument("--skip-bad", action="store_true", help="leave out what cannot be used instead of stopping")
    data.add_argument("--check-jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes that check the pictures first")
    data.add_argument("--scenes-count", type=int, default=2000, help="procedural pictures")
    data.add_argument("--scenes-size", type=int, default=512, help="their side, pixels")
    data.add_argument("--scenes-seed", type=int, default=0, help="another seed is another data set")
    add_fields(parser, TrainConfig, "model.head.convs=8")
    return parser.parse_args(arguments)


def configure(options: argparse.Namespace) -> TrainConfig:
    """The preset with the head and the fields of the command line.

    Raises:
        ConfigError: an unknown field, or a value that it cannot have.
    """
    config = PRESETS[options.preset]
    if options.head:
        config = with_head(config, options.preset, options.head)
    values = config.to_dict()
    set_fields(values, options, TrainConfig)
    if options.iterations is not None and options.epochs is None:
        values["epochs"] = 0.0  # a preset's epochs give way to iterations that were asked for
    set_paths(values, options.set)
    return TrainConfig.from_dict(values)


def prepare(options: argparse.Namespace, config: TrainConfig, world: distributed.World) -> Trainer:
    """The run, ready to iterate: data checked, classes taken from it, weights loaded.

    Raises:
        KerfError: the data, the configuration or the weights do not allow it.
    """
    where = DataOptions(
        data=options.data,
        split=options.split,
        format=options.format,
        annotations=options.annotations,
        images=options.images,
        scenes=(options.scenes_count, options.scenes_size, options.scenes_seed),
        cache=options.out,
    )
    source, left_out = checked_source(where, world, skip_bad=options.skip_bad, jobs=options.check_jobs)
    if left_out and world.leads:
        print(f"left out ({options.out / 'problems.txt'} has all): {source.summary()}", file=sys.stderr)  # type: ignore[attr-defined]
    model = config.model.replace(class_names=source.class_names, category_ids=source.category_ids)
    config = config.replace(model=model)
    data = TrainingSet(source, config)
    unseen = len(source.records) - len(data.drawn)
    if unseen and world.leads:
        print(f"{unseen} of {len(source.records)} pictures have no object and are not drawn (skip_empty)", file=sys.stderr)
    if config.epochs:
        config = config.replace(iterations=math.ceil(config.epochs * data.epoch / config.batch))
        data.config = config
    trainer = Trainer(config, data, options.out, world)
    begin(trainer, options, lambda: _load(trainer, options))
    return trainer


def _load(trainer: Trainer, options: argparse.Namespace) -> list[str]:
    """Load what the run begins with; returns what should be known about it."""
    notes: list[str] = []
    if options.backbone_weights:
        load_backbone(trainer.model, options.backbone_weights)
    if options.init:
        notes = [f"{options.init}: {note}" for note in load_matching(trainer.model, options.init)]
    elif not options.backbone_weights and (trainer.config.freeze_stem or trainer.config.model.norm == "frozen"):
        raise ConfigError(
            "this configuration freezes parts of the backbone, which only makes sense with weights: give --backbone-weights FILE or --init "
            "CHECKPOINT; to train from random weights use --freeze-stem false --set model.norm=group"
        )
    return notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(arguments)
    return run_programme(options, configure(options), prepare)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KerfError, OSError) as error:
        sys.exit(f"training.train: error: {error}")

"""Import a public checkpoint: ``python -m training.import_checkpoint SOURCE.pth --out X.pt`` (``docs/checkpoints.md``)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sdk.errors import KerfError
from training.checkpoint import CheckpointError
from training.importing.layouts import LAYOUTS, import_checkpoint
from training.importing.parts import Options


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("training.import_checkpoint", description="Turn a public checkpoint into one of Kerf's.")
    parser.add_argument("source", type=Path, help="a .pth, .pt or .pkl file of weights; nothing in it is executed")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, X.pt")
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto")
    parser.add_argument(
        "--classes", type=Path, metavar="NAMES.txt", help="class names, one a line, in the model's order without background"
    )
    parser.add_argument("--category-ids", type=int, nargs="+", metavar="ID", help="COCO category of each class")
    special = parser.add_argument_group("for models that differ from what their project publishes")
    special.add_argument("--color", choices=("rgb", "bgr"), help="channel order that the model was trained with")
    special.add_argument("--mean", type=float, nargs=3, metavar="GREY", help="grey levels 0..255, in that order")
    special.add_argument("--std", type=float, nargs=3, metavar="GREY", help="grey levels, same order")
    special.add_argument("--stride-in", choices=("1x1", "3x3"), help="Detectron2: convolution of a bottleneck that strides")
    special.add_argument("--bn-eps", type=float, help="what is added to the variance of batch norms")
    return parser.parse_args(arguments)


def options_of(arguments: argparse.Namespace) -> Options:
    """What the command line says of the model.

    Raises:
        CheckpointError: the file of class names cannot be read or repeats a name.
    """
    names = None
    if arguments.classes is not None:
        try:
            names = tuple(line.strip() for line in arguments.classes.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{arguments.classes}: cannot be read as text: {error}") from error
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise CheckpointError(f"{arguments.classes}: {'names more than once: ' + ', '.join(twice) if twice else 'holds no name'}")
    return Options(
        class_names=names,
        category_ids=None if arguments.category_ids is None else tuple(arguments.category_ids),
        color=arguments.color,
        mean=None if arguments.mean is None else tuple(arguments.mean),
        std=None if arguments.std is None else tuple(arguments.std),
        stride_in_1x1=None if arguments.stride_in is None else arguments.stride_in == "1x1",
        bn_eps=arguments.bn_eps,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    given = parse(arguments)
    try:
        if given.out.exists() and given.out.samefile(given.source):
            raise CheckpointError(f"{given.out}: would replace the file that is read")
        converted, layout = import_checkpoint(given.source, given.out, given.layout, options_of(given))
    except (KerfError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    config = converted.config
    for note in converted.notes:
        print(f"note: {note}")
    print(f"{given.out}: {layout}, {config.backbone}, head {config.head.name}, {len(config.class_names)} classes, {config.color} input")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All layouts by name, and the way from a file's weights to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sdk.errors import ConfigError
from training import checkpoint
from training.checkpoint import CheckpointError
from training.config import TrainConfig
from training.importing import detectron2, refinemask, torchvision
from training.importing.parts import Converted, Options
from training.importing.source import Source, read_source
from training.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one project names and uses its weights."""

    matches: Callable[[Source], bool]
    convert: Callable[[Source, Options], Converted]


LAYOUTS: dict[str, Layout] = {
    "torchvision": Layout(matches=torchvision.matches, convert=torchvision.convert),
    "detectron2": Layout(matches=detectron2.matches, convert=detectron2.convert),
    "mmdet-refinemask": Layout(matches=refinemask.matches, convert=refinemask.convert),
}


def find_layout(source: Source, wanted: str = "auto") -> str:
    """Name of the layout of some weights.

    Raises:
        CheckpointError: none of ours, or not the wanted one; the message says what was found.
    """
    found = [name for name, layout in LAYOUTS.items() if layout.matches(source)]
    if wanted == "auto" and len(found) == 1:
        return found[0]
    if wanted in found:
        return wanted
    what = f"the layout {found[0]}" if found else "no layout known here"
    names = source.names()
    raise CheckpointError(
        f"{source.where}: expected {'one of ' + ', '.join(LAYOUTS) if wanted == 'auto' else wanted}, found {what}: "
        f"{len(names)} weights such as {', '.join(names[:4])}"
    )


def build(source: Source, layout: str = "auto", options: Options = Options()) -> tuple[Detector, Converted, str]:  # noqa: B008 - immutable
    """The model of some weights in evaluation mode, what it was made from, and the layout's name.

    Raises:
        CheckpointError: a weight is missing, left over or misshapen; all of them are named.
    """
    name = find_layout(source, layout)
    converted = LAYOUTS[name].convert(source, options)
    source.check_empty()
    try:
        model = Detector(converted.config)
        model.load_state_dict(converted.weights)
    except (RuntimeError, ConfigError) as error:
        raise CheckpointError(f"{source.where}: its weights do not make a model in the layout {name}: {error}") from error
    broken = [n for n, v in converted.weights.items() if not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(f"{source.where}: values that are not finite, in our names: {', '.join(broken[:8])}")
    return model.eval(), converted, name


def import_checkpoint(path: Path, out: Path, layout: str = "auto", options: Options = Options()) -> tuple[Converted, str]:  # noqa: B008
    """Read a public checkpoint and write it as one of ours; returns what was written and the layout's name.

    Raises:
        CheckpointError: see `read_source` and `build`.
    """
    source = read_source(path)
    model, converted, name = build(source, layout, options)
    content = {
        "config": TrainConfig(model=converted.config).to_dict(),
        "iteration": 0,
        "model": model.state_dict(),
        "ema": None,
        "imported": {"layout": name, "sha256": source.digest},
    }
    checkpoint.save(out, content)
    return converted, name

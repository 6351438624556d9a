"""Which data set a command line means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdk.errors import ConfigError
from training.data.check import check
from training.data.cityscapes import Cityscapes
from training.data.coco import CocoInstances
from training.data.lvis import LvisInstances
from training.data.scenes import Scenes
from training.data.source import DataError, FileSource, InstanceSource
from training.distributed import World

FORMATS = ("auto", "coco", "lvis", "cityscapes", "scenes")
PROCEDURAL = "scenes"  # in place of a folder
ANNOTATIONS = ("{split}.json", "instances_{split}.json", "lvis_v1_{split}.json")  # in annotations/ or in the folder itself


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the data lies."""

    data: Path  # folder, or "scenes"
    split: str = "train"
    format: str = "auto"  # one of FORMATS
    annotations: Path | None = None  # instead of the one found in the folder
    images: Path | None = None  # folder of the pictures, likewise
    scenes: tuple[int, int, int] = (2000, 512, 0)  # count, side, seed
    cache: Path | None = None  # folder of what is remembered about files

    def resolved(self) -> str:
        """The format, never "auto"."""
        if self.format != "auto":
            return self.format
        if str(self.data) == PROCEDURAL and not self.data.exists():
            return "scenes"
        if (self.data / "gtFine").is_dir():
            return "cityscapes"
        return "lvis" if self.annotation_file().name.startswith("lvis") else "coco"

    def annotation_file(self) -> Path:
        """The COCO or LVIS annotations.

        Raises:
            DataError: there are none.
        """
        if self.annotations is not None:
            return self.annotations
        names = [name.format(split=self.split) for name in ANNOTATIONS]
        candidates = [folder / name for folder in (self.data / "annotations", self.data) for name in names]
        for path in candidates:
            if path.is_file():
                return path
        raise DataError(f"{self.data}: no annotations; looked for {', '.join(map(str, candidates[:3]))}; or give --annotations")


def open_source(options: DataOptions) -> InstanceSource:
    """The data set, before its check: what is wrong so far is in its ``problems``.

    Raises:
        DataError: no data set, or nothing in it can be used.
        ConfigError: impossible scenes.
    """
    kind = options.resolved()
    if kind == "scenes":
        count, size, seed = options.scenes
        try:
            return Scenes(count, size, seed)
        except ValueError as error:
            raise ConfigError(f"scenes: {error}") from error
    if kind == "cityscapes":
        cache = options.cache / "cityscapes.json" if options.cache else None
        return Cityscapes(options.data, options.split, skip_bad=True, cache=cache)
    if kind == "lvis":
        return LvisInstances(options.annotation_file(), options.images or options.data, skip_bad=True)
    return CocoInstances(options.annotation_file(), options.images or options.data / options.split, skip_bad=True)


def checked_source(options: DataOptions, world: World, *, skip_bad: bool, jobs: int) -> tuple[InstanceSource, str]:
    """The data set with everything decoded once; the leader does it, all processes get its verdict.

    Returns:
        The source, and all that was left out of it, one a line.

    Raises:
        DataError: something cannot be used and ``skip_bad`` is false.
    """
    source = open_source(options)
    if not isinstance(source, FileSource):
        return source, ""
    cache = options.cache / "checked.json" if options.cache else None
    source.leave_out(world.share(check(source, jobs=jobs, cache=cache) if world.leads else None))
    if source.problems and options.cache is not None and world.leads:
        options.cache.mkdir(parents=True, exist_ok=True)
        (options.cache / "problems.txt").write_text(source.problems.listing())
    source.refuse(f"{options.data} ({options.split})", skip_bad=skip_bad)
    return source, source.problems.listing()

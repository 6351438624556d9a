"""Sources of (picture, coarse mask, true mask): opened, checked, and split into what is trained on and what is held out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import ConfigError, InputError
from sdk.evaluate.boundary import render, union_window, window_of
from sdk.formats.coco import parse_segmentation, read_json
from sdk.ops import MaskCrops, rle_decode
from training.data.coarse import mask_iou
from training.data.dead_leaves import DeadLeaves
from training.data.scenes import Scenes
from training.data.source import DataError, Encoded, FileSource, InstanceSource, encoded
from training.data.sources import DataOptions, checked_source
from training.distributed import World
from training.refiner.config import SourceConfig

HELD_PICTURES = 16  # procedural: pictures that are validated on


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture with everything that patches are cut from."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    masks: MaskCrops  # G true masks
    areas: NDArray[np.int64]  # (G,) pixels
    given: list[tuple[int, bytes]]  # coarse masks of a results file: index of the true mask, run lengths

    @property
    def nbytes(self) -> int:
        """Memory this takes, roughly."""
        return self.image.nbytes + self.masks.data.nbytes + sum(len(counts) for _, counts in self.given)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[0], self.image.shape[1]


class PictureCache:
    """The pictures that were used last, up to a number of bytes.

    Args:
        room: bytes.
    """

    def __init__(self, room: int) -> None:
        self.room = room  # bytes that are left
        self._kept: OrderedDict[tuple[str, int], Picture] = OrderedDict()

    def get(self, key: tuple[str, int], make: Callable[[], Picture]) -> Picture:
        """The picture of a source's name and an index, made if it is not there."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = self._kept[key] = make()
        self.room -= picture.nbytes
        while self.room < 0 and self._kept:
            self.room += self._kept.popitem(last=False)[1].nbytes
        return picture


class PatchSource:
    """One source, as training sees it.

    Args:
        name: how the log calls it.
        config: where it lies.
        data: its pictures.
        pictures: indices of those that may be drawn.
        results: coarse masks by image id, as `read_results` gives them.
        min_iou: a coarse mask counts for the true mask of its category with the highest IoU, if that is above this.
    """

    def __init__(
        self,
        name: str,
        config: SourceConfig,
        data: InstanceSource,
        pictures: Sequence[int],
        results: Mapping[int, list[tuple[int, bytes]]],
        min_iou: float,
    ) -> None:
        self.name, self.config, self.data, self.results, self.min_iou = name, config, data, results, min_iou
        # A picture without objects has nothing to refine; procedural pictures always have some, but do not list them.
        listed = isinstance(data, FileSource)
        self.pictures = np.array([i for i in pictures if not listed or data.records[i].annotations], np.int64)
        if not len(self.pictures):
            raise DataError(f"{config.data}: no picture with an object is left to draw from")
        areas = np.array([data.records[int(i)].height * data.records[int(i)].width for i in self.pictures], np.float64)
        self.probability = np.sqrt(areas) / np.sqrt(areas).sum()
        self.cache = PictureCache(0)  # `PatchSet` gives all of its sources one

    def draw(self, rng: np.random.Generator) -> int:
        """A random picture; large ones hold more outline, but should not crowd out small ones: square root of the area."""
        return int(self.pictures[rng.choice(len(self.pictures), p=self.probability)])

    def picture(self, index: int) -> Picture:
        """Record ``index``, decoded, with its coarse masks paired with true ones."""
        return self.cache.get((self.name, index), lambda: self._picture(index))

    def _picture(self, index: int) -> Picture:
        sample = encoded(self.data, index)
        masks = rle_decode(sample.counts, sample.image.shape[:2])
        return Picture(sample.image, masks, masks.areas(), self._pairs(index, sample, masks))

    def image_id(self, index: int) -> str:
        """How messages call a picture."""
        return f"{self.name}:{self.data.records[index].image_id}"

    def _pairs(self, index: int, sample: Encoded, masks: MaskCrops) -> list[tuple[int, bytes]]:
        """The usable coarse masks of a picture (Tang et al. 2021, section 4.1: IoU above .5)."""
        pairs: list[tuple[int, bytes]] = []
        shape = sample.image.shape[:2]
        for category, counts in self.results.get(self.data.records[index].image_id, []):
            coarse = rle_decode([counts], shape)
            same = np.flatnonzero([self.data.category_ids[label] == category for label in sample.labels])
            overlaps = [_iou(coarse, masks, int(n)) for n in same]
            if overlaps and max(overlaps) > self.min_iou:
                pairs.append((int(same[int(np.argmax(overlaps))]), counts))
        return pairs


def _iou(coarse: MaskCrops, masks: MaskCrops, n: int) -> float:
    a, b = window_of(coarse, 0), window_of(masks, n)
    if min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]):
        return 0.0
    window = union_window(a, b)
    return mask_iou(render(coarse, 0, window), render(masks, n, window))


def open_sources(
    configs: Sequence[SourceConfig], world: World, out: Path, *, min_iou: float, skip_bad: bool, jobs: int
) -> tuple[list[PatchSource], list[PatchSource], str]:
    """All sources, with everything in them decoded once.

    Returns:
        What is trained on, what is validated on (procedural pictures of another seed, what ``hold_out`` names, sources of
        weight 0), and what was left
        out, one a line.

    Raises:
        ConfigError: no source, or a pattern of ``hold_out`` that fits no picture.
        DataError: something cannot be used and ``skip_bad`` is false, or nothing is left.
    """
    if not any(config.weight for config in configs):
        raise ConfigError("no data: give at least one --source with a weight above 0")
    names = [Path(c.data).name for c in configs]
    train: list[PatchSource] = []
    held: list[PatchSource] = []
    left_out = ""
    for position, config in enumerate(configs):
        name = names[position] if names.count(names[position]) == 1 else f"{names[position]}{position}"
        if config.data in ("scenes", "dead-leaves"):
            make = Scenes if config.data == "scenes" else DeadLeaves
            if config.weight:
                train.append(PatchSource(name, config, make(config.count, config.size, config.seed), range(config.count), {}, min_iou))
            pictures = make(HELD_PICTURES, config.size, config.seed + 1)
            held.append(PatchSource(name, config, pictures, range(HELD_PICTURES), {}, min_iou))
            continue
        data, lost = _open_files(config, world, out / "sources" / name, skip_bad=skip_bad, jobs=jobs)
        results, wrong = read_results(config, data, skip_bad=skip_bad)
        left_out += lost + wrong
        apart = _held_out(config, data)
        rest = [i for i in range(len(data.records)) if i not in apart]
        if config.weight:
            train.append(PatchSource(name, config, data, rest, results, min_iou))
        if apart:
            held.append(PatchSource(name, config, data, sorted(apart), results, min_iou))
    return train, held, left_out


def _open_files(config: SourceConfig, world: World, cache: Path, *, skip_bad: bool, jobs: int) -> tuple[FileSource, str]:
    where = DataOptions(
        data=Path(config.data),
        split=config.split,
        annotations=Path(config.annotations) if config.annotations else None,
        images=Path(config.images) if config.images else None,
        cache=cache,
    )
    data, left_out = checked_source(where, world, skip_bad=skip_bad, jobs=jobs)
    assert isinstance(data, FileSource)  # SourceConfig knows the procedural ones
    return data, left_out


def _held_out(config: SourceConfig, data: FileSource) -> set[int]:
    """Indices of the pictures that are validated on."""
    if not config.weight:
        return set(range(len(data.records)))
    apart: set[int] = set()
    for pattern in config.hold_out:
        found = {i for i, record in enumerate(data.records) if fnmatch(record.path.name, pattern)}
        if not found:
            raise ConfigError(f"{config.data}: hold_out {pattern!r} fits no picture, e.g. {data.records[0].path.name}")
        apart |= found
    return apart


def read_results(config: SourceConfig, data: FileSource, *, skip_bad: bool) -> tuple[dict[int, list[tuple[int, bytes]]], str]:
    """The coarse masks of the results files: image id -> (category id, compressed run lengths).

    Returns:
        The masks, and what was left out, one a line.

    Raises:
        DataError: a file is no list of results, or an entry cannot be used and ``skip_bad`` is false.
    """
    shapes = {record.image_id: (record.height, record.width) for record in data.records}
    results: dict[int, list[tuple[int, bytes]]] = {}
    known = len(data.problems)
    before = {kind: len(names) for kind, names in data.problems.names.items()}
    for path in config.results:
        try:
            content = read_json(path)
        except InputError as error:
            raise DataError(str(error)) from error
        if not isinstance(content, list):
            raise DataError(f"{path}: not a COCO results file: expected a list, got {type(content).__name__}")
        for position, entry in enumerate(content):
            where = f"{path}: results[{position}]"
            wrong = _wrong_result(entry, shapes, data.label_of)
            if wrong:
                data.problems.add(wrong[0], f"{where}: {wrong[1]}")
                continue
            try:
                counts = parse_segmentation(entry["segmentation"], shapes[entry["image_id"]], where)
            except InputError as error:
                data.problems.add("malformed mask of a result", str(error))
                continue
            results.setdefault(entry["image_id"], []).append((entry["category_id"], counts))
    if len(data.problems) > known:
        data.refuse(", ".join(config.results), skip_bad=skip_bad)
    new = {kind: names[before.get(kind, 0) :] for kind, names in data.problems.names.items()}
    return results, "".join(f"{kind}: {name}\n" for kind, names in new.items() for name in names)


def _wrong_result(entry: Any, shapes: Mapping[int, object], categories: Mapping[int, int]) -> tuple[str, str] | None:
    """Kind and detail of what is wrong with an entry, as far as its ids go."""
    if not isinstance(entry, dict) or "segmentation" not in entry:
        return "malformed result", "expected an object with a segmentation"
    if entry.get("image_id") not in shapes:
        return "result of an unknown picture", f"picture {entry.get('image_id')!r:.60}"
    if entry.get("category_id") not in categories:
        return "result of an unknown category", f"category {entry.get('category_id')!r:.60}"
    return None


def parse_source(text: str) -> SourceConfig:
    """A source as the command line gives it: ``DATA,key=value,...``; several values of a key are separated by ``|``.

    Raises:
        ConfigError: not of this form, or a field that a source does not have.
    """
    from training.options import read_value

    data, *pairs = text.split(",")
    values: dict[str, Any] = {"data": data}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--source {text}: expected DATA,key=value,..., got {pair!r}")
        values[key] = value.split("|") if key in ("results", "hold_out") else read_value(value)
    config = SourceConfig.from_dict(values, where="--source")
    inside = Path(data) / "annotations"  # a bare name of a results file lies beside the annotations
    return replace(
        config, results=tuple(str(inside / r) if not Path(r).is_file() and (inside / r).is_file() else r for r in config.results)
    )

"""What the trainer needs of a data set, and how what is wrong with one is collected.

A data set is an :class:`InstanceSource`: records that say what there is, and ``load`` for one picture with its masks. One that
reads files is a :class:`FileSource`: its masks stay run lengths until a training window is cut out, and everything that cannot be
used is found before training starts (``training.data.check``), counted and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import ImageError, KerfError
from sdk.images import Picture, read_image
from sdk.ops import crops_to_dense, dense_to_crops, rle_decode, rle_encode

EXAMPLES = 3  # names per kind of problem in a message


class DataError(KerfError, ValueError):
    """The data set cannot be trained on as it is; the message counts and names what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture and its annotations, masks still encoded."""

    image_id: int
    path: Path
    height: int  # pixels
    width: int  # pixels
    annotations: list[dict[str, Any]] = field(repr=False)  # objects to learn; each has at least "id" and "category_id"
    crowd: list[dict[str, Any]] = field(default_factory=list, repr=False)  # regions of many objects: known, not learned from
    mask_path: Path | None = None  # file of the masks where they are not in the annotations
    neg_category_ids: tuple[int, ...] = ()  # LVIS: categories that were looked for and are not in the picture
    not_exhaustive_category_ids: tuple[int, ...] = ()  # LVIS: categories of which not every object is annotated


class Pictured(Protocol):
    """The least that a record says; :class:`Record` is one that files give."""

    @property
    def image_id(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


class InstanceSource(Protocol):
    """A data set as the trainer takes it.

    Attributes:
        class_names: names in label order.
        category_ids: category id of each label.
        records: one per picture.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def category_ids(self) -> tuple[int, ...]: ...

    @property
    def records(self) -> Sequence[Pictured]: ...

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Picture (H, W, 3) uint8 RGB, masks (G, H, W) uint8 and labels (G,) int64 of record ``index``."""
        ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """One picture with its masks as compressed run lengths."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    counts: list[bytes]  # G masks
    labels: NDArray[np.int64]  # (G,)

    @property
    def nbytes(self) -> int:
        """Memory this takes, roughly."""
        return self.image.nbytes + sum(map(len, self.counts)) + self.labels.nbytes


def encoded(source: InstanceSource, index: int) -> Encoded:
    """Record ``index`` of any source with its masks as run lengths."""
    if isinstance(source, FileSource):
        return source.encoded(index)
    image, masks, labels = source.load(index)
    return Encoded(image, rle_encode(dense_to_crops(masks.astype(np.bool_)), image.shape[:2]), labels)


@dataclass(frozen=True)
class Finding:
    """Something that cannot be used."""

    kind: str  # what messages count
    where: str  # which one
    position: int | None = None  # in ``Record.annotations``; None = the whole picture


class Problems:
    """What is wrong with a data set, by kind."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count one more."""
        self.names.setdefault(kind, []).append(where)

    def __len__(self) -> int:
        return sum(map(len, self.names.values()))

    def summary(self) -> str:
        """Every kind with its count and its first examples."""
        return "; ".join(f"{len(v)} x {kind} (e.g. {', '.join(v[:EXAMPLES])})" for kind, v in self.names.items())

    def listing(self) -> str:
        """All of them, one a line."""
        return "".join(f"{kind}: {where}\n" for kind, names in self.names.items() for where in names)


class FileSource:
    """Base of the sources that read files.

    Attributes:
        problems: what cannot be used; not in ``records`` any more.
        stamp: changes whenever the annotations do; verdicts are remembered under it.
    """

    def __init__(self, class_names: tuple[str, ...], category_ids: tuple[int, ...], stamp: str) -> None:
        self.class_names, self.category_ids, self.stamp = class_names, category_ids, stamp
        self.label_of = {category: label for label, category in enumerate(category_ids)}
        self.problems = Problems()
        self.records: list[Record] = []

    def __len__(self) -> int:
        return len(self.records)

    def summary(self) -> str:
        """What is wrong, counted, with examples."""
        return self.problems.summary()

    @staticmethod
    def inspect(record: Record) -> list[Finding]:
        """Decode everything of a record; returns what cannot be used. A function of the record alone: other processes run it."""
        raise TypeError("a source defines inspect")

    def encoded(self, index: int) -> Encoded:
        """Record ``index``, its masks as run lengths.

        Raises:
            DataError: the picture or a mask cannot be used.
        """
        raise TypeError(f"{type(self).__name__} does not define encoded")

    def load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Picture (H, W, 3) uint8 RGB, masks (G, H, W) uint8 and labels (G,) int64 of record ``index``."""
        sample = self.encoded(index)
        shape = sample.image.shape[:2]
        return sample.image, crops_to_dense(rle_decode(sample.counts, shape), shape).view(np.uint8), sample.labels

    def labels(self, record: Record) -> NDArray[np.int64]:
        """Labels (G,) of a record's annotations."""
        return np.array([self.label_of[a["category_id"]] for a in record.annotations], np.int64)

    def leave_out(self, findings: Iterable[tuple[int, Finding]]) -> None:
        """Count findings, each with the index of its record, and take what they name out of ``records``."""
        pictures: set[int] = set()
        objects: dict[int, set[int]] = {}
        for index, finding in findings:
            self.problems.add(finding.kind, finding.where)
            if finding.position is None:
                pictures.add(index)
            else:
                objects.setdefault(index, set()).add(finding.position)
        for index, bad in objects.items():
            record = self.records[index]
            self.records[index] = replace(record, annotations=[a for i, a in enumerate(record.annotations) if i not in bad])
        self.records = [record for index, record in enumerate(self.records) if index not in pictures]

    def refuse(self, what: str, *, skip_bad: bool) -> None:
        """Raise unless everything can be used, or the rest is enough.

        Raises:
            DataError: something cannot be used and ``skip_bad`` is false, or nothing can.
        """
        if self.problems and not skip_bad:
            raise DataError(f"{what}: {self.summary()}; pass --skip-bad to leave these out")
        if not self.records:
            raise DataError(f"{what}: no usable picture{f': {self.summary()}' if self.problems else ''}")


def open_picture(record: Record) -> Picture:
    """The picture of a record.

    Raises:
        ImageError: it cannot be read.
        DataError: its size is not that of the annotations.
    """
    picture = read_image(record.path, alpha="drop")
    if picture.shape != (record.height, record.width):
        said = f"{record.height} x {record.width}"
        raise DataError(f"{record.path}: {picture.shape[0]} x {picture.shape[1]} pixels (h, w), its annotations say {said}")
    return picture


def inspect_picture(record: Record) -> list[Finding]:
    """What is wrong with the picture itself: nothing, or one finding."""
    try:
        open_picture(record)
    except ImageError as error:
        kind = {"missing": "missing picture", "truncated": "truncated picture", "corrupt": "corrupt picture"}
        return [Finding(kind.get(error.code, "unusable picture"), str(error))]
    except DataError as error:
        return [Finding("picture of another size", str(error))]
    return []

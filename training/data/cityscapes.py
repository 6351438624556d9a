"""Cityscapes (Cordts et al. 2016): fine instance annotations as 16-bit pictures.

``gtFine/SPLIT/CITY/NAME_gtFine_instanceIds.png`` holds one number a pixel: class * 1000 + k for the k-th object of a class, the class alone
(below 1000) for stuff and for groups whose objects could not be told apart. Groups are crowd regions here. The picture is
``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdk.ops import MaskCrops, rle_encode
from training.data.files import FileCache, stamp_of
from training.data.source import DataError, Encoded, FileSource, Finding, Record, inspect_picture, open_picture

THINGS = {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}  # those evaluated
LABELS = 34  # label ids 0 .. 33 exist
PICTURE, MASKS = "_leftImg8bit.png", "_gtFine_instanceIds.png"


class Cityscapes(FileSource):
    """One split of Cityscapes.

    Objects of caravans and trailers have numbers too, but the benchmark ignores them; they are not learnt.

    Args:
        root: folder with ``leftImg8bit`` and ``gtFine``.
        split: "train" or "val".
        category_ids: label ids to learn, in label order; None = the eight classes of ``THINGS``. Objects of others are left alone.
        skip_bad: leave out what cannot be used (it is counted in ``problems``) instead of raising.
        cache: JSON file that remembers which numbers are in which mask file.

    Raises:
        DataError: no such folders; or something cannot be used and ``skip_bad`` is false; or nothing can be used.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        category_ids: Sequence[int] | None = None,
        *,
        skip_bad: bool = False,
        cache: Path | None = None,
    ) -> None:
        ids = tuple(THINGS) if category_ids is None else tuple(category_ids)
        unknown = [i for i in ids if i not in THINGS]
        if unknown:
            raise DataError(f"Cityscapes has no objects of label id {unknown}; known: {THINGS}")
        super().__init__(tuple(THINGS[i] for i in ids), ids, f"{Path(root).resolve()} {split} {ids}")
        pictures, masks = (_files(Path(root) / kind / split, ending) for kind, ending in (("leftImg8bit", PICTURE), ("gtFine", MASKS)))
        for name in sorted(pictures.keys() - masks.keys()):
            self.problems.add("picture without masks", str(pictures[name]))
        for name in sorted(masks.keys() - pictures.keys()):
            self.problems.add("missing picture", f"of {masks[name]}")
        both = sorted(pictures.keys() & masks.keys())
        remembered = FileCache(cache, "cityscapes")
        with ThreadPoolExecutor() as pool:
            contents = list(pool.map(lambda name: _content(masks[name], remembered), both))
        remembered.write()
        for number, (name, content) in enumerate(zip(both, contents, strict=True), start=1):
            self._add(number, pictures[name], masks[name], content)
        self.refuse(f"{root} ({split})", skip_bad=skip_bad)

    def _add(self, number: int, picture: Path, masks: Path, content: dict[str, Any]) -> None:
        if "error" in content:
            self.problems.add("unusable masks", content["error"])
            return
        values = content["values"]
        strange = [v for v in values if (v // 1000 if v >= 1000 else v) >= LABELS]
        if strange:
            self.problems.add("unknown category", f"{masks}: values {strange[:5]}")
            return
        objects = [{"id": number * 100_000 + v, "category_id": v // 1000, "value": v} for v in values if v // 1000 in self.label_of]
        groups = [{"id": number * 100_000 + v, "category_id": v, "value": v, "iscrowd": 1} for v in values if v in self.label_of]
        height, width = content["shape"]
        self.records.append(
            Record(image_id=number, path=picture, height=height, width=width, annotations=objects, crowd=groups, mask_path=masks)
        )

    @staticmethod
    def inspect(record: Record) -> list[Finding]:
        return inspect_picture(record)  # the masks were read when the source was made

    def encoded(self, index: int) -> Encoded:
        record = self.records[index]
        shape = (record.height, record.width)
        image = open_picture(record).rgb()
        assert record.mask_path is not None
        numbers = read_numbers(record.mask_path)
        counts = rle_encode(MaskCrops.concatenate([_cut(numbers, a["value"]) for a in record.annotations]), shape)
        return Encoded(image, counts, self.labels(record))


def read_numbers(path: Path) -> NDArray[np.int64]:
    """The numbers (H, W) of a mask file.

    Raises:
        DataError: not a picture of one channel, or damaged.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error})") from error
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise DataError(f"{path}: expected one channel of whole numbers, got {values.dtype} of shape {values.shape}")
    return values.astype(np.int64)


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Files below ``folder`` by CITY/NAME."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; Cityscapes needs leftImg8bit/SPLIT and gtFine/SPLIT")
    return {f"{path.parent.name}/{path.name.removesuffix(ending)}": path for path in folder.glob(f"*/*{ending}")}


def _content(path: Path, cache: FileCache) -> dict[str, Any]:
    """Shape of a mask file and the numbers in it, or what is wrong with it."""
    stamp = stamp_of(path)
    known = cache.get(str(path), stamp)
    if isinstance(known, dict):
        return known
    try:
        numbers = read_numbers(path)
    except DataError as error:
        return {"error": str(error)}
    if numbers.min() < 0 or numbers.max() >= 1 << 16:
        return {"error": f"{path}: numbers from {numbers.min()} to {numbers.max()}, expected 0 to 65535"}
    content = {"shape": list(numbers.shape), "values": np.flatnonzero(np.bincount(numbers.ravel())).tolist()}
    cache.put(str(path), stamp, content)
    return content


def _cut(numbers: NDArray[np.int64], value: int) -> MaskCrops:
    """The pixels of one number, as one crop."""
    mask = numbers == value
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    crop = mask[y1:y2, x1:x2].astype(np.uint8).ravel()
    return MaskCrops(np.array([[x1, y1, x2, y2]], np.int32), np.array([0, len(crop)], np.int64), crop)

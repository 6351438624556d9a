"""LVIS v1 (Gupta et al. 2019): COCO's format with a federated twist.

A picture names its file by COCO's address only, and says which categories were looked for in vain (``neg_category_ids``) and of which not
every object is annotated (``not_exhaustive_category_ids``). A category says how frequent it is. There are no crowd regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from training.data.coco import CocoInstances
from training.data.source import Record


class LvisInstances(CocoInstances):
    """The pictures of one LVIS v1 annotation file.

    Attributes:
        frequency: per label "r" (in at most 10 pictures), "c" (at most 100) or "f"; "" where the file does not say.

    Args:
        annotations: path of ``lvis_v1_SPLIT.json``.
        images: folder with ``train2017`` and ``val2017``; LVIS's splits use pictures of both.
        category_ids: categories to learn, in label order; None = all 1203.
        skip_bad: leave out what cannot be used instead of raising.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path, category_ids: Sequence[int] | None = None, *, skip_bad: bool = False
    ) -> None:
        super().__init__(annotations, images, category_ids, skip_bad=skip_bad)
        self.frequency = tuple(str(self.categories.get(i, {}).get("frequency", "")) for i in self.category_ids)

    def file_name(self, image: Mapping[str, Any]) -> str | None:
        name = super().file_name(image)
        if name is not None:
            return name
        address = image.get("coco_url")
        if not isinstance(address, str):
            return None
        parts = PurePosixPath(urlsplit(address).path).parts[-2:]  # train2017, 000000391895.jpg
        return "/".join(parts) if len(parts) == 2 and parts[0] != "/" else None

    def _wrong_image(self, image: Any) -> str | None:
        wrong = super()._wrong_image(image)
        if wrong is None:
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                values = image.get(key, [])
                if not isinstance(values, list) or any(type(v) is not int for v in values):
                    return f"{key} must be a list of category ids, got {values!r:.60}"
        return wrong

    def _record(self, image: Mapping[str, Any], path: Path, objects: list[dict[str, Any]], crowd: list[dict[str, Any]]) -> Record:
        return replace(
            super()._record(image, path, objects, crowd),
            neg_category_ids=tuple(image.get("neg_category_ids", ())),
            not_exhaustive_category_ids=tuple(image.get("not_exhaustive_category_ids", ())),
        )

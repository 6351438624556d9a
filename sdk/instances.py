"""The result of a prediction: the instances of one picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdk import masks as mask_sources
from sdk import ops
from sdk.errors import InputError
from sdk.files import PathLike
from sdk.masks import CropMasks, LogitMasks, MaskSource, RleMasks
from sdk.ops import MaskCrops

if TYPE_CHECKING:
    from sdk.images import ImageSource


class Instances:
    """N instances of one picture, best score first when they come from a `Segmenter`.

    Indexing filters every field together; iterating gives one-instance `Instances`. Nothing found is N = 0: zero-length arrays of the
    right types.

    Attributes:
        boxes: (N, 4) float32, xyxy, pixels of the original picture.
        scores: (N,) float32, 0 to 1.
        labels: (N,) int64, indices into `names`.
        names: class names.
        category_ids: COCO category id of each class.
        shape: height and width of the original picture, pixels.
        speed: milliseconds by stage, in the order they ran, and "total".
        path: the file the picture came from, or None.

    >>> found = Instances([[0, 0, 4, 2], [1, 1, 3, 3]], [0.9, 0.4], [0, 1], shape=(5, 6), names=("cat", "dog"))
    >>> len(found), found[found.scores > 0.5].boxes.tolist()
    (2, [[0.0, 0.0, 4.0, 2.0]])
    """

    def __init__(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        labels: ArrayLike,
        *,
        shape: tuple[int, int],
        masks: NDArray[Any] | MaskCrops | MaskSource | None = None,
        names: Sequence[str] = (),
        category_ids: Sequence[int] | None = None,
        speed: Mapping[str, float] | None = None,
        path: str | None = None,
    ) -> None:
        """Collects the fields.

        Args:
            boxes: (N, 4), xyxy, pixels.
            scores: (N,).
            labels: (N,) integers.
            shape: height and width of the picture, pixels.
            masks: (N, H, W) bool, or crops; None for instances without masks.
            names: class names; label k is `names[k]`.
            category_ids: COCO category id of each label; 1, 2, ... when not given.
            speed: milliseconds by stage.
            path: the file the picture came from.

        Raises:
            InputError: sizes that do not fit together, or masks of another picture size.
        """
        self.shape = (int(shape[0]), int(shape[1]))
        self.boxes = _array(boxes, np.float32, "boxes", (4,))
        self.scores = _array(scores, np.float32, "scores")
        self.labels = _array(labels, np.int64, "labels")
        self.names = tuple(names)
        self.category_ids = None if category_ids is None else tuple(category_ids)
        self.speed = dict(speed or {})
        self.path = path
        # Nothing has masks: zero of them.
        self._source = CropMasks(MaskCrops.empty()) if masks is None and len(self.boxes) == 0 else _mask_source(masks, self.shape)
        self._crops: MaskCrops | None = None
        self._dense: NDArray[np.bool_] | None = None
        for name, field in (("scores", self.scores), ("labels", self.labels), ("masks", self._source)):
            if field is not None and len(field) != len(self.boxes):
                raise InputError(f"{name} must have one entry per box: {len(self.boxes)} expected, got {len(field)}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {name}" for name, count in self.counts().items()) or "nothing"
        return f"Instances({found}; picture {self.shape[0]} x {self.shape[1]})"

    def __iter__(self) -> Iterator[Instances]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Instances:
        """Returns the chosen instances, every field with them.

        Args:
            key: a position, a slice, positions (M,), or a boolean mask (N,).

        Raises:
            IndexError: a position that is not there, or a mask of another length.
        """
        index = self._index(key)
        chosen = Instances(
            self.boxes[index],
            self.scores[index],
            self.labels[index],
            shape=self.shape,
            masks=None if self._source is None else self._source.take(index),
            names=self.names,
            category_ids=self.category_ids,
            speed=self.speed,
            path=self.path,
        )
        return chosen

    def with_masks(
        self,
        masks: NDArray[Any] | MaskCrops | MaskSource | None = None,
        *,
        boxes: ArrayLike | None = None,
        speed: Mapping[str, float] | None = None,
        path: str | None = None,
    ) -> Instances:
        """Returns a copy with other masks, boxes, times or path; what is None stays as it is.

        Raises:
            InputError: as the constructor.
        """
        return Instances(
            self.boxes if boxes is None else boxes,
            self.scores,
            self.labels,
            shape=self.shape,
            masks=self._source if masks is None else masks,
            names=self.names,
            category_ids=self.category_ids,
            speed=self.speed if speed is None else speed,
            path=self.path if path is None else path,
        )

    def _index(self, key: Any) -> NDArray[np.intp]:
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.size == 0 and key.dtype.kind == "f":  # numpy makes floats of an empty list
                key = key.astype(np.intp)
            if key.ndim > 1 or key.dtype.kind not in "iub":
                raise IndexError(f"expected a position, a slice, positions or a boolean mask, got {key.dtype} of shape {key.shape}")
        return np.atleast_1d(np.arange(len(self))[key])

    # ------------------------------------------------------------------------------------------------------------- masks

    def _masks(self) -> MaskSource:
        if self._source is None:
            raise InputError("these instances have no masks, only boxes")
        return self._source

    @property
    def has_masks(self) -> bool:
        """Whether there are masks."""
        return self._source is not None

    @property
    def crops(self) -> MaskCrops:
        """The masks as crops of the picture: little memory, no full-size bitmaps. Made at first use and kept."""
        if self._crops is None:
            self._crops = self._masks().crops(self.shape)
        return self._crops

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The masks as (N, H, W) bool in original pixels. Made at first use and kept: N * H * W bytes; `crops` and `rle()` need less."""
        if self._dense is None:
            self._dense = ops.crops_to_dense(self.crops, self.shape)
        return self._dense

    @property
    def mask_logits(self) -> NDArray[np.float32] | None:
        """(N, Hm, Wm) float32, each grid covers its box; None when the masks do not come from a mask head."""
        return self._source.logits if isinstance(self._source, LogitMasks) else None

    def rle(self) -> list[dict[str, Any]]:
        """Returns the masks as compressed COCO run lengths, `{"size": [h, w], "counts": text}` each."""
        size = list(self.shape)
        return [{"size": size, "counts": counts.decode("ascii")} for counts in self._masks().rle(self.shape)]

    def polygons(self) -> list[list[list[NDArray[np.int32]]]]:
        """Returns the outlines: instance -> parts -> rings of (n, 2) int32 x, y; the first ring is the outer one, the others are holes.

        Vertices are pixel corners, so the area of the rings is exactly the pixels of the mask; an empty mask has no parts. Programs that
        count pixel centres (`cv2.fillPoly`) fill half a pixel more on the right and below.
        """
        return ops.polygons(self.crops)

    # ------------------------------------------------------------------------------------------------------- other names

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """`boxes` under the name that the supervision package uses."""
        return self.boxes

    @property
    def confidence(self) -> NDArray[np.float32]:
        """`scores` under supervision's name."""
        return self.scores

    @property
    def class_id(self) -> NDArray[np.int64]:
        """`labels` under supervision's name."""
        return self.labels

    @property
    def mask(self) -> NDArray[np.bool_]:
        """`masks` under supervision's name."""
        return self.masks

    def class_name(self, label: int) -> str:
        """Returns the name of a label; its number when there is no name for it."""
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def counts(self) -> dict[str, int]:
        """Returns how many instances there are of each class that occurs."""
        labels, counts = np.unique(self.labels, return_counts=True)
        return {self.class_name(int(label)): int(count) for label, count in zip(labels, counts, strict=True)}

    # ---------------------------------------------------------------------------------------------------------- exchange

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Returns COCO results: one dictionary per instance with bbox (xywh), score and, if there are masks, RLE.

        Args:
            image_id: the picture's id.
            category_ids: category id of each label; those of the engine, else 1, 2, ..., when not given.

        Raises:
            InputError: a label without a category id.
        """
        ids = self.category_ids if category_ids is None else category_ids
        if ids is not None and len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(ids):
            raise InputError(f"category_ids has {len(ids)} entries, but the labels run from {self.labels.min()} to {self.labels.max()}")
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        results: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": ids[label] if ids is not None else label + 1, "bbox": box, "score": score}
            for label, box, score in zip(self.labels.tolist(), xywh.tolist(), self.scores.tolist(), strict=True)
        ]
        if self.has_masks:
            for result, rle in zip(results, self.rle(), strict=True):
                result["segmentation"] = rle
        return results

    @classmethod
    def from_coco(
        cls,
        results: Sequence[Mapping[str, Any]],
        shape: tuple[int, int],
        *,
        names: Sequence[str] = (),
        category_ids: Sequence[int] | None = None,
        path: str | None = None,
    ) -> Instances:
        """Reads the COCO results or annotations of one picture.

        Args:
            results: dictionaries with category_id and bbox (xywh), segmentation, or both; segmentations may be compressed or plain run
                lengths or lists of polygons. A missing score is 1.
            shape: height and width of the picture, pixels.
            names: class names.
            category_ids: category id of each label; 1, 2, ... when not given.
            path: the file of the picture.

        Raises:
            InputError: an entry is incomplete, malformed, of another picture size, or of an unknown category; its index is named.
        """
        from sdk.formats import coco

        fields = coco.parse_results(results, shape, category_ids)
        source = None if fields.counts is None else RleMasks(fields.counts)
        return cls(fields.boxes, fields.scores, fields.labels, shape=shape, masks=source, names=names, category_ids=category_ids, path=path)

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """Joins instances of one picture, in the order given.

        Args:
            parts: at least one; shape, class names and category ids must be the same; `speed` and `path` come from the first.

        Raises:
            InputError: no parts, different pictures or classes, or only some with masks.
        """
        if not parts:
            raise InputError("concatenate needs at least one part")
        first = parts[0]
        for part in parts:
            if (part.shape, part.names, part.category_ids) != (first.shape, first.names, first.category_ids):
                raise InputError(f"parts differ in picture size or classes: {part!r} and {first!r}")
        filled = [part for part in parts if len(part)]
        sources = [part._source for part in filled if part._source is not None]
        if sources and len(sources) != len(filled):
            raise InputError("some parts have masks and some have none")
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
            shape=first.shape,
            masks=mask_sources.concatenate(sources, first.shape) if sources else None,
            names=first.names,
            category_ids=first.category_ids,
            speed=first.speed,
            path=first.path,
        )

    def to_json(self) -> str:
        """Returns a JSON object: shape, path, speed and a list of instances with label, name, score, box (xyxy) and RLE."""
        rles = self.rle() if self.has_masks else None
        instances: list[dict[str, Any]] = []
        for i, (box, score, label) in enumerate(zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)):
            instance = {"label": label, "name": self.class_name(label), "score": score, "box": box}
            instances.append(instance if rles is None else {**instance, "segmentation": rles[i]})
        return json.dumps({"shape": list(self.shape), "path": self.path, "speed": self.speed, "instances": instances})

    # ----------------------------------------------------------------------------------------------------------- to look at

    def plot(self, image: ImageSource | None = None, *, color: str = "bgr", labels: bool | None = None) -> NDArray[np.uint8]:
        """Draws masks, outlines and labels over the picture.

        Args:
            image: the picture; read again from `path` when not given.
            color: channel order of `image` if it is an array.
            labels: whether to write class and score; None writes those that find room.

        Returns:
            (H, W, 3) uint8, BGR.

        Raises:
            InputError: no picture, or one of another size.
        """
        from sdk.drawing import draw_instances
        from sdk.images import read_image

        source = self.path if image is None else image
        if source is None:
            raise InputError("these instances do not come from a file; give the picture: plot(image)")
        picture = read_image(source, color=color, max_pixels=None, alpha="drop")
        if picture.shape != self.shape:
            raise InputError(f"the instances are of a picture of {self.shape} pixels (h, w), got one of {picture.shape}")
        return draw_instances(picture.bgr(), self, labels=labels)

    def save(self, path: PathLike, image: ImageSource | None = None, *, color: str = "bgr", labels: bool | None = None) -> None:
        """Writes what `plot` draws to a picture file, whole or not at all.

        Args:
            path: where to; the ending chooses the format.
            image: as for `plot`.
            color: as for `plot`.
            labels: as for `plot`.

        Raises:
            InputError: as for `plot`, or an ending of no picture format.
        """
        from sdk.drawing import write_picture

        write_picture(path, self.plot(image, color=color, labels=labels))


def _array(values: ArrayLike, dtype: Any, name: str, tail: tuple[int, ...] = ()) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0 and array.ndim <= 1 + len(tail):
        array = array.reshape(0, *tail)
    if array.ndim != 1 + len(tail) or array.shape[1:] != tail:
        raise InputError(f"{name} must have shape {('N', *tail)}, got {array.shape}")
    if array.size and dtype is np.int64 and array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers, got {array.dtype}")
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be numbers, got {array.dtype}")
    return array.astype(dtype, copy=False)


def _mask_source(masks: Any, shape: tuple[int, int]) -> MaskSource | None:
    if masks is None or isinstance(masks, (LogitMasks, CropMasks, RleMasks)):
        return masks
    if isinstance(masks, MaskCrops):
        return CropMasks(masks)
    dense = np.asarray(masks)
    if dense.ndim != 3 or dense.shape[1:] != shape or dense.dtype not in (np.bool_, np.uint8):
        raise InputError(f"masks must be bool of shape (N, {shape[0]}, {shape[1]}), got {dense.dtype} of shape {dense.shape}")
    return CropMasks(ops.dense_to_crops(dense.astype(np.bool_, copy=False)))

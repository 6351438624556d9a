"""A picture in, instances out: `Segmenter` runs an engine.

The way of a picture is `Segmenter._segment`, top to bottom; dense networks run in the backend, everything else in `sdk.ops`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.backends import open_backend
from sdk.backends.base import check_outputs, graph_contracts
from sdk.clock import StageClock
from sdk.engine import Engine
from sdk.errors import BatchError, InputError, KerfError
from sdk.features import Features
from sdk.files import PathLike
from sdk.images import MAX_PIXELS, Picture, check_options, read_image
from sdk.instances import Instances
from sdk.manifest import Manifest
from sdk.masks import CropMasks, LogitMasks
from sdk.refiner import Refiner
from sdk.workspace import Workspace, WorkspacePool

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sdk.images import ImageSource

    Classes = str | int | Sequence[str | int]


class Options(TypedDict, total=False):
    """The options of `Segmenter.predict`, for type checkers."""

    conf: float | None
    iou: float | None
    max_det: int | None
    classes: Classes | None
    mask_threshold: float | None
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What decides which instances are kept, checked."""

    conf: float  # instances have a score above this
    iou: float  # IoU above which the lesser of two boxes of a class goes
    max_det: int  # instances per picture
    mask_threshold: float  # probability from which a pixel is foreground
    classes: NDArray[np.int64] | None = None  # labels to keep; None = all

    def __post_init__(self) -> None:
        for name in ("conf", "iou", "mask_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0.0 <= value <= 1.0:
                raise InputError(f"{name} must be a number from 0 to 1, got {value!r}")
        if self.mask_threshold == 0:
            raise InputError("mask_threshold must be greater than 0")
        if isinstance(self.max_det, bool) or not isinstance(self.max_det, (int, np.integer)) or self.max_det < 1:
            raise InputError(f"max_det must be a positive number of instances, got {self.max_det!r}")

    def override(self, **changes: float | None) -> Thresholds:
        """Returns a copy with every value that is not None replaced."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


class Segmenter:
    """Finds the instances in pictures. Threads may share one: each call works in buffers of its own.

    Args:
        engine: the path of an engine, the name of a shipped one ("nuclei"), or an open `Engine`.
        device: "auto", "cpu" or "cuda:N"; `describe` says what became of "auto".
        threads: threads that one operator of the network may use; None = every core this process may use.
        color: channel order of NumPy pictures, "bgr" or "rgb".
        max_pixels: most pixels a picture may have; None = no limit.
        alpha: pictures with transparency: "error", or "drop" to use their colours only.
        conf: instances have a score above this; like the next three, None = the engine's own value, and each call may override it.
        iou: IoU above which the lesser of two overlapping boxes of a class is dropped.
        max_det: most instances per picture.
        mask_threshold: probability from which a pixel is foreground.
        refiner: a `Refiner` whose own options hold, or the path or name of a refiner engine: masks are refined in the same call.

    Raises:
        EngineError: an engine is missing or broken; EngineMismatchError: it does not fit this version.
        BackendError: the runtime or the device is not there.
        InputError: an option is out of range.
    """

    def __init__(
        self,
        engine: PathLike | Engine[Manifest],
        *,
        device: str = "auto",
        threads: int | None = None,
        color: str = "bgr",
        max_pixels: int | None = MAX_PIXELS,
        alpha: str = "error",
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        mask_threshold: float | None = None,
        refiner: Refiner | PathLike | None = None,
    ) -> None:
        check_options(color, max_pixels, alpha)
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InputError(f"threads must be a positive number or None, got {threads!r}")
        opened = Engine.open(engine)
        self.manifest: Manifest = opened.manifest
        self.path = str(opened.path)
        box, mask = self.manifest.box, self.manifest.mask
        self._defaults = Thresholds(
            conf=box.score_threshold, iou=box.nms_threshold, max_det=box.max_detections, mask_threshold=mask.threshold
        ).override(conf=conf, iou=iou, max_det=max_det, mask_threshold=mask_threshold)
        self._reading = {"color": color, "max_pixels": max_pixels, "alpha": alpha}
        self._anchors = [np.asarray(level, np.float32) for level in self.manifest.proposals.anchors]
        self._contracts = graph_contracts(self.manifest)
        self._backend = open_backend(opened, device, threads)
        self._refiner = refiner if isinstance(refiner, Refiner) or refiner is None else Refiner(refiner, device=device, threads=threads)
        self._workspaces = WorkspacePool()

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; label k is `names[k]`."""
        return self.manifest.class_names

    def __repr__(self) -> str:
        return f"Segmenter({self.path!r}, device={self._backend.device!r})"

    def describe(self) -> dict[str, Any]:
        """Returns what runs where and why: engine, classes, backend, device, thresholds."""
        defaults = self._defaults
        return {
            "engine": self.path,
            "name": self.manifest.name,
            "method": self.manifest.method,
            "classes": list(self.names),
            "backend": self._backend.name,
            "device": self._backend.device,
            "reason": self._backend.reason,
            "precision": {name: graph.precision for name, graph in self.manifest.graphs.items()},
            "conf": defaults.conf,
            "iou": defaults.iou,
            "max_det": defaults.max_det,
            "mask_threshold": defaults.mask_threshold,
            "refiner": None if self._refiner is None else self._refiner.describe(),
        }

    def warmup(self, height: int = 480, width: int = 640) -> None:
        """Predicts a grey picture of this size, so that the first real one finds memory and kernels ready."""
        self.predict(np.full((height, width), 128, np.uint8))

    @overload
    def predict(self, source: list[ImageSource] | tuple[ImageSource, ...], **options: Unpack[Options]) -> list[Instances]: ...
    @overload
    def predict(self, source: ImageSource, **options: Unpack[Options]) -> Instances: ...
    def predict(
        self,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Classes | None = None,
        mask_threshold: float | None = None,
        threshold: float | None = None,
    ) -> Any:
        """Finds the instances in a picture, or in each of a list.

        Args:
            source: a path, the bytes of a picture file, a PIL image or a NumPy array, as `sdk.images.read_image` takes them; or a
                list of these.
            conf: like the next two and `mask_threshold`, for this call instead of what the constructor was given.
            iou: see the constructor.
            max_det: see the constructor.
            classes: names or labels of the classes to keep, chosen before `max_det` counts; None = all.
            mask_threshold: see the constructor.
            threshold: another name for `conf`.

        Returns:
            `Instances`; for a list, a list of them in the same order.

        Raises:
            ImageError: a picture cannot be used.
            InputError: an option is out of range.
            BatchError: some pictures of a list failed; the others were done and are in its `results`.
        """
        if conf is not None and threshold is not None:
            raise InputError("give conf or threshold, they are two names for one option")
        thresholds = self._defaults.override(
            conf=threshold if conf is None else conf, iou=iou, max_det=max_det, mask_threshold=mask_threshold
        )
        if classes is not None:
            thresholds = dataclasses.replace(thresholds, classes=_labels(classes, self.names))
        if not isinstance(source, (list, tuple)):
            return self._predict(source, thresholds)
        results: list[Instances | None] = []
        failures: dict[int, KerfError] = {}
        for index, one in enumerate(source):
            try:
                results.append(self._predict(one, thresholds))
            except KerfError as error:
                results.append(None)
                failures[index] = error
        if failures:
            raise BatchError(results, failures)
        return results

    __call__ = predict

    def _predict(self, source: ImageSource, thresholds: Thresholds) -> Instances:
        clock = StageClock()
        picture = read_image(source, **self._reading)  # type: ignore[arg-type]
        clock.lap("read")
        with self._workspaces.checkout() as work:
            return self._segment(picture, thresholds, work, clock)

    def _segment(self, picture: Picture, thresholds: Thresholds, work: Workspace, clock: StageClock) -> Instances:
        """The whole way of a picture; boxes are in pixels of the network's input until the end."""
        spec = self.manifest.input
        size = spec.resize.size_for(*picture.shape)
        padded = spec.padded_size(*size)
        image = ops.preprocess(
            picture.pixels,
            size,
            padded,
            spec.mean,
            spec.std,
            swap_channels=picture.order not in ("grey", spec.color),
            antialias=spec.resize.antialias,
            out=work.array("image", (3, *padded)),
        )
        clock.lap("preprocess")

        maps = self._run("trunk", {"image": image[None]}, B=1, H=padded[0], W=padded[1])
        features = Features(maps, work)
        clock.lap("trunk")

        proposals = self._propose(features, size)  # (N, 4)
        clock.lap("proposals")

        boxes, scores, labels = self._run_box_head(features, proposals, size, thresholds, clock)  # (D, 4), (D,), (D,)
        mask_logits, mask_scores = self._run_mask_head(features, boxes, labels, clock)  # (D, Hm, Wm), (D,)
        if mask_scores is not None:  # Huang et al. 2019, section 3.3: after the threshold, which only the box's score has to pass
            scores = scores * mask_scores
            order = np.argsort(-scores, kind="stable")
            boxes, scores, labels, mask_logits = boxes[order], scores[order], labels[order], mask_logits[order]

        boxes = _to_picture(boxes, size, picture.shape)
        found = Instances(
            boxes,
            scores,
            labels,
            shape=picture.shape,
            masks=LogitMasks(mask_logits, boxes, thresholds.mask_threshold),
            names=self.manifest.class_names,
            category_ids=self.manifest.category_ids,
            path=picture.path,
        )
        if self._refiner is None:
            return found.with_masks(speed=clock.finish())
        crops = self._refiner.refine_crops(picture, found, self._refiner.patches(), clock)
        return found.with_masks(CropMasks(crops), speed=clock.finish())

    def _run(self, graph: str, feeds: dict[str, NDArray[Any]], **sizes: int) -> dict[str, NDArray[Any]]:
        """Runs a graph and returns its outputs by name, checked; `sizes` are the letters of its contract."""
        contract = self._contracts[graph]
        outputs = self._backend.run(graph, feeds)
        check_outputs(f"{self.path}: graph {graph!r}", contract, outputs, sizes)
        return {tensor.name: array for tensor, array in zip(contract.outputs, outputs, strict=True)}

    def _propose(self, features: Features, size: tuple[int, int]) -> NDArray[np.float32]:
        spec = self.manifest.proposals
        boxes, _ = ops.proposals(
            [features.maps[f"objectness{level}"][0] for level in spec.levels],
            [features.maps[f"deltas{level}"][0] for level in spec.levels],
            self._anchors,
            list(spec.strides),
            size,
            pre_nms=spec.pre_nms,
            post_nms=spec.post_nms,
            nms_threshold=spec.nms_threshold,
            min_size=spec.min_size,
        )
        return boxes

    def _run_box_head(
        self, features: Features, proposals: NDArray[np.float32], size: tuple[int, int], thresholds: Thresholds, clock: StageClock
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        spec = self.manifest.box
        if len(proposals) == 0:  # a graph is never run on nothing: not every backend can
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
        scores, box_deltas, sources = self._run_box_stages(features, proposals, size, clock)  # (N, K), (N, 4K) or (N, 4), (N, 4)
        # Classes are chosen before the limit counts, so that the others cannot crowd them out.
        limit = thresholds.max_det if thresholds.classes is None else len(proposals) * len(self.names)
        boxes, scores, labels = ops.select_detections(
            scores,
            box_deltas,
            sources,
            size,
            coder_weights=spec.stages[-1].coder_weights,
            score_threshold=thresholds.conf,
            nms_threshold=thresholds.iou,
            max_detections=limit,
        )
        if thresholds.classes is not None:
            chosen = np.flatnonzero(np.isin(labels, thresholds.classes))[: thresholds.max_det]
            boxes, scores, labels = boxes[chosen], scores[chosen], labels[chosen]
        clock.lap("select")
        return boxes, scores, labels

    def _run_box_stages(
        self, features: Features, boxes: NDArray[np.float32], size: tuple[int, int], clock: StageClock
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The mean of the stages' scores, and the last one's deltas with the boxes they belong to."""
        spec = self.manifest.box
        scores: list[NDArray[np.float32]] = []
        for stage in spec.stages:
            rois = features.pool(spec.pool, boxes, "box")  # (N, C, P, P)
            clock.lap("pool_box")
            outputs = self._run(stage.graph, {"rois": rois}, N=len(boxes))
            scores.append(outputs["scores"])
            clock.lap("box")
            if stage is not spec.stages[-1]:
                boxes = ops.decode_boxes(outputs["box_deltas"], boxes, size, coder_weights=stage.coder_weights)
        mean: NDArray[np.float32] = scores[0] if len(scores) == 1 else np.mean(np.stack(scores), axis=0)
        return mean, outputs["box_deltas"], boxes

    def _run_mask_head(
        self, features: Features, boxes: NDArray[np.float32], labels: NDArray[np.int64], clock: StageClock
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The logits of the masks, and their scores where the engine has such."""
        spec = self.manifest.mask
        if len(boxes) == 0:
            return np.zeros((0, *spec.size), np.float32), None
        feeds: dict[str, NDArray[Any]] = {"labels": labels}
        for i, pool in enumerate(spec.pools):
            feeds[f"rois{i}"] = features.pool(pool, boxes, f"mask{i}")  # (D, C, S, S)
        clock.lap("pool_mask")
        outputs = self._run("mask", feeds, N=len(boxes))
        clock.lap("mask")
        return outputs["mask_logits"], outputs.get("mask_scores")


def _to_picture(boxes: NDArray[np.float32], size: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Scales boxes from a picture resized to `size` back to one of `shape`, and clips them to it."""
    scale = np.array([shape[1] / size[1], shape[0] / size[0]] * 2, np.float32)
    limit = np.array([shape[1], shape[0]] * 2, np.float32)
    scaled: NDArray[np.float32] = np.clip(boxes * scale, np.float32(0), limit)
    return scaled


def _labels(classes: Classes, names: Sequence[str]) -> NDArray[np.int64]:
    wanted = [classes] if isinstance(classes, (str, int, np.integer)) else list(classes)
    labels: list[int] = []
    for one in wanted:
        if isinstance(one, str) and one in names:
            labels.append(names.index(one))
        elif isinstance(one, (int, np.integer)) and not isinstance(one, bool) and 0 <= one < len(names):
            labels.append(int(one))
        else:
            raise InputError(f"classes: {one!r} is neither a class name nor a label; classes: {', '.join(names)}")
    return np.asarray(labels, np.int64)

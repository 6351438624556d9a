"""Anybody's masks in, masks that follow the object's edge out: `Refiner` runs a refiner engine (Tang et al., CVPR 2021).

The way of a picture is `Refiner._refine_group`, top to bottom; the network runs in the backend, everything else in `sdk.ops`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.backends import open_backend
from sdk.backends.base import check_outputs, graph_contracts
from sdk.clock import StageClock
from sdk.engine import Engine
from sdk.errors import InputError
from sdk.files import PathLike
from sdk.formats import coco
from sdk.images import MAX_PIXELS, Picture, check_options, read_image
from sdk.instances import Instances
from sdk.manifest import DEFAULT_QUALITY, PatchSpec, RefinerManifest
from sdk.masks import CropMasks
from sdk.ops import MaskCrops, Patches
from sdk.workspace import Workspace, WorkspacePool

if TYPE_CHECKING:
    from sdk.images import ImageSource

CHUNK_PIXELS = 1 << 19  # of the network's input in one run: 32 patches of 128 x 128
GROUP_PATCHES = 1024  # patches whose answers are kept at a time: 64 MiB at 128 x 128


class Refiner:
    """Refines the boundary of masks. Threads may share one: each call works in buffers of its own.

    Args:
        engine: the path of a refiner engine, the name of a shipped one, or an open `Engine`.
        device: "auto", "cpu" or "cuda:N"; `describe` says what became of "auto".
        threads: threads that one operator of the network may use; None = every core this process may use.
        color: channel order of NumPy pictures, "bgr" or "rgb".
        max_pixels: most pixels a picture may have; None = no limit.
        alpha: pictures with transparency: "error", or "drop" to use their colours only.
        quality: "fast", "balanced" or "best": how many patches are refined, and how finely; `describe` lists what the engine knows.
        max_patches: most patches per picture, the most uncertain first, so that the time is bounded; None = as `quality` says.

    Raises:
        EngineError: the engine is missing or broken; EngineMismatchError: it does not fit this version, or is no refiner.
        BackendError: the runtime or the device is not there.
        InputError: an option is out of range.
    """

    def __init__(
        self,
        engine: PathLike | Engine[RefinerManifest],
        *,
        device: str = "auto",
        threads: int | None = None,
        color: str = "bgr",
        max_pixels: int | None = MAX_PIXELS,
        alpha: str = "error",
        quality: str = DEFAULT_QUALITY,
        max_patches: int | None = None,
    ) -> None:
        check_options(color, max_pixels, alpha)
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InputError(f"threads must be a positive number or None, got {threads!r}")
        opened = Engine.open(engine, RefinerManifest)
        self.manifest: RefinerManifest = opened.manifest
        self.path = str(opened.path)
        self._quality = quality
        self._max_patches = max_patches
        self.patches(quality, max_patches)  # checks them
        self._reading = {"color": color, "max_pixels": max_pixels, "alpha": alpha}
        self._contract = graph_contracts(self.manifest)["refiner"]
        self._backend = open_backend(opened, device, threads)
        self._workspaces = WorkspacePool()

    def __repr__(self) -> str:
        return f"Refiner({self.path!r}, device={self._backend.device!r}, quality={self._quality!r})"

    def describe(self) -> dict[str, Any]:
        """Returns what runs where and why: engine, backend, device, and the patches of every quality."""
        return {
            "engine": self.path,
            "name": self.manifest.name,
            "method": self.manifest.method,
            "backend": self._backend.name,
            "device": self._backend.device,
            "reason": self._backend.reason,
            "precision": {name: graph.precision for name, graph in self.manifest.graphs.items()},
            "quality": self._quality,
            "max_patches": self._max_patches,
            "qualities": {name: patches.to_dict() for name, patches in self.manifest.qualities.items()},
        }

    def patches(self, quality: str | None = None, max_patches: int | None = None) -> PatchSpec:
        """Returns what would be refined with these options; None = the constructor's.

        Raises:
            InputError: an unknown quality, or a number of patches that is none.
        """
        name = self._quality if quality is None else quality
        if not isinstance(name, str) or name not in self.manifest.qualities:
            raise InputError(f"quality must be one of {', '.join(self.manifest.qualities)}, got {name!r}")
        most = self._max_patches if max_patches is None else max_patches
        if most is not None and (isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 0):
            raise InputError(f"max_patches must be a number of patches or None, got {most!r}")
        spec = self.manifest.qualities[name]
        return spec if most is None else spec.replace(max_patches=int(most))

    def read(self, image: ImageSource) -> Picture:
        """Reads a picture with the constructor's options; `refine` takes it as it takes any other source."""
        return read_image(image, **self._reading)  # type: ignore[arg-type]

    def refine(self, image: ImageSource, masks: Any, *, quality: str | None = None, max_patches: int | None = None) -> Instances:
        """Refines the boundaries of the masks of one picture.

        Args:
            image: a path, the bytes of a picture file, a PIL image or a NumPy array, as `sdk.images.read_image` takes them.
            masks: N masks of this picture: `Instances`; (N, H, W) or (H, W) bool, or uint8 of 0 and 1 or of 0 and 255; `MaskCrops`; a
                list of COCO run lengths or polygons; or `supervision.Detections`.
            quality: like `max_patches`, for this call instead of what the constructor was given.
            max_patches: see the constructor.

        Returns:
            `Instances` with the new masks, in the order they came. Boxes, scores and labels of `Instances` and `Detections` stay as they
            are; for bare masks boxes are the tight boxes of the new masks, scores 1, labels 0. A mask without foreground comes out
            unchanged, and so does every pixel that no patch covers.

        Raises:
            ImageError: the picture cannot be used.
            InputError: masks of another size than the picture, of a wrong type, or malformed; an option out of range.
        """
        spec = self.patches(quality, max_patches)
        clock = StageClock()
        picture = self.read(image)
        clock.lap("read")
        instances, bare = as_instances(masks, picture.shape)
        crops = instances.crops
        clock.lap("masks")
        crops = self.refine_crops(picture, instances, spec, clock)
        boxes = _tight_boxes(crops) if bare else instances.boxes
        return instances.with_masks(CropMasks(crops), boxes=boxes, speed=clock.finish(), path=instances.path or picture.path)

    def refine_crops(self, picture: Picture, instances: Instances, spec: PatchSpec, clock: StageClock) -> MaskCrops:
        """The refined masks of `instances`; the stages are added to `clock`."""
        crops = instances.crops
        chosen = self._choose(instances, spec)
        clock.lap("patches")
        if not len(chosen):
            return crops
        refined: list[MaskCrops] = []
        with self._workspaces.checkout() as work:
            for first, last, patches in _groups(chosen, len(crops)):
                refined.append(self._refine_group(picture, crops[first:last], patches, spec, work, clock))
        return refined[0] if len(refined) == 1 else MaskCrops.concatenate(refined)

    def _choose(self, instances: Instances, spec: PatchSpec) -> Patches:
        """The patches of a picture, by mask; no more than the budget allows."""
        patches = ops.boundary_patches(
            instances.crops,
            instances.shape,
            size=spec.size,
            padding=spec.padding,
            threshold=spec.nms_threshold,
            scheme=spec.scheme,  # type: ignore[arg-type]  # checked by PatchSpec
            enlarge=spec.enlarge,
            pad_small=True,
        )
        if spec.max_patches is None or len(patches) <= spec.max_patches:
            return patches
        logits = instances.mask_logits
        priority = _even_share(patches.instance) if logits is None else ops.patch_uncertainty(patches, logits, instances.boxes)
        best = np.argsort(-priority, kind="stable")[: spec.max_patches]
        return patches[np.sort(best)]

    def _refine_group(
        self, picture: Picture, crops: MaskCrops, patches: Patches, spec: PatchSpec, work: Workspace, clock: StageClock
    ) -> MaskCrops:
        m, side = self.manifest, spec.input_size
        if not len(patches):
            return crops
        values = work.array("values", (len(patches), side, side))
        chunk = max(1, CHUNK_PIXELS // side**2)
        for start in range(0, len(patches), chunk):
            part = patches[start : start + chunk]
            inputs = ops.cut_patches(
                picture.pixels,
                crops if m.mask_channel else None,
                part,
                input_size=side,
                mean=m.mean,
                std=m.std,
                swap_channels=picture.order not in ("grey", m.color),
                out=work.array("patches", (len(part), 4 if m.mask_channel else 3, side, side)),
            )
            clock.lap("cut")
            outputs = self._backend.run("refiner", {"patches": inputs})
            check_outputs(f"{self.path}: graph 'refiner'", self._contract, outputs, {"N": len(part), "H": side, "W": side})
            values[start : start + len(part)] = outputs[0]
            clock.lap("refine")
        merged = ops.merge_patches(crops, patches, values, threshold=m.threshold, logits=True)
        clock.lap("merge")
        return merged


def as_instances(masks: Any, shape: tuple[int, int]) -> tuple[Instances, bool]:
    """Reads masks in any form that `Refiner.refine` takes.

    Args:
        masks: see `Refiner.refine`.
        shape: height and width of the picture, pixels.

    Returns:
        The instances; whether the masks came without boxes.

    Raises:
        InputError: masks of another picture size, of an unknown form, or malformed.
    """
    if isinstance(masks, Instances):
        if masks.shape != shape:
            raise InputError(f"the instances are of a picture of {masks.shape} pixels (h, w), the picture has {shape}")
        masks.crops  # noqa: B018 - raises where there are no masks
        return masks, False
    if hasattr(masks, "xyxy") and hasattr(masks, "mask"):  # supervision.Detections, which need not be installed
        return _from_detections(masks, shape), False
    if isinstance(masks, MaskCrops):
        return _bare(masks, shape), True
    if isinstance(masks, np.ndarray):
        return _bare(ops.dense_to_crops(_dense(masks, shape)), shape), True
    if isinstance(masks, Sequence) and not isinstance(masks, (str, bytes)):
        if len(masks) and all(isinstance(mask, np.ndarray) and mask.ndim == 2 for mask in masks):
            crops = [ops.dense_to_crops(_dense(mask, shape)) for mask in masks]
            return _bare(MaskCrops.concatenate(crops), shape), True
        counts = [coco.parse_segmentation(mask, shape, f"mask {i}") for i, mask in enumerate(masks)]
        return _bare(ops.rle_decode(counts, shape), shape), True
    hint = "; a single COCO segmentation goes in a list" if isinstance(masks, Mapping) else ""
    raise InputError(f"masks must be Instances, an array, crops, Detections or a list of segmentations, got {type(masks).__name__}{hint}")


def _bare(crops: MaskCrops, shape: tuple[int, int]) -> Instances:
    count = len(crops)
    return Instances(crops.boxes.astype(np.float32), np.ones(count), np.zeros(count, np.int64), shape=shape, masks=crops)


def _tight_boxes(crops: MaskCrops) -> NDArray[np.float32]:
    """(N, 4) boxes around the foreground; 0, 0, 0, 0 where there is none. Crops of refined masks are as large as their patches."""
    boxes = np.zeros((len(crops), 4), np.float32)
    for box, (left, top, _, _), crop in zip(boxes, crops.boxes, crops, strict=True):
        columns, rows = np.flatnonzero(crop.any(0)), np.flatnonzero(crop.any(1))
        if len(rows):
            box[:] = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
    return boxes


def _from_detections(detections: Any, shape: tuple[int, int]) -> Instances:
    count = len(detections.xyxy)
    if detections.mask is None and count:
        raise InputError("these Detections have no masks")
    mask = np.zeros((0, *shape), bool) if count == 0 else np.asarray(detections.mask)
    scores = np.ones(count) if detections.confidence is None else detections.confidence
    labels = np.zeros(count, np.int64) if detections.class_id is None else detections.class_id
    return Instances(detections.xyxy, scores, labels, shape=shape, masks=ops.dense_to_crops(_dense(mask, shape)))


def _dense(masks: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(N, H, W) bool."""
    stack = masks[None] if masks.ndim == 2 else masks
    if stack.ndim != 3 or stack.shape[1:] != shape:
        raise InputError(f"masks must have the picture's size, (N, {shape[0]}, {shape[1]}); got {masks.shape}")
    if stack.dtype == np.bool_:
        return np.ascontiguousarray(stack)
    if stack.dtype != np.uint8:
        raise InputError(f"masks must be bool or uint8, got {masks.dtype}; threshold probabilities first: masks > 0.5")
    found = np.flatnonzero(np.bincount(stack.ravel(), minlength=256))
    if not (set(found) <= {0, 1} or set(found) <= {0, 255}):
        raise InputError(f"uint8 masks must hold 0 and 1, or 0 and 255; got {', '.join(str(v) for v in found[:5])}, ...: a label map?")
    return np.ascontiguousarray(stack > 0)


def _groups(patches: Patches, count: int) -> Iterator[tuple[int, int, Patches]]:
    """Runs of masks with their patches, whose `instance` counts from the run's first mask: at most `GROUP_PATCHES`, or one mask."""
    order = np.argsort(patches.instance, kind="stable")  # patches come by mask; a caller's own order would still be right
    patches = patches[order]
    ends = np.searchsorted(patches.instance, np.arange(count), side="right")
    first = start = 0
    while first < count:
        last = max(first + 1, int(np.searchsorted(ends, start + GROUP_PATCHES, side="right")))
        end = int(ends[last - 1])
        part = patches[start:end]
        yield first, last, Patches(part.boxes, part.instance - np.int32(first), part.scores, part.shape, part.padding)
        first, start = last, end


def _even_share(instance: NDArray[np.int32]) -> NDArray[np.float32]:
    """Priorities that give every mask the same share of its patches, its first ones: non-maximum suppression spreads them well."""
    counts = np.bincount(instance)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(instance)) - starts[instance]
    return (-(rank + 0.5) / counts[instance]).astype(np.float32)

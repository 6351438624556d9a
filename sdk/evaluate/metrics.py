"""`evaluate`: every metric of results against annotations, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdk.errors import InputError
from sdk.evaluate.band import band_table
from sdk.evaluate.boundary import COCO_RATIO
from sdk.evaluate.contours import average_f, f_npx
from sdk.evaluate.inputs import Items, Truth, load_truth, mask_module, open_results, read_results
from sdk.evaluate.lvis import MAX_DETS, cocofied, federated_precision, limit, restrict
from sdk.evaluate.matching import IoUs, Matches, accumulate, match_all
from sdk.evaluate.overlaps import overlaps
from sdk.evaluate.upper_bound import upper_bound
from sdk.files import PathLike

IOU_TYPES = ("segm", "bbox")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Objects and results of the same pictures, and what several metrics need of them, computed once.

    Attributes:
        truth: the objects.
        found: the results.
        max_dets: results per picture and category that count.
        ratio: depth of Boundary IoU's band as a part of the picture's diagonal.
        radii: tolerances of the F measures, pixels.
        fine: LVIS's annotations of the same pictures under COCO's category ids.
    """

    truth: Truth
    found: Items
    max_dets: int
    ratio: float
    radii: tuple[int, ...]
    fine: Truth | None = None
    _ious: dict[str, IoUs] = field(default_factory=dict)
    _matches: dict[str, dict[int, list[Matches]]] = field(default_factory=dict)

    def ious(self, kind: str) -> IoUs:
        """Overlaps: "segm", "bbox" or "boundary"."""
        if kind not in self._ious:
            self._ious[kind] = overlaps(kind, self.truth.objects, self.found, self.truth.shapes, self.ratio)
        return self._ious[kind]

    def matches(self, kind: str) -> dict[int, list[Matches]]:
        """COCO's matching by these overlaps."""
        if kind not in self._matches:
            areas = self.found.boxes[:, 2] * self.found.boxes[:, 3] if kind == "bbox" else self.found.areas
            self._matches[kind] = match_all(self.truth.objects, self.found, areas, self.ious(kind), max_dets=self.max_dets)
        return self._matches[kind]


def _precision(kind: str) -> Callable[[Comparison], dict[str, Any]]:
    def run(comparison: Comparison) -> dict[str, Any]:
        truth = comparison.truth
        curves = accumulate(comparison.matches(kind), sorted(truth.names))
        more = {"boundary_ratio": comparison.ratio} if kind == "boundary" else {}
        return {**curves.summary(truth.names), "max_dets": comparison.max_dets, **more}

    return run


def _lvis_precision(kind: str) -> Callable[[Comparison], dict[str, Any]]:
    def run(comparison: Comparison) -> dict[str, Any]:
        return federated_precision(comparison.truth, comparison.found, kind, comparison.ratio)

    return run


def _ap_star(kind: str) -> Callable[[Comparison], dict[str, Any]]:
    def run(comparison: Comparison) -> dict[str, Any]:
        assert comparison.fine is not None  # `evaluate` saw to it
        # All results of a picture compete for the limit, those of categories that LVIS lacks too.
        found = limit(comparison.found, MAX_DETS)
        return federated_precision(comparison.fine, restrict(found, comparison.fine), kind, comparison.ratio)

    return run


def _f_npx(comparison: Comparison) -> dict[str, Any]:
    if comparison.fine is None:
        return {**f_npx(comparison.truth, comparison.found, comparison.ious("segm"), comparison.radii), "objects_of": "annotations"}
    found = restrict(comparison.found, comparison.fine)
    ious = overlaps("segm", comparison.fine.objects, found, comparison.fine.shapes, comparison.ratio)
    return {**f_npx(comparison.fine, found, ious, comparison.radii), "objects_of": "lvis"}


@dataclass(frozen=True)
class _Metric:
    run: Callable[[Comparison], dict[str, Any]]
    masks: bool = True  # needs a segmentation of every result
    boxes: bool = False  # needs a bbox of every result
    fine: bool = False  # needs LVIS annotations beside the annotations


_METRICS = {
    "segm": _Metric(_precision("segm")),
    "bbox": _Metric(_precision("bbox"), masks=False, boxes=True),
    "boundary": _Metric(_precision("boundary")),
    "af": _Metric(lambda c: average_f(c.truth, c.found, c.matches("segm"), c.radii)),
    "fnpx": _Metric(_f_npx),
    "lvis": _Metric(_lvis_precision("segm")),
    "lvis_bbox": _Metric(_lvis_precision("bbox"), masks=False, boxes=True),
    "lvis_boundary": _Metric(_lvis_precision("boundary")),
    "ap_star": _Metric(_ap_star("segm"), fine=True),
    "ap_star_boundary": _Metric(_ap_star("boundary"), fine=True),
    "upper_bound": _Metric(lambda c: upper_bound(c.truth, c.found, c.ious("segm"), c.max_dets)),
    "band": _Metric(lambda c: band_table(c.truth)),
}
METRICS = tuple(_METRICS)


def evaluate(
    annotations: PathLike | Mapping[str, Any],
    results: PathLike | Sequence[Mapping[str, Any]],
    *,
    iou_types: Sequence[str] | None = IOU_TYPES,
    metrics: Sequence[str] | None = None,
    max_dets: int = 100,
    boundary_ratio: float = COCO_RATIO,
    radii: Sequence[int] = (1, 3, 5),
    lvis_annotations: PathLike | Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measures results against annotations; `docs/metrics.md` defines every figure.

    Args:
        annotations: a COCO annotation file, or its contents.
        results: a COCO result file, or its contents.
        iou_types: "segm" for masks, "bbox" for boxes; None for whichever of them all results have. Only looked at without `metrics`.
        metrics: names among `METRICS`: "segm" and "bbox", COCO's average precision; "boundary", Boundary AP; "af", BPR's AF; "fnpx",
            RefineMask's boundary F; "lvis", "lvis_bbox" and "lvis_boundary", the same precisions under LVIS's rules; "ap_star" and
            "ap_star_boundary", results of COCO's classes scored with LVIS's annotations; "upper_bound", BPR's table 1; "band",
            RefineMask's table 12, which looks at the annotations only.
        max_dets: results per picture and category that count, best scores first. COCO says 100; raise it for crowded pictures.
        boundary_ratio: depth of Boundary IoU's band as a part of the picture's diagonal: 0.02 for COCO and LVIS, 0.005 for Cityscapes.
        radii: tolerances of the F measures, pixels.
        lvis_annotations: LVIS annotations of the same pictures, for "ap_star"; "fnpx" then takes its objects from them, too.

    Returns:
        Name of the metric -> its figures. Average precisions have `AP` (mean over IoU .50:.05:.95), `AP50`, `AP75`, `APs`, `APm`, `APl`
        (objects below 32 x 32 pixels, up to 96 x 96, above), `AR` (recall, mean over the same IoUs), each from 0 to 1 or NaN when there
        is nothing to find. "upper_bound" and "band" are tables: `rows`, row name -> figures. The others have `per_class`, category
        name -> their first figure. All have the counts `images`, `objects`, `results`.

    Raises:
        InputError: a file that is not COCO, results of unknown pictures or categories, or malformed ones.
        BackendError: pycocotools is not installed.
    """
    _check_options(iou_types, metrics, max_dets, boundary_ratio, radii)
    found, where = open_results(results)
    names = _names(iou_types, metrics, found, where)
    chosen = [_METRICS[name] for name in names]
    if lvis_annotations is None and any(metric.fine for metric in chosen):
        raise InputError("ap_star needs lvis_annotations, the LVIS annotations of the same pictures")
    masks = any(metric.masks for metric in chosen)
    mask_module()  # before the work begins
    truth = load_truth(annotations, masks=masks)
    items = read_results(found, where, truth, masks=masks, boxes=any(metric.boxes for metric in chosen))
    fine = None if lvis_annotations is None else _load_fine(lvis_annotations, truth)
    comparison = Comparison(truth=truth, found=items, max_dets=max_dets, ratio=boundary_ratio, radii=tuple(radii), fine=fine)
    counts = {"images": len(truth.shapes), "objects": int((~truth.objects.crowd).sum()), "results": len(items)}
    measured = {name: metric.run(comparison) for name, metric in zip(names, chosen, strict=True)}
    return {name: {**values, **{key: n for key, n in counts.items() if key not in values}} for name, values in measured.items()}


def _load_fine(annotations: PathLike | Mapping[str, Any], truth: Truth) -> Truth:
    """LVIS annotations under COCO's category ids."""
    fine = cocofied(load_truth(annotations, name="LVIS annotations"), truth.names)
    for image, shape in fine.shapes.items():
        if truth.shapes.get(image, shape) != shape:
            raise InputError(f"{fine.where}: image {image} is {shape} (h, w) here and {truth.shapes[image]} in {truth.where}")
    return fine


def _check_options(
    iou_types: Sequence[str] | None, metrics: Sequence[str] | None, max_dets: int, ratio: float, radii: Sequence[int]
) -> None:
    if unknown := [kind for kind in iou_types or () if kind not in IOU_TYPES]:
        raise InputError(f"iou_types must be among {', '.join(IOU_TYPES)}, got {unknown}")
    if isinstance(metrics, str) or (metrics is not None and not metrics):
        raise InputError(f"metrics must be a list of names among {', '.join(METRICS)}, got {metrics!r}")
    if unknown := [name for name in metrics or () if name not in METRICS]:
        raise InputError(f"metrics must be among {', '.join(METRICS)}, got {unknown}")
    if isinstance(max_dets, bool) or not isinstance(max_dets, int) or max_dets < 1:
        raise InputError(f"max_dets must be a positive number, got {max_dets!r}")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise InputError(f"boundary_ratio must be above 0 and at most 1, got {ratio!r}")
    if not radii or not all(isinstance(r, int) and not isinstance(r, bool) and 1 <= r <= 100 for r in radii):
        raise InputError(f"radii must be whole numbers of pixels from 1 to 100, got {radii!r}")


def _names(iou_types: Sequence[str] | None, metrics: Sequence[str] | None, found: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """The metrics to compute, each once."""
    if metrics is not None:
        return list(dict.fromkeys(metrics))
    if iou_types is not None:
        return list(dict.fromkeys(iou_types))
    keys = {"segm": "segmentation", "bbox": "bbox"}
    kinds = [kind for kind in IOU_TYPES if all(keys[kind] in result for result in found)]
    if not kinds:
        raise InputError(f"{where}: neither all results have a segmentation nor all a bbox")
    return kinds

"""`kerf eval`: how good results are."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

from sdk.errors import InputError

DESCRIPTION = """\
Average precision of masks and boxes, and the field's boundary metrics; docs/metrics.md defines every figure.
Needs: pip install pycocotools

metrics, separated by commas; without --metrics: mask and box, whichever all results have
  mask, box          COCO's average precision
  boundary           Boundary AP: the lesser of mask IoU and Boundary IoU
  af                 BPR's AF: F of the contours of hits, over the IoU thresholds
  fnpx               RefineMask's F of the contours at 1, 3 and 5 px
  lvis, lvis-box, lvis-boundary
                     the same precisions under LVIS's rules; the annotations are LVIS's
  ap-star, ap-star-boundary
                     results of COCO's classes scored with --lvis-annotations
  upper-bound        mask AP with perfect labels near the predicted boundary (BPR, table 1)
  band               exact against convolutional boundary band of the annotations' masks
                     (RefineMask, table 12); needs no results"""

_ALIASES = {"mask": "segm", "box": "bbox", "lvis_box": "lvis_bbox", "lvis_mask": "lvis"}


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "eval",
        help="average precision and boundary metrics of results against annotations",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", required=True, metavar="A.json", help="COCO annotations (LVIS's for the lvis metrics)")
    parser.add_argument("--results", metavar="R.json", help="COCO results, as `kerf predict --save-json` writes them")
    parser.add_argument("--metrics", metavar="NAME,...", help="what to compute, see above")
    parser.add_argument(
        "--max-dets", type=int, default=100, metavar="N", help="results per picture and class that count (default: %(default)s)"
    )
    parser.add_argument(
        "--boundary-ratio",
        type=float,
        default=0.02,
        metavar="X",
        help="depth of Boundary IoU's band, in picture diagonals; Cityscapes: 0.005 (default: %(default)s)",
    )
    parser.add_argument("--radii", default="1,3,5", metavar="N,...", help="tolerances of af and fnpx, pixels (default: %(default)s)")
    parser.add_argument("--lvis-annotations", metavar="L.json", help="LVIS annotations of the same pictures, for ap-star and fnpx")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="OUT.json",
        help="write JSON, too; without a name print it instead of tables; null where there is nothing to find",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the verb."""
    from sdk.evaluate import evaluate, format_table
    from sdk.files import write_json

    names = None if options.metrics is None else _metric_names(options.metrics)
    if options.results is None and names != ["band"]:
        raise InputError("--results is missing; only the metric band does without")
    _refuse_overwriting(options)
    metrics = evaluate(
        options.annotations,
        options.results if options.results is not None else [],
        iou_types=None,
        metrics=names,
        max_dets=options.max_dets,
        boundary_ratio=options.boundary_ratio,
        radii=_radii(options.radii),
        lvis_annotations=options.lvis_annotations,
    )
    if options.json == "-":
        print(json.dumps(_without_nan(metrics)))
        return 0
    if options.json is not None:
        write_json(options.json, _without_nan(metrics))
    print(format_table(metrics))
    first = next(iter(metrics.values()))
    print(f"\n{first['images']} images, {first['objects']} objects, {first['results']} results")
    if any(values.get("max_dets") == options.max_dets for values in metrics.values()):
        print(f"at most {options.max_dets} results per image and class count")
    return 0


def _metric_names(text: str) -> list[str]:
    """The names that `sdk.evaluate` has for those of the command line."""
    from sdk.evaluate import METRICS

    names = [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]
    names = [_ALIASES.get(name, name) for name in names]
    if not names or any(name not in METRICS for name in names):
        raise InputError(f"--metrics {text!r:.60}: expected names from: {', '.join(_shown(name) for name in METRICS)}")
    return names


def _shown(name: str) -> str:
    shown = {"segm": "mask", "bbox": "box", "lvis_bbox": "lvis-box"}
    return shown.get(name, name.replace("_", "-"))


def _radii(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 9 for part in parts):
        raise InputError(f"--radii {text!r:.60}: expected whole numbers of pixels, separated by commas")
    return [int(part) for part in parts]


def _refuse_overwriting(options: argparse.Namespace) -> None:
    """Raises `InputError` when the JSON file is one of those that are read."""
    if options.json in (None, "-"):
        return
    for path in (options.annotations, options.results, options.lvis_annotations):
        if path is not None and os.path.exists(path) and Path(options.json).exists() and os.path.samefile(path, options.json):
            raise InputError(f"--json {options.json} would overwrite {path}, which is read; choose another name")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

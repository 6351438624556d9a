"""`kerf eval`: COCO average precision of results."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "eval",
        help="mask and box AP of results against annotations",
        description="COCO average precision of masks and boxes, whichever all results have. Needs: pip install pycocotools",
    )
    parser.add_argument("--annotations", required=True, metavar="A.json", help="COCO annotations")
    parser.add_argument("--results", required=True, metavar="R.json", help="COCO results, as `kerf predict --save-json` writes them")
    parser.add_argument(
        "--max-dets", type=int, default=100, metavar="N", help="results per picture and class that count (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table; null where there is nothing to find")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the verb."""
    from sdk.evaluate import evaluate, format_table

    metrics = evaluate(options.annotations, options.results, iou_types=None, max_dets=options.max_dets)
    if options.json:
        print(json.dumps(_without_nan(metrics)))
    else:
        print(format_table(metrics))
        first = next(iter(metrics.values()))
        print(f"\n{first['images']} images, {first['objects']} objects, {first['results']} results")
        print(f"at most {options.max_dets} results per image and class count")
    return 0


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

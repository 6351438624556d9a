"""How good results are: average precision of COCO and LVIS, and the field's boundary metrics. Needs the extra `eval`.

`evaluate` measures results against annotations; `boundary_iou` and `boundary_f` compare two masks. `docs/metrics.md` defines every figure.
"""

from sdk.evaluate.band import band_iou, exact_band
from sdk.evaluate.boundary import boundary_distance, boundary_f, boundary_iou, mask_boundary
from sdk.evaluate.metrics import IOU_TYPES, METRICS, evaluate
from sdk.evaluate.report import format_table

__all__ = [
    "IOU_TYPES",
    "METRICS",
    "band_iou",
    "boundary_distance",
    "boundary_f",
    "boundary_iou",
    "evaluate",
    "exact_band",
    "format_table",
    "mask_boundary",
]

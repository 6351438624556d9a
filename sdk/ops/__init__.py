"""The native operators, one module per stem; `docs/operators.md` holds their contracts.

All arrays are checked: a wrong dtype, shape or value raises `sdk.errors.InputError` with what was expected and what came. Results do not
depend on the number of threads, and any call may be made from several Python threads at once.
"""

from sdk.ops.boundary_band import boundary_band
from sdk.ops.crops import MaskCrops, crops_to_dense, dense_to_crops
from sdk.ops.decode import decode_boxes
from sdk.ops.nms import nms
from sdk.ops.paste import paste_masks, paste_rle
from sdk.ops.patches import Patches, boundary_patches, cut_patches, merge_patches, merge_patches_soft, patch_uncertainty
from sdk.ops.polygons import polygons
from sdk.ops.preprocess import preprocess
from sdk.ops.proposals import proposals
from sdk.ops.rle import rle_area, rle_counts, rle_decode, rle_encode, rle_string
from sdk.ops.roi_align import Pyramid
from sdk.ops.select import select_detections
from sdk.ops.threads import num_threads, set_num_threads

__all__ = [
    "MaskCrops",
    "Patches",
    "Pyramid",
    "boundary_band",
    "boundary_patches",
    "crops_to_dense",
    "cut_patches",
    "decode_boxes",
    "dense_to_crops",
    "merge_patches",
    "merge_patches_soft",
    "nms",
    "num_threads",
    "paste_masks",
    "paste_rle",
    "patch_uncertainty",
    "polygons",
    "preprocess",
    "proposals",
    "rle_area",
    "rle_counts",
    "rle_decode",
    "rle_encode",
    "rle_string",
    "select_detections",
    "set_num_threads",
]

"""Boundaries of masks: the inner band of Boundary IoU, and the one-pixel contour of the F measure.

Everything works on crops: a mask's boundary never lies outside its tight box, so a small object costs little in a large picture.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.ops import MaskCrops

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]  # 0 or 1
Window = tuple[int, int, int, int]  # x1, y1, x2, y2, pixels, x2 and y2 excluded

COCO_RATIO = 0.02  # also LVIS; Cityscapes: 0.005


def boundary_distance(shape: tuple[int, int], ratio: float = COCO_RATIO) -> int:
    """Depth of the boundary band in a picture: max(1, ratio x diagonal), rounded half to even.

    Args:
        shape: (H, W) of the picture, pixels.
        ratio: of the picture's diagonal; 0.02 for COCO and LVIS, 0.005 for Cityscapes.

    Source: Cheng et al., Boundary IoU, CVPR 2021, section 4, and its reference implementation.

    Example:
        >>> boundary_distance((480, 640)), boundary_distance((1024, 2048), 0.005)
        (16, 11)
    """
    return max(1, round(ratio * math.sqrt(shape[0] ** 2 + shape[1] ** 2)))


def mask_boundary(mask: Mask, distance: int) -> Mask:
    """The pixels of a mask whose (Chebyshev) distance to the background is at most `distance`; the outside of the picture is background.

    Args:
        mask: (H, W) bool.
        distance: pixels, at least 1.

    Returns:
        (H, W) bool, a part of the mask: the mask less its erosion by a square of side 2 distance + 1.

    Raises:
        InputError: a wrong dtype or shape, or a distance below 1.

    Example:
        >>> mask_boundary(np.ones((3, 4), bool), 1).astype(int)
        array([[1, 1, 1, 1],
               [1, 0, 0, 1],
               [1, 1, 1, 1]])
    """
    check_mask("mask", mask)
    if distance < 1:
        raise InputError(f"distance must be at least 1 pixel, got {distance}")
    return inner_band(mask.astype(np.uint8), distance) > 0


def boundary_iou(a: Mask, b: Mask, ratio: float = COCO_RATIO) -> float:
    """Intersection over union of two masks' boundaries, the Boundary IoU.

    Args:
        a: (H, W) bool.
        b: (H, W) bool.
        ratio: band depth as a part of the picture's diagonal, see `boundary_distance`.

    Returns:
        From 0 to 1; 1 when both masks are empty. Boundary AP takes the lesser of this and the mask IoU.

    Raises:
        InputError: a wrong dtype or shapes that differ.

    Example:
        >>> a = np.zeros((100, 100), bool)
        >>> b = a.copy()
        >>> a[20:60, 20:60] = b[20:60, 21:61] = True
        >>> round(boundary_iou(a, b), 3)  # depth 3
        0.714
    """
    check_pair(a, b)
    window = union_window(tight_window(a), tight_window(b))
    distance = boundary_distance(a.shape, ratio)
    x1, y1, x2, y2 = window
    bands = [inner_band(mask[y1:y2, x1:x2].astype(np.uint8), distance) for mask in (a, b)]
    union = int(np.count_nonzero(bands[0] | bands[1]))
    return int(np.count_nonzero(bands[0] & bands[1])) / union if union else 1.0


def inner_band(crop: Bits, distance: int) -> Bits:
    """`mask_boundary` of a crop whose surroundings are background."""
    if crop.size == 0:
        return crop.copy()
    cv2 = _cv2()
    # One ring is enough: every window that leaves the crop holds a pixel of it, and OpenCV leaves out what lies beyond.
    padded = np.pad(crop, 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=min(distance, max(padded.shape)))[1:-1, 1:-1]
    band: Bits = crop - eroded
    return band


def crop_bands(crops: MaskCrops, distance: int) -> MaskCrops:
    """The boundaries of tight crops, in the same boxes."""
    bands = [inner_band(crop, distance).reshape(-1) for crop in crops]
    return MaskCrops(crops.boxes, crops.offsets, np.concatenate(bands) if bands else crops.data)


def contour(mask: Bits) -> Bits:
    """The contour map of a mask: pixels that differ from their right, lower or lower right neighbour.

    The last column looks down only, the last row right only, the last pixel is no contour (the convention of the Berkeley segmentation
    benchmark and of DAVIS, Perazzi et al., CVPR 2016, section 5).
    """
    result = np.zeros_like(mask)
    result[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    result[:-1] |= mask[:-1] ^ mask[1:]
    result[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return result


def disk(radius: int) -> Bits:
    """(2r+1, 2r+1): 1 where x^2 + y^2 <= r^2."""
    offsets = np.arange(-radius, radius + 1)
    inside: Bits = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    return inside


def dilate(bits: Bits, kernel: Bits) -> Bits:
    """Pixels with a 1 under the kernel; nothing comes from outside."""
    if bits.size == 0:
        return bits.copy()
    result: Bits = _cv2().dilate(bits, kernel)
    return result


def boundary_f(a: Mask, b: Mask, radius: int = 1) -> float:
    """The F measure of two contours with a tolerance.

    Precision is the part of a's contour within `radius` (Euclidean) of b's, recall the part of b's within `radius` of a's;
    F = 2 P R / (P + R).

    Args:
        a: (H, W) bool.
        b: (H, W) bool.
        radius: pixels, at least 1.

    Returns:
        From 0 to 1; 1 when neither mask has a contour, 0 when one has none.

    Raises:
        InputError: a wrong dtype, shapes that differ, or a radius below 1.

    Example:
        >>> a = np.zeros((40, 40), bool)
        >>> b, c = a.copy(), a.copy()
        >>> a[10:30, 10:30] = b[10:30, 11:31] = c[10:30, 12:32] = True
        >>> boundary_f(a, b), round(boundary_f(a, c), 3)
        (1.0, 0.525)
    """
    check_pair(a, b)
    if radius < 1:
        raise InputError(f"radius must be at least 1 pixel, got {radius}")
    x1, y1, x2, y2 = grow_window(union_window(tight_window(a), tight_window(b)), 1, a.shape)
    return contour_f(a[y1:y2, x1:x2].astype(np.uint8), b[y1:y2, x1:x2].astype(np.uint8), (radius,))[0]


def contour_f(a: Bits, b: Bits, radii: tuple[int, ...]) -> list[float]:
    """`boundary_f` of two crops of one window for several radii; the window's border is the picture's."""
    contours = contour(a), contour(b)
    sizes = [int(np.count_nonzero(c)) for c in contours]
    if 0 in sizes:
        return [float(sizes[0] == sizes[1])] * len(radii)
    values = []
    for radius in radii:
        kernel = disk(radius)
        precision = int(np.count_nonzero(contours[0] & dilate(contours[1], kernel))) / sizes[0]
        recall = int(np.count_nonzero(contours[1] & dilate(contours[0], kernel))) / sizes[1]
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return values


def tight_window(mask: Mask) -> Window:
    """The smallest window that holds a mask; 0, 0, 0, 0 without foreground."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def union_window(a: Window, b: Window) -> Window:
    """The smallest window that holds two; an empty one adds nothing."""
    if a[0] >= a[2]:
        return b
    if b[0] >= b[2]:
        return a
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def grow_window(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    """A window with `margin` more pixels on every side, cut to the picture."""
    x1, y1, x2, y2 = window
    return max(x1 - margin, 0), max(y1 - margin, 0), min(x2 + margin, shape[1]), min(y2 + margin, shape[0])


def render(crops: MaskCrops, n: int, window: Window) -> Bits:
    """Mask n as it looks through a window: (h, w)."""
    x1, y1, x2, y2 = window
    left, top, right, bottom = (int(v) for v in crops.boxes[n])
    view = np.zeros((max(y2 - y1, 0), max(x2 - x1, 0)), np.uint8)
    ax, ay, bx, by = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if ax < bx and ay < by:
        view[ay - y1 : by - y1, ax - x1 : bx - x1] = crops.crop(n)[ay - top : by - top, ax - left : bx - left]
    return view


def window_of(crops: MaskCrops, n: int) -> Window:
    """The box of mask n."""
    x1, y1, x2, y2 = (int(v) for v in crops.boxes[n])
    return x1, y1, x2, y2


def check_mask(name: str, mask: Mask) -> None:
    """Raises `InputError` unless a mask is (H, W) bool."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2:
        what = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"{name}: expected bool of shape (H, W), got {what}")


def check_pair(a: Mask, b: Mask) -> None:
    """Raises `InputError` unless two masks are bool and of one shape."""
    check_mask("a", a)
    check_mask("b", b)
    if a.shape != b.shape:
        raise InputError(f"masks must be of one shape, got {a.shape} and {b.shape}")


def _cv2() -> Any:
    import cv2

    return cv2

"""Pictures of results: soft fills, smooth outlines, labels where they find room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.files import PathLike, write_bytes

if TYPE_CHECKING:
    from sdk.instances import Instances

# Okabe and Ito's colours, told apart with every common colour blindness, BGR, most luminous first; black is left out.
PALETTE = np.array([(0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240), (167, 121, 204), (0, 94, 213), (178, 114, 0)], np.uint8)
FILL = 0.35  # share of the colour inside a mask
_FRACTION = 4  # binary digits behind the point in OpenCV's coordinates


def draw_instances(canvas: NDArray[np.uint8], instances: Instances, *, labels: bool | None = None) -> NDArray[np.uint8]:
    """Draws instances on a picture, best score on top.

    With one class, neighbours get different colours; with several, a class has one colour.

    Args:
        canvas: (H, W, 3) uint8, BGR, C-contiguous; drawn on.
        instances: what to draw; boxes stand in for missing masks.
        labels: whether to write class and score; None writes those that find room.

    Returns:
        The canvas.
    """
    colors = PALETTE[_color_indices(instances) % len(PALETTE)]
    order = np.argsort(instances.scores, kind="stable").tolist()
    if instances.has_masks:
        for i in order:
            _fill(canvas, instances, i, colors[i])
        outlines = [[_smooth(ring) for part in parts for ring in part] for parts in instances.polygons()]
    else:
        outlines = [[_rectangle(box)] for box in instances.boxes]
    for i in order:
        _outline(canvas, outlines[i], colors[i])
    if labels is not False:
        _write_labels(canvas, instances, colors, everything=bool(labels))
    return canvas


def write_picture(path: PathLike, picture: NDArray[np.uint8]) -> None:
    """Writes a BGR picture, whole or not at all.

    Raises:
        InputError: the ending names no format that OpenCV writes.
    """
    import cv2

    suffix = Path(path).suffix.lower()
    try:
        # Level 1 takes a third of the time of the default for files a tenth larger.
        done, encoded = cv2.imencode(suffix, picture, [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == ".png" else [])
    except cv2.error as error:
        raise InputError(f"{path}: no picture format ends in {suffix!r}; use .png or .jpg") from error
    if not done:
        raise InputError(f"{path}: the picture {picture.shape} cannot be written as {suffix!r}; use .png")
    write_bytes(path, encoded.tobytes())


def _color_indices(instances: Instances) -> NDArray[np.int64]:
    """One colour a class, or, for a single class, the first colour that no touching box before it has."""
    if len(instances.names) > 1 or len(np.unique(instances.labels)) > 1:
        return instances.labels
    boxes = instances.boxes
    chosen = np.zeros(len(boxes), np.int64)
    for i in range(1, len(boxes)):
        others = boxes[:i]
        near = (
            (others[:, 0] < boxes[i, 2] + 4)
            & (boxes[i, 0] < others[:, 2] + 4)
            & (others[:, 1] < boxes[i, 3] + 4)
            & (boxes[i, 1] < others[:, 3] + 4)
        )
        used = np.bincount(chosen[:i][near], minlength=len(PALETTE))
        start = i % len(PALETTE)  # walk on from a different colour each time, so that all of them get used
        rotated = np.roll(used[: len(PALETTE)], -start)
        chosen[i] = (start + int(np.argmin(rotated))) % len(PALETTE)
    return chosen


def _fill(canvas: NDArray[np.uint8], instances: Instances, index: int, color: NDArray[np.uint8]) -> None:
    """Mixes the colour into the pixels of a mask, inside its crop only."""
    crops = instances.crops
    x1, y1, x2, y2 = crops.boxes[index].tolist()
    if x2 <= x1 or y2 <= y1:
        return
    mask = crops.crop(index).astype(np.bool_)
    region = canvas[y1:y2, x1:x2]
    region[mask] = (region[mask] * np.float32(1 - FILL) + color * np.float32(FILL) + np.float32(0.5)).astype(np.uint8)


def _smooth(ring: NDArray[np.int32]) -> NDArray[np.float64]:
    """Cuts every corner of a pixel outline half a pixel before it and after it: stairs become slopes, straight edges stay."""
    points = ring.astype(np.float64)
    ahead = np.roll(points, -1, axis=0) - points
    step = ahead / np.maximum(np.abs(ahead).sum(axis=1, keepdims=True), 1.0) * 0.5
    return np.stack([points + step, points + ahead - step], axis=1).reshape(-1, 2)


def _rectangle(box: NDArray[np.float32]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = box.tolist()
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64)


def _outline(canvas: NDArray[np.uint8], rings: list[NDArray[np.float64]], color: NDArray[np.uint8]) -> None:
    import cv2

    if not rings:
        return
    # OpenCV counts from pixel centres, outlines from pixel corners.
    fixed = [np.rint((ring - 0.5) * (1 << _FRACTION)).astype(np.int32) for ring in rings]
    thickness = max(1, round(min(canvas.shape[:2]) / 300))
    cv2.polylines(canvas, fixed, True, color.tolist(), thickness, cv2.LINE_AA, _FRACTION)


def _write_labels(canvas: NDArray[np.uint8], instances: Instances, colors: NDArray[np.uint8], *, everything: bool) -> None:
    """Writes labels from the best score down; one that would cover another label, or most of its object, is left out."""
    import cv2

    height, width = canvas.shape[:2]
    scale = float(np.clip(min(height, width) / 1000, 0.35, 1.5))
    thickness = max(1, round(scale * 1.5))
    taken: list[tuple[int, int, int, int]] = []
    several = len(instances.names) != 1
    for i in np.argsort(-instances.scores, kind="stable").tolist():
        name, score = instances.class_name(int(instances.labels[i])), f"{instances.scores[i]:.2f}"
        text = f"{name} {score}" if several or everything else score
        (w, h), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        plate = _place(instances.boxes[i], w + 6, h + base + 4, (height, width), taken, everything=everything)
        if plate is None:
            continue
        taken.append(plate)
        x1, y1, x2, y2 = plate
        color: Any = colors[i].tolist()
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), color, cv2.FILLED)
        luminance = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2]
        ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
        cv2.putText(canvas, text, (x1 + 3, y1 + h + 2), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def _place(
    box: NDArray[np.float32],
    width: int,
    height: int,
    shape: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
    *,
    everything: bool,
) -> tuple[int, int, int, int] | None:
    """Finds a place for a label: above its box, else inside its top, else below."""
    x1, y1, x2, y2 = box.tolist()
    if not everything and (width > x2 - x1 or height > 0.25 * (y2 - y1)):
        return None
    left = int(np.clip(x1, 0, max(0, shape[1] - width)))
    for top in (y1 - height, y1, y2):
        top = round(top)
        plate = (left, top, left + width, top + height)
        if top >= 0 and top + height <= shape[0] and not any(_overlap(plate, other) for other in taken):
            return plate
    if not everything:
        return None
    top = int(np.clip(y1 - height, 0, max(0, shape[0] - height)))
    return left, top, left + width, top + height


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

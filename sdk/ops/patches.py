"""Boundary patches: where a mask's edge is refined, what the network sees there, and how its answers become masks again.

Tang et al., CVPR 2021, "Look Closer to Segment Better: Boundary Patch Refinement".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk import _core
from sdk.ops.crops import MaskCrops, chosen_positions

Scheme = Literal["dense", "grid", "instance"]


@dataclass(frozen=True, eq=False)
class Patches:
    """P patches of the masks of one picture.

    Attributes:
        boxes: (P, 4) int32, x1 y1 x2 y2 in pixels, x2 and y2 excluded, with their top left pixel inside the picture.
        instance: (P,) int32, the mask that each patch belongs to.
        scores: (P,) float32, how evenly mask and background are split at the patch's centre, 0 to 1.
        shape: (H, W) of the picture.
        padding: pixels around every box that the network sees too; its answers there are not used.

    Raises:
        InputError: wrong dtypes or shapes, a box that is empty or begins outside the picture, a negative instance.
    """

    boxes: NDArray[np.int32]
    instance: NDArray[np.int32]
    scores: NDArray[np.float32]
    shape: tuple[int, int]
    padding: int = 0

    def __post_init__(self) -> None:
        _core.check_patches(self.boxes, self.instance, self.scores, self.shape, self.padding)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> Patches:
        """The chosen patches, in this order: a slice, indices, or (P,) bool.

        Raises:
            InputError: an integer, indices out of range, or a bool array of another length.
        """
        chosen = index if isinstance(index, slice) else chosen_positions(index, len(self))  # slices need no copies
        return Patches(self.boxes[chosen], self.instance[chosen], self.scores[chosen], self.shape, self.padding)

    def chunks(self, size: int) -> Iterator[Patches]:
        """The patches in order, at most `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


def boundary_patches(
    masks: MaskCrops,
    shape: tuple[int, int],
    *,
    size: int = 64,
    padding: int = 0,
    threshold: float = 0.25,
    scheme: Scheme = "dense",
    enlarge: float = 0.0,
    frame: bool = True,
    pad_small: bool = False,
) -> Patches:
    """Finds the patches that cover the boundary of every mask.

    `dense` (the paper's): every pixel whose 3 x 3 surroundings hold both labels is the centre of a candidate box, with the score
    min(foreground, background) / 4.5; non-maximum suppression (`nms`, ties: first pixel in row-major order) thins the candidates of each
    mask; boxes over the border are moved inside, and of boxes that became equal the first stays. `grid`: the cells of a grid from (0, 0)
    that hold both labels, last row and column moved inside. `instance`: the tight box of each mask, whatever its size. The scores of the
    latter two are twice the smaller label's part of the box.

    Args:
        masks: N masks inside the picture.
        shape: (H, W) of the picture.
        size: Side of a patch, 2 to 1024 pixels.
        padding: Pixels around every patch that the network shall see too, 0 to 1024.
        threshold: IoU above which a candidate is dropped, 0 to 1.
        scheme: "dense", "grid" or "instance".
        enlarge: With "instance", part of its width and height by which a box grows on every side, 0 to 4.
        frame: With "dense", what lies outside the picture counts as background, so that a mask's cut edge there is boundary.
        pad_small: A picture narrower or lower than `size` has patches too, which reach over its right or lower border.

    Returns:
        Patches by mask, then by descending score (ties: row-major) for "dense" and in row-major order for "grid". A mask without
        foreground has none, nor has any in a picture smaller than `size` without `pad_small`.

    Raises:
        InputError: a mask outside the picture, an option out of range.
    """
    found = _core.boundary_patches(
        masks.boxes, masks.offsets, masks.data, shape, size, padding, threshold, scheme, enlarge, frame, pad_small
    )
    return Patches(*found, shape, padding)


def cut_patches(
    image: NDArray[np.uint8],
    masks: MaskCrops | None,
    patches: Patches,
    *,
    input_size: int,
    mean: Sequence[float] | NDArray[np.floating[Any]],
    std: Sequence[float] | NDArray[np.floating[Any]],
    swap_channels: bool = False,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Cuts patches out of picture and masks and resizes them into the network's input.

    The box with its padding is cut, zeros outside the picture, and resized to S x S: the picture bilinearly (half-pixel centres, clamped at
    the patch's edge, never antialiased), the mask to the nearest pixel. Memory is bounded by the number of patches of a call, so go through
    `patches.chunks(n)` with a kept `out`.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3) uint8, any strides. One channel is repeated three times.
        masks: The N masks that `patches.instance` counts, or None: no mask channel.
        patches: P patches of this picture.
        input_size: S, 1 to 1024.
        mean: 3 grey levels (0 to 255), in the order of the result's channels.
        std: 3 grey levels, positive.
        swap_channels: Reverse the three channels (a BGR picture for an RGB model).
        out: (P, C, S, S) float32, C-contiguous: written and returned instead of a new array.

    Returns:
        (P, C, S, S) float32: `(value - mean) / std` within 1e-3 grey levels of the float64 definition, and as fourth channel, with masks,
        +1 for foreground and -1 for background.

    Raises:
        InputError: wrong dtypes or shapes, a picture of another size than the patches', an instance that is not in `masks`.
    """
    crops = None if masks is None else (masks.boxes, masks.offsets, masks.data)
    return _core.cut_patches(
        image, crops, patches.boxes, patches.instance, patches.shape, patches.padding, input_size, mean, std, swap_channels, out
    )


def merge_patches(
    masks: MaskCrops,
    patches: Patches,
    values: NDArray[np.float32],
    *,
    threshold: float = 0.5,
    logits: bool = False,
) -> MaskCrops:
    """Puts refined patches back into the masks.

    A patch's values are resized bilinearly (half-pixel centres, clamped) to its box with padding, the padding is cut off, and every pixel
    takes the mean over the patches of its mask that cover it, in the order they come in. It becomes foreground where the mean is more
    than the threshold. Pixels that no patch covers, or whose mean is not a number, keep their label.

    Args:
        masks: The N masks that `patches.instance` counts.
        patches: P patches, in any order.
        values: (P, S, S) float32, what the network gave for every patch.
        threshold: Mean from which on a pixel is foreground, excluded.
        logits: The values are logits: the sigmoid follows the resizing. (Means of logits themselves, as in the paper's text: leave this
            False and set the threshold to 0.)

    Returns:
        N masks. The crop of each grows to hold the boxes of its patches, inside the picture; one without patches comes out unchanged.

    Raises:
        InputError: wrong dtypes or shapes, an instance that is not in `masks`, masks outside the picture, a threshold that is not finite.
    """
    boxes, offsets, data, _ = _merge(masks, patches, values, threshold, logits, soft=False)
    return MaskCrops(boxes, offsets, data)


def merge_patches_soft(
    masks: MaskCrops, patches: Patches, values: NDArray[np.float32], *, threshold: float = 0.5, logits: bool = False
) -> tuple[MaskCrops, NDArray[np.float32]]:
    """Like `merge_patches`, and gives the means that the labels were made from.

    Returns:
        N masks; (total,) float32 beside their `data`: the mean of each pixel within 1e-6 of the float64 definition (for probabilities and
        logits up to 10), the mask's own 0 or 1 where no patch lies.

    Raises:
        InputError: as `merge_patches`.
    """
    boxes, offsets, data, means = _merge(masks, patches, values, threshold, logits, soft=True)
    return MaskCrops(boxes, offsets, data), means


def _merge(
    masks: MaskCrops, patches: Patches, values: NDArray[np.float32], threshold: float, logits: bool, *, soft: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32]]:
    return _core.merge_patches(
        masks.boxes,
        masks.offsets,
        masks.data,
        patches.boxes,
        patches.instance,
        patches.shape,
        patches.padding,
        values,
        threshold,
        logits,
        soft,
    )


def patch_uncertainty(patches: Patches, mask_logits: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """How unsure a mask head was in every patch: for callers that can afford the network on some of the patches only.

    The mean of 1 - |2 p - 1| on 16 x 16 evenly spread points of the patch, p being the probability that `paste_masks` gives a point
    (bilinear between the sigmoids of the logits, 0 outside the grid).

    Args:
        patches: P patches.
        mask_logits: (N, Hm, Wm) float32, one grid for each mask that `patches.instance` counts.
        boxes: (N, 4) float32, xyxy, pixels: what the grids cover. One that is empty or not finite is sure of everything.

    Returns:
        (P,) float32, 0 (sure) to 1, within 1e-5.

    Raises:
        InputError: wrong dtypes or shapes, an instance without a grid.
    """
    return _core.patch_uncertainty(patches.boxes, patches.instance, patches.shape, mask_logits, boxes)

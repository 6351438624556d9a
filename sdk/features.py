"""The maps that the trunk made of one picture, and what heads pool from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.manifest import PYRAMID_LEVELS, PoolSpec
from sdk.workspace import Workspace

PYRAMID_STRIDES = tuple(2**level for level in PYRAMID_LEVELS)


class Features:
    """What the trunk made of one picture, and pooling from it.

    Args:
        maps: trunk output name -> (1, C, H, W) float32.
        work: the buffers to pool into.
    """

    def __init__(self, maps: dict[str, NDArray[np.float32]], work: Workspace) -> None:
        self.maps = maps
        self._work = work
        self._pyramids: dict[str, ops.Pyramid] = {}

    def pool(self, spec: PoolSpec, boxes: NDArray[np.float32], name: str) -> NDArray[np.float32]:
        """RoIAlign as a head declares it; the channels-last copy of a map is made once and shared.

        Args:
            spec: what to pool.
            boxes: (N, 4) float32, xyxy, pixels of the network's input.
            name: the buffer to use.

        Returns:
            (N, C, P, P) float32, valid until the same name is pooled again.
        """
        pyramid = self._pyramids.get(spec.feature)
        if pyramid is None:
            by_size = spec.feature == "pyramid"
            maps = [self.maps[f"p{level}"] for level in PYRAMID_LEVELS] if by_size else [self.maps[spec.feature]]
            strides = PYRAMID_STRIDES if by_size else (spec.stride or 1,)
            pyramid = self._pyramids[spec.feature] = self._work.pyramid(spec.feature, maps, strides)
        channels = self.maps["p2" if spec.feature == "pyramid" else spec.feature].shape[1]
        batch = self._work.array("batch", (len(boxes),), np.int32)
        batch.fill(0)
        out = self._work.array(name, (len(boxes), channels, spec.size, spec.size))
        return pyramid.roi_align(
            boxes, batch, spec.size, sampling_ratio=spec.sampling_ratio, level=spec.level, aligned=spec.aligned, out=out
        )

"""What a frozen detector makes of a set of scenes, kept on disk: pyramids, proposals, detections, and the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.scenes import Scenes
from training.models.detector import Detector
from training.models.targets import Target

LEVELS = ("p2", "p3", "p4", "p5")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One scene as the heads see it."""

    pyramid: list[Tensor]  # P2..P5, each (1, C, H, W) float32
    proposals: Tensor  # (N, 4)
    boxes: Tensor  # (D, 4) detections
    scores: Tensor  # (D,)
    labels: Tensor  # (D,)
    target: Target


class FrozenFeatures:
    """The folder that :func:`freeze` wrote. Feature maps are float16 and stay on disk until they are used."""

    def __init__(self, folder: Path, scenes: Scenes) -> None:
        self.scenes = scenes
        self._maps = [np.load(folder / f"{level}.npy", mmap_mode="r") for level in LEVELS]
        self._boxes = [dict(np.load(folder / f"boxes{i}.npz")) for i in range(len(scenes))]

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Picture:
        found = {k: torch.from_numpy(v) for k, v in self._boxes[index].items() if k != "masks"}
        size = self.scenes.size
        masks = np.unpackbits(self._boxes[index]["masks"], axis=-1, count=size)
        return Picture(
            pyramid=[torch.from_numpy(m[index : index + 1].astype(np.float32)) for m in self._maps],
            proposals=found["proposals"],
            boxes=found["boxes"],
            scores=found["scores"],
            labels=found["labels"],
            target=Target(boxes=found["truth_boxes"], labels=found["truth_labels"], masks=torch.from_numpy(masks)),
        )


@torch.no_grad()
def freeze(model: Detector, scenes: Scenes, folder: Path) -> None:
    """Run ``model`` over ``scenes`` and write what :class:`FrozenFeatures` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.config.mean, model.config.std))
    size = (scenes.size, scenes.size)
    maps: list[NDArray[np.float16]] = []
    for index in range(len(scenes)):
        pixels, masks, labels = scenes.load(index)
        image = (torch.from_numpy(pixels).permute(2, 0, 1).float() - mean) / std
        pyramid = model.pyramid(image[None])
        if not maps:
            maps = [
                np.lib.format.open_memmap(folder / f"{level}.npy", "w+", np.float16, (len(scenes), *p.shape[1:]))
                for level, p in zip(LEVELS, pyramid, strict=False)
            ]
        for stored, level_map in zip(maps, pyramid, strict=False):
            stored[index] = level_map[0].numpy()
        found = model.predict(image[None], [size])[0]
        logits, deltas, anchors = model.rpn(pyramid)
        proposals = model.rpn.propose(logits, deltas, anchors, [size])[0]
        np.savez(
            folder / f"boxes{index}.npz",
            proposals=proposals.numpy(),
            boxes=found.boxes.numpy(),
            scores=found.scores.numpy(),
            labels=found.labels.numpy(),
            masks=np.packbits(masks, axis=-1),
            truth_boxes=_boxes(masks),
            truth_labels=labels,
        )


def _boxes(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes

"""What refinement gains on pictures that are never trained on: a fixed set of patches, measured before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdk.evaluate.boundary import boundary_f
from training.data.coarse import mask_iou
from training.refiner.config import PatchConfig, RefinerTrainConfig
from training.refiner.data import Patches, Triple, resized
from training.refiner.model import normalised
from training.refiner.sources import PatchSource

CHUNK = 32  # patches that go through the network together
STREAM = 1 << 20  # added to the seed, so that no iteration's patches are drawn alike


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The patches of one source, as the network takes them and as they are in the picture."""

    name: str
    patches: Tensor  # (N, C, S, S)
    coarse: NDArray[np.uint8]  # (N, P, P)
    truth: NDArray[np.uint8]  # (N, P, P)


def hold_out(sources: list[PatchSource], config: RefinerTrainConfig) -> list[HeldOut]:
    """``config.validate_patches`` patches of every source, neither shifted nor scaled nor shaded."""
    plain = PatchConfig(nms_threshold=config.patches.nms_threshold, border=config.patches.border, min_area=config.patches.min_area)
    config = config.replace(patches=plain, batch=plain.masks * plain.per_mask, accumulate=1)
    sets: list[HeldOut] = []
    for number, source in enumerate(sources):
        draw, triples = Patches(source, config), list[Triple]()
        while len(triples) < config.validate_patches:
            triples += draw.draw(np.random.default_rng([config.seed + STREAM, number, len(triples)]))
        triples = triples[: config.validate_patches]
        pictures, coarse, _ = resized(triples, config.model.input)
        ring = slice(config.model.pad, config.model.pad + config.model.patch)
        inner = [np.stack([m[ring, ring] for m in masks]) for masks in ([t.coarse for t in triples], [t.truth for t in triples])]
        sets.append(HeldOut(source.name, normalised(pictures, coarse, config.model), *inner))
    return sets


@torch.no_grad()
def measure(predict: Callable[[Tensor], Tensor], held: list[HeldOut], window: int, pad: int) -> dict[str, float]:
    """Mean boundary F at 1 pixel and mean IoU of the patches of every source, before and after.

    Args:
        predict: logits (B, 1, S, S) of patches (B, C, S, S).
        held: what `hold_out` gives.
        window: side of what the network sees, pixels of the picture.
        pad: ring of it that is not used, pixels of the picture.

    Returns:
        ``val_NAME_f_before``, ``val_NAME_f``, ``val_NAME_iou_before``, ``val_NAME_iou``.
    """
    row: dict[str, float] = {}
    for part in held:
        logits = torch.cat([predict(chunk).float() for chunk in part.patches.split(CHUNK)])
        logits = F.interpolate(logits, (window, window), mode="bilinear", align_corners=False)[:, 0]  # N, W, W
        refined = (logits[:, pad : window - pad, pad : window - pad] > 0).numpy().astype(np.uint8)
        for suffix, masks in (("_before", part.coarse), ("", refined)):
            pairs = list(zip(masks, part.truth, strict=True))
            row[f"val_{part.name}_f{suffix}"] = float(np.mean([boundary_f(m.astype(np.bool_), t.astype(np.bool_)) for m, t in pairs]))
            row[f"val_{part.name}_iou{suffix}"] = float(np.mean([mask_iou(m, t) if (m | t).any() else 1.0 for m, t in pairs]))
    return row

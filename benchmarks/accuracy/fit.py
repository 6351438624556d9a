"""One mask head on frozen features: trained, then measured on the detections that all heads share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy import config
from benchmarks.accuracy.features import FrozenFeatures, Picture
from sdk.evaluate import evaluate
from sdk.instances import Instances
from sdk.masks import LogitMasks
from training.heads import MaskHead
from training.models.detector import Detector
from training.models.matching import match
from training.models.ops import box_iou
from training.models.targets import MaskTargets


def attach(model: Detector, head: MaskHead) -> None:
    """Put ``head`` in the place of the model's own."""
    model.config = model.config.replace(head=head.config)
    model.mask_head = head


def sample(pictures: list[Picture], rng: np.random.Generator) -> MaskTargets:
    """At most ``config.ROIS`` foreground boxes per picture, of the proposals and the ground truth."""
    boxes, batch, truth, labels = [], [], [], []
    for index, picture in enumerate(pictures):
        candidates = torch.cat([picture.proposals, picture.target.boxes])
        matched = match(candidates, picture.target.boxes, 0.5, 0.5, allow_low_quality=False)
        positive = torch.nonzero(matched >= 0).squeeze(1)
        chosen = positive[torch.from_numpy(rng.permutation(len(positive))[: config.ROIS])]
        boxes.append(candidates[chosen])
        truth.append(matched[chosen])
        batch.append(torch.full_like(chosen, index))
        labels.append(picture.target.labels[matched[chosen]])
    return MaskTargets(
        pictures=[p.target for p in pictures],
        boxes=torch.cat(boxes),
        batch=torch.cat(batch),
        truth=torch.cat(truth),
        labels=torch.cat(labels),
    )


def fit(model: Detector, name: str, seed: int, data: FrozenFeatures, iterations: int) -> Iterator[dict[str, float]]:
    """Train a new head of ``model`` and nothing else; yields the losses of every iteration. In the end it has its averaged weights."""
    torch.manual_seed(seed)
    head = config.make_head(name).train()
    attach(model, head)
    average = {k: v.clone() for k, v in head.named_parameters()}
    optimizer = torch.optim.AdamW(head.parameters(), config.LEARNING_RATE, weight_decay=config.WEIGHT_DECAY)
    for iteration in range(iterations):
        warm = min(1.0, (iteration + 1) / config.WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = config.LEARNING_RATE * warm * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        rng = np.random.default_rng([seed, iteration])
        pictures = [data[int(i)] for i in rng.choice(len(data), config.PICTURES, replace=False)]
        pyramid = [torch.cat(level) for level in zip(*(p.pyramid for p in pictures), strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            losses = model.mask_losses(pyramid, sample(pictures, rng))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        nn.utils.clip_grad_norm_(head.parameters(), config.CLIP_NORM)
        optimizer.step()
        decay = min(config.EMA, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            for key, value in head.named_parameters():
                average[key].lerp_(value, 1 - decay)
        yield {k: v.item() for k, v in losses.items()}
    head.load_state_dict(average, strict=False)
    head.eval()


@torch.no_grad()
def measure(model: Detector, data: FrozenFeatures, truth: dict[str, Any]) -> dict[str, float]:
    """AP, boundary AP and boundary F of the masks of the model's head in the shared detections."""
    results: list[dict[str, Any]] = []
    for index, record in enumerate(data.scenes.records):
        picture = data[index]
        maps = model.mask_head.maps(picture.pyramid)
        inputs = model.mask_inputs(picture.pyramid, maps, picture.boxes, torch.zeros(len(picture.boxes), dtype=torch.int64))
        logits = model.mask_head(inputs, picture.labels).logits.numpy()
        boxes = picture.boxes.numpy()
        found = Instances(
            boxes,
            picture.scores.numpy(),
            picture.labels.numpy(),
            shape=(record.height, record.width),
            masks=LogitMasks(logits, boxes, 0.5),
            names=data.scenes.class_names,
            category_ids=data.scenes.category_ids,
        )
        results += found.to_coco(record.image_id)
    return summarise(truth, results)


def ceiling(data: FrozenFeatures, truth: dict[str, Any]) -> dict[str, float]:
    """The same figures if every detection had the true mask of the object that its box fits best, as far as it lies in the box."""
    results: list[dict[str, Any]] = []
    for index, record in enumerate(data.scenes.records):
        picture = data[index]
        if not len(picture.boxes) or not len(picture.target.boxes):
            continue
        best = box_iou(picture.boxes, picture.target.boxes).argmax(1)
        masks = picture.target.masks[best].numpy().astype(bool)  # D, H, W
        for mask, box in zip(masks, picture.boxes.round().int().clamp(min=0).tolist(), strict=True):
            inside = np.zeros_like(mask)
            inside[box[1] : box[3], box[0] : box[2]] = True
            mask &= inside
        shape = (record.height, record.width)
        arrays = (picture.boxes.numpy(), picture.scores.numpy(), picture.labels.numpy())
        found = Instances(*arrays, shape=shape, masks=masks, names=data.scenes.class_names, category_ids=data.scenes.category_ids)
        results += found.to_coco(record.image_id)
    return summarise(truth, results)


def summarise(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of the table, in percent."""
    found = evaluate(truth, results, metrics=("segm", "boundary", "fnpx"))
    return {
        "AP": 100 * found["segm"]["AP"],
        "AP75": 100 * found["segm"]["AP75"],
        "AP_B": 100 * found["boundary"]["AP"],
        "F1px": 100 * found["fnpx"]["F1px"],
        "F3px": 100 * found["fnpx"]["F3px"],
    }

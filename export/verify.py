"""An engine against the PyTorch model it was made from: same instances, and how far boxes, scores and mask logits are apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sdk.instances import Instances
from sdk.segmenter import Segmenter
from training.models.detector import Detections, Detector
from training.models.ops import clip_boxes

TOLERANCE = 1e-3  # boxes in network pixels, scores, mask logits
# Two candidates whose scores (or whose IoU and threshold) agree to the last float32 digit may be ordered either way, and then NMS keeps the
# other one. On 9,467 real instances this happened once.
NEAR_TIES = 1 / 2000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Greatest differences over all matched instances; ``unmatched`` counts those of PyTorch and those of the engine without a partner."""

    pictures: int
    instances: int
    unmatched: int
    boxes: float  # network-input pixels
    scores: float
    mask_logits: float

    @property
    def ok(self) -> bool:
        return (
            self.instances > 0
            and self.unmatched <= 2 * NEAR_TIES * self.instances
            and all(worst <= TOLERANCE for worst in (self.boxes, self.scores, self.mask_logits))  # False for NaN, unlike max(...)
        )

    @property
    def compared(self) -> str:
        """What was compared, for people."""
        return f"{self.pictures} pictures"

    @property
    def problem(self) -> str:
        """Why it is not ok."""
        if not self.instances:
            return "found nothing to compare; give --check pictures with objects"
        return f"differs from PyTorch by more than {TOLERANCE}"

    def to_dict(self) -> dict[str, Any]:
        return {"against": "torch", "tolerance": TOLERANCE, **asdict(self)}


@torch.no_grad()
def predict_torch(model: Detector, image: NDArray[np.uint8]) -> Detections:
    """The whole pipeline in PyTorch for one RGB picture (H, W, 3) uint8; boxes in pixels of that picture."""
    height, width = image.shape[:2]
    config = model.config
    size = config.resize.size_for(height, width)
    image = image if config.color == "rgb" else image[..., ::-1]
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", antialias=config.resize.antialias)
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    padded = F.pad((pixels - mean) / std, (0, -size[1] % 32, 0, -size[0] % 32))
    found = model.predict(padded, [size])[0]
    back = torch.tensor([width / size[1], height / size[0]]).repeat(2)
    boxes = clip_boxes(found.boxes * back, (height, width))
    return Detections(boxes=boxes, scores=found.scores, labels=found.labels, mask_logits=found.mask_logits)


def compare(model: Detector, engine: str | Path, images: Iterable[NDArray[np.uint8]]) -> Agreement:
    """Run both over RGB pictures (H, W, 3) uint8. Each instance is compared with the other side's nearest of the same label."""
    segmenter = Segmenter(engine, device="cpu", color="rgb", conf=model.config.box.score_threshold)
    model = model.eval()
    pictures = instances = unmatched = 0
    worst = np.zeros(3)
    for image in images:
        expected, actual = predict_torch(model, image), segmenter.predict(image)
        pictures, instances = pictures + 1, instances + len(actual)
        scale = model.config.resize.size_for(*image.shape[:2])[0] / image.shape[0]
        pairs = _pair(expected, torch.from_numpy(actual.boxes), torch.from_numpy(actual.labels))
        unmatched += len(expected.boxes) + len(actual) - 2 * len(pairs)
        if len(pairs) == 0:
            continue
        ours, theirs = pairs[:, 0], pairs[:, 1].numpy()
        differences = (
            (expected.boxes[ours].numpy() - actual.boxes[theirs]) * scale,
            expected.scores[ours].numpy() - actual.scores[theirs],
            expected.mask_logits[ours].numpy() - _logits(actual)[theirs],
        )
        worst = np.maximum(worst, [np.abs(d).max() for d in differences])
    boxes, scores, logits = (float(w) for w in worst)
    return Agreement(pictures=pictures, instances=instances, unmatched=unmatched, boxes=boxes, scores=scores, mask_logits=logits)


def _logits(found: Instances) -> NDArray[np.float32]:
    if found.mask_logits is None:
        raise TypeError("instances of a segmenter hold mask logits")
    return found.mask_logits


def _pair(expected: Detections, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Index pairs (M, 2) of instances that are each other's nearest (by their greatest coordinate difference), below half a pixel."""
    if len(expected.boxes) == 0 or len(boxes) == 0:
        return torch.zeros((0, 2), dtype=torch.int64)
    apart = (expected.boxes[:, None] - boxes[None]).abs().amax(2)  # N, M
    apart = torch.where(expected.labels[:, None] == labels[None], apart, torch.inf)
    nearest, theirs = apart.min(1)
    mutual = apart.min(0).indices[theirs] == torch.arange(len(theirs))
    ours = torch.nonzero((nearest < 0.5) & mutual).squeeze(1)
    return torch.stack([ours, theirs[ours]], 1)

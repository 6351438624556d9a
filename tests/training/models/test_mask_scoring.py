from __future__ import annotations

import numpy as np
import pytest
import torch

from sdk.errors import ConfigError
from training.config import ScoringConfig
from training.heads import HEADS, MaskOutput
from training.heads.fcn import FCNConfig
from training.models.detector import Detections, Detector, Target
from training.models.mask_scoring import MaskScoring, mask_iou, visible_share
from training.models.targets import MaskTargets

SIDE = 40


def targets(boxes: list[list[float]]) -> MaskTargets:
    """Two pictures with a square of 20 x 20 pixels at (10, 10); the second also has one of 4 x 4 at (30, 2)."""
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    masks[0, 10:30, 10:30] = 1
    masks[1, 2:6, 30:34] = 1
    truth = torch.tensor([[10.0, 10, 30, 30], [30, 2, 34, 6]])
    pictures = [Target(boxes=truth[:n], labels=torch.arange(n), masks=masks[:n]) for n in (1, 2)]
    n = len(boxes)
    batch = torch.arange(n) % 2
    zeros = torch.zeros(n, dtype=torch.int64)
    return MaskTargets(pictures=pictures, boxes=torch.tensor(boxes).reshape(-1, 4), batch=batch, truth=zeros, labels=zeros)


def test_visible_share() -> None:
    cases = {
        (10.0, 10.0, 30.0, 30.0): 1.0,
        (0.0, 0.0, 40.0, 40.0): 1.0,
        (10.0, 10.0, 20.0, 30.0): 0.5,
        (20.0, 20.0, 40.0, 40.0): 0.25,
        (10.0, 10.0, 15.5, 30.0): 0.275,
        (31.0, 31.0, 40.0, 40.0): 0.0,
        (5.0, 5.0, 5.0, 9.0): 0.0,
    }
    torch.testing.assert_close(visible_share(targets([list(box) for box in cases])), torch.tensor(list(cases.values())))


def test_visible_share_uses_each_rois_own_object() -> None:
    rois = targets([[10.0, 10, 30, 30], [30.0, 2, 34, 4]])
    object.__setattr__(rois, "truth", torch.tensor([0, 1]))
    torch.testing.assert_close(visible_share(rois), torch.tensor([1.0, 0.5]))


def test_visible_share_under_autocast() -> None:
    rois = targets([[10.3, 10.7, 25.1, 30.0], [11.9, 13.4, 21.6, 28.8]])
    expected = visible_share(rois)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(visible_share(rois), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [14, 28, 112])
def test_iou_of_a_box_that_cuts_the_object(size: int) -> None:
    """The left half of the object fills the RoI: a perfect mask there still misses the other half."""
    rois = targets([[10.0, 10, 20, 30], [10, 10, 30, 30], [10, 10, 30, 30]])
    logits = torch.ones(3, size, size)
    logits[1, :, size // 2 :] = -1
    logits[2] = -1
    torch.testing.assert_close(mask_iou(logits, rois), torch.tensor([0.5, 0.5, 0.0]), atol=1e-3, rtol=0)


def test_iou_agrees_with_the_picture() -> None:
    """Against IoU counted on the picture's pixels, for boxes on the pixel grid and grids as fine as the pixels."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = rng.integers(0, 20, 2)
        rois = targets([[float(x), float(y), float(x + 20), float(y + 20)]])
        predicted = rng.random((20, 20)) < 0.5
        full = np.zeros((SIDE, SIDE), bool)
        full[y : y + 20, x : x + 20] = predicted
        truth = rois.pictures[0].masks[0].numpy().astype(bool)
        expected = (full & truth).sum() / (full | truth).sum()
        found = mask_iou(torch.from_numpy(np.where(predicted, 1.0, -1.0))[None], rois)
        assert found.item() == pytest.approx(expected, abs=1e-5)


def scoring(size: int = 8, classes: int = 2) -> MaskScoring:
    torch.manual_seed(0)
    head = HEADS["fcn"](FCNConfig(channels=6, pool_size=size, convs=1), 6, classes)
    return MaskScoring(ScoringConfig(channels=8, hidden=16), head, classes)


def test_parameters_of_the_published_size() -> None:
    network = MaskScoring(ScoringConfig(), HEADS["fcn"](FCNConfig(), 256, 80), 80)
    convolutions = 9 * 257 * 256 + 3 * 9 * 256 * 256 + 4 * 256
    layers = 256 * 49 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 80 + 80
    assert sum(p.numel() for p in network.parameters()) == convolutions + layers


@pytest.mark.parametrize("size", [8, 16, 32])
def test_any_mask_size(size: int) -> None:
    network = scoring()
    output = MaskOutput(torch.randn(3, size, size), torch.randn(3, 6, 8, 8))
    assert network(output, torch.tensor([0, 1, 1])).shape == (3,)
    assert network(MaskOutput(output.logits[:0], output.features[:0]), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_a_size_that_does_not_fit_is_refused() -> None:
    head = HEADS["fcn"](FCNConfig(channels=6, pool_size=8, convs=1), 6, 2)
    head.mask_size = 20
    with pytest.raises(ConfigError, match="20"):
        MaskScoring(ScoringConfig(), head, 2)


def test_loss_counts_only_masks_that_touch_their_object() -> None:
    network = scoring()
    rois = targets([[10.0, 10, 30, 30], [10, 10, 30, 30]])
    logits = torch.stack([torch.ones(16, 16), -torch.ones(16, 16)]).requires_grad_()
    output = MaskOutput(logits, torch.randn(2, 6, 8, 8, requires_grad=True))
    loss = network.loss(output, rois)
    assert loss.item() == pytest.approx(0.5 * (network(output, rois.labels)[0].item() - 1) ** 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None and logits.grad[0].abs().sum() > 0  # nothing is detached
    assert output.features.grad is not None and output.features.grad[1].abs().sum() == 0
    nothing = network.loss(MaskOutput(output.logits[1:], output.features[1:]), targets([[10.0, 10, 30, 30]]))
    nothing.backward()
    assert nothing.item() == 0


def test_learns_to_tell_good_masks_from_bad() -> None:
    network = scoring()
    rois = targets([[10.0, 10, 30, 30]] * 4)
    logits = torch.full((4, 16, 16), -4.0)
    for i in range(4):
        logits[i, : 4 * (i + 1)] = 4.0  # IoU 1/4, 1/2, 3/4, 1
    output = MaskOutput(logits, torch.zeros(4, 6, 8, 8))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        network.loss(output, rois).backward()
        optimizer.step()
    torch.testing.assert_close(network.quality(output, rois.labels), torch.tensor([0.25, 0.5, 0.75, 1.0]), atol=0.08, rtol=0)


def test_detections_are_reordered_by_the_product() -> None:
    class Fixed(torch.nn.Module):
        def quality(self, output: MaskOutput, labels: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.1, 0.5, 1.0])

    class Stub:
        mask_scoring = Fixed()

    output = MaskOutput(torch.arange(3.0)[:, None, None].expand(3, 4, 4), torch.zeros(3, 1, 2, 2))
    boxes = torch.arange(12.0).reshape(3, 4)
    found = Detections(boxes=boxes, scores=torch.tensor([0.9, 0.8, 0.4]), labels=torch.tensor([5, 6, 7]), mask_logits=output.logits)
    scored = Detector.score_masks(Stub(), found, output)  # type: ignore[arg-type]
    torch.testing.assert_close(scored.scores, torch.tensor([0.4, 0.4, 0.09]))
    assert scored.labels.tolist() == [6, 7, 5] and torch.equal(scored.boxes, boxes[[1, 2, 0]])
    assert scored.mask_logits[:, 0, 0].tolist() == [1, 2, 0]

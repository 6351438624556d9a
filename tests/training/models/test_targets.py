from __future__ import annotations

import pytest
import torch

from training.models import targets as module
from training.models.targets import MaskTargets, Target


def random_targets(count: int = 11, side: int = 90) -> MaskTargets:
    """Two pictures with three noisy objects each, and boxes that lie inside, over the border and outside."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for _ in range(2):
        soft = torch.rand((3, side // 10, side // 10), generator=generator)[:, None]
        masks = (torch.nn.functional.interpolate(soft, (side, side), mode="bilinear")[:, 0] > 0.5).to(torch.uint8)
        pictures.append(Target(boxes=torch.tensor([[0.0, 0, side, side]] * 3), labels=torch.arange(3), masks=masks))
    corner = torch.rand((count, 2), generator=generator) * side - 10
    boxes = torch.cat([corner, corner + 5 + torch.rand((count, 2), generator=generator) * side], 1)
    truth = torch.arange(count) % 3
    return MaskTargets(pictures=pictures, boxes=boxes, batch=torch.arange(count) % 2, truth=truth, labels=truth)


def test_a_grid_as_fine_as_the_pixels_is_the_crop() -> None:
    rois = random_targets(2)
    boxes = torch.tensor([[10.0, 20, 38, 48], [5.0, 0, 33, 28]])
    cut = MaskTargets(pictures=rois.pictures, boxes=boxes, batch=rois.batch, truth=rois.truth, labels=rois.labels)
    expected = torch.stack([rois.pictures[0].masks[0, 20:48, 10:38], rois.pictures[1].masks[1, 0:28, 5:33]]).float()
    assert torch.equal(cut.masks(28), expected)
    # Cells of 2 x 2 pixels: foreground where at least half is.
    means = torch.nn.functional.avg_pool2d(expected[:, None], 2)[:, 0]
    assert torch.equal(cut.masks(14), (means >= 0.5).float())


@pytest.mark.parametrize("size", [14, 56])
def test_chunks_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = random_targets().masks(size)
    assert 0.1 < expected.mean() < 0.9 and set(expected.unique().tolist()) == {0.0, 1.0}
    monkeypatch.setattr(module, "CHUNK", 2)
    assert torch.equal(random_targets().masks(size), expected)


def test_each_size_is_made_once_and_carries_no_gradient() -> None:
    rois = random_targets()
    assert rois.masks(14) is rois.masks(14) and not rois.masks(28).requires_grad
    none = MaskTargets(pictures=rois.pictures, boxes=rois.boxes[:0], batch=rois.batch[:0], truth=rois.truth[:0], labels=rois.labels[:0])
    assert none.masks(28).shape == (0, 28, 28)


def test_outside_of_the_picture_is_background() -> None:
    full = Target(
        boxes=torch.tensor([[0.0, 0, 20, 20]]), labels=torch.zeros(1, dtype=torch.int64), masks=torch.ones((1, 20, 20), dtype=torch.uint8)
    )
    zero = torch.zeros(2, dtype=torch.int64)
    boxes = torch.tensor([[-20.0, 0, 20, 20], [40.0, 40, 60, 60]])
    masks = MaskTargets(pictures=[full], boxes=boxes, batch=zero, truth=zero, labels=zero).masks(10)
    assert masks[0, :, :4].sum() == 0 and masks[0, :, 6:].all() and masks[1].sum() == 0


def test_autocast_changes_nothing() -> None:
    expected = random_targets().masks(28)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_targets().masks(28), expected)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.brce import MASK_LOSSES, boundary_region_cross_entropy, erosions, focal, mask_loss, weighted_mean
from training.losses.dice import dice_loss, dice_per_mask


def masks_and_logits() -> tuple[Tensor, Tensor]:
    masks = torch.zeros((3, 9, 9))
    masks[0, 2:7, 2:7] = 1
    masks[1, :, :4] = 1
    return masks, torch.randn((3, 9, 9), generator=torch.Generator().manual_seed(0))


def test_erosions_follow_the_diagonal() -> None:
    assert [erosions(s, s) for s in (14, 28, 56, 112)] == [1, 1, 2, 3]
    assert erosions(480, 640) == 16
    assert erosions(1024, 2048, 0.005) == 11


def test_the_rim_counts_more() -> None:
    """A 5x5 square has a rim of 16 pixels one deep and of 24 two deep; at logit 0 every pixel costs log 2."""
    masks, _ = masks_and_logits()
    flat = torch.zeros((1, 9, 9))
    for steps, rim in ((1, 16), (2, 24), (3, 25)):
        loss = boundary_region_cross_entropy(flat, masks[:1], 1.0, steps)
        assert loss.item() == pytest.approx((81 + rim) / 81 * 0.6931472)
    loss = boundary_region_cross_entropy(flat, masks[:1], 0.5, 1)
    assert loss.item() == pytest.approx((81 + 8) / 81 * 0.6931472)


def test_without_weight_it_is_cross_entropy() -> None:
    masks, logits = masks_and_logits()
    loss = boundary_region_cross_entropy(logits, masks, 0.0, 1)
    torch.testing.assert_close(loss.mean(), F.binary_cross_entropy_with_logits(logits, masks))
    torch.testing.assert_close(mask_loss("ce", logits, masks, band_weight=1.0, steps=1), loss)


def test_focal_loss() -> None:
    """At logit 0: 0.25 or 0.75, times 1/4, times log 2."""
    masks, _ = masks_and_logits()
    expected = 0.25 * 0.6931472 * torch.tensor([25 * 0.25 + 56 * 0.75, 36 * 0.25 + 45 * 0.75, 81 * 0.75]) / 81
    torch.testing.assert_close(focal(torch.zeros_like(masks), masks), expected)
    assert focal(torch.full((1, 4, 4), 9.0), torch.ones((1, 4, 4))).item() < 1e-8


def test_dice_per_mask() -> None:
    masks, logits = masks_and_logits()
    torch.testing.assert_close(dice_per_mask(logits, masks).mean(), dice_loss(logits, masks))
    # Nothing there and nothing found costs nothing.
    assert dice_per_mask(torch.full((1, 4, 4), -30.0), torch.zeros((1, 4, 4))).item() == pytest.approx(0)
    both = mask_loss("ce_dice", logits, masks, band_weight=1.0, steps=1)
    apart = mask_loss("ce", logits, masks, band_weight=1.0, steps=1) + mask_loss("dice", logits, masks, band_weight=1.0, steps=1)
    torch.testing.assert_close(both, apart)


@pytest.mark.parametrize("kind", MASK_LOSSES)
def test_every_loss_is_least_at_the_truth(kind: str) -> None:
    masks, logits = masks_and_logits()
    loss = mask_loss(kind, logits, masks, band_weight=1.0, steps=1)
    right = mask_loss(kind, 20 * (2 * masks - 1), masks, band_weight=1.0, steps=1)
    assert loss.shape == (3,) and (right < 1e-6).all() and (loss > 0.05).all()
    assert mask_loss(kind, logits[:0], masks[:0], band_weight=1.0, steps=1).shape == (0,)


def test_weighted_mean() -> None:
    losses = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert weighted_mean(losses, None).item() == pytest.approx(3)
    assert weighted_mean(losses, torch.tensor([1.0, 1.0, 2.0])).item() == pytest.approx(15 / 4)
    assert weighted_mean(losses, torch.tensor([0.5, 0.5, 1.0])).item() == pytest.approx(15 / 4)
    for nothing in (weighted_mean(losses, torch.zeros(3)), weighted_mean(losses[:0], None), weighted_mean(losses[:0], losses[:0].detach())):
        assert nothing.item() == 0 and nothing.requires_grad

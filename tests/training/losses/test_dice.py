from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.losses.dice import balanced_bce, dice_bce, dice_loss, dice_per_mask


def four() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities .9 .6 .3 .1 of a mask whose first two pixels are foreground, (1, 1, 4)."""
    return torch.logit(torch.tensor([[[0.9, 0.6, 0.3, 0.1]]], dtype=torch.float64)), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])


def test_both_denominators_by_hand() -> None:
    logits, masks = four()
    assert dice_per_mask(logits, masks, "linear").item() == pytest.approx(1 - (2 * 1.5 + 1) / (1.9 + 2 + 1), abs=1e-6)  # .184
    assert dice_per_mask(logits, masks, "squared").item() == pytest.approx(1 - (2 * 1.5 + 1) / (1.27 + 2 + 1), abs=1e-6)  # .063
    assert dice_per_mask(logits, masks, "linear", 3.0).item() == pytest.approx(1 - (2 * 1.5 + 3) / (1.9 + 2 + 3), abs=1e-6)


def test_dice_is_taken_per_mask_and_cross_entropy_over_all_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn((3, 5, 6), generator=generator), (torch.rand((3, 5, 6), generator=generator) < 0.4).float()
    each = torch.stack([dice_per_mask(x[None], y[None]) for x, y in zip(logits, masks, strict=True)])
    torch.testing.assert_close(dice_loss(logits, masks), each.mean())
    expected = each.mean() + 0.25 * F.binary_cross_entropy_with_logits(logits, masks)
    torch.testing.assert_close(dice_bce(logits, masks, bce_weight=0.25), expected)


def test_balanced_cross_entropy_weighs_each_class_by_the_others_share() -> None:
    logits, masks = torch.zeros((1, 2, 4)), torch.zeros((1, 2, 4))
    masks[0, 0, 0] = 1  # one of eight
    per_pixel = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(balanced_bce(logits, masks), per_pixel * (1 * 7 / 8 + 7 * 1 / 8) / 8)


@pytest.mark.parametrize("loss", [dice_loss, balanced_bce, dice_bce])
def test_no_masks_no_loss(loss) -> None:  # type: ignore[no-untyped-def]
    logits = torch.zeros((0, 4, 4), requires_grad=True)
    value = loss(logits, torch.zeros((0, 4, 4)))
    value.backward()
    assert value.item() == 0 and logits.grad is not None


def test_half_precision_is_computed_in_single() -> None:
    logits = torch.full((1, 60, 60), 4.0, dtype=torch.bfloat16)
    masks = torch.ones((1, 60, 60))
    for loss in (dice_loss, balanced_bce, dice_bce):
        value = loss(logits, masks)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.float(), masks), rtol=0, atol=0)

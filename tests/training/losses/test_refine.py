from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.band import boundary_band
from training.losses.refine import compose, enlarge, refine_step, stage_losses

INFER = functools.partial(boundary_band, width=1, min_frac=0.1)
TRAIN = functools.partial(boundary_band, width=2, min_frac=0.1)


def half(size: int) -> Tensor:
    """The left half is foreground, (1, S, S)."""
    mask = torch.zeros((1, size, size))
    mask[:, :, : size // 2] = 1
    return mask


def test_enlarged_bands_are_never_one_half() -> None:
    for seed in range(5):
        near = (torch.rand((4, 28, 28), generator=torch.Generator().manual_seed(seed)) < 0.3).float()
        assert (enlarge(near, 56) - 0.5).abs().min() > 1e-5


def test_far_from_the_outline_the_coarse_mask_stays() -> None:
    coarse, fine = 8 * half(14) - 4, torch.full((1, 28, 28), -1.0)
    near = INFER(coarse >= 0)
    # Rows 0 and 13 are band too, where the object touches the border.
    assert near[0, 5].nonzero().flatten().tolist() == [0, 6, 7]
    mask = refine_step(coarse, fine, near)
    assert (mask[0, 10, [0, 12, 13, 14, 15]] == -1).all()
    assert mask[0, 10, 5] == 4 and mask[0, 10, 24] == -4
    changed = enlarge(near.float(), 28) >= 0.5
    torch.testing.assert_close(mask[~changed], enlarge(coarse, 28)[~changed])


def test_compose_starts_where_it_is_told() -> None:
    logits = [8 * half(s) - 4 for s in (14, 28, 56)]
    logits[0] = -logits[0]  # wrong, and must not matter
    expected = refine_step(logits[1], logits[2], INFER(logits[1] >= 0))
    torch.testing.assert_close(compose(logits, 1, INFER), expected, rtol=0, atol=0)
    assert compose(logits, 2, INFER) is logits[2]
    assert not torch.equal(compose(logits, 0, INFER), expected)


def reference_losses(logits: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
    """As the released code goes: pixels are picked by index, one stage after the other."""
    losses = [F.binary_cross_entropy_with_logits(logits[k], targets[k]) for k in (0, 1)]
    mask = torch.sigmoid(logits[1]) >= 0.5
    for k in (2, 3):
        size = logits[k].shape[-1]
        region = enlarge((TRAIN(mask) | TRAIN(targets[k - 1])).float(), size) >= 0.5
        each = F.binary_cross_entropy_with_logits(logits[k], targets[k], reduction="none")
        losses.append(each[region].sum() / region.sum().clamp(min=1))
        picked = enlarge(INFER(mask).float(), size) >= 0.5
        combined = enlarge(logits[k - 1], size)
        combined[picked] = logits[k][picked]
        mask = torch.sigmoid(combined) >= 0.5
    return losses


def noisy_stages() -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    targets = [half(s).repeat(3, 1, 1) for s in (14, 28, 56, 112)]
    targets[3][2] = targets[2][2] = targets[1][2] = targets[0][2] = 0  # an object that the box does not hold
    logits = [2 * y - 1 + F.avg_pool2d(torch.randn(y.shape, generator=generator), 3, 1, 1) * 4 for y in targets]
    return [x.requires_grad_() for x in logits], targets


def test_stage_losses_equal_the_step_by_step_form() -> None:
    logits, targets = noisy_stages()
    found = stage_losses(logits, targets, 1, TRAIN, INFER)
    for a, b in zip(found, reference_losses([x.detach() for x in logits], targets), strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_of_late_stages_stays_near_the_outline() -> None:
    logits, targets = noisy_stages()
    torch.stack(stage_losses(logits, targets, 1, TRAIN, INFER)).sum().backward()
    region = enlarge((TRAIN(logits[1] >= 0) | TRAIN(targets[1])).float(), 56) >= 0.5
    gradient = logits[2].grad
    assert gradient is not None and torch.equal(gradient != 0, region) and not region.all()
    assert all(x.grad is not None and (x.grad != 0).all() for x in logits[:2])


def test_start_stage() -> None:
    logits, targets = noisy_stages()
    everywhere = stage_losses(logits, targets, 3, TRAIN, INFER)
    for x, y, loss in zip(logits, targets, everywhere, strict=True):
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(x, y))


def test_no_rois_and_no_outline() -> None:
    empty = [torch.zeros((0, s, s), requires_grad=True) for s in (14, 28, 56)]
    losses = stage_losses(empty, [x.detach() for x in empty], 1, TRAIN, INFER)
    torch.stack(losses).sum().backward()
    assert [x.item() for x in losses] == [0, 0, 0]
    nothing = [torch.full((1, s, s), -9.0) for s in (14, 28, 56)]
    losses = stage_losses(nothing, [torch.zeros_like(x) for x in nothing], 1, TRAIN, INFER)
    assert losses[2].item() == 0  # no band, no pixels, no loss

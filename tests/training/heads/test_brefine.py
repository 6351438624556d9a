from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sdk.errors import ConfigError
from tests.training.heads.cases import build, pictures, pooled, pyramid, rois, run
from tests.training.heads.macs import giga, meta_head, parameters, per_roi
from training.heads.brefine import BRefineConfig, BRefineHead
from training.heads.brefine.head import ResidualAwareModule
from training.losses.band import inner_band


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_parameters_and_multiplications() -> None:
    head = meta_head(BRefineConfig())
    assert parameters(head) == 5_677_136
    assert parameters(head.rams[0]) == 508_672
    assert giga(per_roi(head)) == pytest.approx(5.045, abs=5e-4)
    # Without the module and the predictor: what the paper's table of stages lists.
    without = [meta_head(BRefineConfig(stages=n, ram=False)) for n in (1, 2, 3)]
    assert [round((parameters(h) - parameters(h.predictor)) / 1e6, 2) for h in without] == [2.95, 3.54, 4.13]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_and_their_inputs(stages: int) -> None:
    head = build("brefine", stages=stages)
    assert head.mask_size == (14, 28, 56)[stages - 1]
    assert [(p.size, p.level) for p in head.pools] == [(14, None), *[(s, 0) for s in (14, 28, 56)[:stages]]]
    losses, logits = run(head, rois(pictures()))
    assert logits.shape == (4, head.mask_size, head.mask_size) and set(losses) == {"mask"}


def test_equal_inputs_are_pooled_once() -> None:
    head = build("brefine", source="p2")
    assert [(p.size, p.level) for p in head.pools] == [(14, 0), (28, 0), (56, 0)]
    assert run(head, rois(pictures()))[1].shape == (4, 56, 56)


@pytest.mark.parametrize(("branches", "residual"), [(1, False), (2, True), (3, True)])
def test_residual_aware_module(branches: int, residual: bool) -> None:
    module = ResidualAwareModule(BRefineConfig(channels=8, branches=branches, residual=residual))
    x = torch.randn((2, 8, 12, 12))
    narrow = F.relu(F.conv2d(x, module.compress.weight, module.compress.bias))
    assert narrow.shape[1] == 4 and len(module.branches) == branches
    total = narrow if residual else torch.zeros_like(narrow)
    for dilation, branch in zip((1, 2, 3), module.branches, strict=False):
        total = total + F.relu(F.conv2d(narrow, branch.weight, branch.bias, padding=dilation, dilation=dilation))
    torch.testing.assert_close(module(x), F.relu(F.conv2d(total, module.expand.weight, module.expand.bias)))


def test_forward_step_by_step() -> None:
    head = build("brefine")
    assert isinstance(head, BRefineHead)
    inputs = [torch.randn((2, 16, s, s)) for s in (14, 14, 28, 56)]
    labels = torch.tensor([2, 0])
    x = head.convs(inputs[0])
    for k in range(3):
        x = head.rams[k](x + F.relu(F.conv2d(inputs[k + 1], head.details[k].weight, head.details[k].bias, padding=1)))
        if k == 0:
            features = x
        if k < 2:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    output = head(inputs, labels)
    torch.testing.assert_close(output.logits, head.predictor(x, labels))
    torch.testing.assert_close(output.features, features)


@pytest.mark.parametrize(
    "options",
    [{"ram": False}, {"residual": False}, {"upsample": "transposed"}, *[{"mask_loss": k} for k in ("ce", "dice", "focal", "ce_dice")]],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    head = build("brefine", **options)
    losses, _ = run(head, rois(pictures()))
    losses["mask"].backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def loss_of(targets: Any, **options: Any) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    head = build("brefine", stages=2, **options)
    levels = pyramid(targets.pictures)
    losses, output = head.losses({}, pooled(head, levels, {}, targets), targets)
    return losses["mask"].item(), output.logits.detach()


def test_loss_is_weighted_cross_entropy() -> None:
    targets = rois(pictures())
    found, logits = loss_of(targets, band_weight=2.0, erosion_steps=2)
    masks = targets.masks(28)
    weight = 1 + 2.0 * inner_band(masks, 2)
    assert found == pytest.approx((weight * F.binary_cross_entropy_with_logits(logits, masks, reduction="none")).mean().item())


def test_rois_are_weighted() -> None:
    """Weights (1, 0, 0, 0) leave the loss of the first RoI; equal ones the mean."""
    plain = rois(pictures())
    first, _ = loss_of(rois(pictures(), 1))
    alone, _ = loss_of(dataclasses.replace(plain, weights=torch.tensor([1.0, 0, 0, 0])))
    equal, _ = loss_of(dataclasses.replace(plain, weights=torch.full((4,), 0.3)))
    assert alone == pytest.approx(first, rel=1e-5) and equal == pytest.approx(loss_of(plain)[0], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 4}, "1, 2 or 3"),
        ({"branches": 4}, "1 to 3"),
        ({"branches": 2, "dilations": (1,)}, "1 to 1"),
        ({"upsample": "nearest"}, "'bilinear' or 'transposed'"),
        ({"mask_loss": "bce"}, "ce, dice, focal, ce_dice, brce"),
        ({"erosion_steps": -1}, "must not be negative"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BRefineConfig(**options)

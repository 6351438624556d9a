from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdk.errors import ConfigError
from tests.training.heads.cases import CHANNELS, build, pictures, pooled, pyramid, rois, run
from tests.training.heads.macs import giga, meta_head, parameters, per_roi
from training.heads.bmask import BMaskConfig, BMaskHead
from training.heads.fcn import FCNConfig
from training.losses.boundary import inner_contour
from training.losses.dice import balanced_bce, dice_bce, dice_loss


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def bmask(**options: Any) -> BMaskHead:
    head = build("bmask", **options)
    assert isinstance(head, BMaskHead)
    return head


def test_parameters_and_multiplications() -> None:
    """The paper's table of costs: 0.951 against 0.462 billion a RoI, without the predictors."""
    predictors = ("predictor", "deconv")
    assert parameters(meta_head(FCNConfig())) == 2_643_280
    assert giga(per_roi(meta_head(FCNConfig())), without=predictors) == pytest.approx(0.462, abs=5e-4)
    head = meta_head(BMaskConfig())
    assert parameters(head) == 5_418_144
    assert giga(per_roi(head), without=predictors) == pytest.approx(0.951, abs=5e-4)
    # Four 3x3 and two 1x1 convolutions, and a predictor that only trains.
    added = 4 * (256 * 256 * 9 + 256) + 2 * (256 * 256 + 256)
    assert parameters(head) - parameters(head.boundary_predictor) - 2_643_280 == added


@pytest.mark.parametrize("to_boundary", [True, False])
@pytest.mark.parametrize("to_mask", [True, False])
@pytest.mark.parametrize("size", [14, 28])
def test_branches_step_by_step(to_boundary: bool, to_mask: bool, size: int) -> None:
    """The paper's figure 2 written out from the weights."""
    head = bmask(mask_to_boundary=to_boundary, boundary_to_mask=to_mask, boundary_pool=size)
    assert [(p.size, p.level) for p in head.pools] == [(14, None), (size, 0)]
    weights = dict(head.named_parameters())

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.relu(F.conv2d(x, weight, weights[f"{name}.bias"], stride, weight.shape[-1] // 2))

    inputs = [torch.randn((2, CHANNELS, 14, 14)), torch.randn((2, CHANNELS, size, size))]
    mask = inputs[0]
    for i in range(4):
        mask = conv(f"mask_convs.{i}", mask)
    boundary = conv("boundary_input", inputs[1], size // 14)
    if to_boundary:
        boundary = boundary + conv("mask_to_boundary", mask)
    for i in range(2):
        boundary = conv(f"boundary_convs.{i}", boundary)
    if to_mask:
        mask = conv("mask_fusion", mask + conv("boundary_to_mask", boundary))
    found = head.branches(inputs)
    assert found[1] is not None and found[1].shape[2:] == (14, 14)
    torch.testing.assert_close(found[0], mask)
    torch.testing.assert_close(found[1], boundary)
    labels = torch.tensor([2, 0])
    output = head(inputs, labels)
    torch.testing.assert_close(output.features, mask)
    up = F.relu(F.conv_transpose2d(mask, weights["mask_predictor.deconv.weight"], weights["mask_predictor.deconv.bias"], 2))
    rows, bias = weights["mask_predictor.predictor.weight"][labels], weights["mask_predictor.predictor.bias"][labels]
    torch.testing.assert_close(output.logits, torch.einsum("nchw,nc->nhw", up, rows) + bias[:, None, None])


def test_sobel_head_reads_the_mask() -> None:
    head = bmask(variant="sobel")
    assert [(p.size, p.level) for p in head.pools] == [(14, None)] and head.training_only == ("boundary_predictor.", "sobel.")
    logits = torch.randn((2, 28, 28))
    p = F.pad(torch.sigmoid(logits), (1, 1, 1, 1))
    shifted = {(dy, dx): p[:, 1 + dy : 29 + dy, 1 + dx : 29 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    x = sum((2 - abs(dy)) * (shifted[dy, 1] - shifted[dy, -1]) for dy in (-1, 0, 1))
    y = sum((2 - abs(dx)) * (shifted[1, dx] - shifted[-1, dx]) for dx in (-1, 0, 1))
    hidden = F.relu(F.conv2d(torch.stack([x, y], 1), head.sobel.hidden.weight, head.sobel.hidden.bias, padding=1))
    expected = F.conv2d(hidden, head.sobel.predictor.weight, head.sobel.predictor.bias, padding=1)[:, 0]
    torch.testing.assert_close(head.sobel(logits), expected)


LOSSES = {
    "dice_bce": lambda x, y: dice_bce(x, y, bce_weight=0.5, form="squared", epsilon=2.0),
    "dice": lambda x, y: dice_loss(x, y, "squared", 2.0),
    "bce": F.binary_cross_entropy_with_logits,
    "weighted_bce": balanced_bce,
}


@pytest.mark.parametrize("target", ["boundary", "mask"])
@pytest.mark.parametrize("kind", LOSSES)
def test_boundary_loss(kind: str, target: str) -> None:
    head = bmask(boundary_loss=kind, boundary_target=target, bce_weight=0.5, dice_form="squared", dice_epsilon=2.0)
    assert head.boundary_predictor is not None
    targets = rois(pictures())
    levels = pyramid(targets.pictures)
    inputs = pooled(head, levels, {}, targets)
    losses, output = head.losses({}, inputs, targets)
    masks = targets.masks(28)
    logits = head.boundary_predictor(head.branches(inputs)[1], targets.labels)
    torch.testing.assert_close(losses["boundary"], LOSSES[kind](logits, inner_contour(masks) if target == "boundary" else masks))
    torch.testing.assert_close(losses["mask"], F.binary_cross_entropy_with_logits(output.logits, masks))


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "sobel"},
        {"mask_to_boundary": False},
        {"boundary_to_mask": False},
        {"mask_to_boundary": False, "boundary_to_mask": False},
        {"boundary_source": "pyramid"},
        {"boundary_pool": 14},
        {"boundary_target": "mask"},
        {"boundary_target": "none"},
        *[{"boundary_loss": kind} for kind in LOSSES],
        {"source": "p2", "boundary_pool": 14},
    ],
    ids=str,
)
def test_gradient_reaches_every_parameter_with_every_option(options: dict[str, Any]) -> None:
    head = bmask(**options)
    losses, _ = run(head, rois(pictures()))
    assert set(losses) == ({"mask"} if options.get("boundary_target") == "none" else {"mask", "boundary"})
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    nothing, logits = run(head, rois(pictures(), 0))
    assert all(value.item() == 0 for value in nothing.values()) and logits.shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "none"}, "'fusion' or 'sobel'"),
        ({"boundary_pool": 56}, "must be 14 or 28"),
        ({"boundary_source": "p3"}, "'pyramid' or 'p2'"),
        ({"boundary_target": "edge"}, "boundary, mask, none"),
        ({"boundary_loss": "focal"}, "dice_bce, dice, bce, weighted_bce"),
        ({"dice_form": "cubic"}, "linear, squared"),
        ({"boundary_target": "none", "boundary_to_mask": False}, "nothing would train the boundary branch"),
        ({"boundary_target": "none", "variant": "sobel"}, "nothing would train the boundary branch"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BMaskConfig(**options)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.band import BAND_RULES, band, boundary_band, inner_band
from training.losses.boundary import inner_contour


def example() -> Tensor:
    """An object that is cut off by the left border."""
    mask = torch.zeros((1, 6, 7))
    mask[0, 2:5, :4] = 1
    return mask


def random_masks(seed: int, shape: tuple[int, ...] = (40, 13, 17)) -> Tensor:
    """Noise of several densities, smoothed in half of the masks."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(shape, generator=generator)
    smooth = F.avg_pool2d(noise[:, None], 3, 1, 1)[:, 0]
    noise[::2] = smooth[::2] * 1.5
    return (noise < torch.linspace(0.05, 0.95, shape[0])[:, None, None]).float()


def by_distance(mask: Tensor, width: int, euclidean: bool) -> Tensor:
    """The definition, pixel by pixel: near enough to a pixel of the other label, the outside being background."""
    h, w = mask.shape
    padded = F.pad(mask, (width,) * 4)
    near = torch.zeros((h, w), dtype=torch.bool)
    for y in range(h):
        for x in range(w):
            for dy in range(-width, width + 1):
                for dx in range(-width, width + 1):
                    reached = dy**2 + dx**2 <= width**2 if euclidean else True
                    near[y, x] |= reached and bool(padded[y + width + dy, x + width + dx] != mask[y, x])
    return near


def test_worked_example() -> None:
    expected = torch.tensor([[0, 0, 0, 0, 0, 0, 0], *[[1, 1, 1, 1, 1, 0, 0]] * 2, [1, 0, 0, 1, 1, 0, 0], *[[1, 1, 1, 1, 1, 0, 0]] * 2])
    for fraction in (0.0, 0.1):
        assert torch.equal(boundary_band(example(), 1, fraction)[0], expected.bool())


def test_worked_example_of_width_two() -> None:
    strict = boundary_band(example(), 2)[0]
    assert strict[:, :6].all() and not strict[:, 6].any()
    released = boundary_band(example(), 2, 0.1)[0]
    assert torch.nonzero(strict & ~released).tolist() == [[0, 4], [0, 5], [1, 5], [5, 5]]
    assert released.sum() == 32 and not (released & ~strict).any()


@pytest.mark.parametrize("rule", BAND_RULES)
def test_autocast_changes_nothing(rule: str) -> None:
    """A window of 17 x 17 holds more pixels than bfloat16 can count."""
    mask = torch.zeros((1, 48, 48))
    mask[0, 3:45, 4:44] = 1
    expected = band(mask, 8, rule, 0.1)
    assert not expected.all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(band(mask, 8, rule, 0.1), expected)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_strict_band_is_dilation_minus_erosion(width: int) -> None:
    masks = random_masks(width)
    padded = F.pad(masks, (width,) * 4)
    dilated, eroded = (sign * F.max_pool2d(sign * padded, 2 * width + 1, 1) for sign in (1, -1))
    # Windows of the padded mask that are centred on its pixels.
    assert torch.equal(boundary_band(masks, width), dilated > eroded)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("rule", ["strict", "exact"])
def test_definitions_by_distance(width: int, rule: str) -> None:
    masks = random_masks(7, (4, 6, 7))
    expected = torch.stack([by_distance(m, width, rule == "exact") for m in masks])
    assert torch.equal(band(masks, width, rule, 0.1), expected)


@pytest.mark.parametrize(("width", "least"), [(1, 1), (2, 3), (3, 5)])
def test_a_tenth_of_the_window(width: int, least: int) -> None:
    """The released code's threshold, as a number of pixels of the other label."""
    for count in range(1, 7):
        mask = torch.ones((1, 20, 20))
        side = 2 * width + 1
        hidden = torch.arange(count)
        mask[0, 10 - width + hidden // side, 10 - width + hidden % side] = 0
        assert boundary_band(mask, width, 0.1)[0, 10, 10] == (count >= least)


@pytest.mark.parametrize("rule", BAND_RULES)
def test_outside_is_background(rule: str) -> None:
    assert not band(torch.zeros((1, 8, 8)), 2, rule, 0.1).any()
    frame = torch.ones((8, 8), dtype=torch.bool)
    frame[2:6, 2:6] = False
    assert torch.equal(band(torch.ones((1, 8, 8)), 2, rule, 0.1)[0], frame)
    assert band(torch.ones((0, 8, 8)), 2, rule, 0.1).shape == (0, 8, 8)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_inner_band_is_what_erosions_remove(steps: int) -> None:
    masks = random_masks(11)
    eroded = masks
    for _ in range(steps):
        eroded = eroded - inner_contour(eroded)
    assert torch.equal(inner_band(masks, steps), (masks - eroded).bool())
    assert torch.equal(inner_band(masks, steps), boundary_band(masks, steps) & masks.bool())


def test_any_dtype_and_no_gradient() -> None:
    masks = example()
    for dtype in (torch.bool, torch.uint8, torch.float64):
        assert torch.equal(boundary_band(masks.to(dtype), 2, 0.1), boundary_band(masks, 2, 0.1))
    result = boundary_band(masks.requires_grad_(), 1)
    assert result.dtype == torch.bool and not result.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(boundary_band(masks, 3, 0.1), band(masks.detach(), 3, "fraction", 0.1))

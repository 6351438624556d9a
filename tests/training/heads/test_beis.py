from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdk.errors import ConfigError
from tests.training.heads.cases import CLASSES, build, pictures, pooled, pyramid, rois, run
from tests.training.heads.macs import giga, meta_head, parameters, per_roi
from training.heads.beis import BEISConfig, BEISHead
from training.heads.beis.contrast import BoundaryContrast, Stage, best_of_each_truth, cbdl, ibdl
from training.heads.beis.sampling import Draw, boundary_sides, draw, make_band, query_weights, take
from training.losses.contrastive import contrastive_loss
from training.models.targets import MaskTargets, Target

SMALL = {"channels": 16, "stages": 1, "cbdl_negatives": 6, "cbdl_positives": 3, "bank_length": 32}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def beis(**options: Any) -> BEISHead:
    head = build("beis", **{**SMALL, **options})
    assert isinstance(head, BEISHead)
    return head


def contrast(head: BEISHead) -> BoundaryContrast:
    assert head.contrast is not None
    return head.contrast


def fill(head: BEISHead, entries: int = 20) -> None:
    """Banks with random entries of all classes."""
    for i in range(len(contrast(head).banks)):
        bank = contrast(head).bank(i)
        for side in (0, 1):
            bank.push(side, torch.randn(entries, bank.features.shape[2]), torch.arange(entries) % CLASSES)


def some_masks(n: int = 3, size: int = 14) -> Tensor:
    """Discs, (N, S, S)."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    radius = torch.arange(n)[:, None, None] * 0.8 + 3
    return ((x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2).float()


# --- counts


def test_parameters_and_macs_of_the_paper_sized_head() -> None:
    assert parameters(meta_head(BEISConfig())) == pytest.approx(7.609e6, abs=500)
    for stages, expected in ((1, 1.46), (2, 2.24), (3, 3.04), (4, 3.90)):
        head = meta_head(BEISConfig(stages=stages))
        assert giga(per_roi(head, all_classes=False)) == pytest.approx(expected, abs=0.005)
        assert head.mask_size == 14 * 2**stages


# --- options


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [14, 14, 28, 56]),
        ({"p2": "first"}, [14, 14]),
        ({"p2": "off"}, [14]),
        ({"source": "p2"}, [14, 28, 56]),
        ({"source": "p2", "p2": "off"}, [14]),
        ({"stages": 0}, [14, 14]),
        ({"stages": 4}, [14, 14, 28, 56, 112]),
    ],
)
def test_inputs(options: dict[str, Any], sizes: list[int]) -> None:
    head = beis(**{"stages": 3, "cbdl": False, **options})
    assert [p.size for p in head.pools] == sizes
    expected_level = 0 if options.get("source") == "p2" else None
    assert head.pools[0].level == expected_level and all(p.level == 0 for p in head.pools[1:])
    losses, logits = run(head, rois(pictures(), 2))
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert logits.shape[1] == head.mask_size == 14 * 2**head.config.stages


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["mask0", "mask1", "ibdl0", "cbdl0", "ibdl1", "cbdl1"]),
        ({"ibdl": False}, ["mask0", "mask1", "cbdl0", "cbdl1"]),
        ({"cbdl": False}, ["mask0", "mask1", "ibdl0", "ibdl1"]),
        ({"ibdl": False, "cbdl": False}, ["mask0", "mask1"]),
        ({"bank_shared": True, "bef_dim": 12}, ["mask0", "mask1", "ibdl0", "cbdl0", "ibdl1", "cbdl1"]),
        ({"normalize": True, "tau": 0.1, "literal": True}, ["mask0", "mask1", "ibdl0", "cbdl0", "ibdl1", "cbdl1"]),
        ({"adaptive_keys": False, "adaptive_queries": False}, ["mask0", "mask1", "ibdl0", "cbdl0", "ibdl1", "cbdl1"]),
    ],
)
@pytest.mark.parametrize("count", [4, 0])
def test_losses_of_every_part(options: dict[str, Any], names: list[str], count: int) -> None:
    head = beis(**options)
    if options.get("cbdl", True):
        fill(head)
    losses, _ = run(head, rois(pictures(), count))
    assert set(losses) == set(names)
    for name, value in losses.items():
        assert value.item() != 0 if count else value.item() == 0, name
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_weights_of_the_losses() -> None:
    values = []
    for options in ({}, {"ibdl_weight": 0.5, "cbdl_weight": 0.25}):
        torch.manual_seed(0)
        head = beis(**options)
        fill(head)
        values.append(run(head, rois(pictures()))[0])
    for name, value in values[1].items():
        factor = {"mask": 1, "ibdl": 0.5, "cbdl": 0.25}[name[:4]]
        torch.testing.assert_close(value, factor * values[0][name])


def test_banks_cost_nothing_where_they_are_off() -> None:
    assert not [name for name in beis(cbdl=False).state_dict() if "banks" in name]
    assert beis(cbdl=False, ibdl=False).contrast is None
    assert contrast(beis()).bank(1).features.shape == (2, 32, 8)
    shared = contrast(beis(bank_shared=True, bef_dim=12))
    assert len(shared.banks) == 1 and shared.bank(0) is shared.bank(1)
    head = beis()
    inference = {n for n in head.state_dict() if not n.startswith(head.training_only)}
    assert inference == {n for n, _ in head.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {"stages": 5},
        {"channels": 12, "stages": 3},
        {"p2": "always"},
        {"band_widths": (1, 2)},
        {"band_widths": (0,)},
        {"cbdl_queries": 15},
        {"bank_length": 100},
        {"bank_shared": True},
        {"tau": 0.0},
        {"ibdl_weight": 0.0},
        {"ibdl_positives": 0},
        {"hardness": 1.5},
    ],
)
def test_refused_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BEISConfig(**options)


# --- the losses against their definition


def similarity(a: Tensor, b: Tensor, config: BEISConfig) -> Tensor:
    if config.normalize:
        a, b = a / a.norm(), b / b.norm()
    return -torch.sqrt(((a - b) ** 2).sum() + 1e-9) / config.tau


def definition(query: Tensor, positives: list[Tensor], negatives: list[Tensor], config: BEISConfig) -> Tensor:
    p = sum((torch.exp(similarity(query, k, config)) for k in positives), torch.zeros(()).double())
    m = sum((torch.exp(similarity(query, k, config)) for k in negatives), torch.zeros(()).double())
    return -torch.log((m if config.literal else p) / (p + m))


def slow_ibdl(features: Tensor, masks: Tensor, width: int, draws: tuple[Draw, Draw, Draw], config: BEISConfig) -> Tensor:
    sides, flat = boundary_sides(masks, width).flatten(2), features.double().flatten(2)
    queries, positives, negatives = draws
    total, counted = torch.zeros(()).double(), 0
    for n in range(len(features)):
        if not (sides[n, 0].any() and sides[n, 1].any()):
            continue
        counted += 1
        for side in (0, 1):
            losses = []
            for q, q_real in zip(queries.pixels[n, side].tolist(), queries.real[n, side].tolist(), strict=True):
                keys = [k for k, real in zip(positives.pixels[n, side].tolist(), positives.real[n, side].tolist(), strict=True) if real]
                keys = [k for k in keys if k != q][: config.ibdl_positives]
                others = [k for k, real in zip(negatives.pixels[n, side].tolist(), negatives.real[n, side].tolist(), strict=True) if real]
                assert all(sides[n, side, k] for k in keys) and all(sides[n, 1 - side, k] for k in others)
                if q_real and keys:
                    losses.append(definition(flat[n, :, q], [flat[n, :, k] for k in keys], [flat[n, :, k] for k in others], config))
            if losses:
                total = total + torch.stack(losses).mean()
    return total / max(counted, 1)


def slow_cbdl(features: Tensor, masks: Tensor, queries: Draw, bank: Tensor, keys: tuple[Tensor, Tensor], config: BEISConfig) -> Tensor:
    flat, bank = features.double().flatten(2), bank.double()
    total, counted = torch.zeros(()).double(), 0
    for n in range(len(features)):
        counted += bool(boundary_sides(masks, 3)[n].any())
        losses = []
        for side in (0, 1):
            positives = [bank[side, k] for k in keys[0][n, side].tolist()]
            negatives = [bank[1 - side, k] for k in keys[1][n, side].tolist()]
            for q, real in zip(queries.pixels[n, side].tolist(), queries.real[n, side].tolist(), strict=True):
                if real:
                    losses.append(definition(flat[n, :, q], positives, negatives, config))
        if losses:
            total = total + torch.stack(losses).mean()
    return total / max(counted, 1)


def loss_masks() -> Tensor:
    """Masks (5, 8, 8): a disc, a single pixel (a side without other positives), full (no background side), empty, a corner."""
    masks = torch.zeros(5, 8, 8)
    masks[0] = some_masks(1, 8)[0]
    masks[1, 4, 4] = 1
    masks[2] = 1
    masks[4, :2, :2] = 1
    return masks


@pytest.mark.parametrize("options", [{}, {"literal": True}, {"normalize": True, "tau": 0.2}, {"adaptive_queries": False}])
def test_losses_equal_their_definition(options: dict[str, Any]) -> None:
    head = beis(ibdl_queries=5, ibdl_positives=2, ibdl_negatives=7, cbdl_queries=6, **options)
    fill(head)
    config, bank = head.config, contrast(head).bank(0)
    masks = loss_masks()
    band = make_band(masks, 3)
    logits = torch.randn(5, 8, 8) * 4
    labels = torch.tensor([0, 1, 2, 0, 1])
    queries = draw(band, query_weights(band, logits, 0.97 if config.adaptive_queries else None), 5)
    keys = contrast(head).draw_keys(band, torch.randint(0, CLASSES + 1, band.pixels[:, 0].shape), labels)
    entries = contrast(head).draw_entries(bank, labels)
    few = Draw(pixels=queries.pixels[..., :3], real=queries.real[..., :3])
    for fast, slow in (
        (
            lambda f: ibdl(f, band, queries, *keys, config),
            lambda f: slow_ibdl(f, masks, 3, (queries, *keys), config),
        ),
        (
            lambda f: cbdl(f, band, few, bank.features, *entries, config),
            lambda f: slow_cbdl(f, masks, few, bank.features, entries, config),
        ),
    ):
        features = [torch.randn((5, 16, 8, 8), generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
        values = [fast(features[0]), slow(features[1])]
        assert values[0] > 0
        torch.testing.assert_close(values[0].double(), values[1], rtol=1e-5, atol=1e-6)
        gradients = [torch.autograd.grad(v, f)[0] for v, f in zip(values, features, strict=True)]
        assert gradients[0].abs().sum() > 0
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("literal", [False, True])
def test_same_side_numerator_separates_and_the_printed_one_attracts(literal: bool) -> None:
    points = torch.randn(2, 12, 4, requires_grad=True)
    optimizer = torch.optim.Adam([points], 0.05)
    others = ~torch.eye(12, dtype=torch.bool).expand(2, 12, 12)
    for _ in range(200):
        loss, _ = contrastive_loss(points, points, points.flip(0), others, torch.ones(2, 12, dtype=torch.bool), literal=literal)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    distance = torch.cdist(points.detach().flatten(0, 1), points.detach().flatten(0, 1))
    same = torch.cat([distance[:12, :12][others[0]], distance[12:, 12:][others[0]]]).mean()
    cross = distance[:12, 12:].mean()
    assert (same > cross) if literal else (cross > 1.5 * same)


def test_agreeing_features_have_a_finite_gradient() -> None:
    points = torch.ones(1, 3, 4, requires_grad=True)
    loss, defined = contrastive_loss(points, points, points, torch.ones(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool))
    loss.sum().backward()
    assert defined.all() and torch.isfinite(points.grad).all()
    torch.testing.assert_close(loss, torch.full((1, 3), math.log(2)))
    loss, defined = contrastive_loss(points, points, points, torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool))
    assert not defined.any() and loss.sum() == 0


# --- whole steps


@pytest.mark.parametrize("kind", ["full", "empty", "one pixel"])
def test_crops_without_a_boundary_or_without_a_side(kind: str) -> None:
    masks = torch.ones(1, 128, 128, dtype=torch.uint8) if kind == "full" else torch.zeros(1, 128, 128, dtype=torch.uint8)
    if kind == "one pixel":
        masks[0, 64, 64] = 1
    target = Target(boxes=torch.tensor([[10.0, 10, 100, 100]]), labels=torch.tensor([1]), masks=masks)
    targets = dataclasses.replace(rois(pictures(), 1), pictures=[target], labels=torch.tensor([1]))
    head = beis()
    fill(head)
    levels = pyramid(pictures())
    losses, _ = head.losses({}, pooled(head, levels, {}, targets), targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert losses["ibdl0"] == 0
    assert (losses["cbdl0"] > 0) == (kind == "full")  # a full crop still has its foreground side
    assert contrast(head).bank(0).filled.tolist() == [20, 21 if kind == "full" else 20]


def test_float32_inside_autocast() -> None:
    head = beis()
    fill(head)
    seen = []
    targets = rois(pictures())
    inputs = pooled(head, pyramid(targets.pictures), {}, targets)

    def spy(*args: Any) -> None:
        seen.append([s.features.dtype for s in args[1][0]])

    contrast(head).register_forward_pre_hook(spy)
    with torch.autocast("cpu", torch.bfloat16):
        losses, output = head.losses({}, inputs, targets)
        assert take(output.features, torch.zeros(4, 2, 1, dtype=torch.int64)).dtype == torch.float32
        taken = torch.ones(1, 1, 1, dtype=torch.bool)
        exact, _ = contrastive_loss(*(torch.full((1, 1, 2), v) for v in (0.0, 1.001, 1.0)), taken, taken[0])
    assert seen == [[torch.bfloat16] * 2]
    assert all(v.dtype == torch.float32 for v in losses.values())
    assert exact.item() == pytest.approx(math.log(1 + math.exp(0.001 * math.sqrt(2))), rel=1e-6)
    torch.stack(list(losses.values())).sum().backward()


def step(head: BEISHead, optimizer: torch.optim.Optimizer, targets: MaskTargets) -> list[float]:
    losses, _ = run(head, targets)
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return [v.item() for v in losses.values()]


def test_a_restored_state_goes_on_alike() -> None:
    head, targets = beis(cbdl_negatives=3, cbdl_positives=2), rois(pictures())
    optimizer = torch.optim.SGD(head.parameters(), 0.01)
    for _ in range(3):
        step(head, optimizer, targets)
    state, rng = {k: v.clone() for k, v in head.state_dict().items()}, torch.get_rng_state()
    expected = [step(head, optimizer, targets) for _ in range(3)]
    torch.manual_seed(5)
    other = beis(cbdl_negatives=3, cbdl_positives=2)
    other.load_state_dict(state)
    torch.set_rng_state(rng)
    assert [step(other, torch.optim.SGD(other.parameters(), 0.01), targets) for _ in range(3)] == expected
    assert all(value > 0 for value in expected[0])  # the banks took part
    changed = [k for k, v in head.state_dict().items() if "contrast" in k and not torch.equal(v, state[k])]
    assert {k.split(".")[-1] for k in changed} == {"features", "classes", "next", "filled", "confusion"}


def test_losses_that_are_only_looked_at_teach_nothing() -> None:
    """As when the trainer searches for the picture with a loss that is not finite."""
    head = beis()
    fill(head)
    state = {k: v.clone() for k, v in head.state_dict().items()}
    with torch.no_grad():
        run(head, rois(pictures()))
    assert all(torch.equal(v, state[k]) for k, v in head.state_dict().items())
    run(head, rois(pictures()))
    assert not torch.equal(contrast(head).confusion, state["contrast.confusion"])


def test_cross_contrast_starts_with_enough_entries() -> None:
    head = beis(cbdl_negatives=6)
    targets, values = rois(pictures()), []
    for _ in range(3):
        values.append(run(head, targets)[0]["cbdl0"].item())
    assert values[0] == values[1] == 0 and values[2] > 0  # 0, 4 and 8 entries of each side


def test_only_the_best_roi_of_an_object_enters_the_bank() -> None:
    targets = pictures()
    box = targets[0].boxes
    boxes = torch.cat([box + 9, box + 1, box + 5, targets[1].boxes, targets[1].boxes])
    batch = torch.tensor([0, 0, 0, 1, 1])
    five = MaskTargets(pictures=targets, boxes=boxes, batch=batch, truth=torch.zeros(5, dtype=torch.int64), labels=torch.zeros_like(batch))
    assert best_of_each_truth(five).tolist() == [False, True, False, True, False]
    for once, entries in ((True, 2), (False, 5)):
        head = beis(push_once=once)
        stages = [Stage(features=torch.randn(5, c, s, s), logits=torch.zeros(5, s, s)) for c, s in ((16, 14), (8, 28))]
        contrast(head)(stages, five)
        assert contrast(head).bank(0).filled.tolist() == [entries, entries]
        mean = stages[0].features[1].flatten(1)[:, boundary_sides(five.masks(14), 3)[1, 1].flatten()].mean(1)
        torch.testing.assert_close(contrast(head).bank(0).features[1, 0 if once else 1], mean)


def test_fits_with_every_part() -> None:
    """Masks are learned, and contrast with them."""
    head = beis(stages=1, cbdl_negatives=6)
    targets = rois(pictures())
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    history = [step(head, optimizer, targets) for _ in range(40)]
    assert sum(history[-1][:2]) < 0.5 * sum(history[0][:2])
    names = list(run(head, targets)[0])
    first, last = (dict(zip(names, h, strict=True)) for h in (history[0], history[-1]))
    assert last["ibdl0"] < 0.9 * first["ibdl0"]

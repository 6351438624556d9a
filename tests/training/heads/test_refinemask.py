from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sdk.errors import ConfigError
from tests.training.heads.cases import build, pictures, pooled, pyramid, rois, run
from tests.training.heads.macs import count, giga, meta_head, parameters, per_roi
from training.heads.refinemask import RefineMaskConfig, RefineMaskHead
from training.heads.refinemask.head import union_mask
from training.losses.refine import enlarge
from training.models.targets import Target


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def inputs_of(head: RefineMaskHead) -> tuple[list[torch.Tensor], Any]:
    targets = rois(pictures())
    levels = pyramid(targets.pictures)
    return pooled(head, levels, head.maps(levels), targets), targets


def test_parameters_and_multiplications() -> None:
    head = meta_head(RefineMaskConfig())
    assert parameters(head) == 6_407_003
    assert giga(per_roi(head)) == pytest.approx(1.505, abs=5e-4)
    picture = count(head, [torch.empty((1, 256, 8, 8), device="meta")], method="maps")
    assert sum(picture.values()) / 64 == pytest.approx(2.474e6, rel=1e-3)  # per cell of P2
    assert parameters(meta_head(RefineMaskConfig(variant="simple"))) == 6_317_678
    assert parameters(meta_head(RefineMaskConfig(semantic=False))) == 3_758_813


def test_channels_halve_from_stage_to_stage() -> None:
    head = meta_head(RefineMaskConfig())
    assert [p.weight.shape for p in head.predictors] == [(80, 256), (80, 128), (80, 64), (80, 32)]
    assert [(p.feature, p.size, p.stride) for p in head.pools] == [
        ("pyramid", 14, None),
        ("refine14", 14, 4),
        ("refine28", 28, 4),
        ("refine56", 56, 4),
    ]
    maps = head.maps([torch.empty((2, 256, 20, 24), device="meta")])
    expected = {"refine14": 257, "refine28": 129, "refine56": 65, "semantic": 1}  # features and foreground probability
    assert {name: tuple(m.shape) for name, m in maps.items()} == {name: (2, c, 20, 24) for name, c in expected.items()}


def test_the_last_channel_of_a_map_is_the_semantic_probability() -> None:
    head = build("refinemask")
    maps = head.maps(pyramid(pictures()))
    for name in ("refine14", "refine28", "refine56"):
        torch.testing.assert_close(maps[name][:, -1:], torch.sigmoid(maps["semantic"]))


def test_a_stage_step_by_step() -> None:
    """The paper's module written out from its weights."""
    head = build("refinemask")
    assert isinstance(head, RefineMaskHead)
    stage, x = head.stages[1], torch.randn((2, 16, 28, 28))
    pooled_map, mask = torch.rand((2, 17, 28, 28)), torch.rand((2, 1, 28, 28))

    def conv(name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        weight, bias = stage.get_parameter(f"{name}.weight"), stage.get_parameter(f"{name}.bias")
        return F.relu(F.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation))

    detail, semantic = conv("pooled", pooled_map[:, :16]), pooled_map[:, 16:]
    fused = conv("fuse", torch.cat([x, detail, mask, semantic], 1))
    fused = conv("merge", sum(conv(f"branches.{i}", fused, d) for i, d in enumerate((1, 3, 5))))
    up = {"scale_factor": 2, "mode": "bilinear"}
    features = F.interpolate(conv("reduce", fused), **up, align_corners=False)
    masks = [F.interpolate(m, **up, align_corners=True) for m in (mask, semantic)]
    torch.testing.assert_close(stage(x, pooled_map, mask), torch.cat([features, *masks], 1))


def test_simple_stage_adds_the_mean_and_joins_before_upsampling() -> None:
    head = build("refinemask", variant="simple")
    stage, x = head.stages[0], torch.randn((2, 32, 14, 14))
    pooled_map, mask = torch.rand((2, 32, 14, 14)), torch.rand((2, 1, 14, 14))
    fused = stage.fuse(torch.cat([x, pooled_map, mask], 1))
    total = torch.stack([b(fused) for b in stage.branches]).sum(0) + fused.mean((2, 3), keepdim=True)
    joined = torch.cat([stage.reduce(stage.merge(total)), mask], 1)
    torch.testing.assert_close(stage(x, pooled_map, mask), F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False))
    last = head.stages[2](torch.randn((2, 8, 56, 56)), torch.rand((2, 8, 56, 56)), torch.rand((2, 1, 56, 56)))
    assert last.shape == (2, 4, 56, 56)
    assert [p.sampling_ratio for p in head.pools] == [2, 1, 1, 1]


def test_simple_variant_enlarges_its_last_logits() -> None:
    head = build("refinemask", variant="simple", refinement="none")
    assert isinstance(head, RefineMaskHead)
    inputs, targets = inputs_of(head)
    sizes = []
    handle = head.predictors[-1].register_forward_hook(lambda _, args, y: sizes.append(y))
    logits = head(inputs, targets.labels).logits
    handle.remove()
    torch.testing.assert_close(logits, enlarge(sizes[0], 112))
    assert head.predictors[-1].weight.shape[0] == 1


def test_composition() -> None:
    """Away from the outline of the 28x28 mask the result is that mask; with refinement off it is the last stage."""
    head = build("refinemask")
    assert isinstance(head, RefineMaskHead)
    inputs, targets = inputs_of(head)
    # Masks that follow the pictures, so that there is an outline: logits from the last input channel are as good as any.
    for predictor in head.predictors:
        torch.nn.init.normal_(predictor.weight, std=1.0)
    logits, _ = head.stage_logits(inputs, targets.labels)
    assert [x.shape[1] for x in logits] == [14, 28, 56, 112]
    mask = logits[1]
    for fine in logits[2:]:
        near = enlarge(head.infer_band(torch.sigmoid(mask) >= 0.5).float(), fine.shape[1]) >= 0.5
        mask = torch.where(near, fine, enlarge(mask, fine.shape[1]))
    composed = head(inputs, targets.labels).logits
    torch.testing.assert_close(composed, mask)
    raw = build("refinemask", refinement="none")
    raw.load_state_dict(head.state_dict())
    torch.testing.assert_close(raw(inputs, targets.labels).logits, logits[3])
    assert not torch.equal(composed, logits[3])


def test_training_returns_the_masks_of_inference() -> None:
    head = build("refinemask")
    targets = rois(pictures())
    levels = pyramid(targets.pictures)
    maps = head.maps(levels)
    inputs = pooled(head, levels, maps, targets)
    _, output = head.losses(maps, inputs, targets)
    torch.testing.assert_close(output.logits, head(inputs, targets.labels).logits, rtol=0, atol=0)


def test_semantic_target_is_the_union() -> None:
    targets = rois(pictures())
    found = union_mask(targets, (32, 32))
    assert found.shape == (4, 32, 32) and set(found.unique().tolist()) == {0.0, 1.0}
    two = torch.zeros((2, 20, 16), dtype=torch.uint8)
    two[0, :8, :8] = 1
    two[1, 4:20, 12:16] = 1
    picture = Target(boxes=torch.tensor([[0.0, 0, 8, 8], [12, 4, 16, 20]]), labels=torch.tensor([0, 1]), masks=two)
    nothing = Target(boxes=torch.zeros((0, 4)), labels=torch.zeros(0, dtype=torch.int64), masks=torch.zeros((0, 32, 32), dtype=torch.uint8))
    # The batch is padded to 32 x 32 pixels, 8 x 8 cells.
    union = union_mask(dataclasses.replace(targets, pictures=[picture, nothing]), (8, 8))
    expected = torch.zeros((8, 8))
    expected[:2, :2] = 1
    expected[1:5, 3] = 1
    assert torch.equal(union[0], expected) and not union[1].any()


def test_losses_by_name_and_weight() -> None:
    head = build("refinemask")
    losses, _ = run(head, rois(pictures()))
    assert set(losses) == {"mask", "semantic"}
    # Untrained, every pixel costs about log 2.
    assert losses["semantic"].item() == pytest.approx(0.693, abs=0.02)
    assert losses["mask"].item() == pytest.approx(2.5 * 0.693, abs=0.05)
    simple, _ = run(build("refinemask", variant="simple"), rois(pictures()))
    assert set(simple) == {"mask"} and simple["mask"].item() == pytest.approx(3 * 0.693, abs=0.05)
    heavy, _ = run(build("refinemask", semantic_weight=3.0), rois(pictures()))
    assert heavy["semantic"].item() == pytest.approx(3 * 0.693, abs=0.06)


@pytest.mark.parametrize(
    "options",
    [
        {"semantic": False},
        {"semantic": False, "variant": "simple"},
        {"stages": 1},
        {"stages": 2, "start_stage": 0, "last_stage_agnostic": True},
        {"start_stage": 3, "band_rule": "exact", "infer_width": 2},
        {"pool_size": 7, "source": "p2", "band_rule": "strict"},
        {"variant": "simple", "stages": 2, "band_rule": "inner", "train_width": 3},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    head = build("refinemask", **options)
    losses, logits = run(head, rois(pictures()))
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert logits.shape == (4, head.mask_size, head.mask_size)
    assert head.mask_size == head.config.pool_size * 2**head.config.stages


def test_weights_of_the_variants() -> None:
    assert RefineMaskConfig().weights == (0.25, 0.5, 0.75, 1.0)
    assert RefineMaskConfig(variant="simple").weights == (0.5, 0.75, 0.75, 1.0)
    assert RefineMaskConfig(stages=1).weights == (0.5, 1.0)
    assert RefineMaskConfig(stages=1, stage_weights=(0.0, 2.0)).weights == (0.0, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "fast"}, "'original' or 'simple'"),
        ({"channels": 16}, "must not fall below 3"),
        ({"channels": 100}, "halved by each of 3 stages"),
        ({"stage_weights": (1.0, 1.0)}, "needs 4 values"),
        ({"start_stage": 4}, "0 to 3"),
        ({"band_rule": "soft"}, "fraction, strict, exact, inner"),
        ({"dilations": ()}, "dilations"),
        ({"infer_width": 0}, "at least 1"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RefineMaskConfig(**options)

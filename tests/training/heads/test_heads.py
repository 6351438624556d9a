"""What every row of HEADS has to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from sdk.errors import ConfigError
from tests.trained import TINY
from tests.training.heads.cases import CLASSES, SIDE, build, fit, pictures, pooled, pyramid, rois, run
from training.config import TrainConfig
from training.heads import HEADS
from training.models.detector import Detector
from training.models.ops import paste_masks

CHANGED: dict[str, dict[str, Any]] = {  # options other than the defaults, one of each kind
    "fcn": {"convs": 8},
    "bmask": {"boundary_loss": "weighted_bce", "boundary_source": "pyramid", "boundary_pool": 14, "mask_to_boundary": False},
    "refinemask": {"variant": "simple", "dilations": (1, 2), "stages": 2, "stage_weights": (0.5, 0.5, 2.0), "last_stage_agnostic": False},
    "brefine": {"stages": 2, "branches": 2, "dilations": (2, 4, 6), "mask_loss": "focal", "upsample": "transposed", "erosion_steps": 3},
    "beis": {"stages": 2, "band_widths": (1, 2, 3), "p2": "first", "tau": 0.5, "adaptive_keys": False},
}
# Every other kind of option of the heads whose own tests do not go through all of theirs.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("fcn", {"source": "p2"}),
    ("fcn", {"sampling_ratio": 0, "aligned": False}),
    ("refinemask", {"refinement": "none", "stage_weights": (0.5, 0.75, 0.75, 1.0)}),
    ("brefine", {"stages": 1, "source": "p2"}),
    ("brefine", {"branches": 1, "residual": False, "erosion_steps": 9}),
    ("beis", {"stages": 0}),
    ("beis", {"stages": 4}),
    ("beis", {"ibdl": False}),
    ("beis", {"cbdl": False}),
    ("beis", {"adaptive_queries": False, "push_once": False}),
    ("beis", {"adaptive_keys": False}),
    ("beis", {"bef_dim": 8}),
    ("beis", {"bef_dim": 8, "bank_shared": True}),
    ("beis", {"literal": True}),
    ("beis", {"normalize": True, "tau": 0.1}),
]
# What four pictures need where it is not 80 iterations. BEIS's contrast and its masks pull apart for long: one refinement stage
# here, all of them in a slow test.
FIT: dict[str, dict[str, Any]] = {"refinemask": {"iterations": 100}, "beis": {"iterations": 200, "stages": 1}}

every_head = pytest.mark.parametrize("name", HEADS)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@every_head
def test_shapes(name: str) -> None:
    head = build(name)
    targets = rois(pictures())
    levels = pyramid(targets.pictures)
    inputs = pooled(head, levels, head.maps(levels), targets)
    assert [tuple(x.shape[2:]) for x in inputs] == [(p.size, p.size) for p in head.pools]
    output = head(inputs, targets.labels)
    assert output.logits.shape == (4, head.mask_size, head.mask_size) and output.logits.dtype == torch.float32
    assert output.features.shape == (4, head.features, head.pools[0].size, head.pools[0].size)


@every_head
def test_a_mask_depends_on_its_own_roi_alone(name: str) -> None:
    head = build(name)
    targets = rois(pictures())
    levels = pyramid(targets.pictures)
    inputs = pooled(head, levels, head.maps(levels), targets)
    with torch.no_grad():
        together = head(inputs, targets.labels).logits
        alone = torch.cat([head([x[i : i + 1] for x in inputs], targets.labels[i : i + 1]).logits for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@every_head
def test_the_label_chooses_the_mask(name: str) -> None:
    head = build(name)
    targets = rois(pictures(), 1)
    levels = pyramid(targets.pictures)
    inputs = pooled(head, levels, head.maps(levels), targets)
    with torch.no_grad():
        masks = [head(inputs, torch.tensor([label])).logits for label in range(CLASSES)]
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])


@every_head
def test_gradient_reaches_every_parameter(name: str) -> None:
    head = build(name)
    losses, _ = run(head, rois(pictures()))
    torch.stack(list(losses.values())).sum().backward()
    missing = [n for n, p in head.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert missing == []


@pytest.mark.parametrize(("name", "options"), [*CHANGED.items(), *OPTIONS], ids=str)
def test_gradient_reaches_every_parameter_with_every_option(name: str, options: dict[str, Any]) -> None:
    head = build(name, **options)
    losses, logits = run(head, rois(pictures()))
    torch.stack(list(losses.values())).sum().backward()
    assert torch.isfinite(logits).all()
    missing = [n for n, p in head.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert missing == []
    nothing, none = run(head, rois(pictures(), 0))
    assert torch.isfinite(torch.stack(list(nothing.values())).sum()) and none.shape == (0, head.mask_size, head.mask_size)


@every_head
def test_half_precision_gives_nearly_the_same_losses(name: str) -> None:
    """Autocast as the trainer does it: losses are computed in float32 whatever the layers before them."""
    torch.manual_seed(1)
    exact, _ = run(build(name), rois(pictures()))
    torch.manual_seed(1)
    head = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, logits = run(head, rois(pictures()))
    assert logits.isfinite().all() and set(rounded) == set(exact)
    for key, value in rounded.items():
        assert value.dtype == torch.float32, key
        assert value.item() == pytest.approx(exact[key].item(), rel=0.05, abs=0.02), key
    torch.stack(list(rounded.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@every_head
def test_training_only_names_exist_and_do_not_change_the_masks(name: str) -> None:
    head = build(name).eval()
    targets = rois(pictures())
    before = run(head, targets)[1]
    extra = [(n, p) for n, p in head.named_parameters() if n.startswith(head.training_only)]
    for _, parameter in extra:
        torch.nn.init.constant_(parameter, 7.0)
    torch.testing.assert_close(run(head, targets)[1], before, rtol=0, atol=0)


@every_head
def test_no_foreground(name: str) -> None:
    head = build(name)
    losses, logits = run(head, rois(pictures(), 0))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total) and logits.shape == (0, head.mask_size, head.mask_size)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@every_head
def test_pictures_without_objects(name: str) -> None:
    empty = [dataclasses.replace(t, boxes=t.boxes[:0], labels=t.labels[:0], masks=t.masks[:0]) for t in pictures()]
    head = build(name)
    levels = pyramid(pictures())
    targets = dataclasses.replace(rois(pictures(), 0), pictures=empty)
    maps = head.maps(levels)
    losses, _ = head.losses(maps, pooled(head, levels, maps, targets), targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)


@every_head
@pytest.mark.parametrize("options", ["default", "changed"])
def test_configuration_round_trip(name: str, options: str) -> None:
    values = CHANGED[name] if options == "changed" else {}
    head = HEADS[name].config_type(name=name, **values)
    config = TrainConfig(model=dataclasses.replace(TINY.model, head=head))
    again = TrainConfig.from_dict(config.to_dict())
    assert again == config and type(again.model.head) is type(head)
    assert all(getattr(again.model.head, key) == value for key, value in values.items())


@every_head
def test_unknown_option_names_the_closest(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown key 'chanels'; did you mean 'channels'"):
        HEADS[name].config_type.from_dict({"name": name, "chanels": 3})


@every_head
def test_overfits_four_pictures(name: str) -> None:
    options = {"iterations": 80, **FIT.get(name, {})}
    iou = fit(rois(pictures()), options.pop("iterations"), 5e-3, name=name, **options)
    assert iou.min() >= 0.95, iou


@pytest.mark.slow
def test_beis_overfits_four_pictures_with_all_its_stages() -> None:
    assert fit(rois(pictures()), 250, 5e-3, name="beis").min() >= 0.95


@every_head
def test_detector_trains_and_predicts(name: str) -> None:
    """The head inside the detector: pictures with and without objects, then a prediction without detections."""
    config = dataclasses.replace(TINY.model, head=HEADS[name].config_type(name=name, channels=24))
    model = Detector(config).train()
    targets = pictures()[:2]
    targets[0] = dataclasses.replace(targets[0], labels=torch.tensor([1]))
    targets[1] = dataclasses.replace(
        targets[1], boxes=torch.zeros((0, 4)), labels=torch.zeros(0, dtype=torch.int64), masks=targets[1].masks[:0]
    )
    images = torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    losses = model.losses(images, [(128, 128)] * 2, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in model.mask_head.parameters() if p.requires_grad)
    silent = dataclasses.replace(config, box=dataclasses.replace(config.box, score_threshold=0.999))
    found = Detector(silent).eval().predict(images[:1], [(128, 128)])[0]
    assert found.mask_logits.shape == (0, model.mask_head.mask_size, model.mask_head.mask_size)


@pytest.mark.slow
@every_head
def test_detector_overfits_four_pictures(name: str) -> None:
    """Everything at once: features, boxes and masks of four pictures, found again with the outlines they were trained on."""
    head = HEADS[name].config_type(name=name, channels=32, **{k: v for k, v in FIT.get(name, {}).items() if k != "iterations"})
    box = TINY.model.box.replace(samples=64, positive_fraction=0.0625)  # few masks, which cost most, and enough background
    config = TINY.model.replace(class_names=tuple("abc"), category_ids=(1, 2, 3), head=head, norm="group", box=box)
    model = Detector(config).train()
    targets = pictures()
    shapes = torch.stack([t.masks[0].float() for t in targets])[:, None]
    images = (2 * shapes - 1).repeat(1, 3, 1, 1) + 0.1 * torch.randn((4, 3, SIDE, SIDE))
    sizes = [(SIDE, SIDE)] * 4
    iterations = 400  # with half of them the detector itself may still miss an edge of a box
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, iterations)
    for _ in range(iterations):
        optimizer.zero_grad()
        torch.stack(list(model.losses(images, sizes, targets).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    best = []
    for found, target in zip(model.eval().predict(images, sizes), targets, strict=True):
        own = found.labels == target.labels[0]
        pasted = paste_masks(found.mask_logits[own][:1], found.boxes[own][:1], (SIDE, SIDE)).any(0)  # by score: the best
        truth = target.masks[0].bool()
        best.append(((pasted & truth).sum() / (pasted | truth).sum()).item())
    assert sum(best) / 4 >= 0.95, best

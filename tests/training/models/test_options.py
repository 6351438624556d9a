"""Detection losses, cascade and Mask Scoring in every combination, at a tiny width."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sdk.config import ResizeRule
from sdk.errors import ConfigError
from training.config import BoxConfig, CascadeConfig, HeadConfig, ModelConfig, RankSortConfig, RPNConfig, ScoringConfig
from training.heads.beis import BEISConfig
from training.heads.bmask import BMaskConfig
from training.heads.brefine import BRefineConfig
from training.heads.fcn import FCNConfig
from training.heads.refinemask import RefineMaskConfig
from training.models.detector import Detector, Target

SIZE = 64
CLASSES = ("a", "b", "c")
HEADS: dict[str, HeadConfig] = {
    "fcn": FCNConfig(channels=8, convs=1),
    "fcn-p2": FCNConfig(channels=8, convs=1, source="p2"),
    "bmask": BMaskConfig(channels=8, convs=1, boundary_convs=1),
    "refinemask": RefineMaskConfig(channels=8, stages=1),
    "brefine": BRefineConfig(channels=8, convs=1, stages=2),
    "beis": BEISConfig(channels=8, stages=1, bank_length=128),
}


def config(loss: str = "ce_l1", *, cascade: bool = False, scoring: bool = False, head: str = "fcn", **box: object) -> ModelConfig:
    return ModelConfig(
        class_names=CLASSES,
        category_ids=(1, 2, 3),
        backbone="resnet18",
        width=8,
        norm="batch",
        fpn_channels=16,
        resize=ResizeRule(factor=1.0, long=SIZE),
        rpn=RPNConfig(anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0), pre_nms_train=50, post_nms_train=50, post_nms_test=50, samples=2048),
        box=BoxConfig(hidden=32, samples=32, max_detections=10).replace(**box),
        head=HEADS[head],
        detection_loss=loss,
        cascade=CascadeConfig() if cascade else None,
        scoring=ScoringConfig(channels=8, convs=2, hidden=16) if scoring else None,
    )


def target(*boxes: tuple[int, int, int, int]) -> Target:
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    labels = torch.arange(len(boxes)) % len(CLASSES)
    return Target(boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=labels, masks=masks)


TWO = [target((12, 10, 50, 40), (2, 30, 22, 60)), target((5, 5, 30, 30))]
COMBINATIONS = [
    pytest.param(loss, cascade, scoring, head, id=f"{loss}-{'cascade' if cascade else 'one'}-{'scoring' if scoring else 'plain'}-{head}")
    for loss in ("ce_l1", "rs_giou")
    for cascade in (False, True)
    for scoring in (False, True)
    for head in (HEADS if cascade and scoring else ("fcn", "bmask"))  # all of them with everything
]


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    assert all(value.ndim == 0 for value in losses.values())
    return torch.stack(list(losses.values())).sum()


def train_once(model: Detector, targets: list[Target]) -> dict[str, torch.Tensor]:
    images = torch.randn(len(targets), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    losses = model.train().losses(images, [(SIZE, SIZE)] * len(targets), targets)
    total(losses).backward()
    assert torch.isfinite(total(losses)), losses
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    return losses


@pytest.mark.parametrize(("loss", "cascade", "scoring", "head"), COMBINATIONS)
def test_gradient_reaches_every_parameter_and_predictions_fit(loss: str, cascade: bool, scoring: bool, head: str) -> None:
    torch.manual_seed(0)
    model = Detector(config(loss, cascade=cascade, scoring=scoring, head=head, score_threshold=0.0))
    train_once(model, TWO)
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []
    found = model.eval().predict(torch.randn(1, 3, SIZE, SIZE), [(SIZE, SIZE - 4)])[0]
    assert len(found.boxes) == len(found.scores) == len(found.labels) == len(found.mask_logits) == 10
    assert (found.scores[:-1] >= found.scores[1:]).all() and (found.scores >= 0).all() and (found.scores <= 1).all()
    assert found.labels.max() < 3 and found.boxes[:, 2].max() <= SIZE - 4 and found.boxes.min() >= 0


@pytest.mark.parametrize(("loss", "cascade", "scoring", "head"), COMBINATIONS)
def test_nothing_to_find(loss: str, cascade: bool, scoring: bool, head: str) -> None:
    """Zero ground truth in all or some pictures, no proposals, no foreground, no detections."""
    torch.manual_seed(0)
    model = Detector(config(loss, cascade=cascade, scoring=scoring, head=head, score_threshold=0.999))
    train_once(model, [target(), target()])
    train_once(model, [target(), TWO[0]])
    with torch.no_grad():
        model.rpn.head.deltas.bias.fill_(float("-inf"))  # every box collapses, so nothing is proposed
    losses = model.losses(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)], [target()])
    assert all(torch.isfinite(v) for k, v in losses.items() if k != "rpn_box" or loss == "rs_giou")  # 0 * -inf: only of this test
    found = model.eval().predict(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])[0]
    assert found.boxes.shape == (0, 4) and found.mask_logits.shape == (0, model.mask_head.mask_size, model.mask_head.mask_size)
    assert found.scores.shape == (0,) and found.labels.dtype == torch.int64


def test_names_without_cascade_are_the_old_ones() -> None:
    names = set(Detector(config()).state_dict())
    assert {n for n in names if "box_head" in n} == {
        f"box_head.{m}.{p}" for m in ("fc1", "fc2", "classes", "deltas") for p in ("weight", "bias")
    }
    assert names < set(Detector(config(cascade=True, scoring=True)).state_dict()) and not any("scor" in n for n in names)


def test_box_heads_lists_the_stages() -> None:
    assert len(Detector(config()).box_heads) == 1
    heads = Detector(config("rs_giou", cascade=True)).box_heads
    assert [h.config.foreground_iou for h in heads] == [0.5, 0.6, 0.7]
    assert [h.config.coder_weights[0] for h in heads] == [10, 20, 30]
    assert {h.deltas.out_features for h in heads} == {4} and {h.classes.out_features for h in heads} == {3}


def test_configuration_round_trip_and_refusals() -> None:
    full = config("rs_giou", cascade=True, scoring=True, train_on_pred_boxes=True)
    assert ModelConfig.from_dict(full.to_dict()) == full
    old = {k: v for k, v in config().to_dict().items() if k not in ("detection_loss", "rank_sort", "cascade", "scoring")}
    for key in ("class_agnostic", "box_loss", "beta", "class_weight", "box_weight", "train_on_pred_boxes"):
        del old["box"][key]
    assert ModelConfig.from_dict(old) == config()
    for wrong in (
        lambda: config("focal"),
        lambda: BoxConfig(box_loss="l2"),
        lambda: BoxConfig(beta=0.0),
        lambda: RPNConfig(box_loss="iou"),
        lambda: CascadeConfig(ious=(0.5,)),
        lambda: RankSortConfig(delta=0.0),
        lambda: ScoringConfig(convs=0),
    ):
        with pytest.raises(ConfigError):
            wrong()


def test_weights_of_the_box_losses() -> None:
    """RefineMask doubles both."""
    torch.manual_seed(0)
    model = Detector(config())
    doubled = Detector(config(class_weight=2.0, box_weight=2.0))
    doubled.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    once = train_once(model, TWO)
    torch.manual_seed(1)
    twice = train_once(doubled, TWO)
    for name, value in once.items():
        factor = 2 if name.startswith("box") else 1
        torch.testing.assert_close(twice[name], factor * value, msg=name)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou"])
@pytest.mark.parametrize("cascade", [False, True])
def test_box_losses_train(kind: str, cascade: bool) -> None:
    torch.manual_seed(0)
    settings = config(cascade=cascade, box_loss=kind)
    model = Detector(dataclasses.replace(settings, rpn=settings.rpn.replace(box_loss=kind)))
    losses = train_once(model, TWO)
    assert losses["box_regression"] > 0 and losses["rpn_box"] > 0


def test_rs_giou_balances_every_stage() -> None:
    """Each box loss is worth its stage's ranking loss, and the mask losses together the first box stage's."""
    torch.manual_seed(0)
    losses = train_once(Detector(config("rs_giou", cascade=True, head="bmask")), TWO)
    for stage in ("rpn", "box", "box2", "box3"):
        box = losses["rpn_box" if stage == "rpn" else f"{stage}_regression"]
        torch.testing.assert_close(box, losses[f"{stage}_rank"] + losses[f"{stage}_sort"])
    torch.testing.assert_close(losses["mask"] + losses["boundary"], losses["box_rank"] + losses["box_sort"])


def test_rpn_weight_and_balance_switch() -> None:
    settings = config("rs_giou")
    runs = {}
    for weight, balance in ((1.0, False), (0.2, False)):
        torch.manual_seed(0)
        model = Detector(dataclasses.replace(settings, rank_sort=RankSortConfig(rpn_weight=weight, balance=balance)))
        runs[weight] = train_once(model, TWO)
    for name in ("rpn_rank", "rpn_sort", "rpn_box"):
        torch.testing.assert_close(runs[0.2][name], 0.2 * runs[1.0][name])
    assert runs[1.0]["mask"] > 0 and abs(runs[1.0]["mask"] - runs[1.0]["box_rank"] - runs[1.0]["box_sort"]) > 1e-3


def test_mask_rois_of_rs_giou_are_capped_and_keep_their_weights() -> None:
    torch.manual_seed(0)
    settings = config("rs_giou")
    model = Detector(dataclasses.replace(settings, rank_sort=RankSortConfig(mask_cap=2))).train()
    outcome = outcome_of(model)
    assert len(outcome.rois.foreground()) > 2 and outcome.weights is not None
    for _ in range(5):
        chosen = model.mask_targets(outcome, TWO)
        assert len(chosen) == 2 and chosen.weights is not None
        for box, batch, label, weight in zip(chosen.boxes, chosen.batch, chosen.labels, chosen.weights, strict=True):
            same = (outcome.rois.boxes == box).all(1) & (outcome.rois.batch == batch)
            assert (outcome.rois.labels[same] == label).all() and (outcome.weights[same] == weight).all()


def outcome_of(model: Detector):  # type: ignore[no-untyped-def]
    from training.models.cascade import train_stages

    pyramid = model.pyramid(torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    sizes = [(SIZE, SIZE)] * 2
    proposals = model.rpn.propose(*model.rpn(pyramid), sizes)
    near = [t.boxes + torch.tensor([1.0, -1, 2, 1]) for t in TWO]
    proposals = [torch.cat([p, n.clamp(0, SIZE)]) for p, n in zip(proposals, near, strict=True)]
    return train_stages(model.box_heads, model.box_input(pyramid), proposals, TWO, sizes, model.config)


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("loss", ["ce_l1", "rs_giou"])
def test_train_on_predicted_boxes(loss: str, cascade: bool) -> None:
    """Foreground and labels are the proposals'; the boxes are those of the last stage, without gradient."""
    torch.manual_seed(0)
    model = Detector(config(loss, cascade=cascade, train_on_pred_boxes=True)).train()
    with torch.no_grad():
        for head in model.box_heads:
            head.deltas.bias.normal_(0, 0.5)
    outcome = outcome_of(model)
    chosen, fg = model.mask_targets(outcome, TWO), outcome.rois.foreground()
    assert 0 < len(chosen) <= len(fg) and not chosen.boxes.requires_grad
    assert chosen.boxes.min() >= 0 and chosen.boxes.max() <= SIZE
    assert ((outcome.predicted[fg][:, None] == chosen.boxes[None]).all(-1).any(0)).all()
    assert not (outcome.rois.boxes[fg][:, None] == chosen.boxes[None]).all(-1).any()
    train_once(model, TWO)


def test_a_predicted_box_that_vanishes_is_left_out() -> None:
    torch.manual_seed(0)
    model = Detector(config(train_on_pred_boxes=True)).train()
    outcome = outcome_of(model)
    fg = outcome.rois.foreground()
    outcome.predicted[fg[0]] = torch.tensor([5.0, 5, 5, 9])
    assert len(model.mask_targets(outcome, TWO)) == len(fg) - 1

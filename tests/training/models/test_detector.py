import dataclasses

import pytest
import torch

from tests.trained import TINY
from training.config import BoxConfig, ModelConfig, RPNConfig
from training.heads import HEADS
from training.heads.fcn import FCNConfig
from training.models.backbones import freeze_stem
from training.models.box_head import BoxHead, sample_rois
from training.models.detector import Detector, Target
from training.models.matching import BACKGROUND, IGNORED, match, sample
from training.models.resnet import BasicBlock, FrozenBatchNorm, build_resnet
from training.models.rpn import base_anchors


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def one_target(size: int = 64) -> Target:
    masks = torch.zeros(1, size, size, dtype=torch.uint8)
    masks[:, 10:40, 12:50] = 1
    return Target(boxes=torch.tensor([[12.0, 10, 50, 40]]), labels=torch.tensor([1]), masks=masks)


def empty_target(size: int = 64) -> Target:
    return Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), masks=torch.zeros(0, size, size, dtype=torch.uint8))


def test_parameter_counts() -> None:
    # Published figures: ResNet-18 and -50 without their classifier; 2.643 M for the mask head at 80 classes.
    assert parameters(build_resnet("resnet18")) == 11_689_512 - 513_000
    assert parameters(build_resnet("resnet50")) == 25_557_032 - 2_049_000
    assert parameters(HEADS["fcn"](FCNConfig(), 256, 80)) == pytest.approx(2_643_000, abs=1000)
    # FPN, RPN and box head of the standard R50 model at 80 classes: 44.2 M in all with the mask head.
    coco = ModelConfig(class_names=tuple(map(str, range(80))), category_ids=tuple(range(80)), norm="batch")
    assert parameters(Detector(coco)) == pytest.approx(44_400_000, abs=100_000)
    assert parameters(BoxHead(BoxConfig(), 256, 80)) == 256 * 49 * 1024 + 1024 + 1024 * 1025 + 1025 * 81 + 1025 * 320


def test_resnet_names_are_torchvisions() -> None:
    names = set(build_resnet("resnet18").state_dict())
    for name in ("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"):
        assert name in names
    assert "layer3.5.conv3.weight" in build_resnet("resnet50").state_dict()


def test_frozen_batch_norm_equals_batch_norm_in_evaluation() -> None:
    body, frozen = build_resnet("resnet18", 8, "batch"), build_resnet("resnet18", 8, "frozen")
    for module in body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
    frozen.load_state_dict(body.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(body.eval()(x), frozen(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert not list(p for m in frozen.modules() if isinstance(m, FrozenBatchNorm) for p in m.parameters())


def test_freeze_stem_leaves_later_stages_trainable() -> None:
    body = build_resnet("resnet18", 8, "batch")
    freeze_stem(body)
    trainable = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert trainable == {"layer2", "layer3", "layer4"}
    assert isinstance(body.layer1[0], BasicBlock)


def test_base_anchors() -> None:
    anchors = base_anchors(32, (0.5, 1.0, 2.0))
    w, h = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    torch.testing.assert_close(w * h, torch.full((3,), 1024.0))
    torch.testing.assert_close(h / w, torch.tensor([0.5, 1.0, 2.0]))


def test_match_rules() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 5, 3], [52, 52, 66, 66], [90, 90, 99, 99]])
    assert match(boxes, truth, 0.3, 0.7, allow_low_quality=False).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND, BACKGROUND]
    assert match(boxes, truth, 0.3, 0.7, allow_low_quality=True).tolist() == [0, IGNORED, BACKGROUND, 1, BACKGROUND]
    assert match(boxes, truth[:0], 0.3, 0.7, allow_low_quality=True).tolist() == [BACKGROUND] * 5


def test_sample_keeps_to_its_limits() -> None:
    matched = torch.tensor([0] * 50 + [BACKGROUND] * 100 + [IGNORED] * 10)
    positive, negative = sample(matched, 40, 0.25)
    assert len(positive) == 10 and len(negative) == 30
    assert (matched[positive] == 0).all() and (matched[negative] == BACKGROUND).all()
    assert len(positive.unique()) == 10
    positive, negative = sample(matched[:53], 40, 0.25)
    assert len(positive) == 10 and len(negative) == 3


def test_ground_truth_joins_the_proposals() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]])
    rois = sample_rois([torch.tensor([[80.0, 80, 90, 90]])], [truth], [torch.tensor([1])], BoxConfig(samples=8), 2)
    assert rois.boxes.tolist() == [[0.0, 0, 10, 10], [80, 80, 90, 90]]
    assert rois.labels.tolist() == [1, 2] and rois.truth.tolist() == [0, -1]


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradient_reaches_every_parameter(norm: str) -> None:
    torch.manual_seed(0)
    model = Detector(dataclasses.replace(TINY.model, norm=norm)).train()
    losses = model.losses(torch.randn(2, 3, 64, 64), [(64, 64)] * 2, [one_target(), one_target()])
    torch.stack(list(losses.values())).sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


@pytest.mark.parametrize("targets", [[empty_target(), empty_target()], [one_target(), empty_target()]])
def test_pictures_without_objects_train(targets: list[Target]) -> None:
    torch.manual_seed(0)
    model = Detector(TINY.model).train()
    losses = model.losses(torch.randn(2, 3, 64, 64), [(64, 64)] * 2, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_predict_without_detections() -> None:
    torch.manual_seed(0)
    model = Detector(dataclasses.replace(TINY.model, box=dataclasses.replace(TINY.model.box, score_threshold=0.999))).eval()
    found = model.predict(torch.zeros(1, 3, 64, 64), [(64, 64)])[0]
    assert found.boxes.shape == (0, 4) and found.mask_logits.shape == (0, 28, 28)
    assert found.scores.shape == (0,) and found.labels.dtype == torch.int64


def test_no_proposals_at_all() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY.model, rpn=RPNConfig(anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0)))
    model = Detector(config).eval()
    with torch.no_grad():
        model.rpn.head.deltas.bias.fill_(float("-inf"))  # every box collapses
        found = model.predict(torch.zeros(1, 3, 64, 64), [(64, 64)])[0]
    assert len(found.boxes) == 0


def test_class_slice_equals_the_full_predictor() -> None:
    torch.manual_seed(0)
    predictor = HEADS["fcn"](FCNConfig(channels=8), 8, 5).predictor
    torch.nn.init.normal_(predictor.bias)
    x, labels = torch.randn(6, 8, 4, 4), torch.tensor([0, 4, 2, 2, 1, 3])
    full = torch.nn.functional.conv2d(x, predictor.weight[:, :, None, None], predictor.bias)
    torch.testing.assert_close(predictor(x, labels), full[torch.arange(6), labels])


def test_model_fits_the_training_pictures(tiny_model: Detector, ellipses) -> None:  # type: ignore[no-untyped-def]
    """The small detector finds what it was trained on, with outlines that fit."""
    import numpy as np

    from export.verify import predict_torch
    from training.data.coco import CocoInstances
    from training.models.ops import paste_masks

    data = CocoInstances(ellipses / "annotations/train.json", ellipses / "train", TINY.model.category_ids)
    ious = []
    for index in range(4):
        image, masks, labels = data.load(index)
        found = predict_torch(tiny_model, image)
        pasted = paste_masks(found.mask_logits, found.boxes, image.shape[:2]).numpy()[found.scores.numpy() > 0.5]
        mine = found.labels.numpy()[found.scores.numpy() > 0.5]
        for mask, label in zip(masks.astype(bool), labels, strict=True):
            same = pasted[mine == label]
            ious.append(max([((m & mask).sum() / (m | mask).sum()) for m in same], default=0.0))
    assert np.mean(ious) > 0.85

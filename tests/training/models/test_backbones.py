"""The backbones against recorded values of torchvision and timm, published counts, and their own ONNX graphs."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.graphs import export_module, plain_batch_norm
from sdk.errors import ConfigError
from tests.training.models.record_reference_features import COUNTER, FILE, fill, layout_digest, picture, summary
from training.models.backbones import BACKBONES, build_backbone, freeze_stem, load_imagenet
from training.models.fpn import FPN
from training.models.hrnet import HRNet, HRNetShape, build_hrnet
from training.models.resnet import NORMS, BlockStyle, Bottleneck, FrozenBatchNorm, ResNet, build_resnet
from training.models.swin import Swin, SwinShape, Windows

REFERENCE = json.loads(FILE.read_text())["backbones"]
SLOW_TO_BUILD = {"hrnet_w18", "hrnet_w48"}
HEAVY = {"swin_t", "resnet101", "resnext101_32x8d", "resnext101_64x4d", "swin_b"}
RECORDED = [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in REFERENCE]

# Parameters of the published classifiers and of their last layers, and multiply-adds at 224 x 224 (10^9), as torchvision states them.
PUBLISHED = {
    "resnet18": (11_689_512, 513_000, 1.814),
    "resnet50": (25_557_032, 2_049_000, 4.089),
    "resnet101": (44_549_160, 2_049_000, 7.801),
    "resnext101_32x8d": (88_791_336, 2_049_000, 16.414),
    "resnext101_64x4d": (83_455_272, 2_049_000, 15.46),
    "swin_t": (28_288_354, 769_000, 4.491),
    "swin_b": (87_768_224, 1_025_000, 15.431),
}
# One small network of each kind of body.
SMALL = {
    "resnet": lambda norm: build_resnet("resnet18", 8, norm),
    "resnext": lambda norm: ResNet(Bottleneck, (1, 1, 1, 1), 8, NORMS[norm], BlockStyle(groups=4, group_width=16)),
    "caffe2": lambda norm: ResNet(Bottleneck, (1, 1, 1, 1), 8, NORMS[norm], BlockStyle(stride_in_1x1=True)),
    "hrnet": lambda norm: HRNet(HRNetShape(stem_blocks=1, modules=(1, 1, 1), blocks=1, width=32), 8, NORMS[norm]),
    "hrnet bilinear": lambda norm: HRNet(HRNetShape(stem_blocks=1, modules=(1, 1, 1), blocks=1, width=18), 16, NORMS[norm], "bilinear"),
    "swin": lambda norm: Swin(SwinShape(channels=64, depths=(1, 2, 1, 1), heads=(1, 2, 4, 8)), 8),
}


def is_added(body: nn.Module, name: str) -> bool:
    """Whether a detector has this layer and a classifier does not."""
    return name.startswith(body.added or ("\0",))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def macs(module: nn.Module, *size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *size, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", RECORDED)
def test_names_and_features_are_those_of_the_published_models(name: str) -> None:
    body = build_backbone(name).eval()
    assert layout_digest(body.state_dict(), body.added or ("\0",)) == REFERENCE[name]["layout"]
    new = {n: v.clone() for n, v in body.state_dict().items() if is_added(body, n)}
    fill(body)
    body.load_state_dict({**body.state_dict(), **new})
    with torch.no_grad():
        levels = summary(body(picture()))
    assert len(levels) == len(REFERENCE[name]["levels"]) == 4
    for got, want in zip(levels, REFERENCE[name]["levels"], strict=True):
        assert got["shape"] == want["shape"]
        scale = max(1.0, want["largest"])
        assert got["largest"] == pytest.approx(want["largest"], abs=1e-4 * scale)
        np.testing.assert_allclose(got["values"], want["values"], atol=1e-4 * scale, rtol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    total, classifier, billions = PUBLISHED[name]
    with torch.device("meta"):
        body = build_backbone(name)
    own = sum(p.numel() for n, p in body.named_parameters() if is_added(body, n))
    assert parameters(body) - own == total - classifier
    last_layer = body.channels[-1] * 1000
    assert (macs(body, 3, 224, 224) + last_layer) / 1e9 == pytest.approx(billions, abs=6e-4)


def test_hrnet_counts() -> None:
    """Parameters of the bodies, the first three with four input channels as the refiner has them, and W32's multiply-adds."""
    with torch.device("meta"):
        refiners = [build_hrnet(name, inputs=4) for name in ("hrnet_w18_small_v2", "hrnet_w18", "hrnet_w48")]
        w32 = build_hrnet("hrnet_w32")
    assert [round(parameters(b) / 1e6, 2) for b in refiners] == [3.86, 9.56, 65.33]
    # timm's classifier has 41,232,680 and 8.92 G: this, and the 11,927,144 parameters of its last layers.
    assert parameters(w32) == 29_305_536 and w32.channels == [32, 64, 128, 256]
    assert macs(w32, 3, 224, 224) / 1e9 == pytest.approx(7.891, abs=6e-4)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW_TO_BUILD else []) for n in sorted(BACKBONES)])
def test_strides_and_channels(name: str) -> None:
    with torch.device("meta"):
        body = build_backbone(name)
    levels = body(torch.zeros(2, 3, 64, 96, device="meta"))
    assert [tuple(level.shape) for level in levels] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(body.channels, (4, 8, 16, 32), strict=True)
    ]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"backbone: expected one of resnet18, .* got 'resnet19'"):
        build_backbone("resnet19")
    with pytest.raises(ConfigError, match="norm: expected one of batch, frozen, group, got 'layer'"):
        build_backbone("resnet18", norm="layer")
    with pytest.raises(ValueError, match="width 8 leaves no channel for groups of width 4"):
        build_backbone("resnext101_64x4d", 8)


def test_slim_networks() -> None:
    assert build_resnet("resnet18", 16).channels == [16, 32, 64, 128]
    assert build_hrnet("hrnet_w32", 16).channels == [8, 16, 32, 64]
    with torch.device("meta"):
        assert build_backbone("swin_b", 16).channels == [32, 64, 128, 256]


def classifier_state(body: nn.Module) -> dict[str, torch.Tensor]:
    """What a file of ImageNet weights holds: the body's layers with other values, a classifier, no layers of the detector's own."""
    torch.manual_seed(1)
    state = {n: torch.rand_like(v) if v.is_floating_point() else v for n, v in body.state_dict().items() if not is_added(body, n)}
    return {**state, f"{body.classifier[-1]}weight": torch.zeros(1000, 8)}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_imagenet_weights_load(kind: str, norm: str) -> None:
    state = classifier_state(SMALL[kind]("batch"))
    without_counters = {n: v for n, v in state.items() if not n.endswith(COUNTER)}
    for given in (state, without_counters):
        body = SMALL[kind](norm)
        own = {n: v.clone() for n, v in body.state_dict().items() if is_added(body, n)}
        load_imagenet(body, given)
        for name, value in body.state_dict().items():
            if not name.endswith(COUNTER):
                torch.testing.assert_close(value, {**state, **own}[name])


@pytest.mark.parametrize("kind", SMALL)
def test_weights_that_do_not_fit_are_named(kind: str) -> None:
    body = SMALL[kind]("batch")
    state = classifier_state(body)
    first = next(n for n in state if n.endswith("weight"))
    before = {n: v.clone() for n, v in body.state_dict().items()}
    for change, message in (
        ({"layer9.weight": torch.zeros(1)}, "left over: layer9.weight$"),
        ({first: state[first][:, :1]}, rf"wrong shape: {re.escape(first)} \(.*\) instead of \(.*\)$"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_imagenet(body, {**state, **change})
    with pytest.raises(ConfigError, match=rf"missing: {re.escape(first)}$"):
        load_imagenet(body, {n: v for n, v in state.items() if n != first})
    assert all(torch.equal(v, before[n]) for n, v in body.state_dict().items())


def test_other_networks_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not those of this ResNet: left over: .* and \d+ more; missing: "):
        load_imagenet(build_resnet("resnet18", 8), classifier_state(SMALL["hrnet"]("batch")))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_gradient_reaches_every_parameter(kind: str, norm: str) -> None:
    torch.manual_seed(0)
    body = SMALL[kind](norm).train()
    sum((level * torch.randn_like(level)).sum() for level in body(torch.randn(2, 3, 64, 96))).backward()
    assert [n for n, p in body.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("kind", SMALL)
def test_freeze_stem(kind: str) -> None:
    body = SMALL[kind]("frozen")
    freeze_stem(body)
    frozen = {n.split(".")[0] for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen <= {"conv1", "conv2", "layer1", "features"} and frozen
    assert sum(p.requires_grad for p in body.parameters()) > 0.5 * len(list(body.parameters()))


def test_stride_in_the_first_convolution() -> None:
    """The two kinds of bottleneck differ in where they stride, not in their weights."""
    for stride_in_1x1 in (False, True):
        block = Bottleneck(16, 8, 2, FrozenBatchNorm, BlockStyle(stride_in_1x1=stride_in_1x1))
        assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if stride_in_1x1 else ((1, 1), (2, 2)))
    assert build_resnet("resnet50", 8).state_dict().keys() == build_resnet("resnet50_caffe2", 8).state_dict().keys()


def test_group_norm_divides_every_width() -> None:
    assert [NORMS["group"](c).num_groups for c in (8, 64, 256, 18, 36, 144, 6, 3)] == [2, 16, 32, 3, 9, 24, 1, 1]


@pytest.mark.parametrize(("size", "shift"), [((7, 7), (0, 0)), ((6, 14), (0, 3)), ((15, 9), (3, 3)), ((1, 1), (0, 0))])
def test_windows_move_cyclically_and_come_back(size: tuple[int, int], shift: tuple[int, int]) -> None:
    """Against ``torch.roll``; cells of one window see each other exactly when they were neighbours before the move."""
    x = torch.randn(2, *size, 3)
    windows = Windows(*size, shifted=True, device=x.device)
    cut = windows.split(x)
    height, width = (-(-n // 7) * 7 for n in size)
    moved = torch.roll(nn.functional.pad(x, (0, 0, 0, width - size[1], 0, height - size[0])), (-shift[0], -shift[1]), (1, 2))
    expected = moved.unfold(1, 7, 7).unfold(2, 7, 7).permute(0, 1, 2, 4, 5, 3).reshape(-1, 49, 3)
    torch.testing.assert_close(cut, expected)
    torch.testing.assert_close(windows.join(cut, 2), x)
    rows, columns = (torch.arange(n) + s for n, s in ((height, shift[0]), (width, shift[1])))
    went_around = (rows >= height)[:, None] * 2 + (columns >= width)[None]
    part = went_around.unfold(0, 7, 7).unfold(1, 7, 7).reshape(-1, 49)
    assert torch.equal(windows.mask == 0, part[:, :, None] == part[:, None])


class Pyramid(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.fpn = body, FPN(body.channels, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.fpn(self.body(x)))


def check_export(body: nn.Module) -> None:
    """Folded, exported once, run at several sizes and batches."""
    torch.manual_seed(0)
    model = Pyramid(body).train()
    with torch.no_grad():
        model(torch.randn(4, 3, 96, 96))  # batch norms get statistics, so that values keep their scale
    model.eval()
    images = [torch.randn(b, 3, h, w) for b, h, w in ((1, 32, 32), (2, 96, 224), (1, 256, 64), (1, 224, 448))]
    with torch.no_grad():
        expected = [model(image) for image in images]
    plain_batch_norm(model)
    height, width = (32 * torch.export.Dim(n, min=1, max=2048) for n in ("cells_y", "cells_x"))
    shapes = ({0: torch.export.Dim("batch"), 2: height, 3: width},)
    graph = export_module(model, (torch.zeros(2, 3, 96, 128),), shapes, ["image"], [f"p{i}" for i in range(2, 7)])
    assert b"BatchNormalization" not in graph
    session = onnxruntime.InferenceSession(graph)
    for image, levels in zip(images, expected, strict=True):
        for got, want in zip(session.run(None, {"image": image.numpy()}), levels, strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in ("resnext", "hrnet", "swin") else [pytest.mark.slow]) for k in SMALL])
def test_exports_to_onnx(kind: str) -> None:
    check_export(SMALL[kind]("batch"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hrnet_w32", "swin_b", "resnext101_32x8d", "resnet101"])
def test_slim_networks_of_full_depth_export(name: str) -> None:
    check_export(build_backbone(name, 8, "batch"))

"""What the exporter makes of modules, graph by graph: batch norms folded into the right convolutions, and no operator that cannot stay."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.graphs import MaskGraph, export_module, map_channels, own_maps, plain_batch_norm
from tests.export.random_detectors import random_detector, small_config
from training.config import ScoringConfig
from training.heads import HEADS
from training.heads.layers import ClassSlice
from training.models.mask_scoring import MaskScoring
from training.models.resnet import NORMS, BasicBlock, Bottleneck, FrozenBatchNorm, ResNet

# Whose outputs have a size that depends on values, or that run other graphs: no backend with static shapes takes them.
FORBIDDEN = {"If", "Loop", "Scan", "NonZero", "Compress", "Unique", "NonMaxSuppression", "TopK", "SequenceConstruct", "RandomNormal"}
# What the heads may use; a new operator is a decision, because every backend has to have it.
# GatherND picks the predictor's row of each RoI's label.
MASK_OPERATORS = {
    "Abs", "Add", "And", "AveragePool", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "Div", "Equal", "Expand",
    "Flatten", "Gather", "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "Less", "MatMul",
    "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "Or", "Pad", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape",
    "Sigmoid", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


def randomise_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.2)


def exported(module: nn.Module, image: Tensor, outputs: int = 1) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """The graph of a module, and what it makes of an image."""
    module = module.eval()
    plain_batch_norm(module)
    data = export_module(module, (image,), ({0: torch.export.Dim("batch")},), ["image"], [f"out{i}" for i in range(outputs)])
    return onnx.load_from_string(data), onnxruntime.InferenceSession(data).run(None, {"image": image.numpy()})


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_folding_keeps_the_function(block: type, norm: str) -> None:
    torch.manual_seed(0)
    body = ResNet(block, (1, 1, 1, 1), 8, NORMS[norm]).eval()
    randomise_norms(body)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        before = body(image)
    graph, after = exported(body, image, 4)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-4, atol=1e-4)
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert "BatchNormalization" not in kinds and "Mul" not in kinds, kinds
    assert kinds["Conv"] == sum(isinstance(module, nn.Conv2d) for module in body.modules())


class Tricky(nn.Module):
    """Names and positions that invite folding where it would be wrong."""

    def __init__(self, norm: str, case: str) -> None:
        super().__init__()
        self.case = case
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), NORMS[norm](4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), NORMS[norm](4)
        self.between = nn.Sequential(nn.Conv2d(3, 4, 1), NORMS[norm](4))

    def forward(self, x: Tensor) -> Tensor:
        if self.case == "activation between":
            return self.bn1(torch.relu(self.conv1(x)))
        if self.case == "names crossed":
            return self.bn1(self.conv2(self.bn2(self.conv1(x))))
        if self.case == "norm first":
            return self.conv2(self.bn1(self.between[0](x)) + self.bn2(torch.tanh(self.conv1(x))))
        if self.case == "convolution read twice":
            y = self.conv1(x)
            return self.bn1(y) + y
        if self.case == "two norms on one convolution":
            y = self.conv1(x)
            return self.bn1(y) * self.bn2(y)
        if self.case == "convolution used twice":
            y = self.conv1(x)
            return self.bn2(self.conv2(self.bn1(self.conv2(y)))) + self.conv2(y)
        assert self.case == "norm used twice"
        return self.bn1(self.conv1(x)) + self.bn1(self.between[0](x))


CASES = (
    "activation between",
    "names crossed",
    "norm first",
    "convolution read twice",
    "two norms on one convolution",
    "convolution used twice",
    "norm used twice",
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_no_wrong_pair_is_folded(norm: str, case: str) -> None:
    torch.manual_seed(1)
    module = Tricky(norm, case).eval()
    randomise_norms(module)
    image = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = module(image)
    _, (found,) = exported(module, image)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_mask_graphs_are_static_but_for_their_number_of_rois(head: str) -> None:
    model = random_detector(small_config(head))
    channels = map_channels(model)
    assert set(own_maps(model)) <= set(channels)
    pools, rois = model.mask_head.pools, torch.export.Dim("rois")
    inputs = [torch.randn(3, channels[pool.feature], pool.size, pool.size) for pool in pools]
    names = ["labels", *(f"rois{i}" for i in range(len(pools)))]
    shapes = ({0: rois}, tuple({0: rois} for _ in pools))
    data = export_module(MaskGraph(model), (torch.zeros(3, dtype=torch.int64), *inputs), shapes, names, ["mask_logits"])
    graph = onnx.load_from_string(data).graph

    kinds = Counter(node.op_type for node in graph.node)
    assert not FORBIDDEN & set(kinds), kinds
    assert set(kinds) <= MASK_OPERATORS, set(kinds) - MASK_OPERATORS
    assert len(graph.node) <= 250, kinds
    assert not any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)
    # Nothing that only trains: the weights of the graph are no more than the head's that inference reads.
    needed = sum(p.numel() for n, p in model.mask_head.named_parameters() if not n.startswith(model.mask_head.training_only))
    stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    assert stored <= needed + 64

    session = onnxruntime.InferenceSession(data)
    for count in (1, 2, 17):
        labels = torch.randint(0, 3, (count,))
        inputs = [torch.randn(count, channels[pool.feature], pool.size, pool.size) for pool in pools]
        with torch.no_grad():
            expected = model.mask_head(inputs, labels).logits
        feeds = {"labels": labels.numpy(), **{f"rois{i}": x.numpy() for i, x in enumerate(inputs)}}
        (found,) = session.run(None, feeds)
        assert found.shape == (count, model.mask_head.mask_size, model.mask_head.mask_size)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("fcn", {"convs": 8, "aligned": False}),
    ("bmask", {"variant": "sobel"}),
    ("bmask", {"boundary_to_mask": False}),
    ("bmask", {"boundary_target": "none", "boundary_pool": 14, "source": "p2"}),
    ("refinemask", {"variant": "simple"}),
    ("refinemask", {"semantic": False, "band_rule": "exact", "infer_width": 2}),
    ("refinemask", {"start_stage": 0, "band_rule": "strict", "last_stage_agnostic": True}),
    ("refinemask", {"stages": 2, "band_rule": "inner"}),
    ("refinemask", {"refinement": "none", "start_stage": 3}),
    ("brefine", {"stages": 1, "source": "p2"}),
    ("brefine", {"stages": 2, "upsample": "transposed", "branches": 1, "residual": False}),
    ("brefine", {"ram": False}),
    ("beis", {"stages": 0}),
    ("beis", {"stages": 1, "p2": "first", "bef_dim": 8}),
    ("beis", {"stages": 2, "p2": "off", "source": "p2"}),
    ("beis", {"stages": 2, "source": "p2", "ibdl": False, "cbdl": False}),
]


QUICK = (("brefine", {"stages": 1, "source": "p2"}), ("beis", {"stages": 0}))


@pytest.mark.parametrize(("head", "options"), [v if v in QUICK else pytest.param(*v, marks=pytest.mark.slow) for v in VARIANTS], ids=str)
def test_mask_graphs_of_variants_with_mask_scoring(head: str, options: dict[str, Any]) -> None:
    """Masks and their scores as PyTorch gives them; the pools that the graph has are those that the head names."""
    torch.manual_seed(0)
    module = HEADS[head](HEADS[head].config_type(name=head, channels=32, **options), 16, 3).eval()
    for layer in module.modules():
        if isinstance(layer, ClassSlice):
            torch.nn.init.normal_(layer.weight, std=0.3)
            torch.nn.init.normal_(layer.bias)
    scoring = MaskScoring(ScoringConfig(channels=8, hidden=16), module, 3).eval()
    torch.nn.init.constant_(scoring.iou.bias, 0.5)
    maps = module.maps([torch.zeros(1, 16, 8, 8)])
    shapes = [(16 if p.feature == "pyramid" else maps[p.feature].shape[1], p.size, p.size) for p in module.pools]
    rois = torch.export.Dim("rois")
    data = export_module(
        MaskGraph(SimpleNamespace(mask_head=module, mask_scoring=scoring)),  # type: ignore[arg-type]  # all that it takes of a detector
        (torch.zeros(3, dtype=torch.int64), *(torch.zeros(3, *shape) for shape in shapes)),
        ({0: rois}, tuple({0: rois} for _ in shapes)),
        ["labels", *(f"rois{i}" for i in range(len(shapes)))],
        ["mask_logits", "mask_scores"],
    )
    graph = onnx.load_from_string(data).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds <= MASK_OPERATORS and not FORBIDDEN & kinds, kinds - MASK_OPERATORS
    session = onnxruntime.InferenceSession(data)
    assert [i.name for i in session.get_inputs()] == ["labels", *(f"rois{i}" for i in range(len(shapes)))]
    for count in (0, 1, 5):
        labels, inputs = torch.randint(0, 3, (count,)), [torch.randn(count, *shape) for shape in shapes]
        with torch.no_grad():
            output = module(inputs, labels)
            quality = scoring.quality(output, labels)
        feeds = {"labels": labels.numpy(), **{f"rois{i}": x.numpy() for i, x in enumerate(inputs)}}
        logits, scores = session.run(["mask_logits", "mask_scores"], feeds)
        np.testing.assert_allclose(logits, output.logits.numpy(), atol=1e-3)
        np.testing.assert_allclose(scores, quality.numpy(), atol=1e-4)

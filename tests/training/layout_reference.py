"""Detectors of other projects, written from their own rules on their own names: what an imported model is compared with.

Nothing here uses the code under test: convolutions are ``torch.nn.functional``'s, RoIAlign is the definition in ``sdk.ops.reference``,
boxes are NumPy in double precision. Weights are random, in the names and shapes of the real files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sdk.ops import reference

Array = NDArray[np.float64]
State = dict[str, Tensor]
STRIDES = (4, 8, 16, 32)
STAGES = (3, 4, 6, 3)


@dataclass(frozen=True)
class Found:
    """Detections in one picture, pixels of the network's input."""

    boxes: Array
    scores: Array
    labels: NDArray[np.int64]
    mask_logits: Array


@dataclass(frozen=True)
class Size:
    """Widths of a model; the published ones are 64, 256, 1024."""

    width: int = 8
    channels: int = 16
    hidden: int = 32
    classes: int = 3
    depths: tuple[int, ...] = STAGES


class Weights:
    """Makes random weights by name."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self.rng = torch.Generator().manual_seed(seed)

    def _normal(self, shape: tuple[int, ...], std: float) -> Tensor:
        return torch.randn(shape, generator=self.rng) * std

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, *, bias: bool = True, gain: float = 1.4, groups: int = 1) -> None:
        fan_in = inputs // groups * kernel * kernel
        self.state[f"{name}.weight"] = self._normal((outputs, inputs // groups, kernel, kernel), gain / math.sqrt(fan_in))
        if bias:
            self.state[f"{name}.bias"] = self._normal((outputs,), 0.1)

    def deconv(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = self._normal((channels, channels, 2, 2), 1.4 / math.sqrt(channels))
        self.state[f"{name}.bias"] = self._normal((channels,), 0.1)

    def linear(self, name: str, inputs: int, outputs: int, gain: float = 1.4) -> None:
        self.state[f"{name}.weight"] = self._normal((outputs, inputs), gain / math.sqrt(inputs))
        self.state[f"{name}.bias"] = self._normal((outputs,), 0.1)

    def norm(self, name: str, channels: int, counter: bool) -> None:
        self.state[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=self.rng) * 0.5
        self.state[f"{name}.bias"] = self._normal((channels,), 0.1)
        self.state[f"{name}.running_mean"] = self._normal((channels,), 0.1)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=self.rng)
        if counter:
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def round_half_up(value: float) -> int:
    return math.floor(value + 0.5)


def iou_above(boxes: Array, threshold: float) -> NDArray[np.bool_]:
    top_left = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = np.clip(bottom_right - top_left, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return inter > threshold * (area[:, None] + area[None] - inter)


def nms(boxes: Array, scores: Array, threshold: float) -> NDArray[np.int64]:
    order = np.argsort(-scores, kind="stable")
    overlaps = iou_above(boxes[order], threshold)
    dead, kept = np.zeros(len(order), bool), []
    for i in range(len(order)):
        if not dead[i]:
            kept.append(i)
            dead |= overlaps[i]
    return order[kept]


class Layout:
    """Mask R-CNN by Detectron2's rules, which the others change in places."""

    aligned = True
    sampling = 0
    background_first = False
    antialias = True
    color = "rgb"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    eps = 1e-5
    coders: tuple[tuple[float, ...], ...] = ((10, 10, 5, 5),)
    counter = False
    stride_in_1x1 = False

    def __init__(self, size: Size = Size(), seed: int = 0) -> None:
        self.size = size
        self.state = self.make(Weights(seed))

    # -- names -------------------------------------------------------------------------------------------------------------------

    def stem(self) -> tuple[str, str]:
        return "backbone.conv1", "backbone.bn1"

    def block(self, stage: int, index: int) -> Iterator[tuple[str, str]]:
        """(convolution, norm) of the three convolutions and the shortcut."""
        at = f"backbone.layer{stage + 1}.{index}"
        yield from ((f"{at}.conv{i}", f"{at}.bn{i}") for i in (1, 2, 3))
        yield f"{at}.downsample.0", f"{at}.downsample.1"

    lateral = "neck.lateral_convs.{}.conv"
    output = "neck.fpn_convs.{}.conv"
    rpn = ("rpn_head.rpn_conv", "rpn_head.rpn_cls", "rpn_head.rpn_reg")

    def box(self, stage: int) -> tuple[str, str, str, str]:
        at = "roi_head.bbox_head"
        return f"{at}.shared_fcs.0", f"{at}.shared_fcs.1", f"{at}.fc_cls", f"{at}.fc_reg"

    # -- weights -----------------------------------------------------------------------------------------------------------------

    def make(self, w: Weights) -> State:
        s, inputs = self.size, self.size.width
        w.conv(self.stem()[0], 3, inputs, 7, bias=False)
        w.norm(self.stem()[1], inputs, self.counter)
        for stage, depth in enumerate(s.depths):
            inner = s.width * 2**stage
            for index in range(depth):
                shapes = ((inputs, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1), (inputs, 4 * inner, 1))
                names = list(self.block(stage, index))[: 4 if index == 0 else 3]
                for (conv, norm), (a, b, kernel) in zip(names, shapes, strict=False):
                    w.conv(conv, a, b, kernel, bias=False)
                    w.norm(norm, b, self.counter)
                inputs = 4 * inner
            w.conv(self.lateral.format(self.level(stage)), inputs, s.channels, 1, gain=1 / 3)
            w.conv(self.output.format(self.level(stage)), s.channels, s.channels, 3, gain=1)
        conv, logits, deltas = self.rpn
        w.conv(conv, s.channels, s.channels, 3)
        w.conv(logits, s.channels, 3, 1)
        w.conv(deltas, s.channels, 12, 1, gain=0.1)
        for stage in range(len(self.coders)):
            fc1, fc2, cls, reg = self.box(stage)
            w.linear(fc1, s.channels * 49, s.hidden)
            w.linear(fc2, s.hidden, s.hidden)
            w.linear(cls, s.hidden, s.classes + 1, gain=3)
            boxes = 1 if len(self.coders) > 1 else s.classes + self.background_first
            w.linear(reg, s.hidden, 4 * boxes, gain=0.2)
        self.make_mask(w)
        return w.state

    def level(self, stage: int) -> int:
        return stage

    def make_mask(self, w: Weights) -> None:
        at, c = "roi_head.mask_head", self.size.channels
        for i in range(4):
            w.conv(f"{at}.convs.{i}.conv", c, c, 3)
        w.deconv(f"{at}.upsample", c)
        w.conv(f"{at}.conv_logits", c, self.size.classes, 1)

    # -- layers ------------------------------------------------------------------------------------------------------------------

    def conv(self, x: Tensor, name: str, stride: int = 1, dilation: int = 1, relu: bool = False) -> Tensor:
        weight = self.state[f"{name}.weight"]
        x = F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, dilation * (weight.shape[-1] // 2), dilation)
        return F.relu(x) if relu else x

    def deconv(self, x: Tensor, name: str) -> Tensor:
        return F.relu(F.conv_transpose2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], 2))

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (self.state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)

    def body(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x, self.stem()[0], 2), self.stem()[1])), 3, 2, 1)
        levels = []
        for stage, depth in enumerate(self.size.depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                strides = (stride, 1, 1) if self.stride_in_1x1 else (1, stride, 1)
                names, y = list(self.block(stage, index)), x
                for i in range(3):
                    y = self.norm(self.conv(y, names[i][0], strides[i]), names[i][1])
                    y = F.relu(y) if i < 2 else y
                x = F.relu(y + (self.norm(self.conv(x, names[3][0], stride), names[3][1]) if index == 0 else x))
            levels.append(x)
        return levels

    def pyramid(self, x: Tensor) -> list[Tensor]:
        merged: list[Tensor] = []
        for stage, level in reversed(list(enumerate(self.body(x)))):
            lateral = self.conv(level, self.lateral.format(self.level(stage)))
            merged.insert(0, lateral + F.interpolate(merged[0], scale_factor=2, mode="nearest") if merged else lateral)
        outputs = [self.conv(m, self.output.format(self.level(i))) for i, m in enumerate(merged)]
        return [*outputs, F.max_pool2d(outputs[-1], 1, 2)]

    # -- boxes -------------------------------------------------------------------------------------------------------------------

    def network_size(self, height: int, width: int, short: int, long: int) -> tuple[int, int]:
        scale = min(short / min(height, width), long / max(height, width))
        return round_half_up(height * scale), round_half_up(width * scale)

    def cell_anchors(self, size: float) -> Array:
        rows = []
        for ratio in (0.5, 1.0, 2.0):
            w = math.sqrt(size * size / ratio)
            rows.append([-w / 2, -w * ratio / 2, w / 2, w * ratio / 2])
        return np.array(rows)

    def cell_strides(self, level: int, cells: tuple[int, int], padded: tuple[int, int]) -> tuple[int, int]:
        return 4 * 2**level, 4 * 2**level

    def clamp(self, value: Array) -> Array:
        return np.minimum(value, math.log(1000 / 16))

    def decode(self, deltas: Array, sources: Array, weights: tuple[float, ...]) -> Array:
        size = sources[..., 2:] - sources[..., :2]
        centre = sources[..., :2] + size / 2 + deltas[..., :2] / np.array(weights[:2]) * size
        half = np.exp(self.clamp(deltas[..., 2:] / np.array(weights[2:]))) * size / 2
        return np.concatenate([centre - half, centre + half], -1)

    def clip(self, boxes: Array, size: tuple[int, int]) -> Array:
        return np.clip(boxes, 0, np.array([size[1], size[0]] * 2))

    def proposals(self, pyramid: list[Tensor], size: tuple[int, int], padded: tuple[int, int]) -> Array:
        rows: list[tuple[Array, Array]] = []
        for level, feature in enumerate(pyramid):
            hidden = self.conv(feature, self.rpn[0], relu=True)
            height, width = hidden.shape[2:]
            logits = self.conv(hidden, self.rpn[1])[0].permute(1, 2, 0).flatten().double().numpy()
            deltas = self.conv(hidden, self.rpn[2])[0].reshape(3, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4).double().numpy()
            sy, sx = self.cell_strides(level, (height, width), padded)
            y, x = np.meshgrid(np.arange(height) * sy, np.arange(width) * sx, indexing="ij")
            anchors = (np.stack([x, y, x, y], -1).reshape(-1, 1, 4) + self.cell_anchors(32 * 2**level)).reshape(-1, 4)
            best = np.argsort(-logits, kind="stable")[:1000]
            boxes = self.clip(self.decode(deltas[best], anchors[best], (1, 1, 1, 1)), size)
            solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
            boxes, scores = boxes[solid], logits[best][solid]
            keep = nms(boxes, scores, 0.7)
            rows.append((boxes[keep], scores[keep]))
        boxes, scores = (np.concatenate(part) for part in zip(*rows, strict=True))
        return boxes[np.argsort(-scores, kind="stable")[:1000]]

    def pool(self, maps: list[Tensor], strides: tuple[int, ...], boxes: Array, size: int) -> Tensor:
        features = [m.numpy() for m in maps]
        batch = np.zeros(len(boxes), np.int64)
        rule = {"sampling_ratio": self.sampling, "aligned": self.aligned}
        return torch.from_numpy(reference.roi_align(features, strides, boxes, batch, size, **rule)).float()  # type: ignore[arg-type]

    def classify(self, pyramid: list[Tensor], boxes: Array, stage: int) -> tuple[Array, Array]:
        """Probabilities of the foreground classes (N, K), and deltas (N, K or 1, 4)."""
        fc1, fc2, cls, reg = self.box(stage)
        x = self.pool(pyramid[:4], STRIDES, boxes, 7).flatten(1)
        x = F.relu(self.linear(F.relu(self.linear(x, fc1)), fc2))
        scores = torch.softmax(self.linear(x, cls).double(), 1).numpy()
        deltas = self.linear(x, reg).double().numpy().reshape(len(boxes), -1, 4)
        if self.background_first:
            return scores[:, 1:], deltas[:, 1:]
        return scores[:, :-1], deltas

    def detect(self, pyramid: list[Tensor], boxes: Array, size: tuple[int, int]) -> tuple[Array, Array, NDArray[np.int64]]:
        all_scores = []
        for stage, weights in enumerate(self.coders):
            scores, deltas = self.classify(pyramid, boxes, stage)
            all_scores.append(scores)
            decoded = self.clip(self.decode(deltas, boxes[:, None], weights), size)  # N, K or 1, 4
            boxes = decoded[:, 0]
        scores, found = np.mean(all_scores, 0), []
        for label in range(self.size.classes):
            mine = decoded[:, label if decoded.shape[1] > 1 else 0]
            chosen = np.flatnonzero((scores[:, label] > 0.05) & ((mine[:, 2:] - mine[:, :2]) > 0).all(1))
            keep = chosen[nms(mine[chosen], scores[chosen, label], 0.5)]
            found.append((mine[keep], scores[keep, label], np.full(len(keep), label)))
        boxes, best, labels = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(-best, kind="stable")[:100]
        return boxes[order], best[order], labels[order]

    # -- masks -------------------------------------------------------------------------------------------------------------------

    def masks(self, pyramid: list[Tensor], boxes: Array, labels: NDArray[np.int64]) -> Tensor:
        """Logits (D, S, S) of each detection's class."""
        at, x = "roi_head.mask_head", self.pool(pyramid[:4], STRIDES, boxes, 14)
        for i in range(4):
            x = self.conv(x, f"{at}.convs.{i}.conv", relu=True)
        return self.own_class(self.conv(self.deconv(x, f"{at}.upsample"), f"{at}.conv_logits"), labels)

    def own_class(self, logits: Tensor, labels: NDArray[np.int64]) -> Tensor:
        return logits[torch.arange(len(labels)), torch.from_numpy(labels) + int(self.background_first)]

    # -- everything --------------------------------------------------------------------------------------------------------------

    def normalise(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        pixels = torch.from_numpy(picture if self.color == "rgb" else picture[..., ::-1].copy()).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=self.antialias)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (pixels - mean) / std

    @torch.no_grad()
    def predict(self, picture: NDArray[np.uint8], short: int, long: int) -> Found:
        """Detections in an RGB picture (H, W, 3)."""
        size = self.network_size(*picture.shape[:2], short, long)
        x = self.normalise(picture, size)
        x = F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))
        pyramid = self.pyramid(x)
        proposals = self.proposals(pyramid, size, (x.shape[2], x.shape[3]))
        boxes, scores, labels = self.detect(pyramid, proposals, size)
        return Found(boxes, scores, labels, self.masks(pyramid, boxes, labels).double().numpy())


class MMDetection(Layout):
    """mmdet 2: deltas of sizes are clamped on both sides; pictures are resized without a wider filter."""

    antialias = False
    counter = True

    def clamp(self, value: Array) -> Array:
        limit = abs(math.log(16 / 1000))
        return np.clip(value, -limit, limit)


class RefineMask(MMDetection):
    """RefineMask's release: stages at 14, 28 and 56, and the composition along the outline."""

    sides = (14, 28, 56)
    last_classes: int | None = None  # 1 for LVIS

    def make_mask(self, w: Weights) -> None:
        at, c, classes = "roi_head.mask_head", self.size.channels, self.size.classes
        for i in range(2):
            w.conv(f"{at}.instance_convs.{i}.conv", c, c, 3)
        for i in range(4):
            w.conv(f"{at}.semantic_convs.{i}.conv", c, c, 3)
        for k in range(3):
            stage, width = f"{at}.stages.{k}", c // 2**k
            w.conv(f"{stage}.semantic_transform_in", c, width, 1)
            w.conv(f"{stage}.semantic_transform_out", width, width, 1)
            w.conv(f"{stage}.instance_logits", width, classes, 1)
            w.conv(f"{stage}.fuse_conv.0", 2 * width + 2, width, 1)
            for i in (1, 2, 3):
                w.conv(f"{stage}.fuse_conv.1.dilation_conv_{i}.conv", width, width, 3, gain=0.8)
            w.conv(f"{stage}.fuse_conv.1.merge_conv.conv", width, width, 1)
            w.conv(f"{stage}.fuse_transform_out", width, width // 2 - 2, 1)
        w.conv(f"{at}.final_instance_logits", c // 8, self.last_classes or classes, 1)
        w.conv(f"{at}.semantic_logits", c, 1, 1)

    def stage(
        self, k: int, x: Tensor, semantic: Tensor, probability: Tensor, boxes: Array, labels: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        at, side = f"roi_head.mask_head.stages.{k}", self.sides[k]
        pooled = self.pool([self.conv(semantic, f"{at}.semantic_transform_in", relu=True)], (4,), boxes, side)
        pooled = self.conv(pooled, f"{at}.semantic_transform_out", relu=True)
        logits = self.own_class(self.conv(x, f"{at}.instance_logits"), labels)[:, None]
        maps = torch.cat([torch.sigmoid(logits), self.pool([probability], (4,), boxes, side)], 1)
        x = self.conv(torch.cat([x, pooled, maps], 1), f"{at}.fuse_conv.0", relu=True)
        branches = [self.conv(x, f"{at}.fuse_conv.1.dilation_conv_{i}.conv", dilation=d, relu=True) for i, d in ((1, 1), (2, 3), (3, 5))]
        x = self.conv(torch.stack(branches).sum(0), f"{at}.fuse_conv.1.merge_conv.conv", relu=True)
        x = self.conv(x, f"{at}.fuse_transform_out", relu=True)
        x = F.relu(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return logits, torch.cat([x, F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)], 1)

    def masks(self, pyramid: list[Tensor], boxes: Array, labels: NDArray[np.int64]) -> Tensor:
        at, semantic = "roi_head.mask_head", pyramid[0]
        x = self.pool(pyramid[:4], STRIDES, boxes, 14)
        for i in range(2):
            x = self.conv(x, f"{at}.instance_convs.{i}.conv", relu=True)
        for i in range(4):
            semantic = self.conv(semantic, f"{at}.semantic_convs.{i}.conv", relu=True)
        probability = torch.sigmoid(self.conv(semantic, f"{at}.semantic_logits"))
        stages = []
        for k in range(3):
            logits, x = self.stage(k, x, semantic, probability, boxes, labels)
            stages.append(logits)
        last = labels * 0 if self.last_classes == 1 else labels
        stages.append(self.own_class(self.conv(x, f"{at}.final_instance_logits"), last)[:, None])
        return self.compose(stages)[:, 0]

    @staticmethod
    def compose(stages: list[Tensor]) -> Tensor:
        """Away from the previous outline the previous stage stays (band of width 1 by the released convolution: more than .1 x 9)."""
        kernel = torch.full((1, 1, 3, 3), -1.0)
        kernel[0, 0, 1, 1] = 8
        kept = stages[1]
        for finer in stages[2:]:
            inside = F.pad((torch.sigmoid(kept) >= 0.5).float(), (1, 1, 1, 1))
            near = (F.conv2d(inside, kernel) > 0.9) | (F.conv2d(1 - inside, kernel) > 0.9)
            side = finer.shape[-1]
            away = F.interpolate((~near).float(), (side, side), mode="bilinear", align_corners=True) >= 0.5
            kept = torch.where(away, F.interpolate(kept, (side, side), mode="bilinear", align_corners=True), finer)
        return kept


class Detectron2(Layout):
    """Detectron2 with its own weights: BGR of deviation 1, stride in the first 1x1."""

    color = "bgr"
    mean = (103.53, 116.28, 123.675)
    std = (1.0, 1.0, 1.0)
    stride_in_1x1 = True
    lateral = "backbone.fpn_lateral{}"
    output = "backbone.fpn_output{}"
    rpn = tuple(f"proposal_generator.rpn_head.{name}" for name in ("conv", "objectness_logits", "anchor_deltas"))  # type: ignore[assignment]

    def stem(self) -> tuple[str, str]:
        return "backbone.bottom_up.stem.conv1", "backbone.bottom_up.stem.conv1.norm"

    def block(self, stage: int, index: int) -> Iterator[tuple[str, str]]:
        at = f"backbone.bottom_up.res{stage + 2}.{index}"
        yield from ((f"{at}.{name}", f"{at}.{name}.norm") for name in ("conv1", "conv2", "conv3", "shortcut"))

    def level(self, stage: int) -> int:
        return stage + 2

    def box(self, stage: int) -> tuple[str, str, str, str]:
        at = f".{stage}" if len(self.coders) > 1 else ""
        head, last = f"roi_heads.box_head{at}", f"roi_heads.box_predictor{at}"
        return f"{head}.fc1", f"{head}.fc2", f"{last}.cls_score", f"{last}.bbox_pred"

    def make(self, w: Weights) -> State:
        state = super().make(w)
        state[f"{self.stem()[0]}.weight"] *= 0.02  # pixels are not divided by anything
        return state

    def make_mask(self, w: Weights) -> None:
        at, c = "roi_heads.mask_head", self.size.channels
        for i in range(4):
            w.conv(f"{at}.mask_fcn{i + 1}", c, c, 3)
        w.deconv(f"{at}.deconv", c)
        w.conv(f"{at}.predictor", c, self.size.classes, 1)

    def masks(self, pyramid: list[Tensor], boxes: Array, labels: NDArray[np.int64]) -> Tensor:
        at, x = "roi_heads.mask_head", self.pool(pyramid[:4], STRIDES, boxes, 14)
        for i in range(4):
            x = self.conv(x, f"{at}.mask_fcn{i + 1}", relu=True)
        return self.own_class(self.conv(self.deconv(x, f"{at}.deconv"), f"{at}.predictor"), labels)


class BMask(Detectron2):
    """BMask R-CNN's release."""

    def make_mask(self, w: Weights) -> None:
        at, c = "roi_heads.mask_head", self.size.channels
        names = [*(f"mask_fcn{i}" for i in (1, 2, 3, 4)), "boundary_fcn1", "boundary_fcn2", "mask_final_fusion", "downsample"]
        for name in names:
            w.conv(f"{at}.{name}", c, c, 3)
        for name in ("mask_to_boundary", "boundary_to_mask"):
            w.conv(f"{at}.{name}", c, c, 1)
        for kind in ("mask", "boundary"):
            w.deconv(f"{at}.{kind}_deconv", c)
            w.conv(f"{at}.{kind}_predictor", c, self.size.classes, 1)

    def masks(self, pyramid: list[Tensor], boxes: Array, labels: NDArray[np.int64]) -> Tensor:
        at, mask = "roi_heads.mask_head", self.pool(pyramid[:4], STRIDES, boxes, 14)
        for i in (1, 2, 3, 4):
            mask = self.conv(mask, f"{at}.mask_fcn{i}", relu=True)
        boundary = self.conv(self.pool([pyramid[0]], (4,), boxes, 28), f"{at}.downsample", 2, relu=True)
        boundary = boundary + self.conv(mask, f"{at}.mask_to_boundary", relu=True)
        for i in (1, 2):
            boundary = self.conv(boundary, f"{at}.boundary_fcn{i}", relu=True)
        mask = self.conv(self.conv(boundary, f"{at}.boundary_to_mask", relu=True) + mask, f"{at}.mask_final_fusion", relu=True)
        return self.own_class(self.conv(self.deconv(mask, f"{at}.mask_deconv"), f"{at}.mask_predictor"), labels)


class CascadeBMask(BMask):
    """Three class-agnostic box stages, scores averaged."""

    coders = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))


class Torchvision(Layout):
    """torchvision: not aligned, whole-pixel anchors on a grid of floor(side / cells), background first, sides rounded down."""

    aligned = False
    sampling = 2
    background_first = True
    antialias = False
    lateral = "backbone.fpn.inner_blocks.{}.0"
    output = "backbone.fpn.layer_blocks.{}.0"
    rpn = ("rpn.head.conv.0.0", "rpn.head.cls_logits", "rpn.head.bbox_pred")

    def mask_conv(self, index: int) -> str:
        return f"roi_heads.mask_head.{index}.0"

    def stem(self) -> tuple[str, str]:
        return "backbone.body.conv1", "backbone.body.bn1"

    def block(self, stage: int, index: int) -> Iterator[tuple[str, str]]:
        for conv, norm in super().block(stage, index):
            yield conv.replace("backbone.", "backbone.body."), norm.replace("backbone.", "backbone.body.")

    def box(self, stage: int) -> tuple[str, str, str, str]:
        head, last = "roi_heads.box_head", "roi_heads.box_predictor"
        return f"{head}.fc6", f"{head}.fc7", f"{last}.cls_score", f"{last}.bbox_pred"

    def make_mask(self, w: Weights) -> None:
        c = self.size.channels
        for i in range(4):
            w.conv(self.mask_conv(i), c, c, 3)
        w.deconv("roi_heads.mask_predictor.conv5_mask", c)
        w.conv("roi_heads.mask_predictor.mask_fcn_logits", c, self.size.classes + 1, 1)

    def masks(self, pyramid: list[Tensor], boxes: Array, labels: NDArray[np.int64]) -> Tensor:
        x = self.pool(pyramid[:4], STRIDES, boxes, 14)
        for i in range(4):
            x = self.conv(x, self.mask_conv(i), relu=True)
        x = self.deconv(x, "roi_heads.mask_predictor.conv5_mask")
        return self.own_class(self.conv(x, "roi_heads.mask_predictor.mask_fcn_logits"), labels)

    def network_size(self, height: int, width: int, short: int, long: int) -> tuple[int, int]:
        scale = min(short / min(height, width), long / max(height, width))
        return math.floor(height * scale), math.floor(width * scale)

    def normalise(self, picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        pixels = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - mean[:, None, None]) / std[:, None, None]
        return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)

    def cell_anchors(self, size: float) -> Array:
        return np.round(super().cell_anchors(size))

    def cell_strides(self, level: int, cells: tuple[int, int], padded: tuple[int, int]) -> tuple[int, int]:
        return padded[0] // cells[0], padded[1] // cells[1]


class OldTorchvision(Torchvision):
    """The names before torchvision 0.13, which the published COCO weights have; frozen norms without counters, trained without eps."""

    eps = 0.0
    lateral = "backbone.fpn.inner_blocks.{}"
    output = "backbone.fpn.layer_blocks.{}"
    rpn = ("rpn.head.conv", "rpn.head.cls_logits", "rpn.head.bbox_pred")

    def mask_conv(self, index: int) -> str:
        return f"roi_heads.mask_head.mask_fcn{index + 1}"


LAYOUTS: dict[str, type[Layout]] = {
    "torchvision": Torchvision,
    "torchvision before 0.13": OldTorchvision,
    "detectron2": Detectron2,
    "bmask": BMask,
    "cascade bmask": CascadeBMask,
    "mmdet": MMDetection,
    "refinemask": RefineMask,
}

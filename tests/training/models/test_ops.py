"""The torch operators by their definitions; the native twins are compared with the same cases in ``tests/parity``."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from training.models.ops import assign_levels, box_iou, decode_boxes, encode_boxes, multilevel_roi_align, nms, paste_masks


def random_boxes(generator: torch.Generator, count: int, extent: float = 100.0) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * extent], 1)


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    order = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))
    kept: list[int] = []
    for i in order:
        if all(box_iou(boxes[i : i + 1], boxes[j : j + 1]).item() <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("count", [0, 1, 2, 60])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms_is_greedy(count: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(count)
    boxes = random_boxes(generator, count)
    scores = torch.randint(0, 10, (count,), generator=generator).float()  # many ties
    assert nms(boxes, scores, threshold).tolist() == greedy_nms(boxes, scores, threshold)


def test_nms_long_chain_of_suppressions() -> None:
    # Each box overlaps the next only: every second one survives, which takes as many rounds as there are boxes.
    x = torch.arange(50) * 5.0
    boxes = torch.stack([x, torch.zeros(50), x + 10, torch.full((50,), 10.0)], 1)
    scores = torch.arange(50, 0, -1).float()
    assert nms(boxes, scores, 0.3).tolist() == list(range(0, 50, 2))


def test_empty_boxes_have_no_overlap() -> None:
    assert box_iou(torch.tensor([[5.0, 5, 5, 9]]), torch.tensor([[5.0, 5, 5, 9]])).item() == 0


def test_decode_inverts_encode() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, boxes = random_boxes(generator, 40), random_boxes(generator, 40)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors, weights), anchors, weights), boxes, atol=1e-3, rtol=1e-4)


def test_decode_clamps_growth() -> None:
    grown = decode_boxes(torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[0.0, 0, 16, 16]]), (1.0, 1.0, 1.0, 1.0))
    assert (grown[0, 2] - grown[0, 0]).item() == pytest.approx(1000.0, rel=1e-5)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
def test_roi_align_of_a_ramp_gives_bin_centres(sampling_ratio: int) -> None:
    ramp = (torch.arange(32) + 0.5).expand(1, 1, 32, 32).contiguous()  # the value of a cell is its centre
    box = torch.tensor([[4.0, 6.0, 18.0, 20.0]])
    pooled = multilevel_roi_align([ramp], box, torch.zeros(1), 7, (1.0,), sampling_ratio)
    centres = 4.0 + (torch.arange(7) + 0.5) * 2.0
    torch.testing.assert_close(pooled[0, 0], centres.expand(7, 7))


def test_roi_align_levels_and_strides() -> None:
    features = [torch.full((2, 1, 64 // s, 64 // s), float(s)) for s in (1, 2, 4, 8)]
    features = [f + torch.arange(2.0)[:, None, None, None] * 100 for f in features]
    sizes = torch.tensor([30.0, 60.0, 120.0, 240.0])
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), sizes, sizes], 1)
    assert assign_levels(boxes, 4).tolist() == [0, 0, 1, 2]
    pooled = multilevel_roi_align(features, boxes, torch.tensor([0, 1, 0, 1]), 2, (4, 8, 16, 32))
    assert pooled[:, 0, 0, 0].tolist() == [1.0, 101.0, 2.0, 104.0]


def test_roi_align_degenerate_boxes_are_zero() -> None:
    feature = torch.ones(1, 3, 8, 8)
    boxes = torch.tensor([[2.0, 2, 2, 6], [6, 6, 2, 2], [100, 100, 120, 120], [-50, -50, -20, -20]])
    assert multilevel_roi_align([feature], boxes, torch.zeros(4), 3, (1.0,)).abs().max().item() == 0
    assert multilevel_roi_align([feature], boxes[:0], torch.zeros(0), 3, (1.0,)).shape == (0, 3, 3, 3)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_gradient(sampling_ratio: int) -> None:
    generator = torch.Generator().manual_seed(3)
    features = [torch.rand(2, 2, n, n, generator=generator, dtype=torch.float64, requires_grad=True) for n in (6, 3)]
    boxes = torch.tensor([[1.0, 2, 9, 8], [0, 0, 24, 24], [-3, 5, 4, 30]])
    batch = torch.tensor([0, 1, 1])
    assert gradcheck(lambda *f: multilevel_roi_align(list(f), boxes, batch, 2, (4.0, 8.0), sampling_ratio), features, atol=1e-4)


def test_paste_of_a_solid_mask_fills_its_box() -> None:
    logits = torch.full((1, 28, 28), 20.0)
    mask = paste_masks(logits, torch.tensor([[3.0, 5.0, 11.0, 9.0]]), (20, 20))[0].numpy()
    expected = np.zeros((20, 20), bool)
    expected[5:9, 3:11] = True
    assert (mask == expected).all()

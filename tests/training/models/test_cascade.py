from __future__ import annotations

import torch
from torch import Tensor, nn

from training.config import BoxConfig, RPNConfig
from training.models.box_head import BoxHead, label_rois
from training.models.cascade import detect, refine, scale_gradient
from training.models.rpn import RPNHead


class Fixed(nn.Module):
    """A class-agnostic stage of two classes that gives the same logits and deltas to every RoI."""

    def __init__(self, logits: list[float], deltas: list[float], weight: float) -> None:
        super().__init__()
        self.config = BoxConfig(class_agnostic=True, coder_weights=(weight,) * 4)
        self.logits, self.deltas = torch.tensor([logits]), torch.tensor([deltas])

    def forward(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits.expand(len(rois), -1), self.deltas.expand(len(rois), -1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)


def test_scores_are_averaged_and_boxes_go_from_stage_to_stage() -> None:
    first, second = Fixed([2.0, -9.0], [1.0, 0, 0, 0], 10.0), Fixed([0.0, -9.0], [1.0, 0, 0, 0], 20.0)
    seen: list[Tensor] = []

    def pool(boxes: Tensor, batch: Tensor) -> Tensor:
        seen.append(boxes)
        return boxes

    boxes, scores, labels = detect([first, second], pool, torch.tensor([[10.0, 10, 30, 20]]), 0, (50, 50))  # type: ignore[list-item]
    torch.testing.assert_close(seen[1], torch.tensor([[12.0, 10, 32, 20]]))  # a tenth of the width to the right
    torch.testing.assert_close(boxes, torch.tensor([[13.0, 10, 33, 20]]))  # then a twentieth
    torch.testing.assert_close(scores, (torch.sigmoid(torch.tensor([2.0])) + 0.5) / 2)
    assert labels.tolist() == [0]


def test_refine_chooses_the_class_and_cuts_to_each_picture() -> None:
    head = BoxHead(BoxConfig(hidden=4, pool_size=1, coder_weights=(1.0, 1.0, 1.0, 1.0)), 2, 2)
    deltas = torch.tensor([[0.0, 0, 0, 0, 1.0, 0, 0, 0]]).expand(3, -1)
    boxes = torch.tensor([[0.0, 0, 10, 10]]).expand(3, -1)
    found = refine(deltas, boxes, torch.tensor([0, 0, 1]), [(40, 40), (5, 15)], torch.tensor([0, 1, 1]), head)
    assert found.tolist() == [[0, 0, 10, 10], [10, 0, 20, 10], [10, 0, 15, 5]]


def test_later_stages_label_by_their_own_iou_and_keep_the_order() -> None:
    truths, labels = [torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6.5], [0, 0, 10, 10]])
    batch = torch.tensor([1, 0, 0])
    loose = label_rois(boxes, batch, truths, labels, BoxConfig(foreground_iou=0.6), 3)
    strict = label_rois(boxes, batch, truths, labels, BoxConfig(foreground_iou=0.7), 3)
    assert loose.labels.tolist() == [3, 1, 1] and loose.truth.tolist() == [-1, 0, 0]
    assert strict.labels.tolist() == [3, 3, 1] and strict.batch.tolist() == [1, 0, 0]


def test_scale_gradient() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    y = scale_gradient(x, 1 / 3)
    (3 * y).sum().backward()
    assert y.item() == 2.0 and x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([1.0]))


def test_rpn_deltas_come_out_in_plain_units() -> None:
    torch.manual_seed(0)
    plain, scaled = RPNHead(4, 3), RPNHead(4, 3, (10.0, 10.0, 5.0, 5.0))
    scaled.load_state_dict(plain.state_dict())
    x = [torch.randn(1, 4, 5, 6)]
    expected = plain(x)[1][0].unflatten(1, (3, 4)) / torch.tensor([10.0, 10, 5, 5])[:, None, None]
    torch.testing.assert_close(scaled(x)[1][0].unflatten(1, (3, 4)), expected)
    assert RPNConfig().coder_weights is None


def test_probabilities_leave_the_background_out() -> None:
    config = BoxConfig(hidden=4, pool_size=1)
    logits = torch.randn(5, 4)
    torch.testing.assert_close(BoxHead(config, 2, 3).probabilities(logits), torch.softmax(logits, 1)[:, :3])
    sigmoid = BoxHead(config, 2, 4, "sigmoid")
    torch.testing.assert_close(sigmoid.probabilities(logits), torch.sigmoid(logits))
    assert sigmoid(torch.randn(5, 2, 1, 1))[0].shape == (5, 4)

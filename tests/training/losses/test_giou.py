from __future__ import annotations

import pytest
import torch

from training.losses.giou import giou_loss, paired_iou
from training.models.ops import box_iou

CASES = [
    ((0, 0, 10, 10), (0, 0, 10, 10), 0.0),  # equal
    ((0, 0, 10, 10), (0, 0, 10, 5), 0.5),  # the enclosing box is the union
    ((0, 0, 10, 10), (5, 5, 15, 15), 1 - 25 / 175 + 50 / 225),
    ((0, 0, 10, 10), (20, 0, 30, 10), 1 + 100 / 300),  # apart
    ((0, 0, 1, 1), (999, 999, 1000, 1000), 1 + (1e6 - 2) / 1e6),  # far apart: nearly 2
    ((0, 0, 0, 0), (0, 0, 10, 10), 1.0),  # an empty box inside
    ((3, 3, 3, 3), (3, 3, 3, 3), 1.0),  # nothing at all
]


@pytest.mark.parametrize(("a", "b", "expected"), CASES)
def test_values(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    one, two = torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
    assert giou_loss(one, two).item() == pytest.approx(expected, abs=1e-5)
    assert giou_loss(two, one).item() == pytest.approx(expected, abs=1e-5)


def test_paired_iou_is_the_diagonal_of_all_pairs() -> None:
    torch.manual_seed(0)
    corner = torch.rand(40, 2) * 20
    a = torch.cat([corner, corner + torch.rand(40, 2) * 20], 1)
    b = a + torch.randn(40, 4)
    iou, union = paired_iou(a, b)
    torch.testing.assert_close(iou, box_iou(a, b).diagonal())
    assert (union > 0).all()


def test_descent_brings_a_distant_box_home() -> None:
    """IoU alone has no gradient here; the enclosing box has."""
    box = torch.tensor([[40.0, 40, 50, 55]], requires_grad=True)
    truth = torch.tensor([[0.0, 0, 12, 9]])
    optimizer = torch.optim.Adam([box], 1.0)
    for _ in range(600):  # the box first grows until it touches, then shrinks
        optimizer.zero_grad()
        giou_loss(box, truth).sum().backward()
        optimizer.step()
    assert paired_iou(box.detach(), truth)[0].item() > 0.8


def test_empty_and_degenerate_boxes_have_finite_gradients() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    giou_loss(none, torch.zeros(0, 4)).sum().backward()
    boxes = torch.tensor([[3.0, 3, 3, 3], [5, 5, 2, 2]], requires_grad=True)
    giou_loss(boxes, torch.tensor([[3.0, 3, 3, 3], [0, 0, 1, 1]])).sum().backward()
    assert none.grad is not None and boxes.grad is not None and torch.isfinite(boxes.grad).all()

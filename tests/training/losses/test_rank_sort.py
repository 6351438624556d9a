"""Rank & Sort against the paper's definition written as loops over single examples, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.losses import rank_sort as module
from training.losses.rank_sort import balance_factor, rank_sort, ranked_losses, weighted_mean


def literal(x: list[float], t: list[float], delta: float) -> tuple[float, float, list[float]]:
    """Rank error, sort error and gradient, one pair at a time."""

    def step(u: float) -> float:
        return min(1.0, max(0.0, u / (2 * delta) + 0.5))

    positives = [i for i in range(len(x)) if t[i] > 0]
    negatives = [i for i in range(len(x)) if t[i] == 0]
    gradient = [0.0] * len(x)
    rank_errors, sort_errors = [], []
    for i in positives:
        false = sum(step(x[j] - x[i]) for j in negatives)
        above = sum(step(x[j] - x[i]) for j in positives)
        rank_error = false / (false + above)
        current = sum(step(x[j] - x[i]) * (1 - t[j]) for j in positives) / above
        better = [j for j in positives if t[j] >= t[i]]
        wanted = sum(step(x[j] - x[i]) * (1 - t[j]) for j in better) / sum(step(x[j] - x[i]) for j in better)
        sort_error = current - wanted
        if false > 0:
            gradient[i] -= rank_error
            for j in negatives:
                gradient[j] += rank_error * step(x[j] - x[i]) / false
        misplaced = {j: step(x[j] - x[i]) for j in positives if t[j] < t[i]}
        if sum(misplaced.values()) > 0:
            gradient[i] -= sort_error
            for j, share in misplaced.items():
                gradient[j] += sort_error * share / sum(misplaced.values())
        rank_errors.append(rank_error)
        sort_errors.append(sort_error)
    count = max(1, len(positives))
    return sum(rank_errors) / count, sum(sort_errors) / count, [g / count for g in gradient]


def run(x: list[float], t: list[float], delta: float = 0.5) -> tuple[float, float, list[float]]:
    logits = torch.tensor(x, requires_grad=True)
    rank, sort = rank_sort(logits, torch.tensor(t), delta)
    (rank + sort).backward()
    assert logits.grad is not None
    return rank.item(), sort.item(), logits.grad.tolist()


def test_worked_example() -> None:
    rank, sort, gradient = run([1.0, 0.2, 0.6, 0.1, -2.0], [0.6, 0.9, 0.0, 0.0, 0.0])
    assert rank == pytest.approx(0.315476, abs=1e-6) and sort == pytest.approx(0.1, abs=1e-6)
    assert gradient == pytest.approx([0.0167, -0.3321, 0.2440, 0.0714, 0.0], abs=5e-5)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    x = rng.normal(0, rng.uniform(0.1, 2), count)
    t = np.where(rng.random(count) < 0.4, np.round(rng.random(count), 1 if seed % 2 else 6), 0.0)  # odd seeds: equal qualities
    t[rng.random(count) < 0.15] = -1
    if seed % 3 == 0:
        x = np.round(x, 1)  # equal logits, and differences on the edges of the step
    x, t = x.astype(np.float32).astype(float), t.astype(np.float32).astype(float)
    delta = [0.5, 1.0, 0.1][seed % 3]
    expected = literal(list(x), list(t), delta)
    monkeypatch.setattr(module, "CHUNK", int(rng.choice([1, 50, 1 << 22])))
    found = run(list(x), list(t), delta)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_autocast_changes_nothing() -> None:
    """Matrix products in half precision would round the gradient."""
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(300, generator=generator), torch.rand(300, generator=generator)
    t = torch.where(t < 0.7, 0.0, t)
    expected = run(x.tolist(), t.tolist())
    with torch.autocast("cpu", torch.bfloat16):
        assert run(x.tolist(), t.tolist()) == expected


@pytest.mark.parametrize(("x", "t"), [([], []), ([1.0, -1.0], [0.0, 0.0]), ([3.0], [-1.0]), ([1.0, 2.0], [0.0, -1.0])])
def test_no_positives_no_loss(x: list[float], t: list[float]) -> None:
    rank, sort, gradient = run(x, t)
    assert rank == sort == 0 and gradient == [0.0] * len(x)


def test_no_negatives_and_perfect_order() -> None:
    assert run([2.0, 0.0], [0.9, 0.3])[0] == 0
    rank, sort, gradient = run([2.0, 0.0, -2.0], [0.9, 0.3, 0.0])  # each more than delta above the next
    assert rank == sort == 0 and gradient == [0.0] * 3
    rank, sort, gradient = run([0.0, 2.0], [0.9, 0.3])  # the worse box scores higher
    assert rank == 0 and sort == pytest.approx((1.0 * 0.7 + 0.5 * 0.1) / 1.5 / 2 - 0.1 / 2, abs=1e-6)
    assert gradient[0] < 0 < gradient[1] and sum(gradient) == pytest.approx(0, abs=1e-6)


def test_ignored_examples_change_nothing() -> None:
    base = run([0.3, 0.1, 0.4], [0.5, 0.8, 0.0])
    more = run([0.3, 9.0, 0.1, 0.4], [0.5, -1.0, 0.8, 0.0])
    assert more[:2] == base[:2] and more[2] == [base[2][0], 0.0, *base[2][1:]]


def test_gradient_is_scaled_by_what_comes_back_to_the_rank_error() -> None:
    logits = torch.tensor([0.0, 0.2, 0.4], requires_grad=True)
    targets = torch.tensor([0.5, 0.8, 0.0])
    (once,) = torch.autograd.grad(sum(rank_sort(logits, targets)), logits)
    rank, sort = rank_sort(logits, targets)
    (scaled,) = torch.autograd.grad(0.2 * (rank + sort), logits)
    torch.testing.assert_close(scaled, 0.2 * once)
    (none,) = torch.autograd.grad(rank_sort(logits, targets)[1], logits)
    assert (none == 0).all()


def test_low_precision_logits_get_a_gradient_of_their_type() -> None:
    logits = torch.tensor([0.0, 0.5], dtype=torch.bfloat16, requires_grad=True)
    rank, _ = rank_sort(logits, torch.tensor([0.5, 0.0]))
    rank.backward()
    assert rank.dtype == torch.float32 and logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_gradient_descent_ranks_and_sorts() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(60, requires_grad=True)
    targets = torch.zeros(60)
    targets[:8] = torch.linspace(0.3, 1.0, 8)
    optimizer = torch.optim.SGD([logits], 20.0)
    for _ in range(300):
        rank, sort = rank_sort(logits, targets)
        optimizer.zero_grad()
        (rank + sort).backward()
        optimizer.step()
    assert rank < 0.01 and sort < 0.01
    assert logits[:8].detach().argsort().tolist() == list(range(8))
    assert logits[:8].min() > logits[8:].max()


def test_many_negatives_stay_in_memory_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No intermediate of a chunk is larger than its bound."""
    monkeypatch.setattr(module, "CHUNK", 40_000)
    largest = 0
    step = module._step

    def watched(difference: torch.Tensor, delta: float) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, difference.numel())
        return step(difference, delta)

    monkeypatch.setattr(module, "_step", watched)
    logits = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.zeros(20_000)
    targets[:64] = 0.7
    sum(rank_sort(logits, targets)).backward()
    assert 0 < largest <= 40_000


def test_balance_takes_the_value_of_its_reference() -> None:
    loss = torch.tensor(4.0, requires_grad=True)
    scaled = loss * balance_factor(loss, torch.tensor(2.0))
    scaled.backward()
    assert scaled.item() == 2.0 and loss.grad is not None and loss.grad.item() == 0.5
    nothing = torch.tensor(0.0)
    assert (nothing * balance_factor(nothing, torch.tensor(1.0))).item() == 0.0


def test_weighted_mean() -> None:
    assert weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])).item() == 1.5
    assert weighted_mean(torch.zeros(0), torch.zeros(0)).item() == 0.0


def test_ranked_losses_of_a_stage() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10]], requires_grad=True)
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    weights = torch.tensor([1.0, 3.0])
    losses = ranked_losses(logits, torch.zeros(3), torch.tensor([2, 0]), boxes, truth, weights, delta=0.5, balance=False)
    rank, sort = rank_sort(logits, torch.tensor([0.5, 0.0, 1.0]))
    assert losses.rank == rank and losses.sort == sort
    assert losses.box.item() == pytest.approx(3 * 0.5 / 4)
    scaled = ranked_losses(logits, torch.zeros(3), torch.tensor([2, 0]), boxes, truth, weights, delta=0.5, balance=True)
    assert scaled.box.item() == pytest.approx((rank + sort).item())
    scaled.box.backward()
    assert boxes.grad is not None and boxes.grad[1].abs().sum() > 0


def test_a_positive_whose_box_misses_stays_a_positive() -> None:
    logits = torch.tensor([0.0, 1.0], requires_grad=True)
    boxes, truth = torch.tensor([[50.0, 50, 60, 60]]), torch.tensor([[0.0, 0, 10, 10]])
    losses = ranked_losses(logits, torch.zeros(2), torch.tensor([0]), boxes, truth, torch.ones(1), delta=0.5, balance=True)
    losses.rank.backward()
    assert logits.grad is not None and logits.grad[0] < 0 < logits.grad[1]

from collections import Counter

import numpy as np
import pytest

from training.data.sampling import AreaSampler, EpochSampler, repeat_factors


def test_repeat_factors_by_hand() -> None:
    # 1 is in all of 100 pictures, 2 in one: sqrt(.04 / .01) = 2; 3 in four: sqrt(.04 / .04) = 1; the largest of a picture counts.
    pictures = [[1, 2, 3]] + [[1, 3]] * 3 + [[1]] * 95 + [[]]
    factors = repeat_factors(pictures, 0.04)
    assert factors[0] == pytest.approx(2.0)
    assert factors[1:].tolist() == pytest.approx([1.0] * 99)
    assert repeat_factors([[1, 1], [], [], []], 1.0).tolist() == pytest.approx([2, 1, 1, 1])  # once a picture, however many objects


def test_plain_epochs_show_every_picture_once() -> None:
    sampler = EpochSampler(np.ones(10), batch=4, seed=3)
    stream = np.concatenate([sampler.chosen(i) for i in range(5)])  # two epochs; the third iteration lies across their border
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))
    assert stream[:10].tolist() != stream[10:].tolist()


def test_repeated_pictures_come_as_often_as_they_should() -> None:
    factors = np.array([1.0, 1.5, 3.0, 1.0])
    sampler = EpochSampler(factors, batch=5, seed=0)
    counts = Counter(np.concatenate([sampler.chosen(i) for i in range(1300)]).tolist())  # about 1000 epochs
    epochs = counts[0]
    assert counts[3] == pytest.approx(epochs, abs=1)  # a whole factor is exact in every epoch
    assert counts[2] == pytest.approx(3 * epochs, abs=3)
    assert counts[1] / epochs == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize("kind", ["area", "epochs"])
def test_an_iteration_depends_on_the_seed_alone(kind: str) -> None:
    def make(seed: int) -> AreaSampler | EpochSampler:
        factors = np.linspace(1, 2.5, 30)
        return AreaSampler(list(range(100, 400, 10)), 7, seed) if kind == "area" else EpochSampler(factors, 7, seed)

    walked, jumped = make(1), make(1)
    expected = [walked.chosen(i).tolist() for i in range(40)]
    assert [jumped.chosen(i).tolist() for i in (39, 3, 17)] == [expected[39], expected[3], expected[17]]
    assert make(2).chosen(39).tolist() != expected[39]


def test_large_pictures_come_more_often() -> None:
    sampler = AreaSampler([100, 10_000], 1000, 0)
    share = np.mean(sampler.chosen(0))
    assert share == pytest.approx(10 / 11, abs=0.04)

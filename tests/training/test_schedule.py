import pytest

from tests.trained import TINY
from tests.training.short import with_norm
from training.config import TrainConfig
from training.models.detector import Detector
from training.presets import NUCLEI, PRESETS
from training.schedule import learning_rate, make_optimizer


def test_learning_rate_schedules() -> None:
    step = PRESETS["coco-1x"]
    rates = [learning_rate(step, i) for i in (0, 500, 999, 1000, 59_999, 60_000, 79_999, 80_000)]
    assert rates == pytest.approx([0.02 * 0.001, 0.02 * 0.5005, 0.02 * 0.999001, 0.02, 0.02, 0.002, 0.002, 0.0002])
    assert learning_rate(NUCLEI, 0) == pytest.approx(1e-3 / 200)  # without a factor the ramp's first step
    assert learning_rate(NUCLEI, 199) == pytest.approx(1e-3)
    assert learning_rate(NUCLEI, NUCLEI.iterations) == pytest.approx(0.0)
    poly = TrainConfig(schedule="poly", warmup=0, iterations=100, learning_rate=0.01, floor=1e-4, power=0.9)
    rates = [learning_rate(poly, i) for i in (0, 50, 100)]
    assert rates == pytest.approx([0.01, 0.0099 * 0.5**0.9 + 1e-4, 1e-4])


def test_parameter_groups() -> None:
    model = Detector(with_norm("group"))
    config = TINY.replace(optimizer="sgd", weight_decay=0.5, bias_factor=2.0, decay_biases=True)
    groups = make_optimizer(model, config).param_groups
    found = {id(p): (g["lr_factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found[id(model.rpn.head.conv.weight)] == (1.0, 0.5)
    assert found[id(model.rpn.head.conv.bias)] == (2.0, 0.5)
    assert found[id(model.backbone.bn1.weight)] == found[id(model.backbone.bn1.bias)] == (1.0, 0.0)
    assert len(found) == len(list(model.parameters()))
    plain = make_optimizer(model, TINY).param_groups
    assert {(g["lr_factor"], g["weight_decay"]) for g in plain} == {(1.0, TINY.weight_decay), (1.0, 0.0)}

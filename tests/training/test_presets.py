import dataclasses
import json

import pytest

from sdk.errors import ConfigError
from training.config import ModelConfig, TrainConfig
from training.heads import HEADS
from training.presets import PAPERS, PRESETS, RECIPES, with_head


def test_config_errors() -> None:
    with pytest.raises(ConfigError, match="did you mean 'iterations'"):
        TrainConfig.from_dict({"iteratons": 3})
    with pytest.raises(ConfigError, match="optimizer"):
        TrainConfig(optimizer="adam")
    with pytest.raises(ConfigError, match="pair up"):
        ModelConfig(class_names=("a", "b"))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_storage(name: str) -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(PRESETS[name].to_dict()))) == PRESETS[name]


@pytest.mark.parametrize("preset", PAPERS)
@pytest.mark.parametrize("head", sorted({*RECIPES, "fcn", "beis"}))
def test_every_head_has_its_schedule(preset: str, head: str) -> None:
    config = with_head(PRESETS[preset], preset, head)
    assert config.model.head.name == head
    assert config.learning_rate / config.batch == pytest.approx(0.02 / 16)  # all papers scale it with the batch
    assert config.freeze_stem and config.model.norm == "frozen" and config.augment.mode == "full"


def test_recipes_of_the_papers() -> None:
    refinemask = with_head(PRESETS["coco-1x"], "coco-1x", "refinemask")
    assert (refinemask.clip_norm, refinemask.model.box.class_weight, refinemask.model.box.box_weight) == (35, 2, 2)
    assert (refinemask.epochs, refinemask.milestones, refinemask.warmup) == (12, (8 / 12, 11 / 12), 500)
    brefine = with_head(PRESETS["coco-2x"], "coco-2x", "brefine")
    assert (brefine.batch, brefine.learning_rate, brefine.clip_norm, brefine.model.detection_loss) == (6, 0.0075, 0, "rs_giou")
    lvis = with_head(PRESETS["lvis-1x"], "lvis-1x", "refinemask")
    assert (lvis.sampler, lvis.model.box.score_threshold, lvis.model.box.max_detections) == ("repeat", 1e-4, 300)
    city = with_head(PRESETS["cityscapes"], "cityscapes", "bmask")
    assert (city.batch, city.learning_rate, city.iterations, city.augment.long, city.model.resize.short) == (8, 0.01, 24_000, 2048, 1024)
    assert dataclasses.asdict(with_head(PRESETS["coco-3x"], "coco-3x", "fcn")) == dataclasses.asdict(PRESETS["coco-3x"])


@pytest.mark.parametrize("preset", PAPERS)
def test_what_defines_a_method_comes_with_every_preset_of_the_papers(preset: str) -> None:
    brefine = with_head(PRESETS[preset], preset, "brefine")
    assert (brefine.model.detection_loss, brefine.batch) == ("rs_giou", 6) and brefine.epochs > 0
    refinemask = with_head(PRESETS[preset], preset, "refinemask")
    assert (refinemask.clip_norm, refinemask.model.box.class_weight, refinemask.model.box.box_weight) == (35, 2, 2)


@pytest.mark.parametrize("preset", PAPERS)
@pytest.mark.parametrize("head", sorted(HEADS))
def test_the_papers_sample_adaptively(preset: str, head: str) -> None:
    """The defaults take 2 x 2 samples a bin, whose cost does not depend on the box; the papers' models took as many as there are cells."""
    config = with_head(PRESETS[preset], preset, head)
    assert (config.model.head.sampling_ratio, config.model.box.sampling_ratio) == (0, 0)

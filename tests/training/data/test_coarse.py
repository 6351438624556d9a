import numpy as np
import pytest

from sdk.errors import ConfigError
from sdk.evaluate.boundary import boundary_f
from training.data.coarse import CoarseConfig, mask_iou, simulate
from training.data.scenes import Scenes


def objects() -> list[tuple[np.ndarray, np.ndarray]]:
    """Masks with fine outlines, and where their neighbours are."""
    found = []
    scenes = Scenes(3, 256)
    for index in range(3):
        masks = scenes.load(index)[1]
        found += [(m, (masks.any(0) & (m == 0)).astype(np.uint8)) for m in masks]
    return found


def test_coarse_masks_are_coarse_but_of_the_same_object() -> None:
    rng = np.random.default_rng(0)
    overlaps, edges = [], []
    for mask, others in objects():
        for _ in range(5):
            coarse = simulate(mask, others, CoarseConfig(), rng)
            if coarse is not None:
                assert coarse.shape == mask.shape and coarse.dtype == np.uint8 and coarse.max() == 1
                overlaps.append(mask_iou(mask, coarse))
                edges.append(boundary_f(mask.astype(bool), coarse.astype(bool)))
    assert min(overlaps) > 0.5
    assert 0.7 < np.mean(overlaps) < 0.93  # mask heads lie there on such objects
    assert np.mean(edges) < 0.75


def test_same_seed_same_mask() -> None:
    for mask, others in objects()[:4]:
        first, second, third = (simulate(mask, others, CoarseConfig(), np.random.default_rng(seed)) for seed in (5, 5, 6))
        assert np.array_equal(first, second) and not np.array_equal(first, third)


NOTHING = {"jitter": 0.0, "noise": (0.0, 0.0), "bias": 0.0, "thin": 0.0, "morphology": 0.0, "neighbour": 0.0, "polygon": 0.0, "clean": 0.0}


def disk_with_arm(arm: int = 4) -> np.ndarray:
    mask = np.zeros((120, 160), np.uint8)
    y, x = np.mgrid[:120, :160]
    mask[(x - 60) ** 2 + (y - 60) ** 2 <= 35**2] = 1
    mask[58 : 58 + arm, 60:140] = 1
    return mask


def test_each_step_does_its_own() -> None:
    mask = disk_with_arm()
    rng = np.random.default_rng(1)
    fine = {**NOTHING, "grid": (120, 120), "blur": (0.3, 0.3)}
    plain = simulate(mask, None, CoarseConfig(**fine), rng)
    assert plain is not None and mask_iou(mask, plain) > 0.97  # a fine grid alone changes next to nothing
    gone = simulate(mask, None, CoarseConfig(**{**fine, "thin": 1.0, "thin_radius": (0.08, 0.08)}), np.random.default_rng(2))
    assert gone is not None and gone[58:62, 110:135].sum() == 0 and gone[60, 60] == 1
    others = np.zeros_like(mask)
    others[:, :24] = 1 - mask[:, :24]
    glued = simulate(mask, others, CoarseConfig(**{**fine, "neighbour": 1.0}), np.random.default_rng(0))
    assert glued is not None and (glued & ~mask & others & 1).sum() > 20
    coarse = simulate(mask, None, CoarseConfig(**{**NOTHING, "grid": (14, 14), "blur": (0.5, 0.5)}), rng)
    truth = mask.astype(bool)
    assert coarse is not None and boundary_f(truth, coarse.astype(bool)) < 0.9 < boundary_f(truth, plain.astype(bool))
    drawn = simulate(mask, None, CoarseConfig(**{**fine, "polygon": 1.0, "polygon_error": (4.0, 4.0)}), rng)
    assert drawn is not None and 0.8 < mask_iou(mask, drawn) < 0.97


def test_nothing_is_made_of_nothing_or_against_the_limit() -> None:
    assert simulate(np.zeros((20, 20), np.uint8), None, CoarseConfig(), np.random.default_rng(0)) is None
    speck = np.zeros((20, 20), np.uint8)
    speck[10, 10] = 1
    limit = CoarseConfig(**{**NOTHING, "min_iou": 0.999, "grid": (4, 4), "blur": (1.6, 1.6)})
    assert simulate(disk_with_arm(), None, limit, np.random.default_rng(0)) is None
    made = simulate(speck, None, CoarseConfig(), np.random.default_rng(0))
    assert made is None or made[10, 10] == 1


@pytest.mark.parametrize("values", [{"thin": 1.5}, {"grid": [30, 20]}, {"grid": [2, 20]}, {"bias": 0.5}, {"min_iou": 1.0}])
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        CoarseConfig.from_dict(values)

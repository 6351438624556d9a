"""Every mask head and every option of the box side, from a detector of random weights to instances: the engine finds what PyTorch finds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import verify
from export.pack import pack
from sdk.backends.base import graph_contracts
from sdk.manifest import Manifest
from sdk.segmenter import Segmenter
from tests.export.random_detectors import picture, random_detector, small_config
from tests.export.test_graphs import FORBIDDEN
from training.config import BoxConfig, CascadeConfig, ModelConfig, ScoringConfig
from training.heads import HEADS
from training.models.detector import Detector

SIZES = ((64, 64), (97, 131), (40, 200))
SCORING = ScoringConfig(channels=8, hidden=16)
CASCADE = CascadeConfig()
AGNOSTIC = BoxConfig(hidden=32, max_detections=30, class_agnostic=True)

# One combination a head, so that each option meets some head; the slow test takes them all together.
OPTIONS: dict[str, dict[str, Any]] = {
    "fcn": {"scoring": SCORING, "box": AGNOSTIC},
    "bmask": {"cascade": CASCADE},
    "refinemask": {"detection_loss": "rs_giou"},
    "brefine": {"detection_loss": "rs_giou", "scoring": SCORING},
    "beis": {"cascade": CASCADE, "scoring": SCORING, "norm": "frozen"},
}
ALL: dict[str, Any] = {"cascade": CASCADE, "scoring": SCORING, "detection_loss": "rs_giou"}


def check(config: ModelConfig, folder: Path) -> tuple[Detector, Manifest, Segmenter]:
    """Exports a random detector and compares the engine with it on pictures of several sizes."""
    model = random_detector(config)
    path = folder / "x.engine"
    manifest = pack(model, path, "x", {})
    agreement = verify.compare(model, path, [picture(i, *size) for i, size in enumerate(SIZES)])
    assert agreement.instances > 20, agreement
    assert agreement.unmatched == 0, agreement
    assert agreement.ok, agreement
    return model, manifest, Segmenter(path, color="rgb", device="cpu")


@pytest.mark.parametrize("head", HEADS)
def test_the_engine_of_every_head_finds_what_pytorch_finds(head: str, tmp_path: Path) -> None:
    config = small_config(head, **OPTIONS.get(head, ALL))
    model, manifest, segmenter = check(config, tmp_path)
    assert manifest.mask.scored == (config.scoring is not None)
    assert manifest.box.class_agnostic == (config.cascade is not None or config.box.class_agnostic)
    assert [stage.coder_weights for stage in manifest.box.stages] == [stage.coder_weights for stage in config.box_stages()]
    assert manifest.mask.pools == model.mask_head.pools

    found = segmenter.predict(picture(9, 80, 90), conf=0.05)
    assert (np.diff(found.scores) <= 0).all()
    assert found.mask_logits is not None and found.mask_logits.std() > 0.1
    none = segmenter.predict(picture(9, 80, 90), conf=1.0)
    assert len(none) == 0 and none.masks.shape == (0, 80, 90)

    contracts = graph_contracts(segmenter.manifest)
    assert tuple(contracts) == manifest.graph_names
    for name in contracts:
        graph = onnx.load(str(unpack(tmp_path / "x.engine", name))).graph
        kinds = Counter(node.op_type for node in graph.node)
        assert not FORBIDDEN & set(kinds), (name, kinds)
        assert [output.name for output in graph.output] == [tensor.name for tensor in contracts[name].outputs]


def unpack(engine: Path, graph: str) -> Path:
    import zipfile

    with zipfile.ZipFile(engine) as archive:
        return Path(archive.extract(f"{graph}.onnx", engine.parent))


def test_mask_scoring_changes_the_order_in_both(tmp_path: Path) -> None:
    """The scores that were compared above are not the boxes'."""
    model = random_detector(small_config(scoring=SCORING))
    pack(model, tmp_path / "x.engine", "x", {})
    image = picture(1, 90, 120)
    found = Segmenter(tmp_path / "x.engine", color="rgb").predict(image, conf=0.05)
    model.mask_scoring = None
    plain = verify.predict_torch(model, image)
    assert len(found) == len(plain.scores) > 5
    assert (found.scores < plain.scores.numpy()).all()
    order = [int(np.abs(plain.boxes.numpy() - box).max(1).argmin()) for box in found.boxes]
    assert order != sorted(order)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_all_options_together(head: str, tmp_path: Path) -> None:
    check(small_config(head, **ALL), tmp_path)


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "fcn": [{"convs": 8}, {"source": "p2"}, {"sampling_ratio": 0}],
    "bmask": [
        {"variant": "sobel"},
        {"mask_to_boundary": False},
        {"boundary_to_mask": False},
        {"boundary_source": "pyramid", "boundary_pool": 14},
    ],
    "refinemask": [{"variant": "simple"}, {"semantic": False}, {"refinement": "none"}],
    "brefine": [{"stages": 1}, {"ram": False}, {"upsample": "transposed"}],
    "beis": [{"stages": 0}, {"stages": 4}],
}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "options"), [(head, options) for head, rows in VARIANTS.items() for options in rows])
def test_variants_of_the_heads(head: str, options: dict[str, Any], tmp_path: Path) -> None:
    check(small_config(head, head_options=options), tmp_path)

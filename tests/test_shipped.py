"""The shipped engines and the weights they were made from, on real pictures that come inside scikit-image."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage

from sdk.engine import Engine
from sdk.images import read_image
from sdk.manifest import Manifest
from sdk.segmenter import Segmenter

ROOT = Path(__file__).parents[1]
PICTURES = Path(skimage.__file__).parent / "data"
NUCLEI = ROOT.parent / "shared" / "data" / "nuclei"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Engine.open("nuclei").manifest


def test_engine_says_what_it_was_made_from(manifest: Manifest) -> None:
    assert manifest.class_names == ("nucleus",)
    assert manifest.verified is not None
    # Near ties that rounding orders either way: at most one in 2,000, and both sides of it count.
    assert manifest.verified["unmatched"] <= manifest.verified["instances"] / 1000  # type: ignore[operator]
    assert all("licence" in source and "name" in source for source in manifest.provenance["data"])  # type: ignore[attr-defined]
    assert manifest.provenance["data"]
    assert (ROOT / "sdk/engines/nuclei.engine").stat().st_size < 25_000_000


def test_coins_are_found() -> None:
    found = Segmenter("nuclei").predict(PICTURES / "coins.png", conf=0.5)
    # 24 coins in four rows of six, none smaller than 700 pixels.
    large = found[found.crops.areas() > 500]
    assert 20 <= len(large) <= 28
    rows = np.sort((large.boxes[:, 1] + large.boxes[:, 3]) / 2)
    assert rows[0] < 80 and rows[-1] > 220


@pytest.mark.parametrize("name", ["coins.png", "ihc.png"])
def test_engine_is_its_checkpoint(name: str) -> None:
    from export.verify import compare
    from training.checkpoint import load_model

    picture = read_image(PICTURES / name)
    agreement = compare(load_model(ROOT / "training/weights/nuclei.pt")[0], "nuclei", [picture.rgb()])
    assert agreement.instances > 20
    assert agreement.ok, agreement


def test_checkpoint_is_the_one_in_the_manifest(manifest: Manifest) -> None:
    import hashlib

    digest = hashlib.sha256((ROOT / "training/weights/nuclei.pt").read_bytes()).hexdigest()
    assert manifest.provenance["checkpoint_sha256"] == digest


@pytest.mark.slow
@pytest.mark.skipif(not NUCLEI.is_dir(), reason="the nuclei pictures (shared/data/nuclei) are not beside this checkout")
def test_accuracy_on_real_micrographs(tmp_path: Path) -> None:
    """Mask AP on the validation pictures through `kerf predict` and `kerf eval`, as docs/training.md prints it."""
    from sdk.cli.main import main

    annotations, results = NUCLEI / "annotations/val.json", tmp_path / "val.json"
    arguments = ["--engine", "nuclei", "--conf", "0.05", "--out", str(tmp_path), "--save-json", str(results)]
    assert main(["predict", str(NUCLEI / "val"), *arguments, "--annotations", str(annotations)]) == 0
    from sdk.evaluate import evaluate

    metrics = evaluate(annotations, results, max_dets=500)
    assert metrics["segm"]["AP"] >= 0.35, json.dumps(metrics["segm"])

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import graphs, verify
from export.graphs import OPSET, Trunk, export_graphs
from export.main import main
from export.pack import pack
from sdk.engine import Engine
from sdk.segmenter import Segmenter
from tests.ellipses import draw
from training.checkpoint import CheckpointError
from training.config import ModelConfig
from training.models.detector import Detector

SIZES = ((64, 64), (97, 211), (256, 320), (33, 480), (300, 200))


@pytest.fixture(scope="session")
def tiny_graphs(tiny_model: Detector) -> dict[str, bytes]:
    return export_graphs(tiny_model)


@pytest.fixture(scope="session")
def tiny_engine_file(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "tiny.engine"
    assert main([str(tiny_checkpoint), "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (96, 224), (256, 64)])
def test_trunk_equals_torch(tiny_model: Detector, tiny_graphs: dict[str, bytes], batch: int, size: tuple[int, int]) -> None:
    session = onnxruntime.InferenceSession(tiny_graphs["trunk"])
    image = torch.randn(batch, 3, *size)
    with torch.no_grad():
        expected = Trunk(tiny_model)(image)
    for a, b in zip(session.run(None, {"image": image.numpy()}), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2, 57])
def test_roi_graphs_take_any_number(tiny_model: Detector, tiny_graphs: dict[str, bytes], count: int) -> None:
    rois = torch.randn(count, 24, 7, 7)
    with torch.no_grad():
        class_logits, deltas = tiny_model.box_head(rois)
    expected = torch.softmax(class_logits, 1)[:, :2], deltas
    for a, b in zip(onnxruntime.InferenceSession(tiny_graphs["box"]).run(None, {"rois": rois.numpy()}), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    rois, labels = torch.randn(count, 24, 14, 14), torch.randint(0, 2, (count,))
    with torch.no_grad():
        logits = tiny_model.mask_head([rois], labels).logits
    session = onnxruntime.InferenceSession(tiny_graphs["mask"])
    found = session.run(["mask_logits"], {"rois0": rois.numpy(), "labels": labels.numpy()})[0]
    assert found.shape == (count, 28, 28)
    np.testing.assert_allclose(found, logits.numpy(), atol=1e-4)


def test_graphs_are_pure_and_carry_no_traces(tiny_graphs: dict[str, bytes]) -> None:
    for serialised in tiny_graphs.values():
        model = onnx.load_from_string(serialised)
        assert {o.domain for o in model.opset_import} == {""} and model.opset_import[0].version == OPSET
        assert not model.functions
        assert not [n for n in model.graph.node if n.doc_string or n.metadata_props]
        assert b"site-packages" not in serialised and str(Path.cwd()).encode() not in serialised


def test_export_is_reproducible(tiny_model: Detector, tiny_graphs: dict[str, bytes]) -> None:
    assert export_graphs(tiny_model) == tiny_graphs


def test_export_leaves_the_model_alone(tiny_model: Detector) -> None:
    before = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    graphs.export_graphs(tiny_model)
    assert all(torch.equal(v, before[k]) for k, v in tiny_model.state_dict().items())


def test_engine_equals_torch_on_every_size(tiny_model: Detector, tiny_engine_file: Path) -> None:
    rng = np.random.default_rng(7)
    pictures = [draw(rng, *size, 6)[0] for size in SIZES]
    agreement = verify.compare(tiny_model, tiny_engine_file, pictures)
    assert agreement.instances > 20 and agreement.pictures == len(SIZES)
    assert agreement.unmatched == 0
    assert max(agreement.boxes, agreement.scores, agreement.mask_logits) <= 1e-3
    assert agreement.ok


def test_zero_detections(tiny_engine_file: Path) -> None:
    found = Segmenter(tiny_engine_file).predict(np.full((80, 90, 3), 110, np.uint8), conf=0.999)
    assert len(found) == 0 and found.masks.shape == (0, 80, 90)


def test_manifest_says_where_the_engine_comes_from(tiny_engine_file: Path) -> None:
    manifest = Engine.open(tiny_engine_file).manifest
    assert manifest.verified is not None and manifest.verified["unmatched"] == 0
    assert manifest.category_ids == (3, 7) and manifest.class_names == ("bright", "dark")
    assert ModelConfig.from_dict(manifest.provenance["training"]["model"]).width == 8  # type: ignore[index]
    json.dumps(manifest.to_dict())


def test_an_engine_that_differs_is_not_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def different(model: Detector) -> dict[str, bytes]:
        changed = Detector(model.config).eval()
        changed.load_state_dict(model.state_dict())
        with torch.no_grad():
            changed.mask_head.predictor.bias += 0.01
        return export_graphs(changed)

    monkeypatch.setattr("export.main.export_graphs", different)
    assert main([str(tiny_checkpoint), "--out", str(tmp_path / "x.engine")]) == 1
    assert "not written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_verify_counts_what_only_one_side_found(tiny_model: Detector, tiny_engine_file: Path) -> None:
    strict = Detector(dataclasses.replace(tiny_model.config, box=dataclasses.replace(tiny_model.config.box, max_detections=1)))
    strict.load_state_dict(tiny_model.state_dict())
    picture = draw(np.random.default_rng(3), 128, 160, 5)[0]
    agreement = verify.compare(strict, tiny_engine_file, [picture])
    assert agreement.unmatched == agreement.instances - 1 > 0 and not agreement.ok


def test_pack_without_check_is_unverified(tiny_model: Detector, tmp_path: Path) -> None:
    manifest = pack(tiny_model, tmp_path / "a.engine", "a", {})
    assert manifest.verified is None and Engine.open(tmp_path / "a.engine").manifest.name == "a"


def test_nothing_to_compare_is_not_agreement(tiny_model: Detector, tmp_path: Path) -> None:
    broken = Detector(tiny_model.config).eval()
    broken.load_state_dict(tiny_model.state_dict())
    with torch.no_grad():
        broken.backbone.conv1.weight.fill_(float("nan"))
    pack(broken, tmp_path / "x.engine", "x", {})
    agreement = verify.compare(broken, tmp_path / "x.engine", [draw(np.random.default_rng(0), 96, 96, 3)[0]])
    assert agreement.instances == 0
    assert not agreement.ok


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 truncated"])
def test_what_is_no_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        main([str(path), "--out", str(tmp_path / "x.engine")])
    torch.save({"format": 1, "config": {}, "ema": None, "model": {}}, path)
    with pytest.raises(CheckpointError, match="do not fit"):
        main([str(path), "--out", str(tmp_path / "x.engine")])

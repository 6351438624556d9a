from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdk.cli.main import main
from sdk.segmenter import Segmenter
from tests.sdk import tiny

pytest.importorskip("pycocotools", reason="pycocotools is not installed")


@pytest.fixture
def world(tiny_engine: Path, tmp_path: Path) -> Path:
    """Two pictures, what is in them, and what `kerf predict` finds."""
    segmenter = Segmenter(tiny_engine)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "warm"}, {"id": 7, "name": "cold"}]}
    for number, name in ((4, "a.png"), (9, "b.png")):
        Image.fromarray(tiny.squares()).save(tmp_path / name)
        truth["images"].append({"id": number, "file_name": name, "height": 96, "width": 128})
        for entry in segmenter.predict(tmp_path / name).to_coco(number):
            del entry["score"]
            area = entry["bbox"][2] * entry["bbox"][3]
            truth["annotations"].append({**entry, "id": len(truth["annotations"]), "area": area, "iscrowd": 0})
    (tmp_path / "a.json").write_text(json.dumps(truth))
    given = ["predict", str(tmp_path / "*.png"), "--engine", str(tiny_engine), "--annotations", str(tmp_path / "a.json")]
    assert main([*given, "--save-json", str(tmp_path / "r.json")]) == 0
    return tmp_path


def run(world: Path, *arguments: str) -> int:
    return main(["eval", "--annotations", str(world / "a.json"), "--results", str(world / "r.json"), *arguments])


def test_predict_then_eval(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(world) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].split()[:3] == ["mask", "1.000", "1.000"]
    assert "2 images, 4 objects, 4 results" in text


def test_json(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(world, "--json", "--max-dets", "500") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["segm"]["AP"], values["bbox"]["AP"], values["segm"]["max_dets"]) == (1.0, 1.0, 500)
    assert values["segm"]["APl"] is None  # nothing that large


def test_results_with_boxes_only(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((world / "r.json").read_text())
    (world / "r.json").write_text(json.dumps([{key: r[key] for key in r if key != "segmentation"} for r in results]))
    capsys.readouterr()
    assert run(world, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["bbox"]


def test_no_results_at_all(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "r.json").write_text("[]")
    capsys.readouterr()
    assert run(world, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["segm"]["AP"] == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "a list of objects"),
        ("[1]", "a list of objects"),
        ("nonsense", "not a JSON file"),
        ('[{"image_id": 4}]', "neither all results have"),
    ],
)
def test_bad_result_files(text: str, words: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "r.json").write_text(text)
    assert run(world) == 2
    assert words in capsys.readouterr().err


def test_results_of_unknown_pictures(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((world / "r.json").read_text())
    results[2]["image_id"] = 5
    (world / "r.json").write_text(json.dumps(results))
    assert run(world) == 2
    assert "result 2 is of image 5, which the annotations do not have" in capsys.readouterr().err

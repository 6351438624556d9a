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


def test_metrics_by_name_and_a_json_file(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    out = world / "sub" / "out.json"
    assert (
        run(world, "--metrics", "mask,boundary, af,fnpx,upper-bound", "--radii", "1,2", "--boundary-ratio", "0.01", "--json", str(out)) == 0
    )
    values = json.loads(out.read_text())
    assert list(values) == ["segm", "boundary", "af", "fnpx", "upper_bound"]
    assert (values["boundary"]["AP"], values["boundary"]["boundary_ratio"], values["fnpx"]["F2px"]) == (1.0, 0.01, 1.0)
    assert values["upper_bound"]["rows"]["inf"]["APl"] is None
    text = capsys.readouterr().out
    assert "F1px 1.000  F2px 1.000" in text
    assert text.splitlines()[2].split()[:2] == ["boundary", "1.000"]
    assert text.rstrip().endswith("at most 100 results per image and class count")


def test_the_band_needs_no_results(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    arguments = ["eval", "--annotations", str(world / "a.json")]
    assert main([*arguments, "--metrics", "band"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["band", "28", "56", "112"]
    assert main([*arguments, "--metrics", "band,mask"]) == 2
    assert main(arguments) == 2
    assert "--results is missing; only the metric band does without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "masks"], "--metrics 'masks': expected names from: mask, box, boundary, af, fnpx, lvis, lvis-box"),
        (["--metrics", ","], "--metrics ',': expected names"),
        (["--radii", "1,x"], "--radii '1,x': expected whole numbers"),
        (["--radii", "1,"], "--radii '1,': expected whole numbers"),
        (["--boundary-ratio", "2"], "boundary_ratio must be above 0"),
        (["--max-dets", "0"], "max_dets must be a positive number"),
        (["--metrics", "ap-star"], "needs lvis_annotations"),
        (["--metrics", "lvis"], "images[0] needs a list 'neg_category_ids'"),
    ],
)
def test_bad_flags(arguments: list[str], words: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, *arguments) == 2
    assert words in capsys.readouterr().err


def test_json_never_overwrites_what_is_read(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (world / "a.json").read_bytes()
    assert run(world, "--json", str(world / "a.json")) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert (world / "a.json").read_bytes() == before


def test_lvis_flags(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = json.loads((world / "a.json").read_text())
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth["categories"] = [
        {"id": 3, "name": "person", "synset": "person.n.01", "frequency": "f"},
        {"id": 7, "name": "gizmo", "synset": "gizmo.n.01"},
    ]
    (world / "lvis.json").write_text(json.dumps(truth))
    coco = {**truth, "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]}
    ids = {3: 1, 7: 2}
    coco["annotations"] = [{**a, "category_id": ids[a["category_id"]]} for a in truth["annotations"]]
    (world / "a.json").write_text(json.dumps(coco))
    results = json.loads((world / "r.json").read_text())
    (world / "r.json").write_text(json.dumps([{**r, "category_id": ids[r["category_id"]]} for r in results]))
    capsys.readouterr()
    assert run(world, "--metrics", "ap-star,fnpx", "--lvis-annotations", str(world / "lvis.json"), "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["ap_star"]["AP"], values["ap_star"]["APf"], values["ap_star"]["APr"]) == (1.0, 1.0, None)
    assert values["ap_star"]["per_class"] == {"person": 1.0}
    assert values["fnpx"]["objects_of"] == "lvis"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from sdk import Refiner, ops
from sdk.cli import refine
from sdk.cli.main import main
from tests.sdk import tiny_refiner

SHAPE = (90, 120)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    return cv2.circle(np.zeros(SHAPE, np.uint8), (x, y), radius, 1, -1).astype(bool)


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(SHAPE), "counts": ops.rle_encode(ops.dense_to_crops(mask[None]), SHAPE)[0].decode()}


def decoded(result: dict[str, Any]) -> np.ndarray:
    return ops.crops_to_dense(ops.rle_decode([result["segmentation"]["counts"].encode()], SHAPE), SHAPE)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures with a red disc each, annotations, and coarse results of the first two in mixed order."""
    tiny_refiner.write(tmp_path / "r.engine")
    (tmp_path / "pictures").mkdir()
    for i in (1, 2, 3):
        pixels = np.zeros((*SHAPE, 3), np.uint8)
        pixels[disc(30 * i, 40, 20), 0] = 255
        Image.fromarray(pixels).save(tmp_path / f"pictures/{i}.png")
    images = [{"id": i, "file_name": f"somewhere/{i}.png"} for i in (1, 2, 3)]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "categories": []}))
    results = [
        {
            "image_id": i,
            "category_id": 5,
            "score": 0.1 + 0.2,
            "bbox": [1, 2, 3, 4.5],
            "segmentation": rle(disc(30 * i, 40, r)),
            "mine": {"a": [r]},
        }
        for i, r in ((2, 16), (1, 24), (2, 23))
    ]
    (tmp_path / "coarse.json").write_text(json.dumps(results))
    return tmp_path


def run(folder: Path, *more: str, results: str = "coarse.json") -> int:
    paths = [
        "--images",
        folder / "pictures",
        "--annotations",
        folder / "a.json",
        "--results",
        folder / results,
        "--out",
        folder / "fine.json",
    ]
    return main(["refine", *map(str, paths), "--refiner", str(folder / "r.engine"), *more])


def test_only_the_masks_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    coarse, fine = (json.loads((folder / name).read_text()) for name in ("coarse.json", "fine.json"))
    assert [{k: v for k, v in r.items() if k != "segmentation"} for r in fine] == [
        {k: v for k, v in r.items() if k != "segmentation"} for r in coarse
    ]
    for before, after in zip(coarse, fine, strict=True):
        true = disc(30 * after["image_id"], 40, 20)
        assert (decoded(after) & true).sum() / (decoded(after) | true).sum() > 0.99
        assert (decoded(before) & true).sum() / (decoded(before) | true).sum() < 0.8
    assert not (folder / "fine.json.partial").exists()
    assert "2 pictures, 3 masks" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    whole = (folder / "fine.json").read_bytes()
    (folder / "fine.json").unlink()
    real, seen = Refiner.refine, []

    def interrupted(self: Refiner, *arguments: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(Refiner, "refine", interrupted)
    assert run(folder) == 130
    partial = folder / "fine.json.partial"
    assert partial.exists() and not (folder / "fine.json").exists()
    partial.write_bytes(partial.read_bytes() + b'[1, [{"size"')  # cut off while it was written
    assert run(folder, "--quality", "fast") == 2  # not the same run
    assert "other inputs or options" in capsys.readouterr().err
    assert run(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["resumed"] == 1
    assert len(seen) == 3  # the first picture was not done again
    assert (folder / "fine.json").read_bytes() == whole and not partial.exists()


def test_what_fails_is_named_and_keeps_its_masks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((folder / "coarse.json").read_text())
    bad = [
        {**results[0], "image_id": 99},
        {**results[0], "image_id": "x"},
        {**results[0], "image_id": 3, "segmentation": {"size": [5, 5], "counts": "11"}},
    ]
    (folder / "some.json").write_text(json.dumps([*results, *bad]))
    (folder / "pictures/1.png").write_bytes(b"no picture")
    assert run(folder, results="some.json") == 1
    error = capsys.readouterr().err
    for words in ("4 of 5 pictures failed", "99: image_id 99", "x: image_id 'x'", "3.png: result 0: segmentation of a picture", "1.png"):
        assert words in error
    fine = json.loads((folder / "fine.json").read_text())
    assert fine[3:] == bad and fine[1] == results[1] and fine[0] != results[0]


def test_options_reach_the_refiner(folder: Path) -> None:
    assert run(folder, "--max-patches", "0", "--threads", "1") == 0
    assert json.loads((folder / "fine.json").read_text()) == json.loads((folder / "coarse.json").read_text())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "results are a list"),
        ("[3]", "result 0 needs"),
        ('[{"image_id": 1}]', "result 0 needs"),
        ('[{"segmentation": []}]', "result 0 needs"),
        ("nonsense", "not a JSON file"),
    ],
)
def test_bad_results(text: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.json").write_text(text)
    assert run(folder, results="bad.json") == 2
    assert words in capsys.readouterr().err
    assert not list(folder.glob("fine*"))


def test_nothing_to_refine(folder: Path) -> None:
    (folder / "none.json").write_text("[]")
    assert run(folder, results="none.json") == 0
    assert json.loads((folder / "fine.json").read_text()) == []


def test_inputs_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--out", str(folder / "coarse.json")) == 2
    assert run(folder, "--images", str(folder / "nowhere")) == 2
    assert run(folder, "--out", str(folder)) == 2
    error = capsys.readouterr().err
    assert "would overwrite" in error and "no such folder" in error
    assert f"--out {folder}: a folder" in error and "--save-json" not in error  # messages name this command's option


def test_the_partial_file_is_small(folder: Path) -> None:
    with refine._Partial(folder / "x.json", {"run": 1}) as partial:
        partial.add(7, [{"size": [1, 1], "counts": "01"}])
    assert len((folder / "x.json.partial").read_text().splitlines()) == 2
    with refine._Partial(folder / "x.json", {"run": 1}) as partial:
        assert partial.done == {7: [{"size": [1, 1], "counts": "01"}]}
        partial.finished = True
    assert not (folder / "x.json.partial").exists()

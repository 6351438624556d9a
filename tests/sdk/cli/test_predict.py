from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdk.backends import Backend, open_backend
from sdk.cli.main import main
from sdk.cli.predict import plan_overlays
from sdk.engine import Engine
from sdk.errors import InputError
from sdk.images import read_image
from sdk.instances import Instances
from sdk.segmenter import Segmenter
from tests.sdk import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, one truncated and one that is none."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(tiny.squares()).save(pictures / name, quality=95)
    (pictures / "d.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    (pictures / "e.png").write_text("not a picture")
    return pictures


def run(*arguments: object) -> int:
    return main(["predict", *(str(argument) for argument in arguments)])


def annotations(path: Path, names: dict[str, int]) -> Path:
    images = [{"id": number, "file_name": name, "height": 96, "width": 128} for name, number in names.items()]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 3, "name": "warm"}, {"id": 7, "name": "cold"}]}))
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_overlays_and_results(folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, results = tmp_path / "out", tmp_path / "r" / "results.json"
    assert run(folder / "[abc].*", "--engine", tiny_engine, "--out", out, "--save-json", results) == 0
    assert files(out) == ["a.png", "b.png", "c.png"]
    assert files(results.parent) == ["results.json"]
    found = json.loads(results.read_text())
    assert sorted((entry["image_id"], entry["file_name"], entry["category_id"]) for entry in found) == [
        (number, name, category) for number, name in ((1, "a.png"), (2, "b.png"), (3, "c.jpg")) for category in (3, 7)
    ]
    expected = Segmenter(tiny_engine).predict(folder / "a.png")
    back = Instances.from_coco(found[:2], (96, 128), category_ids=(3, 7))
    np.testing.assert_array_equal(back.masks, expected.masks)
    np.testing.assert_array_equal(read_image(out / "a.png").bgr(), expected.plot())
    printed = capsys.readouterr().out
    assert f"{folder}/a.png: 1 warm, 1 cold, " in printed
    assert "3 pictures, 6 instances" in printed
    assert f"overlays in {out}; results in {results}" in printed
    assert "ms per picture: read " in printed


def test_a_batch_goes_on_past_bad_files(folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, results = tmp_path / "out", tmp_path / "r.json"
    code = run(folder / "gone.png", folder, "--engine", tiny_engine, "--out", out, "--save-json", results)
    assert code == 1
    assert files(out) == ["a.png", "b.png", "c.png"]
    assert {entry["image_id"] for entry in json.loads(results.read_text())} == {2, 3, 4}  # the numbers of pictures do not shift
    errors = capsys.readouterr().err
    assert "3 of 6 pictures failed" in errors
    for words in ("gone.png: no such file", "d.png: truncated", "e.png: not a picture"):
        assert words in errors


def test_when_all_fail_nothing_is_written(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(folder / "e.png", folder / "d.png", "--engine", tiny_engine, "--out", out, "--save-json", out / "r.json") == 1
    assert not out.exists()


def test_image_ids_come_from_annotations(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    given = annotations(tmp_path / "a.json", {"val/a.png": 70, "b.png": 5, "unused.png": 6})
    results = tmp_path / "r.json"
    assert run(folder / "a.png", folder / "b.png", "--engine", tiny_engine, "--annotations", given, "--save-json", results) == 0
    found = json.loads(results.read_text())
    assert [entry["image_id"] for entry in found] == [70, 70, 5, 5]
    assert set(found[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}


def test_names_that_the_annotations_lack_stop_it_before_the_start(
    folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = annotations(tmp_path / "a.json", {"a.png": 1})
    out = tmp_path / "out"
    assert run(folder / "a.png", folder / "b.png", "--engine", tiny_engine, "--annotations", given, "--out", out) == 2
    assert "b.png" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "gone.engine"], "gone.engine: no such file"),
        (["--engine", "nonsense"], "no shipped engine has this name"),
        (["--conf", "7"], "conf must be a number from 0 to 1"),
        (["--classes", "dog"], "'dog' is neither a class name nor a label"),
        (["--device", "cuda:7"], "onnxruntime-gpu"),
        (["--device", "tpu"], "device must be"),
        (["--annotations", "gone.json"], "gone.json: cannot be read"),
    ],
)
def test_bad_usage_stops_it_before_the_start(
    arguments: list[str], words: str, folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = [] if "--engine" in arguments else ["--engine", tiny_engine]
    assert run(folder / "a.png", "--out", tmp_path / "out", *engine, *arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.startswith("kerf: error: ")
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pictures(tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--engine", tiny_engine) == 2
    assert "no pictures in this folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--conf", "high", "a.png"], ["--alpha", "keep", "a.png"], ["--nonsense", "a.png"]])
def test_what_argparse_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_options_reach_the_segmenter(folder: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def report(*arguments: object) -> Any:
        assert run(folder / "a.png", "--engine", tiny_engine, "--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)

    assert report("--classes", "cold")["pictures"][0]["counts"] == {"cold": 1}
    assert report("--classes", "0,cold")["pictures"][0]["counts"] == {"warm": 1, "cold": 1}
    assert report("--conf", 0, "--iou", 1, "--max-det", 7)["pictures"][0]["instances"] == 7
    assert report("--mask-threshold", 0.7)["pictures"][0]["instances"] == 2


def test_threads_count_for_the_network_and_the_native_steps(folder: Path, tiny_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native: list[int] = []
    network: list[int] = []
    real = open_backend

    def spy(engine: Engine, device: str, threads: int) -> Backend:
        network.append(threads)
        return real(engine, device, threads)

    monkeypatch.setattr("sdk.ops.set_num_threads", native.append)
    monkeypatch.setattr("sdk.segmenter.open_backend", spy)
    assert run(folder / "a.png", "--engine", tiny_engine, "--threads", 1) == 0
    assert native == network == [1]


def test_json_report(folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--engine", tiny_engine, "--json", "--save-json", tmp_path / "r.json") == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert [os.path.basename(entry["path"]) for entry in report["pictures"]] == ["a.png", "b.png", "c.jpg"]
    assert [os.path.basename(entry["path"]) for entry in report["failures"]] == ["d.png", "e.png"]
    assert report["results"] == str(tmp_path / "r.json")
    assert report["mean_speed"]["total"] > report["mean_speed"]["trunk"] > 0


def test_pixel_limit_and_alpha(folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(tiny.squares()).convert("RGBA").save(tmp_path / "alpha.png")
    assert run(tmp_path / "alpha.png", "--engine", tiny_engine) == 1
    assert "--alpha drop" in capsys.readouterr().err
    assert run(tmp_path / "alpha.png", "--engine", tiny_engine, "--alpha", "drop") == 0
    assert run(folder / "a.png", "--engine", tiny_engine, "--max-pixels", 100) == 1
    assert "--max-pixels" in capsys.readouterr().err
    assert run(folder / "a.png", "--engine", tiny_engine, "--max-pixels", 0) == 0


def test_a_full_disk_leaves_nothing_half_written(
    folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    monkeypatch.setattr(os, "replace", full)
    assert run(folder / "a.png", "--engine", tiny_engine, "--out", out) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert files(out) == []


def test_an_interrupt_keeps_the_old_results(
    folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "r.json"
    results.write_text("[]")

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "predict", interrupt)
    assert run(folder / "a.png", "--engine", tiny_engine, "--save-json", results) == 130
    assert results.read_text() == "[]"
    assert "interrupted" in capsys.readouterr().err


def test_overlays_never_meet_each_other_or_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = plan_overlays(["x/a.png", "y/a.jpg", "y/A.png", "z/b.png"], out)
    assert [path.name for path in planned.values()] == ["a.png", "a-2.png", "A-3.png", "b.png"]
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="would overwrite one of the pictures; choose another folder"):
        plan_overlays([str(tmp_path / "a.png")], tmp_path)
    plan_overlays([str(tmp_path / "a.jpg")], tmp_path)


def test_recursive(folder: Path, tiny_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "top" / "sub").mkdir(parents=True)
    shutil.copy(folder / "a.png", tmp_path / "top" / "sub")
    assert run(tmp_path / "top", "--engine", tiny_engine) == 2
    assert run(tmp_path / "top", "--engine", tiny_engine, "--recursive") == 0
    assert "1 picture, 2 instances" in capsys.readouterr().out


def test_unwritable_outputs_are_found_before_the_work(tmp_path: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(tiny.squares()).save(picture)
    afile = tmp_path / "afile"
    afile.write_text("keep")
    for arguments in (["--save-json", str(tmp_path)], ["--save-json", str(afile / "x.json")], ["--out", str(afile)]):
        assert main(["predict", str(picture), "--engine", str(tiny_engine), *arguments]) == 2
        captured = capsys.readouterr()
        assert "folder" in captured.err
        assert "ms" not in captured.out
    assert afile.read_text() == "keep"


def test_results_never_overwrite_what_is_read(tmp_path: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(tiny.squares()).save(picture)
    before = picture.read_bytes()
    assert run(picture, "--engine", tiny_engine, "--save-json", picture) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_bomb_and_a_pipe_do_not_stop_the_batch(tmp_path: Path, tiny_engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(tiny.squares()).save(tmp_path / "b.png")
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + screen + b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x00;")
    os.mkfifo(tmp_path / "pipe.png")
    results = tmp_path / "r.json"
    sources = [tmp_path / name for name in ("a.gif", "pipe.png", "b.png")]
    assert run(*sources, "--engine", tiny_engine, "--save-json", results) == 1
    error = capsys.readouterr().err
    assert "2 of 3 pictures failed" in error
    assert "not a regular file" in error
    assert len(json.loads(results.read_text())) == 2


def test_terminated_in_the_middle_leaves_nothing_half_written(tmp_path: Path, tiny_engine: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for number in range(200):
        Image.fromarray(tiny.squares()).save(pictures / f"{number}.png")
    command = [sys.executable, "-m", "sdk", "predict", str(pictures), "--engine", str(tiny_engine), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first picture is done
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 143
    written = list((tmp_path / "out").iterdir())
    assert 0 < len(written) < 200
    assert all(path.suffix == ".png" for path in written)
    for path in written:
        read_image(path)

import json
import os
from pathlib import Path

import pytest

from training.data import check as module
from training.data.check import check
from training.data.coco import CocoInstances


@pytest.fixture
def data(ellipses: Path, tmp_path: Path) -> CocoInstances:
    """The ellipses with one damaged picture and one empty mask, copied so that nothing else sees it."""
    content = json.loads((ellipses / "annotations/train.json").read_text())
    (tmp_path / "train").mkdir()
    for image in content["images"]:
        (tmp_path / "train" / image["file_name"]).write_bytes((ellipses / "train" / image["file_name"]).read_bytes())
    broken = tmp_path / "train" / content["images"][3]["file_name"]
    broken.write_bytes(broken.read_bytes()[:500])
    content["annotations"][0]["segmentation"] = {"size": [128, 160], "counts": [128 * 160]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return CocoInstances(tmp_path / "a.json", tmp_path / "train")


def test_verdicts_are_remembered_until_a_file_changes(data: CocoInstances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "run/checked.json"
    first = check(data, cache=cache)
    assert [(i, f.kind) for i, f in first] == [(0, "empty mask"), (3, "truncated picture")]
    seen: list[int] = []
    inspect = CocoInstances.inspect

    def watched(record):  # type: ignore[no-untyped-def]
        seen.append(record.image_id)
        return inspect(record)

    monkeypatch.setattr(CocoInstances, "inspect", staticmethod(watched))
    assert check(data, cache=cache) == first and seen == []
    os.utime(data.records[5].path, (1, 1))
    assert check(data, cache=cache) == first and seen == [6]
    data.stamp += " other"  # the annotations were written again
    assert check(data, cache=cache) == first and len(seen) == 13
    cache.write_text("{broken")
    assert check(data, cache=cache) == first and len(seen) == 25


def test_two_entries_of_one_file_keep_their_own_verdicts(data: CocoInstances, tmp_path: Path) -> None:
    """Else the second run would leave out what the other entry has wrong."""
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"].append({**content["images"][0], "id": 77})
    (tmp_path / "a.json").write_text(json.dumps(content))
    twice = CocoInstances(tmp_path / "a.json", tmp_path / "train")
    cache = tmp_path / "run/checked.json"
    first = check(twice, cache=cache)
    assert [(i, f.kind) for i, f in first] == [(0, "empty mask"), (3, "truncated picture")]
    assert check(twice, cache=cache) == first


@pytest.mark.parametrize("values", [None, [], 5])
def test_a_cache_without_values_is_no_error(data: CocoInstances, tmp_path: Path, values: object) -> None:
    first = check(data, cache=tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**content, "values": values}))
    assert check(data, cache=tmp_path / "c.json") == first


def test_several_processes_find_the_same(data: CocoInstances, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = check(data)
    monkeypatch.setattr(module, "SMALL", 0)
    assert check(data, jobs=2) == alone


def test_long_checks_tell_how_far_they_are(
    data: CocoInstances, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "REPORT", -1.0)
    check(data)
    assert "checking pictures: 12 of 12" in capsys.readouterr().err

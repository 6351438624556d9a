import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import ConfigError
from training.data.coarse import mask_iou
from training.data.source import DataError
from training.distributed import World
from training.refiner.config import PatchConfig, RefinerTrainConfig, SourceConfig
from training.refiner.data import Patches
from training.refiner.sources import PatchSource, PictureCache, open_sources, parse_source


def opened(out: Path, *configs: SourceConfig, skip_bad: bool = False) -> tuple[list[PatchSource], list[PatchSource], str]:
    return open_sources(configs, World(), out, min_iou=0.5, skip_bad=skip_bad, jobs=1)


def test_every_source_yields_valid_triples(ellipses: Path, coarse_results: Path, tmp_path: Path) -> None:
    configs = (
        SourceConfig(data="scenes", count=3, size=160),
        SourceConfig(data="dead-leaves", count=3, size=160),
        SourceConfig(data=str(ellipses)),
        SourceConfig(data=str(ellipses), results=(str(coarse_results),), simulate=0.0),
    )
    sources, held, left_out = opened(tmp_path, *configs)
    assert [s.name for s in sources] == ["scenes", "dead-leaves", f"{ellipses.name}2", f"{ellipses.name}3"]
    assert [h.name for h in held] == ["scenes", "dead-leaves"] and left_out == ""
    run = RefinerTrainConfig(patches=PatchConfig(per_mask=3, masks=2, jitter=4.0, scale=(0.8, 1.25)), batch=6)
    for source in sources:
        overlaps = []
        for seed in range(4):
            triples = Patches(source, run).draw(np.random.default_rng(seed))
            assert len(triples) == 6
            for triple in triples:
                side = len(triple.coarse)
                assert 50 <= side <= 81 and triple.image.shape == (side, side, 3) and triple.coarse.shape == triple.truth.shape
                assert triple.coarse.dtype == triple.truth.dtype == triple.image.dtype == np.uint8
                assert 0 < triple.coarse.sum() < side * side  # a boundary patch holds both labels
                assert triple.picture.startswith(source.name)
                overlaps.append(mask_iou(triple.coarse, triple.truth))
        assert 0.5 < np.mean(overlaps) < 0.999


def test_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    (source,), _, _ = opened(tmp_path, SourceConfig(data="scenes", count=4, size=96))
    sizes = [source.picture(i).nbytes for i in range(3)]
    source.cache = PictureCache(sizes[0] + sizes[2] + 1)
    first = source.picture(0)
    assert source.picture(0) is first
    source.picture(1)
    source.picture(2)
    assert source.picture(0) is not first  # 1 or 2 took its place
    assert 0 <= source.cache.room <= sum(sizes)


def test_given_masks_are_those_of_the_file(ellipses: Path, coarse_results: Path, tmp_path: Path) -> None:
    (source,), _, _ = opened(tmp_path, SourceConfig(data=str(ellipses), results=(str(coarse_results),)))
    results = json.loads(coarse_results.read_text())
    pairs = 0
    for index, record in enumerate(source.data.records):
        picture = source.picture(index)
        mine = [r for r in results if r["image_id"] == record.image_id]
        assert [c.decode() for _, c in picture.given] == [r["segmentation"]["counts"] for r in mine]
        labels = [source.data.category_ids[label] for label in source.data.load(index)[2]]
        assert [labels[n] for n, _ in picture.given] == [r["category_id"] for r in mine]
        pairs += len(mine)
    assert pairs == len(results) > 20


def test_masks_below_the_overlap_do_not_count(ellipses: Path, coarse_results: Path, tmp_path: Path) -> None:
    results = json.loads(coarse_results.read_text())
    for entry in results:
        entry["category_id"] = 10 - entry["category_id"]  # the other of 3 and 7
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(results))
    (source,), _, _ = opened(tmp_path, SourceConfig(data=str(ellipses), results=(str(path),)))
    assert all(source.picture(i).given == [] for i in range(3))


def test_held_out_pictures_are_never_trained_on(ellipses: Path, tmp_path: Path) -> None:
    patterns = ("train_000*", "train_00[12]*")
    (train,), (held,), _ = opened(tmp_path, SourceConfig(data=str(ellipses), hold_out=patterns))
    names = [{s.data.records[int(i)].path.name for i in s.pictures} for s in (train, held)]
    assert names[1] == {"train_000.png", "train_001.png", "train_002.png"} and not names[0] & names[1]
    rng = np.random.default_rng(0)
    assert {train.draw(rng) for _ in range(200)} == set(train.pictures.tolist())
    only, whole = SourceConfig(data="scenes", count=2, size=128), SourceConfig(data=str(ellipses), split="val", weight=0.0)
    trained, validated, _ = opened(tmp_path, only, whole)
    assert [s.name for s in trained] == ["scenes"] and [s.name for s in validated] == ["scenes", ellipses.name]
    assert len(validated[1].pictures) == 4
    with pytest.raises(ConfigError, match=r"hold_out 'goat_\*' fits no picture, e\.g\. train_000\.png"):
        opened(tmp_path, SourceConfig(data=str(ellipses), hold_out=("goat_*",)))


def test_bad_data_is_named(ellipses: Path, coarse_results: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ellipses, tmp_path / "data")
    (folder / "train/train_004.png").write_bytes((folder / "train/train_004.png").read_bytes()[:200])
    results = json.loads(coarse_results.read_text())
    results[0]["segmentation"]["counts"] = [1, 2, 3]
    results[1]["image_id"] = 999
    results[2]["category_id"] = 55
    results.append("rubbish")
    path = tmp_path / "coarse.json"
    path.write_text(json.dumps(results))
    config = SourceConfig(data=str(folder), results=(str(path),))
    with pytest.raises(DataError, match=r"1 x truncated picture .*train_004\.png.*--skip-bad"):
        opened(tmp_path / "a", config)
    shutil.copy(ellipses / "train/train_004.png", folder / "train/train_004.png")
    with pytest.raises(DataError) as raised:
        opened(tmp_path / "b", config)
    for text in (
        "1 x malformed mask of a result",
        f"{path}: results[0]",
        "results[1]: picture 999",
        "results[2]: category 55",
        "1 x malformed result (e.g.",
    ):
        assert text in str(raised.value)
    (source,), _, left_out = opened(tmp_path / "c", config, skip_bad=True)
    assert sum(map(len, source.results.values())) == len(results) - 4 and left_out.count("\n") == 4
    (tmp_path / "object.json").write_text("{}")
    with pytest.raises(DataError, match="expected a list, got dict"):
        opened(tmp_path, config.replace(results=(str(tmp_path / "object.json"),)))
    with pytest.raises(DataError, match="cannot be read"):
        opened(tmp_path, config.replace(results=("nowhere.json",)))


def test_objects_that_are_too_small_are_an_error(ellipses: Path, tmp_path: Path) -> None:
    (source,), _, _ = opened(tmp_path, SourceConfig(data=str(ellipses)))
    run = RefinerTrainConfig(patches=PatchConfig(min_area=10**6))
    with pytest.raises(DataError, match="none has a mask of at least 1000000 pixels"):
        Patches(source, run).draw(np.random.default_rng(0))


def test_sources_of_the_command_line(coarse_results: Path) -> None:
    config = parse_source(f"DIR,weight=2,split=val,results={coarse_results}|other.json,hold_out=a_*|b_*,simulate=.25")
    assert config == SourceConfig(
        data="DIR", weight=2.0, split="val", results=(str(coarse_results), "other.json"), hold_out=("a_*", "b_*"), simulate=0.25
    )
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        parse_source("DIR,wieght=2")
    with pytest.raises(ConfigError, match="expected DATA,key=value"):
        parse_source("DIR,weight")
    with pytest.raises(ConfigError, match="has no files: hold_out"):
        parse_source("scenes,hold_out=a")
    with pytest.raises(ConfigError, match="at least one --source"):
        open_sources((), World(), Path("."), min_iou=0.5, skip_bad=False, jobs=1)

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import cityscapes
from training.data.check import check
from training.data.cityscapes import THINGS, Cityscapes
from training.data.source import DataError
from training.data.sources import DataOptions, open_source


def write(root: Path, name: str = "aachen_000000_000019", split: str = "train") -> np.ndarray:
    """One picture of 40 x 60 with two cars, a group of persons, road and a caravan; returns its numbers."""
    numbers = np.full((40, 60), 7, np.uint16)  # road
    numbers[5:15, 5:20] = 26000
    numbers[10:20, 15:30] = 26001  # covers part of the first
    numbers[30:35, 0:9] = 24  # persons that could not be told apart
    numbers[30:38, 40:50] = 29000  # a caravan
    numbers[0, 0] = 33012
    city = name.split("_")[0]
    for folder, ending, array in (
        ("gtFine", cityscapes.MASKS, numbers),
        ("leftImg8bit", cityscapes.PICTURE, np.zeros((40, 60, 3), np.uint8)),
    ):
        (root / folder / split / city).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / folder / split / city / f"{name}{ending}")
    return numbers


def test_objects_groups_and_stuff_are_told_apart(tmp_path: Path) -> None:
    numbers = write(tmp_path)
    write(tmp_path, "bochum_000000_000313")
    data = Cityscapes(tmp_path)
    assert data.category_ids == (24, 25, 26, 27, 28, 31, 32, 33) and data.class_names == tuple(THINGS.values())
    assert [r.path.name for r in data.records] == ["aachen_000000_000019_leftImg8bit.png", "bochum_000000_000313_leftImg8bit.png"]
    record = data.records[0]
    assert [a["value"] for a in record.annotations] == [26000, 26001, 33012]
    assert [(a["value"], a["iscrowd"]) for a in record.crowd] == [(24, 1)]
    image, masks, labels = data.load(0)
    assert image.shape == (40, 60, 3) and labels.tolist() == [2, 2, 7]
    for mask, value in zip(masks, (26000, 26001, 33012), strict=True):
        assert np.array_equal(mask, numbers == value)
    assert check(data) == []
    ids = [a["id"] for r in data.records for a in r.annotations]
    assert len(set(ids)) == len(ids) == 6


def test_a_split_without_objects_loads(tmp_path: Path) -> None:
    write(tmp_path)
    data = Cityscapes(tmp_path, category_ids=(25,))
    assert data.load(0)[1].shape == (0, 40, 60)
    with pytest.raises(DataError, match="label id"):
        Cityscapes(tmp_path, category_ids=(7,))


def test_what_is_in_a_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    first = Cityscapes(tmp_path, cache=tmp_path / "run/cityscapes.json")

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(cityscapes, "read_numbers", refuse)
    assert Cityscapes(tmp_path, cache=tmp_path / "run/cityscapes.json").records == first.records


def test_bad_files_are_named(tmp_path: Path) -> None:
    for name in ("a_0_0", "a_0_1", "a_0_2", "a_0_3", "a_0_4", "a_0_5"):
        write(tmp_path, name)
    masks, pictures = tmp_path / "gtFine/train/a", tmp_path / "leftImg8bit/train/a"
    (masks / f"a_0_0{cityscapes.MASKS}").unlink()
    (pictures / f"a_0_1{cityscapes.PICTURE}").unlink()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(masks / f"a_0_2{cityscapes.MASKS}")
    Image.fromarray(np.full((40, 60), 40000, np.uint16)).save(masks / f"a_0_3{cityscapes.MASKS}")
    Image.fromarray(np.zeros((40, 61, 3), np.uint8)).save(pictures / f"a_0_4{cityscapes.PICTURE}")
    (masks / f"a_0_5{cityscapes.MASKS}").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="--skip-bad") as caught:
        Cityscapes(tmp_path)
    for kind in ("1 x picture without masks", "1 x missing picture", "2 x unusable masks", "1 x unknown category"):
        assert kind in str(caught.value)
    data = Cityscapes(tmp_path, skip_bad=True)
    assert [f.kind for _, f in check(data)] == ["picture of another size"]


def test_a_mask_file_that_claims_to_be_enormous_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "aachen_0_1")

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 16, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    (tmp_path / f"gtFine/train/aachen/aachen_0_1{cityscapes.MASKS}").write_bytes(bomb)
    data = Cityscapes(tmp_path, skip_bad=True)
    assert len(data) == 1 and "1 x unusable masks" in data.summary() and "3600000000 pixels" in data.summary()


def test_a_folder_in_cityscapes_layout_is_recognised(tmp_path: Path) -> None:
    write(tmp_path, split="val")
    assert isinstance(open_source(DataOptions(data=tmp_path, split="val")), Cityscapes)
    with pytest.raises(DataError, match="no such folder"):
        open_source(DataOptions(data=tmp_path, split="test"))

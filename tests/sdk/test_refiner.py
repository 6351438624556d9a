from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sdk import EngineError, EngineMismatchError, ImageError, InputError, Instances, Refiner, Segmenter, ops, refiner
from sdk.engine import Engine
from sdk.manifest import EngineManifest, PatchSpec, RefinerManifest
from tests.sdk import tiny, tiny_refiner

SHAPE = (200, 240)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_refiner.write(tmp_path_factory.mktemp("refiner") / "r.engine")


@pytest.fixture(scope="module")
def fine(engine: Path) -> Refiner:
    return Refiner(engine, color="rgb")


def ellipse(centre: tuple[int, int], axes: tuple[int, int], angle: float = 30.0) -> NDArray[np.bool_]:
    return cv2.ellipse(np.zeros(SHAPE, np.uint8), centre, axes, angle, 0, 360, 1, -1).astype(bool)


TRUE = np.stack([ellipse((60, 100), (50, 30)), ellipse((188, 90), (45, 25), 90)])
COARSE = np.stack([cv2.dilate(TRUE[0].astype(np.uint8), np.ones((9, 9))), cv2.erode(TRUE[1].astype(np.uint8), np.ones((7, 7)))]) > 0


def picture() -> NDArray[np.uint8]:
    """RGB: red inside the true masks."""
    image = np.zeros((*SHAPE, 3), np.uint8)
    image[TRUE.any(0), 0] = 255
    image[..., 1] = 90
    return image


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_coarse_masks_become_the_objects(fine: Refiner) -> None:
    found = fine.refine(picture(), COARSE)
    assert all(iou(m, t) > 0.99 for m, t in zip(found.masks, TRUE, strict=True))
    assert min(iou(c, t) for c, t in zip(COARSE, TRUE, strict=True)) < 0.8
    assert found.boxes.tolist() == ops.dense_to_crops(found.masks).boxes.tolist()
    assert found.scores.tolist() == [1, 1] and found.labels.tolist() == [0, 0]
    assert list(found.speed) == ["read", "masks", "patches", "cut", "refine", "merge", "total"]


def forms() -> dict[str, Any]:
    crops = ops.dense_to_crops(COARSE)
    shape = list(SHAPE)
    compressed = [{"size": shape, "counts": text.decode()} for text in ops.rle_encode(crops, SHAPE)]
    plain = [{"size": shape, "counts": ops.rle_counts(text.encode()).tolist()} for text in (c["counts"] for c in compressed)]
    boxes = crops.boxes.astype(np.float32)
    polygons = [[ring.ravel().tolist() for part in mask for ring in part] for mask in ops.polygons(crops)]
    return {
        "bool": COARSE,
        "uint8": COARSE.astype(np.uint8),
        "uint8 of 255": COARSE.astype(np.uint8) * 255,
        "list of arrays": list(COARSE),
        "crops": crops,
        "compressed": compressed,
        "plain": plain,
        "polygons": polygons,
        "instances": Instances(boxes, [1, 1], [0, 0], shape=SHAPE, masks=COARSE),
        "detections": SimpleNamespace(xyxy=boxes, mask=COARSE, confidence=None, class_id=None),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_of_masks_gives_the_same(form: str, fine: Refiner) -> None:
    found = fine.refine(picture(), forms()[form])
    assert (found.masks == fine.refine(picture(), COARSE).masks).all()


def test_what_instances_carry_stays(fine: Refiner) -> None:
    boxes = np.float32([[1, 2, 150, 160], [100, 20, 230, 170]])
    given = Instances(boxes, [0.9, 0.3], [1, 0], shape=SHAPE, masks=COARSE, names=("a", "b"), category_ids=(7, 9), path="x.png")
    found = fine.refine(picture(), given)
    assert (found.boxes == boxes).all() and found.labels.tolist() == [1, 0] and found.names == ("a", "b") and found.path == "x.png"
    assert found.scores.tolist() == given.scores.tolist() and found.category_ids == (7, 9)
    assert (given.masks == COARSE).all()  # the input is left alone
    detections = SimpleNamespace(xyxy=boxes, mask=COARSE, confidence=np.float32([0.9, 0.3]), class_id=np.array([1, 0]))
    same = fine.refine(picture(), detections)
    assert (same.boxes == boxes).all() and same.labels.tolist() == [1, 0] and same.scores.tolist() == given.scores.tolist()


def test_supervision_detections(fine: Refiner) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    given = supervision.Detections(xyxy=ops.dense_to_crops(COARSE).boxes.astype(float), mask=COARSE)
    assert (fine.refine(picture(), given).masks == fine.refine(picture(), COARSE).masks).all()


def test_an_echo_changes_nothing(tmp_path: Path) -> None:
    echo = Refiner(tiny_refiner.write(tmp_path / "e.engine", echo=True))
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.random((20, 24), np.float32), SHAPE[::-1]) > 0.5
    masks = np.stack([COARSE[0], noise, np.zeros(SHAPE, bool), np.ones(SHAPE, bool)])
    assert (echo.refine(picture(), masks).masks == masks).all()


def test_without_the_mask_channel(tmp_path: Path) -> None:
    found = Refiner(tiny_refiner.write(tmp_path / "e.engine", mask_channel=False), color="rgb").refine(picture(), COARSE)
    assert all(iou(m, t) > 0.99 for m, t in zip(found.masks, TRUE, strict=True))


def test_the_order_of_channels(engine: Path, tmp_path: Path, fine: Refiner) -> None:
    expected = fine.refine(picture(), COARSE).masks
    bgr = np.ascontiguousarray(picture()[..., ::-1])
    assert (Refiner(engine).refine(bgr, COARSE).masks == expected).all()
    other = Refiner(tiny_refiner.write(tmp_path / "bgr.engine", color="bgr"), color="rgb")
    assert (other.refine(bgr, COARSE).masks == expected).all()  # a network of BGR whose first channel is blue, told a wrong order


def test_a_grey_picture(fine: Refiner) -> None:
    found = fine.refine(np.ascontiguousarray(picture()[..., 0]), COARSE)
    assert all(iou(m, t) > 0.99 for m, t in zip(found.masks, TRUE, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (20, 20), (31, 200)])
def test_pictures_smaller_than_a_patch(size: tuple[int, int], fine: Refiner) -> None:
    masks = np.zeros((1, *size), bool)
    masks[0, : max(1, size[0] // 2)] = True
    image = np.zeros((*size, 3), np.uint8)
    image[masks[0], 0] = 255
    assert (fine.refine(image, masks).masks == masks).all()


def test_nothing_to_refine(fine: Refiner) -> None:
    for masks in (np.zeros((0, *SHAPE), bool), [], ops.MaskCrops.empty()):
        assert len(fine.refine(picture(), masks)) == 0
    assert not fine.refine(picture(), np.zeros((2, *SHAPE), bool)).masks.any()


def test_the_budget_goes_to_every_mask(fine: Refiner) -> None:
    every = fine.refine(picture(), COARSE).masks
    spent = [(fine.refine(picture(), COARSE, max_patches=n).masks != COARSE).sum(axis=(1, 2)) for n in (0, 2, 6, 100)]
    assert not spent[0].any() and all(spent[1] > 0) and (spent[2] > spent[1]).all()
    assert (spent[3] == (every != COARSE).sum(axis=(1, 2))).all()


def test_the_budget_goes_where_the_mask_head_is_unsure(fine: Refiner) -> None:
    from sdk.masks import LogitMasks

    boxes = np.float32([[5, 50, 115, 150], [155, 40, 220, 140]])
    logits = np.full((2, 28, 28), 9.0, np.float32)
    logits[1] = 0.1  # unsure everywhere
    given = Instances(boxes, [1, 1], [0, 0], shape=SHAPE, masks=LogitMasks(logits, boxes, 0.5))
    changed = fine.refine(picture(), given, max_patches=2).masks != given.masks
    assert not changed[0].any() and changed[1].any()


def test_groups_change_nothing(engine: Path, monkeypatch: pytest.MonkeyPatch, fine: Refiner) -> None:
    masks = np.concatenate([COARSE, np.zeros((1, *SHAPE), bool), COARSE[::-1], COARSE])
    expected = fine.refine(picture(), masks).masks
    for group in (1, 7, 20):
        monkeypatch.setattr(refiner, "GROUP_PATCHES", group)
        monkeypatch.setattr(refiner, "CHUNK_PIXELS", 32 * 32 * 3)
        assert (Refiner(engine, color="rgb").refine(picture(), masks).masks == expected).all()


def test_qualities_are_options(engine: Path) -> None:
    assert Refiner(engine).patches() == tiny_refiner.QUALITIES["balanced"]
    best = Refiner(engine, quality="best", max_patches=9)
    assert best.patches() == tiny_refiner.QUALITIES["best"].replace(max_patches=9)
    assert best.patches("fast").max_patches == 9 and best.describe()["quality"] == "best"
    for bad in ({"quality": "superb"}, {"quality": 3}, {"max_patches": -1}, {"max_patches": 2.5}, {"max_patches": True}):
        with pytest.raises(InputError, match=next(iter(bad))):
            Refiner(engine, **bad)
        with pytest.raises(InputError, match=next(iter(bad))):
            best.refine(picture(), COARSE, **bad)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (COARSE[:, :-1], "picture's size"),
        (COARSE.astype(np.float32), "bool or uint8"),
        (np.where(COARSE, np.nan, 0.0), "bool or uint8"),
        (COARSE.astype(np.uint8) * 7, "label map"),
        ([{"size": [5, 5], "counts": "PPYo0"}], "mask 0"),
        ([{"size": list(SHAPE), "counts": [3, 4]}], "mask 0"),
        ([[[1, 2]]], "mask 0"),
        ({"size": list(SHAPE), "counts": "x"}, "in a list"),
        ("masks.png", "got str"),
        (None, "got NoneType"),
        (Instances(np.zeros((1, 4)), [1], [0], shape=(5, 5), masks=np.zeros((1, 5, 5), bool)), "the picture has"),
        (Instances(np.zeros((1, 4)), [1], [0], shape=SHAPE), "no masks"),
        (SimpleNamespace(xyxy=np.zeros((1, 4)), mask=None, confidence=None, class_id=None), "no masks"),
    ],
)
def test_bad_masks_are_named(masks: Any, words: str, fine: Refiner) -> None:
    with pytest.raises(InputError, match=words):
        fine.refine(picture(), masks)


def test_bad_pictures_are_named(fine: Refiner) -> None:
    with pytest.raises(ImageError):
        fine.refine(picture().astype(np.uint16), COARSE)
    with pytest.raises(ImageError):
        fine.refine("no-such-picture.png", COARSE)


def test_threads_share_a_refiner(fine: Refiner) -> None:
    expected, found = fine.refine(picture(), COARSE).masks, []
    workers = [threading.Thread(target=lambda: found.append(fine.refine(picture(), COARSE).masks)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all((masks == expected).all() for masks in found)


def test_a_segmenter_refines_in_the_same_call(engine: Path, tiny_engine: Path) -> None:
    # Blue is no foreground to the refiner, so the cold square loses its boundary; the warm one keeps it, to the pixel.
    plain, both = Segmenter(tiny_engine, color="rgb"), Segmenter(tiny_engine, color="rgb", refiner=engine)
    coarse, found = plain.predict(tiny.squares()), both.predict(tiny.squares())
    assert (found.boxes == coarse.boxes).all() and (found.scores == coarse.scores).all() and found.names == coarse.names
    warm = found.masks[found.labels.tolist().index(0)]
    x1, y1, x2, y2 = tiny.RED
    assert warm[y1:y2, x1:x2].all() and warm.sum() == 32 * 32
    assert found.masks[found.labels.tolist().index(1)].sum() < 200
    assert "merge" in found.speed and both.describe()["refiner"]["quality"] == "balanced"
    given = Segmenter(tiny_engine, color="rgb", refiner=Refiner(engine, max_patches=0)).predict(tiny.squares())
    assert (given.masks == coarse.masks).all()
    assert len(both.predict(np.zeros((96, 128, 3), np.uint8))) == 0


def test_kinds_do_not_mix(engine: Path, tiny_engine: Path) -> None:
    with pytest.raises(EngineMismatchError, match=r"'refiner'.*segmenter is needed.*sdk\.Refiner"):
        Segmenter(engine)
    with pytest.raises(EngineMismatchError, match=r"'segmenter'.*refiner is needed.*sdk\.Segmenter"):
        Refiner(tiny_engine)
    opened = Engine.open(engine, EngineManifest)
    assert isinstance(opened.manifest, RefinerManifest)
    with pytest.raises(EngineMismatchError):
        Engine.open(opened)  # a segmenter is what it asks for
    assert Refiner(opened).manifest == opened.manifest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qualities": {}}, "balanced"),
        ({"qualities": {"balanced": PatchSpec(input_size=100)}}, "multiple of 8"),
        ({"color": "cmy"}, "color"),
        ({"threshold": 0.0}, "threshold"),
    ],
)
def test_manifests_are_checked(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_refiner.manifest(**changes)


@pytest.mark.parametrize(
    "options", [{"size": 1}, {"padding": -1}, {"input_size": 4}, {"nms_threshold": 1.5}, {"scheme": "spiral"}, {"max_patches": -1}]
)
def test_patch_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        PatchSpec(**options)


def test_graphs_are_checked(tmp_path: Path) -> None:
    for name, graph, words in (
        ("names", tiny_refiner.graph(name="probabilities"), "no output 'logits'"),
        ("channels", tiny_refiner.graph(channels=3), "expected"),
    ):
        Engine.write(tmp_path / f"{name}.engine", tiny_refiner.manifest(), {"refiner": graph})
        with pytest.raises(EngineError, match=words):
            Refiner(tmp_path / f"{name}.engine")

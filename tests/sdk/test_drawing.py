from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sdk.drawing import PALETTE, _color_indices, _smooth, draw_instances, write_picture
from sdk.errors import InputError
from sdk.instances import Instances

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")


def disc(height: int, width: int, x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width] + 0.5
    found: NDArray[np.bool_] = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return found


def instances(masks: list[NDArray[np.bool_]], labels: list[int] | None = None, names: tuple[str, ...] = ("cell",)) -> Instances:
    boxes = [
        [m.any(0).argmax(), m.any(1).argmax(), m.shape[1] - m.any(0)[::-1].argmax(), m.shape[0] - m.any(1)[::-1].argmax()] for m in masks
    ]
    scores = np.linspace(0.9, 0.5, len(masks))
    return Instances(boxes, scores, labels or [0] * len(masks), shape=masks[0].shape, masks=np.stack(masks), names=names)  # type: ignore[arg-type]


def test_inside_is_tinted_outside_is_untouched() -> None:
    mask = disc(120, 160, 80, 60, 30)
    canvas = np.full((120, 160, 3), 100, np.uint8)
    drawn = draw_instances(canvas.copy(), instances([mask]), labels=False)
    inner, outer = disc(120, 160, 80, 60, 26), ~disc(120, 160, 80, 60, 34)
    color = PALETTE[0]
    np.testing.assert_array_equal(drawn[inner], np.broadcast_to((65 + 0.35 * color + 0.5).astype(np.uint8), (inner.sum(), 3)))
    np.testing.assert_array_equal(drawn[outer], canvas[outer])


def test_the_outline_lies_on_the_edge() -> None:
    mask = disc(200, 200, 100, 100, 60)
    drawn = draw_instances(np.zeros((200, 200, 3), np.uint8), instances([mask]), labels=False).astype(int)
    strength = drawn @ PALETTE[0].astype(int)
    strongest = [strength[100, 100 + 30 : 190].argmax() + 130, strength[30:170, 100].argmax() + 30]
    assert abs(strongest[0] - 159.5) <= 1
    assert min(abs(strongest[1] - 40), abs(strongest[1] - 159.5)) <= 1


def test_smooth_outlines_keep_straight_edges_and_cut_stairs() -> None:
    ring = np.array([[0, 0], [4, 0], [4, 1], [5, 1], [5, 3], [0, 3]], np.int32)
    smooth = _smooth(ring)
    assert [0.5, 0.0] in smooth.tolist()
    assert [3.5, 0.0] in smooth.tolist()
    assert [4.0, 0.5] in smooth.tolist()  # a step of one pixel becomes its middle
    assert len(smooth) == 2 * len(ring)


def test_a_hole_stays_a_hole() -> None:
    mask = disc(100, 100, 50, 50, 40) & ~disc(100, 100, 50, 50, 20)
    drawn = draw_instances(np.zeros((100, 100, 3), np.uint8), instances([mask]), labels=False)
    assert not drawn[45:55, 45:55].any()


def test_the_best_score_is_on_top() -> None:
    masks = [disc(100, 100, 45, 50, 20), disc(100, 100, 55, 50, 20)]
    found = instances(masks, [0, 1], ("a", "b"))
    drawn = draw_instances(np.zeros((100, 100, 3), np.uint8), found, labels=False)
    rim = drawn[50, 64]  # the first one's edge, inside the second
    assert abs(rim.astype(int) - PALETTE[0]).sum() < abs(rim.astype(int) - PALETTE[1]).sum()


def test_neighbours_of_one_class_differ_in_colour() -> None:
    masks = [disc(200, 200, 20 + 30 * (i % 6), 20 + 30 * (i // 6), 14) for i in range(36)]
    found = instances(masks)
    colors = _color_indices(found)
    for i in range(36):
        for j in range(i):
            if abs(found.boxes[i] - found.boxes[j]).max() <= 30:
                assert colors[i] != colors[j]
    assert len(set(colors)) >= 4


def test_one_colour_a_class_when_there_are_several() -> None:
    found = instances([disc(60, 60, 20 + i, 30, 9) for i in range(4)], [0, 1, 1, 0], ("a", "b"))
    np.testing.assert_array_equal(_color_indices(found), [0, 1, 1, 0])


@pytest.mark.parametrize(("labels", "written"), [(False, False), (None, True), (True, True)])
def test_labels_are_written_where_they_find_room(labels: bool | None, written: bool) -> None:
    masks = [disc(300, 300, 150, 170, 80)]
    plain = draw_instances(np.zeros((300, 300, 3), np.uint8), instances(masks), labels=False)
    drawn = draw_instances(np.zeros((300, 300, 3), np.uint8), instances(masks), labels=labels)
    assert (drawn != plain).any() == written


def test_no_labels_over_small_objects_unless_asked_for() -> None:
    found = instances([disc(100, 100, 50, 50, 5)])
    plain, auto, forced = (draw_instances(np.zeros((100, 100, 3), np.uint8), found, labels=labels) for labels in (False, None, True))
    np.testing.assert_array_equal(plain, auto)
    assert (forced != plain).any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3)])
def test_tiny_pictures_and_masks_at_the_border(shape: tuple[int, int]) -> None:
    mask = np.ones(shape, bool)
    drawn = draw_instances(np.zeros((*shape, 3), np.uint8), instances([mask]), labels=True)
    assert drawn.shape == (*shape, 3)
    assert drawn.any()


def test_masks_without_pixels_draw_nothing() -> None:
    found = Instances([[5, 5, 9, 9]], [0.5], [0], shape=(20, 20), masks=np.zeros((1, 20, 20), bool))
    assert not draw_instances(np.zeros((20, 20, 3), np.uint8), found, labels=False).any()


def test_colours_can_be_told_apart() -> None:
    """Also with each cone type missing (Vienot 1999, linearised roughly): no two palette entries look alike."""
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    rgb = (PALETTE[:, ::-1] / 255.0) ** 2.2
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(rgb @ matrix.T, 0, 1) ** (1 / 2.2) * 255
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        assert distances[~np.eye(len(PALETTE), dtype=bool)].min() > 25


def test_writing_pictures(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_picture(tmp_path / "a.PNG", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.PNG")), picture)
    write_picture(tmp_path / "a.jpg", picture)
    with pytest.raises(InputError, match=r"use \.png or \.jpg"):
        write_picture(tmp_path / "a", picture)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.PNG", "a.jpg"]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdk.formats.rasterize import polygon_mask

coco_mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


def by_pycocotools(polygons: list[list[float]], shape: tuple[int, int]) -> Any:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@pytest.mark.parametrize("seed", range(150))
def test_polygons_equal_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 50)), int(rng.integers(1, 50)))
    polygons = []
    for _ in range(int(rng.integers(1, 4))):
        points = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 9)), 2)) * (shape[1], shape[0])
        points = np.maximum(points, 0)  # pycocotools is not defined for negative coordinates: it rounds them towards zero
        polygons.append((np.rint(points) if seed % 3 == 0 else points).ravel().tolist())
    np.testing.assert_array_equal(polygon_mask(polygons, shape), by_pycocotools(polygons, shape))


def test_a_rectangle_fills_its_pixels() -> None:
    mask = polygon_mask([[2, 1, 5, 1, 5, 4, 2, 4]], (6, 8))
    assert mask.sum() == 9
    assert mask[1:4, 2:5].all()


@pytest.mark.parametrize("polygon", [[1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, float("inf")], [[1, 2], [3, 4], [5, 6]]])
def test_what_is_no_polygon(polygon: list[Any]) -> None:
    with pytest.raises(ValueError, match="at least three finite x, y pairs"):
        polygon_mask([polygon], (9, 9))


@pytest.mark.parametrize("value", ["5", True, None, 10**400, {}, "x"])
def test_values_that_are_no_numbers(value: Any) -> None:
    """Numbers as text are no numbers either."""
    with pytest.raises(ValueError, match="flat list of numbers"):
        polygon_mask([[value] * 6], (9, 9))


def test_points_too_far_away_are_refused() -> None:
    """The walk along such an edge would take minutes and gigabytes."""
    with pytest.raises(ValueError, match="from -100000 to 100000 pixels"):
        polygon_mask([[1e6, 1e6, -1e6, 1e6, -1e6, -1e6]], (20, 30))

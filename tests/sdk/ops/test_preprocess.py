from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdk.errors import InputError
from sdk.ops import preprocess, reference

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _assert_equal(image: np.ndarray, size: tuple[int, int], padded: tuple[int, int], **options: Any) -> np.ndarray:
    got = preprocess(image, size, padded, MEAN, STD, **options)
    want = reference.preprocess(image, size, padded, MEAN, STD, **options)
    # The contract: 1e-3 grey levels before normalisation.
    np.testing.assert_allclose(got * np.reshape(STD, (3, 1, 1)), want * np.reshape(STD, (3, 1, 1)), atol=1e-3)
    assert got.dtype == np.float32
    return got


SIZES = [
    ((20, 30), (20, 30), (20, 30)),  # unchanged
    ((20, 30), (13, 17), (32, 32)),  # both shrink
    ((20, 30), (45, 71), (64, 96)),  # both grow
    ((20, 30), (7, 80), (7, 80)),  # one each way
    ((1, 1), (5, 6), (8, 8)),
    ((40, 60), (1, 1), (1, 3)),
    ((1, 50), (3, 7), (4, 8)),
    ((50, 1), (3, 7), (4, 8)),
    ((2, 2), (2, 2), (2, 2)),
    ((97, 131), (31, 43), (32, 64)),
]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize(("shape", "size", "padded"), SIZES)
def test_equals_the_definition(
    shape: tuple[int, int], size: tuple[int, int], padded: tuple[int, int], channels: tuple[int, ...], antialias: bool
) -> None:
    _assert_equal(_picture((*shape, *channels)), size, padded, antialias=antialias)


def test_channels_are_swapped() -> None:
    image = _picture((21, 33, 3))
    swapped = _assert_equal(image, (15, 40), (16, 40), swap_channels=True)
    np.testing.assert_array_equal(swapped, preprocess(image[:, :, ::-1].copy(), (15, 40), (16, 40), MEAN, STD))


STRIDED = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "channels reversed": lambda a: a[:, :, ::-1],
    "everything reversed": lambda a: a[::-1, ::-1, ::-1],
    "every second pixel": lambda a: a[::2, ::2],
    "rows and columns exchanged": lambda a: a.transpose(1, 0, 2),
    "planar": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "inside a larger picture": lambda a: a[3:-2, 5:-4],
    "one channel of three": lambda a: a[:, :, 1],
    "one channel of three, third axis kept": lambda a: a[:, :, 1:2],
    "read only": lambda a: np.broadcast_to(a[:1], a.shape),
    "RGB of RGBA": lambda a: np.concatenate([a, a[:, :, :1]], axis=2)[:, :, :3],
    "BGR of RGBA": lambda a: np.concatenate([a, a[:, :, :1]], axis=2)[:, :, 2::-1],
}


@pytest.mark.parametrize("swap_channels", [False, True])
@pytest.mark.parametrize("view", STRIDED.values(), ids=STRIDED.keys())
def test_any_strides(view: Any, swap_channels: bool) -> None:
    image = view(_picture((24, 37, 3)))
    _assert_equal(image, (15, 25), (16, 32), swap_channels=swap_channels)


def test_shrinking_agrees_with_pillow() -> None:
    image = _picture((75, 113, 3))
    ours = preprocess(image, (32, 41), (32, 41), (0, 0, 0), (1, 1, 1))
    pillow = np.asarray(Image.fromarray(image).resize((41, 32), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1)
    assert np.abs(ours - pillow).max() <= 1.5  # Pillow rounds to uint8 twice


def test_a_constant_picture_stays_constant_and_padding_is_zero() -> None:
    result = preprocess(np.full((33, 47, 3), 200, np.uint8), (20, 60), (32, 64), (0, 0, 0), (1, 1, 1))
    np.testing.assert_allclose(result[:, :20, :60], 200, rtol=1e-6)
    assert not result[:, 20:].any()
    assert not result[:, :, 60:].any()


def test_out_is_written_and_returned() -> None:
    image, out = _picture((20, 30, 3)), np.full((3, 16, 16), np.nan, np.float32)
    assert preprocess(image, (12, 13), (16, 16), MEAN, STD, out=out) is out
    np.testing.assert_array_equal(out, preprocess(image, (12, 13), (16, 16), MEAN, STD))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4, 4), np.uint8)}, r"image: expected uint8 array of shape \(H, W\).* got uint8 array of shape \(4, 4, 4\)"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "image: .* got float32"),
        ({"image": np.zeros((4,), np.uint8)}, "image"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "image: expected at least one pixel"),
        ({"image": "picture.png"}, "image: .* got str"),
        ({"size": (0, 4)}, "size"),
        ({"padded": (3, 8)}, r"padded: expected at least size \(4, 4\), got \(3, 8\)"),
        ({"std": (1, 0, 1)}, "std"),
        ({"mean": (1, float("nan"), 1)}, "mean"),
        ({"out": np.zeros((3, 8, 9), np.float32)}, r"out: expected float32 array of shape \(3, 8, 8\), got"),
        ({"out": np.zeros((3, 8, 16), np.float32)[:, :, ::2]}, "out: expected a C-contiguous, writeable array"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"image": np.zeros((6, 6, 3), np.uint8), "size": (4, 4), "padded": (8, 8), "mean": MEAN, "std": STD}
    with pytest.raises(InputError, match=message):
        preprocess(**{**arguments, **change})

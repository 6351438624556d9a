from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from sdk.errors import InputError
from sdk.ops import crops_to_dense, dense_to_crops, reference, rle_area, rle_counts, rle_decode, rle_encode, rle_string
from tests.sdk.ops.cases import random_masks


def _coco(mask: np.ndarray) -> bytes:
    counts: bytes = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts


def _failure(text: bytes, shape: tuple[int, int]) -> str | None:
    """Why the text cannot be decoded, or None when it gives a mask of the right size."""
    try:
        assert crops_to_dense(rle_decode([text], shape), shape).shape == (1, *shape)
    except InputError as error:
        return str(error)
    return None


def test_a_thousand_random_masks_equal_pycocotools_byte_for_byte() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        shape = (int(rng.integers(1, 70)), int(rng.integers(1, 70)))
        masks = random_masks(rng, 10, shape)
        texts = rle_encode(dense_to_crops(masks), shape)
        assert texts == [_coco(mask) for mask in masks]
        np.testing.assert_array_equal(crops_to_dense(rle_decode(texts, shape), shape), masks)
        np.testing.assert_array_equal(rle_area(texts), masks.sum(axis=(1, 2)))


def test_long_runs_equal_pycocotools() -> None:
    masks = np.zeros((4, 1500, 2100), bool)
    masks[0, 3, 7] = masks[0, -1, -1] = True
    masks[1] = True
    masks[2, :, 1000:] = True
    masks[3, 700] = True
    texts = rle_encode(dense_to_crops(masks), masks.shape[1:])
    assert texts == [_coco(mask) for mask in masks]
    np.testing.assert_array_equal(crops_to_dense(rle_decode(texts, masks.shape[1:]), masks.shape[1:]), masks)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 5)])
def test_counts_equal_the_definition(shape: tuple[int, int]) -> None:
    masks = random_masks(np.random.default_rng(1), 40, shape)
    for mask, text in zip(masks, rle_encode(dense_to_crops(masks), shape), strict=True):
        counts = rle_counts(text)
        assert counts.tolist() == reference.rle_counts(mask)
        assert counts.dtype == np.uint32
        assert rle_string(counts) == text
        np.testing.assert_array_equal(reference.rle_mask(counts.tolist(), shape), mask)


def test_the_decoded_crop_is_tight() -> None:
    masks = random_masks(np.random.default_rng(2), 50, (17, 13))
    decoded = rle_decode([_coco(mask) for mask in masks], (17, 13))
    np.testing.assert_array_equal(decoded.boxes, dense_to_crops(masks).boxes)
    np.testing.assert_array_equal(decoded.data, dense_to_crops(masks).data)


def test_str_is_read_as_bytes_are() -> None:
    text = _coco(np.eye(8, dtype=bool))
    assert crops_to_dense(rle_decode([text.decode()], (8, 8)), (8, 8))[0].tolist() == np.eye(8, dtype=bool).tolist()
    assert rle_area([text.decode(), text]).tolist() == [8, 8]


def test_empty_runs_inside_are_allowed() -> None:
    counts = np.array([2, 0, 1, 3, 0, 2, 1], np.uint32)
    decoded = crops_to_dense(rle_decode([rle_string(counts)], (3, 3)), (3, 3))[0]
    np.testing.assert_array_equal(decoded, reference.rle_mask(counts.tolist(), (3, 3)))


def test_every_count_of_32_bits_survives() -> None:
    rng = np.random.default_rng(3)
    counts = np.concatenate([rng.integers(0, 2**32, 200), 2 ** np.arange(32), 2 ** np.arange(32) - 1, [0, 2**32 - 1, 0, 2**32 - 1]])
    np.testing.assert_array_equal(rle_counts(rle_string(counts.astype(np.uint32))), counts)


def test_nothing_in_nothing_out() -> None:
    assert rle_encode(dense_to_crops(np.zeros((0, 3, 3), bool)), (3, 3)) == []
    assert len(rle_decode([], (3, 3))) == 0
    assert rle_area([]).shape == (0,)
    assert rle_string(np.zeros(0, np.uint32)) == b""
    assert rle_counts(b"").shape == (0,)
    assert rle_encode(dense_to_crops(np.zeros((1, 0, 5), bool)), (0, 5)) == [_coco(np.zeros((0, 5), bool))]


def test_random_bytes_decode_or_raise_input_error() -> None:
    """Never a crash and never a mask of another size, whatever the bytes."""
    rng = np.random.default_rng(4)
    decoded = 0
    for case in range(3000):
        length = int(rng.integers(0, 12))
        text = rng.integers(0, 256, length, np.uint8) if case % 2 else rng.integers(48, 112, length, np.uint8)
        try:
            counts = rle_counts(text.tobytes())
        except InputError:
            with pytest.raises(InputError, match=r"counts\[0\]"):
                rle_decode([text.tobytes()], (4, 4))
            continue
        total = int(counts.sum(dtype=np.int64))
        if total > 10**6:
            continue
        decoded += 1
        mask = crops_to_dense(rle_decode([text.tobytes()], (1, total)), (1, total))[0]
        np.testing.assert_array_equal(mask, reference.rle_mask(counts.tolist(), (1, total)))
    assert decoded > 50


def test_corrupted_strings_decode_or_raise_input_error() -> None:
    rng = np.random.default_rng(5)
    masks = random_masks(rng, 200, (30, 40))
    for text in rle_encode(dense_to_crops(masks), (30, 40)):
        broken = bytearray(text)
        broken[rng.integers(len(broken))] = rng.integers(256)
        message = _failure(bytes(broken), (30, 40))
        assert message is None or message.startswith("counts[0]: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"04", r"counts\[1\]: expected counts that sum to 3 x 3 pixels, got 4"),
        (b"0 4", r"counts\[1\]: expected characters '0' to 'o', got code 32 at position 1"),
        (b"0\xff", r"counts\[1\]: .* got code 255"),
        (b"P", r"counts\[1\]: the text ends inside a number"),
        (b"9O", r"counts\[1\]: run 1 has length -1"),
        (b"P" * 20 + b"0", r"counts\[1\]: a number has more than 8 characters"),
        (7, r"counts\[1\]: expected bytes or str, got int"),
        ("9é", r"counts\[1\]: .*code 195"),
    ],
)
def test_what_is_wrong_with_a_string_is_named(text: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rle_decode([_coco(np.eye(3, dtype=bool)), text], (3, 3))


def test_pictures_beyond_32_bits_are_refused() -> None:
    with pytest.raises(InputError, match="shape: expected at most 4294967295 pixels"):
        rle_encode(dense_to_crops(np.zeros((1, 2, 2), bool)), (1 << 16, 1 << 16))
    with pytest.raises(InputError, match="counts: expected uint32"):
        rle_string(np.zeros(3, np.int64))  # type: ignore[arg-type]

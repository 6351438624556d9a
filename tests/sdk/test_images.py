from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, features

from sdk.errors import ImageError, InputError
from sdk.images import Picture, find_images, read_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
SMOOTH = np.repeat(np.repeat(RNG.integers(0, 256, (15, 20, 3), dtype=np.uint8), 16, 0), 16, 1)  # 240 x 320


def encode(image: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"") -> bytes:
    """A PNG header of any size, without the pixels to go with it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def png16() -> bytes:
    row = b"\0" + bytes(2 * 3 * 5)
    return png(5, 4, depth=16, color=2, data=row * 4)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


def tiff16() -> bytes:
    return encode(Image.fromarray(np.full((4, 5), 40_000, np.uint16)), "TIFF")


def tiff_rgb16() -> bytes:
    """Little-endian RGB TIFF with 16 bits a channel, by hand: Pillow cannot write one."""
    pixels = np.full((4, 5, 3), 40_000, "<u2").tobytes()
    tags = [(256, 3, 1, 5), (257, 3, 1, 4), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, 3)]
    tags += [(278, 3, 1, 4), (279, 4, 1, len(pixels))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(122, b"\0") + struct.pack("<3H", 16, 16, 16) + pixels


def frames(kind: str) -> bytes:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    return encode(first, kind, save_all=True, append_images=[second])


RGBA = np.dstack([RGB, np.full((30, 40), 128, np.uint8)])
JPEG, PNG = encode(SMOOTH, "JPEG", quality=90), encode(SMOOTH)

# What comes -> code of the error, and words that its message must hold.
BAD_INPUT: dict[str, tuple[Callable[[], Any], str, tuple[str, ...]]] = {
    "missing file": (lambda: "no/such/picture.png", "missing", ("no/such/picture.png",)),
    "folder": (lambda: os.curdir, "directory", ("find_images",)),
    "NUL in the path": (lambda: "a\0b.png", "unreadable", ()),
    "no bytes": (lambda: b"", "truncated", ()),
    "text": (lambda: b"GET / HTTP/1.1", "not-an-image", ("JPEG",)),
    "PDF": (lambda: b"%PDF-1.7 ....", "not-an-image", ()),
    "PostScript, which Pillow would hand to Ghostscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "not-an-image", ()),
    "PNG header only": (lambda: PNG[:20], "truncated", ()),
    "half a PNG": (lambda: PNG[: len(PNG) // 2], "truncated", ()),
    "half a JPEG": (lambda: JPEG[: len(JPEG) // 2], "truncated", ("truncated",)),
    "JPEG start only": (lambda: JPEG[:4], "truncated", ()),
    "half a TIFF": (lambda: encode(SMOOTH, "TIFF")[:2000], "truncated", ()),
    "half a BMP": (lambda: encode(SMOOTH, "BMP")[:2000], "truncated", ()),
    "half a GIF": (lambda: encode(SMOOTH, "GIF")[:2000], "truncated", ()),
    "half a PPM": (lambda: encode(SMOOTH, "PPM")[:2000], "truncated", ()),
    "damaged PNG": (lambda: flipped(PNG, len(PNG) // 2), "corrupt", ()),
    "damaged PNG header": (lambda: flipped(PNG, 18), "corrupt", ()),
    "PNG without its pixels": (lambda: png(40, 30), "truncated", ()),
    "JPEG with a damaged marker": (lambda: JPEG.replace(b"\xff\xda", b"\xff\x01", 1), "corrupt", ()),
    "20,000 x 20,000 PNG": (lambda: png(20_000, 20_000), "too-many-pixels", ("20000 x 20000", "max_pixels", "100000000")),
    "PNG of the greatest size": (lambda: png(2**31 - 1, 2**31 - 1), "too-many-pixels", ()),
    "16-bit grey PNG": (lambda: encode(Image.fromarray(np.full((4, 5), 40_000, np.uint16))), "sixteen-bit", ("257",)),
    "16-bit RGB PNG": (png16, "sixteen-bit", ("257",)),
    "16-bit TIFF": (tiff16, "sixteen-bit", ()),
    "16-bit RGB TIFF": (tiff_rgb16, "sixteen-bit", ()),
    "16-bit PGM": (lambda: b"P5\n2 1\n65535\n\0\1\0\2", "sixteen-bit", ()),
    "16-bit PPM": (lambda: b"P6\n1 1\n1023\n\0\1\0\2\0\3", "sixteen-bit", ()),
    "float TIFF": (lambda: encode(Image.fromarray(np.ones((4, 5), np.float32)), "TIFF"), "mode", ("'F'",)),
    "CMYK JPEG": (lambda: encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "cmyk", ("RGB",)),
    "alpha PNG": (lambda: encode(RGBA), "alpha", ("alpha='drop'",)),
    "grey and alpha PNG": (lambda: encode(Image.fromarray(RGBA).convert("LA")), "alpha", ()),
    "PNG with a transparent colour": (lambda: encode(RGB, transparency=(1, 2, 3)), "alpha", ()),
    "animated GIF": (lambda: frames("GIF"), "frames", ("2 frames", "seek")),
    "animated PNG": (lambda: frames("PNG"), "frames", ()),
    "TIFF of two pages": (lambda: frames("TIFF"), "frames", ()),
    "None": (lambda: None, "type", ("cv2.imread",)),
    "list": (lambda: [[1, 2], [3, 4]], "type", ("list",)),
    "one-dimensional array": (lambda: RGB[0, 0], "shape", ("(3,)",)),
    "batch": (lambda: RGB[None], "shape", ("list",)),
    "two channels": (lambda: RGB[:, :, :2], "shape", ()),
    "channels first": (lambda: RGB.transpose(2, 0, 1), "shape", ("transpose(1, 2, 0)",)),
    "no rows": (lambda: RGB[:0], "empty", ("(0, 40, 3)",)),
    "no columns": (lambda: RGB[:, :0, 0], "empty", ()),
    "alpha array": (lambda: RGBA, "alpha", ()),
    "uint16": (lambda: RGB.astype(np.uint16), "sixteen-bit", ("257",)),
    "bool": (lambda: RGB > 100, "dtype", ("* 255",)),
    "int64": (lambda: RGB.astype(np.int64), "dtype", ("int64", "uint8")),
    "complex": (lambda: RGB.astype(np.complex64), "dtype", ()),
    "objects": (lambda: RGB.astype(object), "dtype", ()),
    "float 0..255": (lambda: RGB.astype(np.float32), "range", ("0..1", "uint8")),
    "negative float": (lambda: RGB.astype(np.float64) / 255 - 0.5, "range", ()),
    "NaN": (lambda: np.where(RGB > 200, np.nan, RGB / 255), "non-finite", ("nan",)),
    "infinity": (lambda: np.where(RGB > 200, np.inf, RGB / 255), "non-finite", ()),
    "PIL image of no size": (lambda: Image.new("RGB", (0, 5)), "empty", ()),
    "PIL image with alpha": (lambda: Image.fromarray(RGBA), "alpha", ()),
    "16-bit PIL image": (lambda: Image.fromarray(RGB[:, :, 0].astype(np.uint16)), "sixteen-bit", ()),
    "PIL image in CIELAB": (lambda: Image.new("LAB", (3, 3)), "mode", ()),
    "truncated file opened by PIL": (lambda: Image.open(io.BytesIO(JPEG[: len(JPEG) // 2])), "truncated", ()),
}


@pytest.mark.parametrize("row", BAD_INPUT)
def test_bad_input_is_a_named_error(row: str) -> None:
    make, code, words = BAD_INPUT[row]
    with pytest.raises(ImageError) as caught:
        read_image(make())
    assert caught.value.code == code, str(caught.value)
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("row", ["half a JPEG", "half a PNG", "20,000 x 20,000 PNG", "CMYK JPEG", "16-bit RGB PNG", "alpha PNG"])
def test_files_and_bytes_are_judged_alike_and_the_file_is_named(row: str, tmp_path: Path) -> None:
    make, code, _ = BAD_INPUT[row]
    path = tmp_path / "picture"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=f"^{path}: ") as caught:
        read_image(path)
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP"])
def test_random_damage_never_escapes_the_error_tree(kind: str) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    data = encode(SMOOTH, kind)
    rng = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(data[: int(rng.integers(1, len(data) + 1))])
        for position in rng.integers(0, len(broken), int(rng.integers(0, 6))):
            broken[position] = int(rng.integers(256))
        try:
            picture = read_image(bytes(broken), max_pixels=1_000_000)
        except ImageError:
            continue
        assert picture.pixels.dtype == np.uint8
        assert min(picture.shape) > 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_files_come_back_exactly(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "picture.any"
    path.write_bytes(encode(RGB, kind, **options))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        picture = read_image(source)
        np.testing.assert_array_equal(picture.pixels, RGB)
        assert picture.order == "rgb"
    assert read_image(path).path == str(path)
    assert read_image(path.read_bytes()).path is None


def test_jpeg_is_close() -> None:
    assert np.abs(read_image(JPEG).pixels.astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr"])
def test_pil_modes(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    picture = read_image(image)
    assert picture.order == ("grey" if mode in ("1", "L") else "rgb")
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("L" if mode in ("1", "L") else "RGB")))


def test_grey_files_stay_grey() -> None:
    picture = read_image(encode(RGB[:, :, 0]))
    assert (picture.order, picture.pixels.shape) == ("grey", (30, 40))
    np.testing.assert_array_equal(picture.bgr(), np.repeat(RGB[:, :, :1], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_files_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2)}
    upright |= {6: np.rot90(RGB, -1), 7: np.rot90(RGB.transpose(1, 0, 2), 2), 8: np.rot90(RGB)}
    data = encode(RGB, "PNG", exif=exif)
    np.testing.assert_array_equal(read_image(data).pixels, upright[orientation])
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))).pixels, upright[orientation])
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # by the user already: not turned again
    np.testing.assert_array_equal(read_image(turned).pixels, upright[orientation])


def test_arrays_are_not_copied_and_say_their_order() -> None:
    view = RGB[::-1, ::2]
    picture = read_image(view)
    assert picture.pixels is view
    assert picture.order == "bgr"
    assert read_image(view, color="rgb").order == "rgb"
    np.testing.assert_array_equal(picture.bgr(), view)
    np.testing.assert_array_equal(picture.rgb(), view[:, :, ::-1])
    np.testing.assert_array_equal(read_image(view, color="rgb").bgr(), view[:, :, ::-1])


@pytest.mark.parametrize("array", [RGB[:, :, 0], RGB[:, :, :1]])
def test_one_channel_is_grey(array: NDArray[np.uint8]) -> None:
    picture = read_image(array)
    assert picture.order == "grey"
    np.testing.assert_array_equal(picture.pixels, RGB[:, :, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_scaled(dtype: type[np.floating[Any]]) -> None:
    np.testing.assert_allclose(read_image((RGB / 255).astype(dtype)).pixels.astype(int), RGB, atol=1 if dtype == np.float16 else 0)


def test_alpha_can_be_dropped() -> None:
    np.testing.assert_array_equal(read_image(encode(RGBA), alpha="drop").pixels, RGB)
    np.testing.assert_array_equal(read_image(RGBA, alpha="drop").pixels, RGB)
    np.testing.assert_array_equal(read_image(Image.fromarray(RGBA), alpha="drop").pixels, RGB)


def test_pixel_limit_counts_for_every_source_and_can_be_raised() -> None:
    for source in (RGB, encode(RGB), Image.fromarray(RGB)):
        with pytest.raises(ImageError, match=r"40 x 30 = 1200 pixels, the limit is 1199") as caught:
            read_image(source, max_pixels=1199)
        assert caught.value.code == "too-many-pixels"
        assert read_image(source, max_pixels=1200).shape == (30, 40)
        assert read_image(source, max_pixels=None).shape == (30, 40)


def test_the_limit_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Image.open would refuse 1,200 pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(encode(RGB)).shape == (30, 40)


def test_pillows_settings_stay_as_they_were() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(Image.OPEN))
    for make, _, _ in BAD_INPUT.values():
        with pytest.raises(ImageError):
            read_image(make())
    assert before[:2] == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_the_limit_is_checked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(AssertionError, match="pixels were decoded"):  # the trap works
        read_image(PNG)
    with pytest.raises(ImageError, match="20000 x 20000"):
        read_image(png(20_000, 20_000))


@pytest.mark.parametrize(
    ("options", "word"),
    [({"color": "grb"}, "color"), ({"alpha": "keep"}, "alpha"), ({"max_pixels": 0}, "max_pixels"), ({"max_pixels": 1.5}, "max_pixels")],
)
def test_bad_options(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_image(RGB, **options)


def test_a_picture_passes_through() -> None:
    picture = Picture(RGB, "rgb")
    assert read_image(picture) is picture


def test_one_pil_file_can_be_read_from_many_threads_one_after_the_other() -> None:
    results: list[NDArray[np.uint8]] = []
    threads = [threading.Thread(target=lambda: results.append(read_image(PNG).pixels)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == SMOOTH).all() for result in results)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "notes.txt", "C.TIF", "sub/d.png", "sub/deep/e.webp", "odd[1].png", "empty/readme.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"")
    return tmp_path


def names(found: list[str], root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in found]


@pytest.mark.parametrize(
    ("sources", "recursive", "expected"),
    [
        ([""], False, ["C.TIF", "a.jpg", "b.png", "odd[1].png"]),
        ([""], True, ["C.TIF", "a.jpg", "b.png", "odd[1].png", "sub/d.png", "sub/deep/e.webp"]),
        (["*.png"], False, ["b.png", "odd[1].png"]),
        (["*"], False, ["C.TIF", "a.jpg", "b.png", "odd[1].png"]),
        (["**/*.png"], False, ["b.png", "odd[1].png", "sub/d.png"]),
        (["odd[1].png"], False, ["odd[1].png"]),
        (["b.png", "*.png", "a.jpg"], False, ["b.png", "odd[1].png", "a.jpg"]),
        (["notes.txt", "gone.png"], False, ["notes.txt", "gone.png"]),
        ([], False, []),
    ],
)
def test_find_images(tree: Path, sources: list[str], recursive: bool, expected: list[str]) -> None:
    assert names(find_images([tree / source for source in sources], recursive=recursive), tree) == expected


@pytest.mark.parametrize(("source", "word"), [("empty", "subfolders were not searched"), ("*.bmp", "no picture matches")])
def test_nothing_to_find_is_an_error(tree: Path, source: str, word: str) -> None:
    with pytest.raises(ImageError, match=word) as caught:
        find_images([tree / source])
    assert caught.value.code == "no-pictures"


def test_find_images_takes_one_source_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encode(RGB, "PNG"))
    both = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert find_images(tmp_path) == find_images(str(tmp_path)) == find_images(f"{tmp_path}/*.png") == find_images([tmp_path]) == both


def test_a_pattern_given_as_a_picture_gets_a_hint() -> None:
    with pytest.raises(ImageError, match="find_images"):
        read_image("pictures/*.png")

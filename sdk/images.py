"""Pictures in: files, bytes, PIL images and NumPy arrays become one small checked form, `Picture`.

Files and bytes are decoded by Pillow; its plugin for the format is called directly, so the size is checked against `max_pixels` before a
single pixel is decoded, only the formats below are ever parsed, and none of Pillow's global settings is touched.

What a picture must be: 8 bits a channel, grey or three colours, one frame. Everything else is an `ImageError` with a code and a
remedy; nothing is guessed from the values.
"""

from __future__ import annotations

import glob
import importlib
import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import ImageError, InputError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000  # default limit: 10,000 x 10,000
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm")

# Everything that Pillow's decoders raise for bytes they cannot make sense of.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) or (H, W) uint8; arrays are not copied, so strides may be anything.
        order: "rgb", "bgr" or "grey".
        path: the file it came from, None for anything else.
    """

    pixels: NDArray[np.uint8]
    order: str
    path: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def bgr(self) -> NDArray[np.uint8]:
        """Returns a new contiguous (H, W, 3) uint8 array in BGR order, as OpenCV draws on it."""
        return self._in_order("bgr")

    def rgb(self) -> NDArray[np.uint8]:
        """Returns a new contiguous (H, W, 3) uint8 array in RGB order, as networks and PIL expect it."""
        return self._in_order("rgb")

    def _in_order(self, order: str) -> NDArray[np.uint8]:
        if self.order == "grey":
            return np.repeat(self.pixels[:, :, None], 3, axis=2)
        return np.array(self.pixels if self.order == order else self.pixels[:, :, ::-1], order="C")


if TYPE_CHECKING:
    ImageSource = Picture | str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]


def read_image(source: ImageSource, *, color: str = "bgr", max_pixels: int | None = MAX_PIXELS, alpha: str = "error") -> Picture:
    """Reads a picture.

    Args:
        source: a path; the bytes of a picture file; a PIL image (at its current frame); or a NumPy array (H, W, 3), (H, W, 1) or (H, W):
            uint8, or floating point with all values from 0 to 1, which are scaled to 0..255. JPEG, PNG, TIFF, BMP, WebP, GIF and PPM
            files can be read. The EXIF orientation of files and PIL images is applied. A `Picture` is returned as it is.
        color: channel order of NumPy arrays, "bgr" (as from OpenCV) or "rgb"; files and PIL images know theirs.
        max_pixels: most pixels (height times width) a picture may have, checked before it is decoded; None for no limit.
        alpha: "error" refuses a picture with transparency, "drop" uses its colours and ignores the transparency.

    Returns:
        The picture; its `pixels` share memory with a uint8 array.

    Raises:
        ImageError: the picture cannot be used; `code` says why.
        InputError: an option is none of the above.

    >>> read_image(np.zeros((4, 6, 3), np.uint8)).shape
    (4, 6)
    """
    check_options(color, max_pixels, alpha)
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return Picture(*_from_array(source, color, max_pixels, alpha))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Picture(*_decode(io.BytesIO(source), "picture bytes", max_pixels, alpha))
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        with _open(path) as stream:
            return Picture(*_decode(stream, path, max_pixels, alpha), path)
    if _is_pil(source):
        return Picture(*_from_pil(source, "PIL image", max_pixels, alpha))
    hint = "; cv2.imread returns None when it cannot read a file" if source is None else ""
    raise ImageError(f"a picture is a path, bytes, a PIL image or a NumPy array, got {type(source).__name__}{hint}", code="type")


def check_options(color: str, max_pixels: int | None, alpha: str) -> None:
    """Raises `InputError` unless the options of `read_image` are valid."""
    if color not in ("bgr", "rgb"):
        raise InputError(f"color must be 'bgr' or 'rgb', got {color!r}")
    if alpha not in ("error", "drop"):
        raise InputError(f"alpha must be 'error' or 'drop', got {alpha!r}")
    if max_pixels is not None and (isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1):
        raise InputError(f"max_pixels must be a positive number of pixels or None, got {max_pixels!r}")


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> list[str]:
    """Expands files, folders and glob patterns into picture files.

    Args:
        sources: paths and patterns, or one of them. A file is taken as it is, even if missing: reading it will say so. A folder gives the
            files in it whose ending is one of `SUFFIXES`, a pattern ("scans/*.png", "**" for any depth) those it matches.
        recursive: whether folders are searched with all their subfolders.

    Returns:
        Paths, those of one folder or pattern sorted; a path that comes twice is kept where it comes first.

    Raises:
        ImageError: a folder or pattern without a picture, code "no-pictures".
    """
    found: dict[str, None] = {}
    for source in [sources] if isinstance(sources, (str, os.PathLike)) else sources:
        text = os.fspath(source)
        if os.path.isdir(text):
            matches = sorted(_in_folder(text, recursive))
            what = f"{text}: no pictures in this folder{'' if recursive else ' (its subfolders were not searched)'}"
        elif glob.has_magic(text) and not os.path.lexists(text):
            matches = sorted(path for path in glob.iglob(text, recursive=True) if _is_picture_file(path))
            what = f"{text}: no picture matches this pattern"
        else:
            found.setdefault(text)
            continue
        if not matches:
            raise ImageError(f"{what}; looked for {', '.join(SUFFIXES)}", code="no-pictures")
        found.update(dict.fromkeys(matches))
    return list(found)


def _in_folder(folder: str, recursive: bool) -> Iterator[str]:
    if not recursive:
        yield from (entry.path for entry in os.scandir(folder) if _is_picture_file(entry.path))
        return
    for root, _, names in os.walk(folder):
        yield from (path for path in (os.path.join(root, name) for name in names) if _is_picture_file(path))


def _is_picture_file(path: str) -> bool:
    return path.lower().endswith(SUFFIXES) and os.path.isfile(path)


def _open(path: str) -> io.BufferedReader:
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):  # opening a pipe would wait for its writer
        raise ImageError(f"{path}: not a regular file; give its content as bytes", code="unreadable")
    try:
        return open(path, "rb")
    except FileNotFoundError:
        hint = "; sdk.find_images lists the pictures of a pattern" if glob.has_magic(path) else ""
        raise ImageError(f"{path}: no such file{hint}", code="missing") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, not a picture; sdk.find_images lists the pictures in it", code="directory") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise ImageError(f"{path!r}: cannot be opened: {error}", code="unreadable") from error


# ---------------------------------------------------------------------------------------------------------------- arrays


def _from_array(array: NDArray[Any], color: str, max_pixels: int | None, alpha: str) -> tuple[NDArray[np.uint8], str]:
    if array.ndim == 4:
        raise ImageError(f"expected one picture, got shape {array.shape}; give a batch as a list of arrays", code="shape")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; move the channels last: array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"expected shape (H, W), (H, W, 1) or (H, W, 3), got {array.shape}{hint}", code="shape")
    if array.size == 0:
        raise ImageError(f"the picture has no pixels: shape {array.shape}", code="empty")
    if array.ndim == 3 and array.shape[2] == 4:
        if alpha == "error":
            raise ImageError(_alpha_message("the array", "array[:, :, :3]"), code="alpha")
        array = array[:, :, :3]
    _check_size("the array", array.shape[1], array.shape[0], max_pixels)
    pixels = _as_uint8(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return pixels, color if pixels.ndim == 3 else "grey"


def _as_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        raise ImageError(_sixteen_bit_message("the array"), code="sixteen-bit")
    if array.dtype.kind != "f":
        raise ImageError(
            f"expected uint8 (0..255) or floating point (0..1), got {array.dtype}; convert it: array.astype(numpy.uint8)"
            f"{' * 255' if array.dtype == np.bool_ else ''}",
            code="dtype",
        )
    low, high = float(array.min()), float(array.max())  # NaN goes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"the array holds values that are not finite (smallest {low}, greatest {high})", code="non-finite")
    if low < 0.0 or high > 1.0:
        raise ImageError(
            f"a floating-point picture must lie in 0..1, got {low:g} to {high:g}; "
            "for 0..255 give array.astype(numpy.uint8), for normalised values undo the normalisation",
            code="range",
        )
    scaled: NDArray[np.uint8] = np.rint(array.astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)
    return scaled


def _check_size(what: str, width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{what}: {width} x {height} = {width * height} pixels, the limit is {max_pixels}; "
            "scale it down, or raise the limit with max_pixels (--max-pixels)",
            code="too-many-pixels",
        )


def _alpha_message(what: str, remedy: str) -> str:
    return f"{what}: has an alpha channel; ignore it with alpha='drop' (--alpha drop), or remove it: {remedy}"


def _sixteen_bit_message(what: str) -> str:
    return (
        f"{what}: has 16 bits a channel and no one scale fits all; make 8 bits of it yourself, over the full range "
        "(array // 257).astype(numpy.uint8), or over the range in use: "
        "((array - low) * 255.0 / (high - low)).clip(0, 255).astype(numpy.uint8)"
    )


# ----------------------------------------------------------------------------------------------------------- PIL and files


def _is_pil(source: object) -> bool:
    # Without importing PIL: an image of it can only exist once somebody has.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


# How a file starts -> Pillow's module and class for its format.
_PLUGINS = (
    (rb"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (rb"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (rb"II[*+]\0|MM\0[*+]", "TiffImagePlugin", "TiffImageFile"),
    (rb"RIFF....WEBP", "WebPImagePlugin", "WebPImageFile"),
    (rb"GIF8[79]a", "GifImagePlugin", "GifImageFile"),
    (rb"BM", "BmpImagePlugin", "BmpImageFile"),
    (rb"P[1-6]\s", "PpmImagePlugin", "PpmImageFile"),
)


def _plugin(start: bytes) -> Any:
    """Returns Pillow's reader for a file that starts like this; None when it is no picture that Kerf reads."""
    for pattern, module, name in _PLUGINS:
        if re.match(pattern, start, re.DOTALL):
            return getattr(importlib.import_module(f"PIL.{module}"), name)
    return None


def _decode(stream: Any, what: str, max_pixels: int | None, alpha: str) -> tuple[NDArray[np.uint8], str]:
    try:
        start = stream.read(16)
    except OSError as error:
        raise ImageError(f"{what}: cannot be read: {error.strerror or error}", code="unreadable") from error
    if not start:
        raise ImageError(f"{what}: empty, zero bytes", code="truncated")
    plugin = _plugin(start)
    if plugin is None:
        raise ImageError(
            f"{what}: not a picture that can be read (it starts with {start[:8]!r}); JPEG, PNG, TIFF, BMP, WebP, GIF and PPM can",
            code="not-an-image",
        )
    from PIL import Image

    stream.seek(0)
    try:
        image = plugin(stream)
    except Image.DecompressionBombError as error:  # some readers ask Pillow's own limit, whatever ours is
        raise ImageError(f"{what}: {error}; scale it down", code="too-many-pixels") from error
    except _DECODE_ERRORS as error:
        raise _undecodable(what, error) from error
    return _from_pil(image, what, max_pixels, alpha, from_file=True)


def _from_pil(image: Any, what: str, max_pixels: int | None, alpha: str, *, from_file: bool = False) -> tuple[NDArray[np.uint8], str]:
    from PIL import Image, ImageOps

    _check_size(what, image.width, image.height, max_pixels)
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{what}: has no pixels: {image.width} x {image.height}", code="empty")
    _check_depth(image, what)
    try:
        if from_file:
            _check_frames(image, what)
            if image.format == "PNG":
                _check_png_sums(image.fp, what)
        image.load()
        _check_alpha(image, what, alpha)  # a PNG may state its transparency after the pixels
        image = ImageOps.exif_transpose(image)  # a copy; without the tag afterwards, so nothing is turned twice
        grey = image.mode in ("1", "L", "LA", "La")
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except ImageError:
        raise
    except (*_DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise _undecodable(what, error) from error
    except MemoryError as error:
        raise ImageError(
            f"{what}: {image.width} x {image.height} pixels do not fit into memory; scale it down", code="too-many-pixels"
        ) from error
    return pixels, "grey" if grey else "rgb"


def _check_png_sums(stream: Any, what: str) -> None:
    """Checks the checksums of a PNG's pixel data: Pillow skips them, and decodes damaged data to wrong pixels."""
    position = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name != b"IDAT":
            stream.seek(length + 4, io.SEEK_CUR)
            continue
        data, stored = stream.read(length), stream.read(4)
        if len(stored) < 4:
            raise _undecodable(what, EOFError("truncated inside its pixel data"))
        if zlib.crc32(data, zlib.crc32(name)) != int.from_bytes(stored, "big"):
            raise _undecodable(what, ValueError("a checksum of its pixel data is wrong"))
    stream.seek(position)


_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")


def _check_depth(image: Any, what: str) -> None:
    if image.mode == "CMYK":
        raise ImageError(
            f"{what}: has CMYK colours, whose look depends on a profile; convert it to RGB first: "
            "PIL.ImageCms.profileToProfile, or image.convert('RGB') without a profile",
            code="cmyk",
        )
    if image.mode.startswith("I;16") or _stored_bits(image) == 16:
        raise ImageError(_sixteen_bit_message(what), code="sixteen-bit")
    if image.mode not in _MODES:
        raise ImageError(
            f"{what}: pixels of PIL mode {image.mode!r}, expected 8 bits a channel, grey or colour; "
            "convert it with image.convert('RGB') or scale it to 8 bits",
            code="mode",
        )


def _stored_bits(image: Any) -> int:
    """Bits a channel in the file: Pillow quietly drops the lower half of 16-bit colours, and makes 32 of 16-bit greys."""
    kind = getattr(image, "format", None)
    arguments = [tile[3] for tile in getattr(image, "tile", None) or ()]
    if kind in ("PNG", "PPM") and any(isinstance(argument, str) and ";16" in argument for argument in arguments):
        return 16
    if kind == "PPM":  # (raw mode, greatest value)
        return 16 if any(isinstance(argument, tuple) and argument[1] > 255 for argument in arguments) else 8
    if kind == "TIFF" and hasattr(image, "tag_v2"):
        bits = image.tag_v2.get(258, (1,))  # BitsPerSample
        return 16 if max(bits if isinstance(bits, tuple) else (bits,)) in range(9, 17) else 8
    return 8


def _check_frames(image: Any, what: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(
            f"{what}: holds {frames} frames; pick one with PIL: image = Image.open(...); image.seek(0); then give the image",
            code="frames",
        )


def _check_alpha(image: Any, what: str, alpha: str) -> None:
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if transparent and alpha == "error":
        raise ImageError(_alpha_message(what, "image.convert('RGB')"), code="alpha")


def _undecodable(what: str, error: BaseException) -> ImageError:
    text = str(error)
    truncated = any(
        word in text.lower() for word in ("truncated", "reached eof", "end of file", "not enough image data", "requires a buffer")
    )
    code = "truncated" if truncated else "corrupt"
    if "unknown pixel mode" in text:
        return ImageError(f"{what}: a kind of picture that cannot be read here ({text}); save it as an 8-bit PNG", code="mode")
    return ImageError(f"{what}: {code}, it cannot be decoded ({text or type(error).__name__}); copy or save it again", code=code)

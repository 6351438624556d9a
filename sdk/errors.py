"""The exceptions Kerf raises: one tree under `KerfError`.

Input and configuration errors are also `ValueError`, a missing backend is also `ImportError`, so code that knows nothing of
Kerf can still catch them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class KerfError(Exception):
    """Base of every error that Kerf raises on purpose."""


class InputError(KerfError, ValueError):
    """An argument has the wrong type, shape or value; the message names what was expected and what came."""


class ImageError(InputError):
    """A picture cannot be used.

    Attributes:
        code: Why, for programs. One of "missing", "unreadable", "directory", "no-pictures", "not-an-image", "truncated",
            "corrupt", "too-many-pixels", "frames", "mode", "cmyk", "alpha", "sixteen-bit", "type", "dtype", "shape",
            "empty", "range", "non-finite".
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # Exception.__reduce__ would drop the keyword-only code, and worker processes send these errors back pickled.
        return _rebuild_image_error, (str(self), self.code)


class ConfigError(KerfError, ValueError):
    """A configuration value is unknown, out of range, or contradicts another."""


class EngineError(KerfError):
    """An engine file is broken: missing parts, bad checksum, unreadable manifest."""


class EngineMismatchError(EngineError):
    """A sound engine does not fit here: format version, kind, runtime or device differ."""


class BackendError(KerfError, ImportError):
    """A backend is not installed or cannot run on this machine; the message says what to install."""


class BatchError(KerfError):
    """Some pictures of a batch failed; the others were done.

    Attributes:
        results: One entry per picture in the order they came, None where it failed.
        failures: Position in the batch -> the error of that picture.
    """

    def __init__(self, results: Sequence[object | None], failures: Mapping[int, KerfError]) -> None:
        listed = "\n".join(f"  [{index}] {error}" for index, error in failures.items())
        super().__init__(f"{len(failures)} of {len(results)} pictures failed; .results holds the others:\n{listed}")
        self.results = list(results)
        self.failures = dict(failures)

    def __reduce__(self) -> tuple[object, ...]:
        return BatchError, (self.results, self.failures)


def _rebuild_image_error(message: str, code: str) -> ImageError:
    return ImageError(message, code=code)

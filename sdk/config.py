"""Configuration: frozen dataclasses that read from and write to plain dictionaries.

`Config` is the one system for every setting that is stored: an engine's manifest, and whatever training and export keep in their
checkpoints. A class states its fields with types, defaults and units; `Config.from_dict` converts and checks, and an
unknown key is an error that names the closest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sdk.errors import ConfigError

_C = TypeVar("_C", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every stored setting.

    >>> ResizeRule.from_dict({"long": 1280, "factr": 2.0})
    Traceback (most recent call last):
    sdk.errors.ConfigError: ResizeRule: unknown key 'factr'; did you mean 'factor'?
    """

    @classmethod
    def from_dict(cls: type[_C], values: Mapping[str, Any], *, where: str | None = None) -> _C:
        """Builds the class from a dictionary of plain JSON values.

        Args:
            values: one entry per field; a field with a default may be missing.
            where: how messages call this dictionary; the name of the class when not given.

        Raises:
            ConfigError: an unknown or missing key, a value of the wrong type, or one that the class refuses.
        """
        where = where or cls.__name__
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: expected an object with named values, got {_kind(values)}")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                raise ConfigError(f"{where}: unknown key {key!r}; {_suggest(str(key), fields)}")
        for name, f in fields.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ConfigError(f"{where}: the key {name!r} is missing")
        hints = _hints(cls)
        converted = {key: _convert(value, hints[key], f"{where}.{key}") for key, value in values.items()}
        try:
            return cls(**converted)
        except ConfigError as error:
            message = str(error)
            raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values (tuples become lists); `from_dict` reads them back."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def replace(self: _C, **changes: Any) -> _C:
        """Returns a copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


_HINTS: dict[type[Any], dict[str, Any]] = {}  # annotations are strings, which typing compiles; once per class is enough


def _hints(cls: type[Any]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _suggest(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _kind(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {value!r:.60}"


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Converts a JSON value to the annotated type of a field."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # the only unions in use are "X | None"
        return None if value is None else _convert(value, next(a for a in args if a is not type(None)), where)
    if origin is tuple:
        return _convert_tuple(value, args, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected an object, got {_kind(value)}")
        return {str(key): _convert(item, args[1], f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, hint) else hint.from_dict(value, where=where)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**31:
        raise ConfigError(f"{where}: the number is too large: {_kind(value)}")
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{where}: expected a finite number, got {_kind(value)}")
        return float(value)
    if hint in (int, str, bool):
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise ConfigError(f"{where}: expected {hint.__name__}, got {_kind(value)}")
        return value
    return value  # `object`: free-form, stored and never interpreted


def _convert_tuple(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where}: expected a list, got {_kind(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(item, args[0], f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(args):
        raise ConfigError(f"{where}: expected {len(args)} values, got {len(value)}")
    return tuple(_convert(item, arg, f"{where}[{i}]") for i, (item, arg) in enumerate(zip(value, args, strict=True)))


def require(condition: bool, message: str) -> None:
    """Raises `ConfigError(message)` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_fraction(name: str, value: float) -> float:
    """Returns `value` if it is a number from 0 to 1; raises `ConfigError` naming it otherwise."""
    require(
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0,
        f"{name} must be a number from 0 to 1, got {value!r}",
    )
    return float(value)


@dataclass(frozen=True, kw_only=True)
class ResizeRule(Config):
    """How a picture is scaled before the network.

    `scale = min(short / min(h, w), long / max(h, w))`, with `factor` in place of the first quotient when `short` is not given; one
    scale for both axes, each side rounded to the nearest pixel.
    """

    short: int | None = None  # pixels the shorter side should get; wins over factor
    long: int = 1333  # pixels the longer side may have at most
    factor: float | None = None  # scale when short is not given
    antialias: bool = True  # widen the filter when shrinking
    rounding: str = "nearest"  # of the sides: "nearest" pixel, or "floor" (torchvision's)

    def __post_init__(self) -> None:
        require(self.short is not None or self.factor is not None, "give 'short' (pixels) or 'factor' (scale)")
        require(self.short is None or self.short >= 1, f"short must be at least 1 pixel, got {self.short}")
        require(self.factor is None or self.factor > 0, f"factor must be positive, got {self.factor}")
        require(self.long >= 1, f"long must be at least 1 pixel, got {self.long}")
        require(self.rounding in ("nearest", "floor"), f"rounding must be 'nearest' or 'floor', got {self.rounding!r}")

    def scale_for(self, height: int, width: int) -> float:
        """Returns the scale factor for a picture of this size."""
        wanted = self.short / min(height, width) if self.short is not None else self.factor
        assert wanted is not None  # __post_init__ saw to it
        return min(wanted, self.long / max(height, width))

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Returns the (height, width) a picture of this size is resized to.

        >>> ResizeRule(short=800, long=1333).size_for(480, 640)
        (800, 1067)
        >>> ResizeRule(factor=2.0, long=1280).size_for(256, 320)
        (512, 640)
        """
        scale = self.scale_for(height, width)
        half = 0.5 if self.rounding == "nearest" else 0.0
        return max(1, math.floor(height * scale + half)), max(1, math.floor(width * scale + half))

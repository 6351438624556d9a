"""Kerf: instance segmentation with masks that follow the object's edge.

>>> import sdk
>>> segmenter = sdk.Segmenter("nuclei")  # doctest: +SKIP
>>> instances = segmenter.predict("picture.png", conf=0.25)  # doctest: +SKIP
>>> instances.boxes, instances.scores, instances.masks  # doctest: +SKIP

Names load when they are first used, so that `import sdk` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdk.version import __version__

if TYPE_CHECKING:
    from sdk.engine import Engine
    from sdk.errors import (
        BackendError,
        BatchError,
        ConfigError,
        EngineError,
        EngineMismatchError,
        ImageError,
        InputError,
        KerfError,
    )
    from sdk.images import find_images, read_image
    from sdk.instances import Instances
    from sdk.refiner import Refiner
    from sdk.segmenter import Segmenter

_HOMES = {
    "Segmenter": "sdk.segmenter",
    "Refiner": "sdk.refiner",
    "Instances": "sdk.instances",
    "Engine": "sdk.engine",
    "read_image": "sdk.images",
    "find_images": "sdk.images",
    "KerfError": "sdk.errors",
    "InputError": "sdk.errors",
    "ImageError": "sdk.errors",
    "BatchError": "sdk.errors",
    "ConfigError": "sdk.errors",
    "EngineError": "sdk.errors",
    "EngineMismatchError": "sdk.errors",
    "BackendError": "sdk.errors",
}

__all__ = [
    "BackendError",
    "BatchError",
    "ConfigError",
    "Engine",
    "EngineError",
    "EngineMismatchError",
    "ImageError",
    "InputError",
    "Instances",
    "KerfError",
    "Refiner",
    "Segmenter",
    "__version__",
    "find_images",
    "read_image",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdk' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sdk

MODULES = sorted(module.name for module in pkgutil.walk_packages(sdk.__path__, "sdk.") if module.name not in ("sdk.__main__", "sdk._core"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0

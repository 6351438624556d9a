from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sdk

MODULES = sorted(module.name for module in pkgutil.walk_packages(sdk.__path__, "sdk.") if module.name != "sdk.__main__")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    if name.endswith("._core"):
        pytest.skip("native module")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0

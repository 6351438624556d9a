from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sdk.ops

MODULES = [module.name for module in pkgutil.iter_modules(sdk.ops.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"sdk.ops.{name}")).failed == 0


def test_there_are_examples() -> None:
    found = [test for name in MODULES for test in doctest.DocTestFinder().find(importlib.import_module(f"sdk.ops.{name}")) if test.examples]
    assert len(found) >= 4

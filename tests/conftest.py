from __future__ import annotations

from pathlib import Path

import pytest

from sdk.engine import Engine
from tests.sdk import tiny


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engine file of `tests.sdk.tiny`."""
    path = tmp_path_factory.mktemp("engine") / "tiny.engine"
    Engine.write(path, tiny.manifest(), tiny.graphs())
    return path


@pytest.fixture(scope="session")
def nuclei() -> Path:
    """The nuclei data set, beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared/data/nuclei"
    if not folder.is_dir():
        pytest.skip("no data set in ../shared/data/nuclei")
    return folder

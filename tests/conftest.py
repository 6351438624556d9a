from __future__ import annotations

import os
from pathlib import Path

# torch's OpenMP threads spin at barriers by default; beside another job on the same cores that makes both many times slower.
# This must be set before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

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

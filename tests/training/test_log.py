import sys
import types
from pathlib import Path
from typing import Any

import pytest


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import log

    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            assert (folder, purge_step) == (str(tmp_path / "events"), None)

        def add_scalar(self, name: str, value: float, iteration: int) -> None:
            told.append((name, value, iteration))

        def close(self) -> None:
            told.append(("closed", 0, 0))

    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda name: name)
    run = log.RunLog(tmp_path, total=6300)
    line = run.add({"iteration": 300, "loss": 0.5, "lr": 0.1, "seconds_per_iteration": 1.0})
    run.close()
    assert told == [("loss", 0.5, 300), ("lr", 0.1, 300), ("seconds_per_iteration", 1.0, 300), ("closed", 0, 0)]
    assert line == "300/6300 loss 0.500, 1 h 40 min left"

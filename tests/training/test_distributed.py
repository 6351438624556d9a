import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.short import SHORT, trainer, with_norm
from training import checkpoint
from training.models.detector import Detector


def test_two_processes_equal_one_with_the_same_batch(ellipses: Path, tmp_path: Path) -> None:
    """Two processes of two parts each against one with four: the same losses and weights but for the order of a sum."""
    config = SHORT.replace(model=with_norm("group"), iterations=2, batch=4, optimizer="sgd", learning_rate=0.02, warmup=0)
    rows = list(trainer(config.replace(accumulate=4), ellipses, tmp_path / "one").run())
    code = (
        "from training.config import TrainConfig; from training.presets import PRESETS; from training.train import main;"
        f"config = TrainConfig.from_dict({config.replace(accumulate=2).to_dict()!r}); PRESETS['tiny'] = config;"
        f"main(['--preset', 'tiny', '--data', {str(ellipses)!r}, '--out', {str(tmp_path / 'two')!r}, '--device', 'cpu'])"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [subprocess.Popen([sys.executable, "-c", code], env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in (0, 1)]
    assert [p.wait(timeout=300) for p in processes] == [0, 0]
    logged = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    for mine, theirs in zip(rows, logged, strict=True):
        for name in set(mine) - {"seconds_per_iteration"}:
            assert theirs[name] == pytest.approx(mine[name], rel=1e-4), name
    one, two = (checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-6)
    assert len(two["buffers"]) == 1 and set(two["buffers"][0]) == {n for n, _ in Detector(config.model).named_buffers()}

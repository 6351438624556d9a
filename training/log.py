"""What a run tells: JSON lines, TensorBoard where it is installed, and a line on the screen."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from sdk.files import write_bytes


class RunLog:
    """``log.jsonl`` in a run's folder, one line per row; and the same for TensorBoard in ``events`` if that package is there.

    Args:
        out: the run's folder.
        total: iterations of the run.
        resumed: iteration that the run goes on from; rows of later ones are of a run that was cut off and are taken out. 0 = a new run.
    """

    def __init__(self, out: Path, total: int, resumed: int = 0) -> None:
        self.path, self.total = out / "log.jsonl", total
        kept = [line for line in _lines(self.path) if json.loads(line)["iteration"] <= resumed] if resumed else []
        write_bytes(self.path, "".join(line + "\n" for line in kept).encode())
        self._stream = self.path.open("a")
        self._board = _tensorboard(out / "events", resumed)

    def add(self, row: dict[str, float]) -> str:
        """Keep a row; returns the line for the screen."""
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()
        iteration = int(row["iteration"])
        if self._board is not None:
            for name, value in row.items():
                if name != "iteration":
                    self._board.add_scalar(name, value, iteration)
        left = (self.total - iteration) * row["seconds_per_iteration"]
        return f"{iteration}/{self.total} loss {row['loss']:.3f}, {_duration(left)} left"

    def close(self) -> None:
        """End both."""
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _lines(path: Path) -> list[str]:
    """Whole lines of a log; the last one may be cut off where a run was killed."""
    return path.read_text().split("\n")[:-1] if path.is_file() else []


def _tensorboard(folder: Path, resumed: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resumed + 1 if resumed else None)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"

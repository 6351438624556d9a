"""Where the time of a call goes."""

from __future__ import annotations

import time


class StageClock:
    """Milliseconds by stage: each `lap` ends the stage that began at the one before."""

    def __init__(self) -> None:
        self.speed: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        now = time.perf_counter()
        self.speed[stage] = self.speed.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def finish(self) -> dict[str, float]:
        """Returns the stages and "total"."""
        return {**self.speed, "total": (time.perf_counter() - self._start) * 1e3}

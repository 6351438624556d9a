"""A progress line for people: only on a terminal, only for more than a few items."""

from __future__ import annotations

import sys
import time

FEW = 10


class Progress:
    """Counts items and keeps one line on standard error up to date.

    Args:
        total: number of items.
        enabled: False for no line at all, as when standard error is not a terminal.
    """

    def __init__(self, total: int, *, enabled: bool = True) -> None:
        self.total = total
        self.shown = enabled and total > FEW and sys.stderr.isatty()
        self._done = 0
        self._start = self._last = time.monotonic()

    def step(self) -> None:
        """Counts one item."""
        self._done += 1
        now = time.monotonic()
        if self.shown and (now - self._last > 0.1 or self._done == self.total):
            self._last = now
            print(f"\r{line(self._done, self.total, now - self._start)}\x1b[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipes the line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def line(done: int, total: int, seconds: float) -> str:
    """Returns the text of the line.

    >>> line(30, 120, 15.0)
    '30/120  25 %  2.0/s  0:45 left'
    """
    left = round(seconds / done * (total - done))
    clock = f"{left // 3600}:{left % 3600 // 60:02}:{left % 60:02}" if left >= 3600 else f"{left // 60}:{left % 60:02}"
    return f"{done}/{total}  {100 * done // total} %  {done / max(seconds, 1e-9):.1f}/s  {clock} left"

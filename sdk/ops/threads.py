"""The native core's own threads."""

from __future__ import annotations

from sdk import _core


def num_threads() -> int:
    """Number of threads that share one operator call, the caller's own included."""
    return _core.num_threads()


def set_num_threads(count: int) -> None:
    """Sets the number of threads for every later operator call of this process; results do not change.

    Args:
        count: 1 to 256. At the start it is the number of CPUs that the process may use.

    Raises:
        InputError: `count` is out of range.
    """
    _core.set_num_threads(count)

"""Timing that the operator benchmarks share: rounds of all candidates in turn, so that a busy machine disturbs all alike."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sdk.ops import num_threads, set_num_threads


@dataclass(frozen=True)
class Row:
    """Milliseconds of one candidate; `ratio` is the baseline's median over this one's."""

    name: str
    min: float
    median: float
    ratio: float | None


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="threads of every candidate (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds after three for warming up (default 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    set_num_threads(options.threads)
    return options


def measure(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    baseline: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Times every candidate once per round; `baseline` names the one that ratios are taken of.

    `clock` gives seconds; `time.process_time` for candidates on one thread, on a machine that is busy with other things.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(rounds + 3):
        for name, call in candidates.items():
            time.sleep(0.05)  # ONNX Runtime's threads spin for a while after a run and would take a core from the next candidate
            start = clock()
            call()
            if i >= 3:
                times[name].append(1e3 * (clock() - start))
    base = statistics.median(times[baseline]) if baseline else None
    return [Row(name, min(t), statistics.median(t), base / statistics.median(t) if base else None) for name, t in times.items()]


def report(tables: dict[str, list[Row]], as_json: bool) -> None:
    if as_json:
        results = {title: [asdict(row) for row in rows] for title, rows in tables.items()}
        print(json.dumps({"machine": platform.processor() or platform.machine(), "threads": num_threads(), "results": results}, indent=2))
        return
    for title, rows in tables.items():
        print(f"{title} ({num_threads()} threads)")
        print(f"  {'':58}{'min ms':>9}{'median':>9}{'ratio':>8}")
        for row in rows:
            print(f"  {row.name:58}{row.min:9.2f}{row.median:9.2f}" + (f"{row.ratio:8.1f}" if row.ratio else ""))
        print()

"""The check of a data set before training starts: every picture and every mask is decoded once.

Verdicts are remembered by size and time of change of the files, so that a second run over the same data starts at once.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from training.data.files import FileCache, stamp_of
from training.data.source import FileSource, Finding, Record

SMALL = 256  # so few pictures are not worth starting processes for
REPORT = 10.0  # seconds between two lines of progress


def check(source: FileSource, *, jobs: int = 1, cache: Path | None = None) -> list[tuple[int, Finding]]:
    """Everything in the files of a source that cannot be used, by the index of its record.

    Args:
        source: what to check; it is not changed, ``FileSource.leave_out`` does that.
        jobs: processes that decode.
        cache: JSON file of verdicts.
    """
    remembered = FileCache(cache, f"check {source.stamp}")
    found: list[tuple[int, Finding]] = []
    pending: list[int] = []
    for index, record in enumerate(source.records):
        known = remembered.get(_name(record), stamp_of(record.path, record.mask_path))
        if known is None:
            pending.append(index)
        else:
            found += [(index, Finding(*finding)) for finding in known]
    records = [source.records[i] for i in pending]
    for index, record, findings in zip(pending, records, _told(_inspect(source.inspect, records, jobs), len(records)), strict=True):
        verdict = [[f.kind, f.where, f.position] for f in findings]
        remembered.put(_name(record), stamp_of(record.path, record.mask_path), verdict)
        found += [(index, finding) for finding in findings]
    remembered.write()
    return sorted(found, key=lambda pair: pair[0])


def _name(record: Record) -> str:
    """What a verdict is remembered by. Two entries may name the same file, each with annotations of its own."""
    return f"{record.image_id} {record.path}"


def _inspect(inspect: Callable[[Record], list[Finding]], records: list[Record], jobs: int) -> Iterator[list[Finding]]:
    if jobs <= 1 or len(records) <= SMALL:
        yield from map(inspect, records)
        return
    # New interpreters instead of copies of this one: torch may hold threads and locks here.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(inspect, records, chunksize=16)


def _told(results: Iterable[list[Finding]], count: int) -> Iterator[list[Finding]]:
    """Pass results on; what takes long says how far it is."""
    last = time.monotonic()
    for done, result in enumerate(results, start=1):
        if time.monotonic() - last > REPORT:
            last = time.monotonic()
            print(f"checking pictures: {done} of {count}", file=sys.stderr, flush=True)
        yield result

"""Puts the verbs of `kerf` together and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sdk.cli import checks, evaluate, forward, info, predict, refine
from sdk.errors import KerfError
from sdk.version import __version__

EXIT_CODES = (
    "exit codes: 0 done; 1 done, but some pictures failed or a check did; 2 bad usage, input or engine, nothing done; "
    "130 interrupted; 143 terminated"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what a terminal cannot show
    before = _on_termination(_terminated) if arguments is None else None
    try:
        if given and given[0] in forward.TARGETS:  # these have parsers of their own
            return forward.run(given[0], given[1:])
        options = _parser().parse_args(given)
        code: int = options.run(options)
        sys.stdout.flush()  # a closed pipe shows here, not at exit
        return code
    except KerfError as error:
        print(f"kerf: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        return 2
    except OSError as error:
        print(f"kerf: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kerf: interrupted", file=sys.stderr)
        return 130
    finally:
        if before is not None:
            _on_termination(before)


def _on_termination(handler: Any) -> Any:
    """Sets the handler of SIGTERM and returns the one before."""
    return signal.signal(signal.SIGTERM, handler)


def _terminated(number: int, frame: object) -> None:
    """Leaves through the cleaning up that an exception brings: no half-written file stays behind."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kerf", description="Instance segmentation: object masks that follow the edge.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    predict.add(verbs)
    refine.add(verbs)
    evaluate.add(verbs)
    info.add(verbs)
    checks.add(verbs)
    forward.add(verbs)
    version = verbs.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def _version(options: argparse.Namespace) -> int:
    print(__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`kerf train` and `kerf export`: verbs of the source checkout, imported only when asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sdk
from sdk.errors import BackendError

TARGETS = {
    "train": ("training.train", "train a model on COCO data"),
    "export": ("export.main", "make an engine from a checkpoint"),
}


def add(verbs: Any) -> None:
    """Lists the verbs in `kerf --help`; `sdk.cli.main` passes them on before arguments are parsed."""
    for name, (_, purpose) in TARGETS.items():
        verbs.add_parser(name, help=f"{purpose} (needs the source checkout)", add_help=False)


def run(verb: str, arguments: Sequence[str]) -> int:
    """Runs a verb of the checkout with the rest of the command line.

    Raises:
        BackendError: the checkout or a package it needs is not there.
    """
    module, _ = TARGETS[verb]
    package = module.partition(".")[0]
    checkout = Path(sdk.__file__).resolve().parent.parent
    if (checkout / package).is_dir() and str(checkout) not in sys.path:
        sys.path.append(str(checkout))  # an editable install exposes sdk only
    try:
        target = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in (package, module):
            raise BackendError(
                f"kerf {verb} needs the source checkout, the installed package holds the runtime only; "
                "clone the repository and run there: pip install -c constraints.txt -e '.[train]'"
            ) from error
        raise BackendError(
            f"kerf {verb} needs the package {error.name!r}; in the checkout: pip install -c constraints.txt -e '.[train]'"
        ) from error
    code: int = target.main(list(arguments))
    return code

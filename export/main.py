"""``kerf export CHECKPOINT --out NAME.engine``: graphs, check against PyTorch, pack."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from export.graphs import export_graphs
from export.pack import manifest_of, provenance_of
from export.refiner import RefinerAgreement, compare_refiner, export_refiner, refiner_manifest
from export.verify import Agreement, compare
from sdk.engine import Engine
from sdk.images import read_image
from sdk.manifest import EngineManifest
from training import checkpoint
from training.models.detector import Detector
from training.refiner.trainer import load_refiner


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("kerf export", description="Make an engine from a checkpoint and check it against PyTorch.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the engine file to write, NAME.engine")
    parser.add_argument("--name", help="name in the manifest; default: the file's name")
    parser.add_argument(
        "--check",
        type=Path,
        nargs="*",
        default=[],
        help="pictures to compare both on; default: noise of five sizes. A refiner is compared on noise",
    )
    parser.add_argument("--data", type=json.loads, default=[], help='JSON list of {"name", "licence", "source"} for the manifest')
    parser.add_argument("--metrics", type=json.loads, default={}, help="JSON object of measured metrics for the manifest")
    return parser.parse_args(arguments)


def check_detector(model: Detector, engine: Path, pictures: list[Path]) -> Agreement:
    """Compare engine and model on the given pictures, or on smooth noise of five sizes."""
    if pictures:
        return compare(model, engine, (read_image(path).rgb() for path in pictures))
    rng = np.random.default_rng(0)
    sizes = ((64, 64), (97, 211), (256, 320), (33, 480), (360, 240))
    return compare(model, engine, (rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes))


def main(arguments: list[str] | None = None) -> int:
    """Entry point; exit code 1 when the engine differs from the model (it is not left behind then)."""
    options = parse(arguments)
    name = options.name or options.out.stem
    manifest: EngineManifest
    check: Callable[[Path], Agreement | RefinerAgreement]
    if checkpoint.kind_of(checkpoint.load(options.checkpoint)) == "refiner":
        refiner, settings = load_refiner(options.checkpoint)
        manifest = refiner_manifest(refiner, name, provenance_of(options.checkpoint, settings, options.data, options.metrics))
        graphs, check = export_refiner(refiner), partial(compare_refiner, refiner)
    else:
        model, config = checkpoint.load_model(options.checkpoint)
        manifest = manifest_of(model, name, provenance_of(options.checkpoint, config, options.data, options.metrics))
        graphs, check = export_graphs(model), partial(check_detector, model, pictures=options.check)
    unchecked = options.out.with_name(f"{options.out.stem}.unchecked.engine")
    try:
        Engine.write(unchecked, manifest, graphs)
        agreement = check(unchecked)
        print(json.dumps(agreement.to_dict()))
        if not agreement.ok:
            print(f"{options.out}: {agreement.problem}; not written", file=sys.stderr)
            return 1
        Engine.write(options.out, manifest.replace(verified=agreement.to_dict()), graphs)
    finally:
        unchecked.unlink(missing_ok=True)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, verified on {agreement.compared}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

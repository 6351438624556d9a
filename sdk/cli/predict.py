"""`kerf predict`: pictures in, overlays and COCO results out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdk.errors import ImageError, InputError

DESCRIPTION = """\
Find the instances in pictures. Sources are pictures, folders (--recursive for their subfolders) and glob patterns.

A picture that cannot be used does not stop the others: it is named at the end and the exit code is 1.
Outputs appear whole or not at all. Without --annotations, pictures are numbered from 1 in the order they are given,
and every result carries its file_name."""


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "predict",
        help="find the instances in pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="picture, folder or glob pattern")
    parser.add_argument("--engine", default="nuclei", metavar="E", help="engine file, or name of a shipped engine (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write overlays into this folder, DIR/NAME.png")
    parser.add_argument("--save-json", type=Path, metavar="R.json", help="write COCO results with masks as run lengths")
    parser.add_argument("--annotations", type=Path, metavar="A.json", help="take image ids from these COCO annotations, by file name")
    parser.add_argument("--conf", type=float, metavar="X", help="keep instances with a score above this (default: the engine's)")
    parser.add_argument(
        "--iou", type=float, metavar="X", help="drop the lesser of two boxes of a class above this IoU (default: the engine's)"
    )
    parser.add_argument("--max-det", type=int, metavar="N", help="most instances per picture (default: the engine's)")
    parser.add_argument(
        "--mask-threshold", type=float, metavar="X", help="probability from which a pixel is foreground (default: the engine's)"
    )
    parser.add_argument("--classes", metavar="NAME,...", help="keep these classes only; names or label numbers")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: every core)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=100_000_000,
        metavar="N",
        help="refuse pictures with more pixels; 0 = no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--alpha",
        choices=("error", "drop"),
        default="error",
        help="pictures with transparency: refuse them, or use their colours only (default: %(default)s)",
    )
    parser.add_argument("--recursive", action="store_true", help="search folders with their subfolders")
    parser.add_argument("--json", action="store_true", help="print one JSON object about the run instead of text")
    parser.set_defaults(run=run)


@dataclass
class _Report:
    """What happened so far."""

    pictures: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    speed: Counter[str] = field(default_factory=Counter)  # milliseconds by stage, summed


def run(options: argparse.Namespace) -> int:
    """Runs the verb."""
    from sdk import ops
    from sdk.cli.progress import Progress
    from sdk.formats import coco
    from sdk.images import find_images
    from sdk.segmenter import Segmenter

    started = time.perf_counter()
    check_outputs(options.out, options.save_json)
    pictures = find_images(options.sources, recursive=options.recursive)
    ids = coco.load_annotations(options.annotations).ids_of(pictures) if options.annotations else None
    overlays = plan_overlays(pictures, options.out) if options.out else {}
    check_overwriting(options.save_json, [*pictures, *([options.annotations] if options.annotations else [])])
    segmenter = Segmenter(
        options.engine,
        device=options.device,
        threads=options.threads,
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
        mask_threshold=options.mask_threshold,
    )
    classes = None if options.classes is None else [int(one) if one.isdecimal() else one for one in options.classes.split(",")]
    if options.threads:
        ops.set_num_threads(options.threads)  # the native steps, too: the process is ours
    report, progress = _Report(), Progress(len(pictures), enabled=not options.json)
    try:
        for number, path in enumerate(pictures):
            image_id = number + 1 if ids is None else ids[number]
            try:
                _predict_one(segmenter, path, image_id, overlays.get(path), classes, options, report)
            except ImageError as error:
                report.failures[path] = str(error)
            except OSError as error:  # of the overlay: the next one may be written
                report.failures[path] = f"{path}: its overlay {overlays.get(path)} cannot be written: {error.strerror or error}"
            else:
                if not options.json and not progress.shown:
                    _print_picture(report.pictures[-1])
            progress.step()
    finally:
        progress.close()
    if options.save_json and (report.pictures or report.results):
        coco.write_results(options.save_json, report.results)
    _print_report(report, options, time.perf_counter() - started)
    return 1 if report.failures else 0


def _predict_one(
    segmenter: Any, path: str, image_id: int, overlay: Path | None, classes: Any, options: argparse.Namespace, report: _Report
) -> None:
    from sdk.images import read_image

    start = time.perf_counter()
    picture = read_image(path, max_pixels=options.max_pixels or None, alpha=options.alpha)
    read = (time.perf_counter() - start) * 1e3
    instances = segmenter.predict(picture, classes=classes)
    if options.save_json:
        name = {} if options.annotations else {"file_name": os.path.basename(path)}
        report.results += [{**result, **name} for result in instances.to_coco(image_id)]
    if overlay:
        instances.save(overlay, picture)
    speed = {**instances.speed, "read": read, "total": instances.speed["total"] + read}
    report.speed.update(speed)
    report.pictures.append(
        {
            "path": path,
            "image_id": image_id,
            "instances": len(instances),
            "counts": instances.counts(),
            "overlay": str(overlay) if overlay else None,
            "speed": speed,
        }
    )


def check_outputs(folder: Path | None, results: Path | None, option: str = "--save-json") -> None:
    """Finds out before the work begins that its results could not be written.

    Raises:
        InputError: a folder is a file, or a file is a folder.
    """
    if results is not None and results.is_dir():
        raise InputError(f"{option} {results}: a folder; give the name of a file in it")
    for name, path in (("--out", folder), (option, results.parent if results else None)):
        existing = next((p for p in (path, *path.parents) if p.exists()), None) if path is not None else None
        if existing is not None and not existing.is_dir():
            raise InputError(f"{name}: {existing} is a file, not a folder")
        if existing is not None and not os.access(existing, os.W_OK):
            raise InputError(f"{name}: the folder {existing} cannot be written to")


def check_overwriting(results: Path | None, inputs: Sequence[str | Path], option: str = "--save-json") -> None:
    """Raises `InputError` when the results would overwrite a picture or the annotations."""
    if results is not None and results.is_file():
        for path in inputs:
            if os.path.exists(path) and os.path.samefile(path, results):
                raise InputError(f"{option} {results} would overwrite {path}, which is read; choose another name")


def counted(count: int, what: str) -> str:
    """Returns "1 picture", "2 pictures"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def plan_overlays(pictures: list[str], folder: Path) -> dict[str, Path]:
    """Returns picture -> overlay file: the picture's name with the ending .png, numbered where names meet.

    Raises:
        InputError: an overlay would overwrite one of the pictures.
    """
    sources = {os.path.realpath(path) for path in pictures}
    planned: dict[str, Path] = {}
    taken: set[str] = set()
    for path in pictures:
        stem = Path(path).stem
        name, number = stem, 2
        while name.lower() in taken:  # lower: some file systems do not tell cases apart
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        planned[path] = folder / f"{name}.png"
        if os.path.realpath(planned[path]) in sources:
            raise InputError(f"the overlay {planned[path]} would overwrite one of the pictures; choose another folder with --out")
    return planned


def _print_picture(entry: dict[str, Any]) -> None:
    found = ", ".join(f"{count} {name}" for name, count in entry["counts"].items()) or "nothing"
    print(f"{entry['path']}: {found}, {entry['speed']['total']:.0f} ms", flush=True)


def _print_report(report: _Report, options: argparse.Namespace, seconds: float) -> None:
    count = len(report.pictures)
    instances = sum(entry["instances"] for entry in report.pictures)
    mean = {stage: total / count for stage, total in report.speed.items()} if count else {}
    saved = str(options.save_json) if options.save_json and count else None
    if options.json:
        failures = [{"path": path, "error": error} for path, error in report.failures.items()]
        print(json.dumps({"pictures": report.pictures, "failures": failures, "results": saved, "mean_speed": mean, "seconds": seconds}))
    else:
        where = "".join([f"; overlays in {options.out}" if options.out and count else "", f"; results in {saved}" if saved else ""])
        print(f"{counted(count, 'picture')}, {counted(instances, 'instance')}, {seconds:.1f} s{where}")
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in mean.items() if stage != "total")
        if mean:
            print(f"ms per picture: {stages}; total {mean['total']:.1f}")
    if report.failures and not options.json:
        print(f"kerf: {len(report.failures)} of {counted(count + len(report.failures), 'picture')} failed:", file=sys.stderr)
        for error in report.failures.values():
            print(f"  {error}", file=sys.stderr)

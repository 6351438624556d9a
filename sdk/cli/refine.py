"""`kerf refine`: COCO results of any model in, the same results with better masks out."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from sdk.errors import InputError, KerfError

DESCRIPTION = """\
Refine the masks of a COCO results file. Results of every model will do; everything but the segmentation of a
result stays as it is, keys that COCO does not know too, and so does the order.

Pictures are refined one after the other. After an interrupt the same command goes on where it stopped: what is
done lies in OUT.partial until the end. A picture that cannot be refined (missing, damaged, unknown id, malformed
masks) keeps its masks as they came; it is named at the end and the exit code is 1."""


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "refine",
        help="refine the masks of a COCO results file",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--annotations", required=True, metavar="A.json", help="COCO annotations; only their list of images is used")
    parser.add_argument("--results", required=True, type=Path, metavar="R.json", help="COCO results with masks")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT.json", help="where the refined results go")
    parser.add_argument("--refiner", required=True, metavar="E", help="refiner engine")
    parser.add_argument("--quality", default="balanced", metavar="Q", help="fast, balanced or best (default: %(default)s)")
    parser.add_argument("--max-patches", type=int, metavar="N", help="most patches per picture (default: the quality's)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: every core)")
    parser.add_argument("--alpha", choices=("error", "drop"), default="error", help="pictures with transparency (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object about the run instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the verb."""
    from sdk import ops
    from sdk.cli.predict import check_outputs, check_overwriting
    from sdk.cli.progress import Progress
    from sdk.files import write_json
    from sdk.formats import coco
    from sdk.refiner import Refiner

    started = time.perf_counter()
    if not options.images.is_dir():
        raise InputError(f"--images {options.images}: no such folder")
    check_outputs(None, options.out, "--out")
    check_overwriting(options.out, [options.results, options.annotations], "--out")
    annotations = coco.load_annotations(options.annotations)
    results = read_results(options.results)
    refiner = Refiner(
        options.refiner,
        device=options.device,
        threads=options.threads,
        alpha=options.alpha,
        quality=options.quality,
        max_patches=options.max_patches,
    )
    if options.threads:
        ops.set_num_threads(options.threads)  # the native steps, too: the process is ours
    names = {image_id: name for name, image_id in annotations.images.items()}
    by_picture: dict[Any, list[int]] = {}
    for position, result in enumerate(results):
        by_picture.setdefault(result["image_id"], []).append(position)
    failures: dict[Any, str] = {}
    speed: Counter[str] = Counter()
    progress = Progress(len(by_picture), enabled=not options.json)
    with _Partial(options.out, _run_id(options, refiner)) as partial:
        resumed = len(partial.done)
        try:
            for image_id, positions in by_picture.items():
                if image_id not in partial.done:
                    try:
                        segmentations, times = _refine_picture(refiner, options.images, names, image_id, [results[p] for p in positions])
                    except (KerfError, OSError) as error:
                        failures[image_id] = str(error)
                    else:
                        speed.update(times)
                        partial.add(image_id, segmentations)
                progress.step()
        finally:
            progress.close()
        for image_id, segmentations in partial.done.items():
            for position, segmentation in zip(by_picture[image_id], segmentations, strict=True):
                results[position]["segmentation"] = segmentation
        write_json(options.out, results)
        partial.finished = True
    _print_report(options, len(by_picture), len(results), resumed, failures, speed, time.perf_counter() - started)
    return 1 if failures else 0


def read_results(path: Path) -> list[dict[str, Any]]:
    """Reads COCO results; what is in them beside `image_id` and `segmentation` does not matter.

    Raises:
        InputError: no list of results, or one without a picture or a mask; it is named.
    """
    from sdk.formats import coco

    values = coco.read_json(path)
    if not isinstance(values, list):
        raise InputError(f"{path}: COCO results are a list, got {type(values).__name__}; annotations of a picture set go to --annotations")
    for position, result in enumerate(values):
        if not isinstance(result, dict) or not isinstance(result.get("image_id"), (int, str)) or "segmentation" not in result:
            raise InputError(f"{path}: result {position} needs an image_id and a segmentation")
    return values


def _refine_picture(
    refiner: Any, folder: Path, names: dict[int, str], image_id: Any, results: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """New segmentations of the results of one picture, and the times."""
    from sdk.formats import coco
    from sdk.instances import Instances
    from sdk.masks import RleMasks

    if image_id not in names:
        raise InputError(f"image_id {image_id!r}: the annotations have no such picture")
    path = folder / names[image_id]
    if not path.exists() and (folder / path.name).exists():
        path = folder / path.name  # annotations may name folders of their own
    picture = refiner.read(path)
    try:
        counts = [coco.parse_segmentation(r["segmentation"], picture.shape, f"result {i}") for i, r in enumerate(results)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    count = len(results)
    boxes = [[0.0, 0.0, 0.0, 0.0]] * count  # the refiner looks at masks only
    found = refiner.refine(picture, Instances(boxes, [1.0] * count, [0] * count, shape=picture.shape, masks=RleMasks(counts)))
    return found.rle(), found.speed


def _run_id(options: argparse.Namespace, refiner: Any) -> dict[str, Any]:
    """What must be the same for pictures of an interrupted run to count."""
    return {
        "results": hashlib.sha256(options.results.read_bytes()).hexdigest(),
        "engine": {name: graph.sha256 for name, graph in refiner.manifest.graphs.items()},
        "patches": refiner.patches().to_dict(),
    }


class _Partial:
    """Pictures that are done, in a file of JSON lines that survives an interrupt.

    Args:
        out: the results that the run will write; the file has `.partial` behind its name.
        run: what identifies the run.

    Raises:
        InputError: the file is that of another run.
    """

    def __init__(self, out: Path, run: dict[str, Any]) -> None:
        self.path = out.with_name(out.name + ".partial")
        self.done: dict[Any, list[dict[str, Any]]] = {}
        self.finished = False
        self._run = run
        self._stream: BinaryIO

    def __enter__(self) -> _Partial:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        end = self._read() if self.path.exists() else 0
        self._stream = open(self.path, "r+b" if end else "wb")
        self._stream.truncate(end)
        self._stream.seek(end)
        if not end:
            self._write(self._run)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        if self.finished:
            self.path.unlink()

    def add(self, image_id: Any, segmentations: list[dict[str, Any]]) -> None:
        """Keeps a picture."""
        self.done[image_id] = segmentations
        self._write([image_id, segmentations])

    def _write(self, value: object) -> None:
        self._stream.write(json.dumps(value).encode() + b"\n")
        self._stream.flush()

    def _read(self) -> int:
        """Reads what an interrupted run left; returns where its whole lines end."""
        end = 0
        with open(self.path, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # cut off while it was written
                value = json.loads(line)
                if end == 0 and value != self._run:
                    raise InputError(f"{self.path} is what an interrupted run with other inputs or options left; remove it to begin again")
                if end:
                    self.done[value[0]] = value[1]
                end += len(line)
        return end


def _print_report(
    options: argparse.Namespace, pictures: int, masks: int, resumed: int, failures: dict[Any, str], speed: Counter[str], seconds: float
) -> None:
    from sdk.cli.predict import counted

    count = pictures - resumed - len(failures)
    mean = {stage: total / count for stage, total in speed.items()} if count else {}
    if options.json:
        listed = [{"image_id": image_id, "error": error} for image_id, error in failures.items()]
        report = {"pictures": pictures, "masks": masks, "resumed": resumed, "failures": listed, "results": str(options.out)}
        print(json.dumps({**report, "mean_speed": mean, "seconds": seconds}))
        return
    before = f" ({resumed} of them by an earlier run)" if resumed else ""
    print(f"{counted(pictures, 'picture')}{before}, {counted(masks, 'mask')}, {seconds:.1f} s; results in {options.out}")
    if mean:
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in mean.items() if stage != "total")
        print(f"ms per picture: {stages}; total {mean['total']:.1f}")
    if failures:
        print(f"kerf: {len(failures)} of {counted(pictures, 'picture')} failed and kept their masks:", file=sys.stderr)
        for image_id, error in failures.items():
            print(f"  {image_id}: {error}", file=sys.stderr)

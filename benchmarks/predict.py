"""Where a prediction's time goes: every stage of ``Segmenter.predict`` beside the dense networks alone, in one run.

    python -m benchmarks.predict                 # Mask R-CNN R50-FPN of random weights at 800x1333 and 512x512 (needs torch)
    python -m benchmarks.predict --engine nuclei # an engine, at its own sizes
    python -m benchmarks.predict --torch         # the same network in eager PyTorch beside it

Each round runs ``predict`` and then, with the very inputs it used, the three graphs alone; the ratio is taken round by round, so that a
machine whose speed drifts does not decide it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import Segmenter

DENSE = ("trunk", "box", "mask")
SIZES = ((800, 1333), (512, 512))
DETECTIONS = 48  # as in the figures of torchvision's model that docs/benchmarks.md compares with


class Recorder:
    """Stands in front of a backend and keeps the inputs of the last run of every graph."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.feeds: dict[str, dict[str, NDArray[Any]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def run(self, graph: str, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.feeds[graph] = dict(feeds)
        return self.backend.run(graph, feeds)

    def run_alone(self) -> dict[str, float]:
        """Milliseconds of each graph on the kept inputs, nothing else between them."""
        spent = {}
        for graph, feeds in self.feeds.items():
            start = time.perf_counter()
            self.backend.run(graph, feeds)
            spent[graph] = (time.perf_counter() - start) * 1e3
        return spent


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth coloured noise, (H, W, 3) uint8: edges and flat parts at several scales."""
    import cv2

    rng = np.random.default_rng(0)
    layers = [cv2.resize(rng.uniform(0, 255, (n, n, 3)).astype(np.float32), (width, height)) for n in (4, 16, 64)]
    layers.append(rng.uniform(0, 255, (height, width, 3)).astype(np.float32))  # texture, or the proposals would all crowd together
    return np.mean(layers, 0).astype(np.uint8)


def random_r50(folder: Path, image: NDArray[np.uint8]) -> tuple[Path, Any]:
    """An engine of the standard model with random weights, its classifier sharpened until it finds some dozens of objects."""
    import torch

    from export.pack import pack
    from sdk.config import ResizeRule
    from training.config import ModelConfig
    from training.models.detector import Detector

    torch.manual_seed(0)
    names = tuple(f"class {i}" for i in range(80))
    config = ModelConfig(class_names=names, category_ids=tuple(range(1, 81)), norm="batch", resize=ResizeRule(factor=1.0, long=4096))
    model = Detector(config).eval()
    # As after training: statistics that keep the signal in range, and logits that tell the proposals apart.
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train()
                module.momentum = None
        small = torch.from_numpy(image[:256, :256].copy()).permute(2, 0, 1)[None].float() / 64 - 2
        pyramid = model.train().pyramid(small)
        model.eval()
        for scale, layer in ((2.0, model.rpn.head.objectness), (0.5, model.rpn.head.deltas)):
            layer.weight.mul_(scale / max(1e-6, layer(torch.relu(model.rpn.head.conv(pyramid[0]))).std().item()))
        boxes = torch.rand(200, 4) * 100
        boxes[:, 2:] += boxes[:, :2] + 20
        pooled = model.pool(pyramid, boxes, torch.zeros(200), model.box_pool())
        model.box_head.classes.weight.mul_(2.0 / model.box_head(pooled)[0].std().item())
    path = folder / "r50.engine"
    pack(model, path, "r50-random", {"note": "random weights, for timing only"})
    return path, model


def measure(segmenter: Segmenter, image: NDArray[np.uint8], rounds: int, options: dict[str, Any]) -> dict[str, Any]:
    """Medians over the rounds, in milliseconds, and the ratios."""
    recorder = Recorder(segmenter._backend)
    segmenter._backend = recorder
    for _ in range(2):
        segmenter.predict(image, **options)
        recorder.run_alone()
    rows: list[dict[str, float]] = []
    detections = 0
    for _ in range(rounds):
        start = time.perf_counter()
        found = segmenter.predict(image, **options)
        predicted = (time.perf_counter() - start) * 1e3
        found.rle()
        with_rle = (time.perf_counter() - start) * 1e3
        alone = recorder.run_alone()
        inside = sum(found.speed.get(g, 0.0) for g in DENSE)
        detections = len(found)
        rows.append(
            {
                "proposals (boxes)": float(len(recorder.feeds["box"]["rois"])),
                **found.speed,
                "predict": predicted,
                "rle": with_rle - predicted,
                **{f"{g} alone": alone.get(g, 0.0) for g in DENSE},
                "dense alone": sum(alone.values()),
                "predict / dense alone": predicted / sum(alone.values()),
                "predict + rle / dense alone": with_rle / sum(alone.values()),
                "predict / dense inside it": predicted / inside,
            }
        )
    segmenter._backend = recorder.backend
    return {"detections": detections, **{k: statistics.median(r[k] for r in rows if k in r) for k in rows[0]}}


def eager(model: Any, image: NDArray[np.uint8], rounds: int) -> float:
    """Median milliseconds of the same network in eager PyTorch, its own proposals, NMS and RoIAlign included."""
    from export.verify import predict_torch

    predict_torch(model, image)
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        predict_torch(model, image)
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent)


def show(title: str, result: dict[str, Any]) -> None:
    print(f"\n{title}")
    for name, value in result.items():
        unit = "" if name == "detections" or "/" in name or "(" in name else " ms"
        print(f"  {name:28} {value:9.3f}{unit}" if isinstance(value, float) else f"  {name:28} {value:9}{unit}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", help="engine to time; default: R50-FPN of random weights")
    parser.add_argument("--sizes", nargs="*", default=[f"{h}x{w}" for h, w in SIZES], help="HEIGHTxWIDTH of the pictures")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch", action="store_true", help="time eager PyTorch too (random R50 only)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sizes = [tuple(int(v) for v in size.split("x")) for size in options.sizes]
        model: Any = None
        if options.engine is None:
            path, model = random_r50(Path(folder), picture(*sizes[0]))
        segmenter = Segmenter(options.engine or path, threads=options.threads, color="rgb")
        for size in sizes:
            image = picture(*size)
            limits = {} if options.engine else {"conf": 0.05, "max_det": DETECTIONS}
            result = measure(segmenter, image, options.rounds, limits)
            if options.torch and model is not None:
                result["eager PyTorch"] = eager(model, image, max(1, options.rounds // 3))
            results["x".join(map(str, size))] = result
            show(f"{size[0]} x {size[1]}, {options.engine or 'R50-FPN, random weights'}", result)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

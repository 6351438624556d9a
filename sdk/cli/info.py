"""`kerf info`: what is in an engine."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add(verbs: Any) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser("info", help="check an engine and print what is in it")
    parser.add_argument("engine", metavar="ENGINE", help="engine file or folder, or name of a shipped engine")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the verb."""
    from sdk.engine import Engine
    from sdk.manifest import EngineManifest

    engine = Engine.open(options.engine, EngineManifest)
    if options.json:
        print(json.dumps(engine.manifest.to_dict(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(f"{name:12} {value}" for name, value in _lines(engine)))
    return 0


def _segmenter_lines(m: Any) -> list[tuple[str, str]]:
    resize = m.input.resize
    first = f"shorter side {resize.short}" if resize.short is not None else f"scale {resize.factor:g}"
    names = ", ".join(m.class_names[:8]) + (f", ... ({len(m.class_names)} classes)" if len(m.class_names) > 8 else "")
    return [
        ("classes", names),
        ("input", f"{m.input.color}, {first}, longer side at most {resize.long} pixels, padded to multiples of {m.input.size_divisor}"),
        (
            "keeps",
            f"scores above {m.box.score_threshold:g}, at most {m.box.max_detections}, boxes of a class up to IoU {m.box.nms_threshold:g}",
        ),
        ("masks", f"{m.mask.size[0]} x {m.mask.size[1]} in the {m.mask.frame}, foreground from {m.mask.threshold:g}"),
    ]


def _refiner_lines(m: Any) -> list[tuple[str, str]]:
    lines = [("input", f"{m.color}{' and the mask' if m.mask_channel else ''}")]
    for name, p in m.qualities.items():
        most = "all" if p.max_patches is None else f"at most {p.max_patches}"
        text = f"{p.size} px{f' and {p.padding} around' if p.padding else ''}, seen at {p.input_size}, NMS {p.nms_threshold:g}, {most}"
        lines.append((name, f"{p.scheme} patches: {text}"))
    return lines


def _lines(engine: Any) -> list[tuple[str, str]]:
    m = engine.manifest
    lines = [
        ("engine", str(engine.path)),
        ("name", f"{m.name}, a {m.kind}, method {m.method}, format {m.format_version}"),
        *(_refiner_lines(m) if m.kind == "refiner" else _segmenter_lines(m)),
        ("backends", ", ".join(m.runtime.backends)),
    ]
    for name, graph in m.graphs.items():
        lines.append((f"graph {name}", f"{graph.bytes / 1e6:.1f} MB, {graph.precision}, opset {graph.opset}, sha256 {graph.sha256[:12]}"))
    for key in ("created", "kerf_version", "checkpoint_sha256"):
        if key in m.provenance:
            lines.append((key.partition("_")[0], str(m.provenance[key])))
    for entry in m.provenance.get("data") or ():
        lines.append(
            (
                "data",
                ", ".join(str(entry[k]) for k in ("name", "licence", "source") if k in entry) if isinstance(entry, dict) else str(entry),
            )
        )
    if isinstance(m.provenance.get("metrics"), dict):
        lines += [("metric", f"{key} {value}") for key, value in m.provenance["metrics"].items()]
    verified = "no" if m.verified is None else ", ".join(f"{key} {value}" for key, value in m.verified.items())
    return [*lines, ("verified", verified)]

"""``docs/accuracy.md`` from ``docs/accuracy.json``."""

from __future__ import annotations

import statistics
from typing import Any

# Gains in COCO mask AP over Mask R-CNN R50 that the papers print (BMask R-CNN, RefineMask, BRefine, BEIS).
PUBLISHED_GAIN = {"bmask": 1.4, "refinemask": 2.6, "brefine": 3.0, "beis": 3.3, "beis-unit": 3.3}
TITLES = {
    "fcn": "Mask R-CNN (`fcn`)",
    "bmask": "`bmask`",
    "refinemask": "`refinemask`",
    "brefine": "`brefine`",
    "beis": "`beis`",
    "beis-unit": "`beis`, features of length 1",
}
METRICS = ("AP", "AP75", "AP_B", "F1px", "F3px")


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def gain(rows: dict[str, Any], name: str, metric: str) -> str:
    """Difference of the means to the baseline."""
    mean = {head: statistics.mean(run[metric] for run in rows[head]["runs"]) for head in ("fcn", name)}
    return f"{mean[name] - mean['fcn']:+.1f}"


def render(measured: dict[str, Any]) -> str:
    """The page."""
    rows, setting = measured["heads"], measured["setting"]
    lines = [
        "# Accuracy of the mask heads",
        "",
        "<!-- Written by `python -m benchmarks.accuracy table` from accuracy.json. Do not edit. -->",
        "",
        f"Measured {measured['date']} on {measured['machine']}. {setting['text']}",
        "",
        "Mean and standard deviation over seeds, in percent; every row has the same boxes.",
        "",
        "| head | seeds | " + " | ".join(METRICS) + " |",
        "|---|---|" + "---|" * len(METRICS),
    ]
    for name, row in rows.items():
        cells = [spread([run[m] for run in row["runs"]]) for m in METRICS]
        lines.append(f"| {TITLES[name]} | {len(row['runs'])} | " + " | ".join(cells) + " |")
    cells = [f"{measured['ceiling'][m]:.1f}" for m in METRICS]
    lines.append("| the true masks in these boxes | | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Gain over the baseline, beside the gain in COCO AP that each paper prints for a R50 (another data set, full training):",
        "",
    ]
    lines += ["| head | AP | AP_B | F1px | paper, COCO AP |", "|---|---|---|---|---|"]
    for name in rows:
        if name != "fcn":
            cells = [gain(rows, name, m) for m in ("AP", "AP_B", "F1px")]
            lines.append(f"| {TITLES[name]} | " + " | ".join(cells) + f" | {PUBLISHED_GAIN[name]:+.1f} |")
    lines += ["", "Cost. Milliseconds are medians of `Segmenter.predict` on ONNX Runtime, engines in turn picture by picture:", ""]
    lines += [
        "| head | parameters | MMAC per RoI | MMAC per picture | predict, ms | of it mask, ms | published size: parameters, GMAC per RoI |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        cost, full = row["cost"], row["published"]
        lines.append(
            f"| {TITLES[name]} | {cost['parameters']:,} | {cost['macs_per_roi'] / 1e6:.1f} | {cost['macs_per_picture'] / 1e6:.0f} "
            f"| {cost['milliseconds']['total']:.1f} | {cost['milliseconds']['mask']:.1f} "
            f"| {full['parameters'] / 1e6:.3f} M, {full['macs_per_roi'] / 1e9:.2f} |"
        )
    return "\n".join([*lines, "", *(f"- {note}" for note in setting["notes"]), ""])

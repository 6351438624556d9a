"""The figures of `evaluate` as plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_PRECISION = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
_MAX_CLASSES = 100  # rows of the table; LVIS has 1203 classes
_TITLES = {"segm": "mask", "bbox": "box"}  # what people call them; the others are called by their names


def format_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the result of `evaluate` as a plain-text table.

    >>> row = {"AP": 0.5, "AP50": 0.8, "AP75": 0.5, "APs": float("nan"), "APm": 0.5, "APl": 0.5, "AR": 0.6}
    >>> print(format_table({"segm": {**row, "per_class": {"cat": 0.5}}}))
               AP   AP50   AP75    APs    APm    APl     AR
    mask    0.500  0.800  0.500      -  0.500  0.500  0.600
    """
    precisions = {name: values for name, values in metrics.items() if "AP" in values}
    width = max([6, *(len(_title(name)) + 2 for name in metrics)])
    lines = []
    if precisions:
        lines.append(" " * width + "".join(f"{name:>7}" for name in _PRECISION))
        lines += [
            _title(name).ljust(width) + "".join(f"{_cell(values[key]):>7}" for key in _PRECISION) for name, values in precisions.items()
        ]
    for name, values in metrics.items():
        if name not in precisions and "rows" not in values:
            figures = {key: value for key, value in values.items() if isinstance(value, float)}
            lines.append(_title(name).ljust(width) + "  ".join(f"{key} {_cell(value)}" for key, value in figures.items()))
    for name, values in metrics.items():
        if "rows" in values:
            lines += [*([""] if lines else []), *_row_lines(_title(name), values["rows"])]
    return "\n".join(lines + _class_lines({name: values for name, values in metrics.items() if "per_class" in values}))


def _row_lines(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table with its title in the corner."""
    columns = [key for key, value in next(iter(rows.values())).items() if isinstance(value, float)]
    width = max(len(title), *(len(name) for name in rows)) + 2
    lines = [title.ljust(width) + "".join(f"{name:>7}" for name in columns)]
    return lines + [name.ljust(width) + "".join(f"{_cell(values[key]):>7}" for key in columns) for name, values in rows.items()]


def _class_lines(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row per class, one column per metric; nothing for a single class."""
    classes = list(dict.fromkeys(name for values in metrics.values() for name in values["per_class"]))
    if len(classes) < 2:
        return []
    width = max(len(name) for name in classes)
    heads = [f"{_title(name)} AP" if "AP" in values else next(key for key in values) for name, values in metrics.items()]
    widths = [max(9, len(head) + 2) for head in heads]
    lines = ["", " " * width + "".join(head.rjust(w) for head, w in zip(heads, widths, strict=True))]
    for name in classes[:_MAX_CLASSES]:
        cells = (_cell(values["per_class"].get(name, math.nan)) for values in metrics.values())
        lines.append(name.ljust(width) + "".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True)))
    return lines + ([f"and {len(classes) - _MAX_CLASSES} more classes; JSON has them all"] if len(classes) > _MAX_CLASSES else [])


def _title(name: str) -> str:
    return _TITLES.get(name, name)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

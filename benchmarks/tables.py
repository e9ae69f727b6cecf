"""Runs what is to be compared in turns, and prints medians with their spread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import attrs

from .measuring import spread

__all__ = ["Results", "Row", "interleaved", "show"]

Figures = dict[str, list[float]]


@attrs.frozen
class Row:
    """One thing to measure: what it is called, and how to measure it once."""

    label: str
    measure: Callable[[], dict[str, float]]


@attrs.frozen
class Results:
    """All figures of one benchmark, by row and name."""

    title: str
    rows: dict[str, Figures]


def interleaved(title: str, rows: Sequence[Row], repeats: int) -> Results:
    """Measure all rows *repeats* times, in turns and every other time backwards, so that a machine that slows down slows all of them down."""
    found: dict[str, Figures] = {row.label: {} for row in rows}
    for number in range(repeats):
        for row in rows if number % 2 == 0 else reversed(rows):
            print(f"{title.partition(':')[0]} {number + 1}/{repeats}: {row.label} ...", file=sys.stderr, flush=True)
            for name, value in row.measure().items():
                found[row.label].setdefault(name, []).append(value)
    return Results(title, found)


def show(results: Results, *, thread_figures: bool) -> None:
    """Print a table: one line a row, one column a figure that any row has."""
    columns = list(dict.fromkeys(name for figures in results.rows.values() for name in figures if thread_figures or not _is_detail(name)))
    lines = [["", *columns]]
    for label, figures in results.rows.items():
        lines.append([label, *(spread(figures[name]) if name in figures else "" for name in columns)])
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns) + 1)]
    print(f"\n## {results.title}\n")
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _is_detail(name: str) -> bool:
    return name in {"leases", "settles"} or (name.endswith(" µs") and name not in {"process µs", "server µs"})

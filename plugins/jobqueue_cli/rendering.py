"""How answers look: JSON, tables and fields on a terminal, tab-separated lines to a pipe. The only file that knows."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.wording import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Columns", "ago", "progress_bar", "short_duration", "write_fields", "write_json", "write_list"]

Columns = Mapping[str, str | Callable[[Mapping[str, Any]], str]]
"""Heading -> a field of the object (``depth.high`` for one inside another), or a function of the object that gives text."""

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_NARROW: Final = 40
"""Columns up to this width (an id has 36) are never broken."""
_GAP: Final = 2
_LINES: Final = 25
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def write_json(value: object) -> None:
    """Write one JSON document, in which only what stdout's encoding lacks is escaped."""
    everything = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(value, ensure_ascii=not everything, indent=2))


def write_list(objects: Sequence[Mapping[str, Any]], columns: Columns, *, now: datetime) -> None:
    """Write a table to a terminal, with times as ages; else a line for each object, with times as they are."""
    if not sys.stdout.isatty():
        for one in objects:
            click.echo("\t".join(one_line(_text(_value(one, column))) for column in columns.values()))
        return
    if not objects:
        click.echo("none", err=True)
        return
    _print_table(list(columns), [[one_line(_aged(_value(one, column), now)) for column in columns.values()] for one in objects])


def write_fields(fields: Mapping[str, Any], *, now: datetime) -> None:
    """Write one object: a line for each field, those of nested objects as ``outer.inner``."""
    flat = dict(_flatten(fields))
    if not sys.stdout.isatty():
        for name, value in flat.items():
            click.echo(f"{name}\t{one_line(_text(value))}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flat.items():
        table.add_row(Text(name), Text(printable(_for_people(name, value, now))))
    _console().print(table)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr; gives a function of (done, in all)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def short_duration(duration: timedelta) -> str:
    """A duration for people: its two largest units, as ``3m10s``; below ten seconds with a decimal, as ``1.5s``."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f}s".replace(".0s", "s")
    parts: list[str] = []
    rest = round(seconds)
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return "".join(parts)


def ago(instant: str, now: datetime) -> str:
    """A time as people say it: ``3m ago``, ``in 2h``."""
    age = now - datetime.fromisoformat(instant)
    return f"{short_duration(age)} ago" if age >= timedelta(0) else f"in {short_duration(-age)}"


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    natural = [max(cell_len(row[position]) for row in (headings, *rows)) for position in range(len(headings))]
    terminal = _console().width
    widths = _fitted(natural, terminal)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading, width in zip(headings, widths, strict=True):
        # An error is cut, so that a row stays a line: 'show' has all of it.
        cut = heading == "ERROR"
        table.add_column(heading, width=width, no_wrap=cut, overflow="ellipsis" if cut else "fold")
    for row in rows:
        table.add_row(*map(Text, row))
    # A terminal that is too narrow wraps lines that can be copied; a table squeezed into it could not be read.
    _console(width=max(terminal, sum(widths) + _GAP * len(widths))).print(table)


def _fitted(natural: Sequence[int], width: int) -> list[int]:
    """How wide to make columns of *natural* widths: narrow ones as they are, wide ones share what is left, down to a half of narrow."""
    narrow = sum(one for one in natural if one <= _NARROW) + _GAP * (len(natural) - 1)
    wide = sum(one for one in natural if one > _NARROW)
    left = max(0, width - narrow)
    return [one if one <= _NARROW or wide <= left else max(_NARROW // 2, one * left // wide) for one in natural]


def _console(*, width: int | None = None) -> Console:
    from rich.console import Console

    # Without a height rich would not take the width either where TERM is "dumb".
    return Console(highlight=False, markup=False, emoji=False, width=width, height=None if width is None else _LINES)


def _value(one: Mapping[str, Any], column: str | Callable[[Mapping[str, Any]], str]) -> object:
    if not isinstance(column, str):
        return column(one)
    value: Any = one
    for name in column.split("."):
        value = value[name]
    return value


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _aged(value: object, now: datetime) -> str:
    return ago(value, now) if isinstance(value, str) and _is_time(value) else _text(value)


def _for_people(name: str, value: object, now: datetime) -> str:
    if _is_time(value):
        return f"{value} ({ago(str(value), now)})"
    return f"{value:.0%}" if isinstance(value, float) and name == "progress.fraction" else _text(value)


def _is_time(value: object) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def _flatten(fields: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        # What a user has put in is one value, however deep: it is meant to be copied.
        if isinstance(value, Mapping) and value and name not in ("payload", "result", "metadata", "headers", "payload_schema"):
            yield from _flatten(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value

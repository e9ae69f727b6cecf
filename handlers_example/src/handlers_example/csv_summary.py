"""Summarising the columns of a CSV file in one pass and constant memory."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

import attrs

MAX_COLUMNS: Final = 256
MAX_NAME: Final = 128
"""Characters in a column's name."""
MAX_RECORD: Final = 1 << 20
"""Characters in a row, so that a file without line breaks is not read into memory whole."""
SHOWN: Final = 64
"""Characters shown of the least and the greatest text; with the limits above it keeps any summary well below 1 MiB."""
PROGRESS_EVERY: Final = 10_000
"""Rows."""

DELIMITERS: Final = ",;\t|"
INTEGER: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
"""No leading zeros and at most 18 digits: anything else is an identifier that looks like a number."""
NUMBER: Final = re.compile(r"[+-]?(?=\.?[0-9])(0|[1-9][0-9]{0,17})?(\.[0-9]*)?([eE][+-]?[0-9]+)?")
DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Kind = Literal["integer", "number", "boolean", "date", "text"]
Progress = Callable[[float, int], None]
"""Called now and then with the fraction of the file that is read, and the rows so far."""


class CsvError(ValueError):
    """The file cannot be summarised; the message names the line."""


def summarise(path: Path, *, delimiter: str | None = None, progress: Progress) -> dict[str, Any]:
    """Read the file at *path*, UTF-8 with a header line, and describe each column.

    Args:
        path: A regular file.
        delimiter: One character; None: the one of ``, ; tab |`` that is most frequent in the header line.
        progress: May raise to stop.

    Raises:
        CsvError: The file is empty, not UTF-8, ragged, or beyond the limits above.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise CsvError(f"delimiter: expected one character, got {delimiter!r:.20}")
    size = path.stat().st_size
    with path.open("rb") as raw:
        lines = Lines(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
        try:
            reader = csv.reader(lines, delimiter=delimiter or lines.likely_delimiter(), strict=True)
            columns = read_header(reader)
            rows = 0
            for row in filter(None, lines.records(reader)):
                add_row(columns, row)
                rows += 1
                if rows % PROGRESS_EVERY == 0:
                    progress(min(raw.tell() / size, 1.0), rows)
        except (csv.Error, CsvError) as error:
            raise CsvError(f"line {max(lines.number, 1)}: {error}") from error
        except UnicodeDecodeError as error:
            raise CsvError(f"after line {lines.number}: not UTF-8 text ({error.reason})") from error
    progress(1.0, rows)
    return {"rows": rows, "columns": [column.summary() for column in columns]}


def read_header(reader: Iterator[list[str]]) -> list[Column]:
    """The columns that the first row names.

    Raises:
        CsvError: There is no row, or too many or too long names.
    """
    names = next(reader, [])
    if not names:
        raise CsvError("expected a header with the columns' names, found nothing")
    if len(names) > MAX_COLUMNS or any(len(name) > MAX_NAME for name in names):
        raise CsvError(f"a header has at most {MAX_COLUMNS} columns with names of at most {MAX_NAME} characters")
    return [Column(name.strip()) for name in names]


def add_row(columns: list[Column], row: list[str]) -> None:
    """Take account of one row.

    Raises:
        CsvError: It has more or fewer fields than the header.
    """
    if len(row) != len(columns):
        raise CsvError(f"{len(row)} fields where the header has {len(columns)}")
    for column, value in zip(columns, row, strict=True):
        column.add(value)


class Lines:
    """The lines of a text file, counted and bounded; a record may take several (quoted line breaks)."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self._text = text
        self._first: str | None = None
        self._length = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._readline() if self._first is None else self._first
        self._first = None
        if not line:
            raise StopIteration
        self.number += 1
        self._length += len(line)
        if self._length > MAX_RECORD:
            raise CsvError(f"a row is longer than {MAX_RECORD} characters")
        return line

    def records(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """What *reader* makes of these lines; each record may again be as long as is allowed."""
        self._length = 0
        for record in reader:
            yield record
            self._length = 0

    def likely_delimiter(self) -> str:
        """The delimiter that is most frequent in the first line; a comma if there is none."""
        self._first = self._readline()
        return max(DELIMITERS, key=self._first.count)

    def _readline(self) -> str:
        return self._text.readline(MAX_RECORD + 1)


@attrs.define
class Extent:
    """The least and the greatest of some values that can be compared."""

    least: Any = None
    greatest: Any = None

    def add(self, value: Any) -> None:
        """Widen to *value*."""
        if self.least is None or value < self.least:
            self.least = value
        if self.greatest is None or value > self.greatest:
            self.greatest = value


@attrs.define
class Column:
    """What is known of a column so far. Its type is known only at the end, so each kind of value seen has an extent of its own."""

    name: str
    count: int = 0
    nulls: int = 0
    mean: float = 0.0
    extents: dict[Kind, Extent] = attrs.field(factory=dict)
    text: Extent = attrs.field(factory=Extent)

    def add(self, value: str) -> None:
        """Take account of one field; a blank one is a null."""
        value = value.strip()
        if not value:
            self.nulls += 1
            return
        self.count += 1
        self.text.add(value[:SHOWN])
        if "text" in self.extents:
            return
        kind, parsed = interpret(value)
        self.extents.setdefault(kind, Extent()).add(parsed)
        if kind in ("integer", "number"):
            # Term by term, so that the sum of very large numbers is never needed.
            self.mean += parsed / self.count - self.mean / self.count

    @property
    def kind(self) -> Kind | None:
        """The narrowest type that fits every value; None if there was none."""
        kinds = set(self.extents)
        if kinds == {"integer", "number"}:
            return "number"
        return "text" if len(kinds) > 1 else next(iter(kinds), None)

    def summary(self) -> dict[str, Any]:
        """The column as a JSON value."""
        kind = self.kind
        extent = self._extent(kind)
        summary = {"name": self.name, "type": kind, "count": self.count, "nulls": self.nulls, "min": extent.least, "max": extent.greatest}
        if kind in ("integer", "number"):
            # Twelve digits: the last ones of a float are rounding noise.
            summary["mean"] = float(f"{self.mean:.12g}")
        return summary

    def _extent(self, kind: Kind | None) -> Extent:
        if kind == "text":
            return self.text
        extent = Extent()
        for part in self.extents.values():
            extent.add(part.least)
            extent.add(part.greatest)
        return extent


def interpret(value: str) -> tuple[Kind, Any]:
    """What one field looks like by itself, and the value to compare it by."""
    if INTEGER.fullmatch(value):
        return "integer", int(value)
    if NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
        return "number", number
    if value.lower() in ("true", "false"):
        return "boolean", value.lower() == "true"
    if DATE.fullmatch(value):
        try:
            date.fromisoformat(value)
        except ValueError:
            return "text", value
        return "date", value
    return "text", value

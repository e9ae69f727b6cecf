"""Summaries of CSV files: what each column is taken for, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handlers_example.csv_summary import CsvError, summarise

from handlers_example import csv_summary


def summary(folder: Path, text: str | bytes, *, delimiter: str | None = None) -> dict[str, Any]:
    path = folder / "file.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return summarise(path, delimiter=delimiter, progress=lambda _fraction, _rows: None)


def column(folder: Path, *values: str) -> dict[str, Any]:
    [found] = summary(folder, "\n".join(["name", *(f'"{value}"' for value in values)]))["columns"]
    return {key: found[key] for key in ("type", "min", "max")}


def test_each_column_is_described(tmp_path: Path) -> None:
    result = summary(tmp_path, 'id,who,on,paid\n1,"Lovelace, Ada",2024-01-03,true\n3,Alan,2023-12-31,\n')

    assert result == {
        "rows": 2,
        "columns": [
            {"name": "id", "type": "integer", "count": 2, "nulls": 0, "min": 1, "max": 3, "mean": 2.0},
            {"name": "who", "type": "text", "count": 2, "nulls": 0, "min": "Alan", "max": "Lovelace, Ada"},
            {"name": "on", "type": "date", "count": 2, "nulls": 0, "min": "2023-12-31", "max": "2024-01-03"},
            {"name": "paid", "type": "boolean", "count": 1, "nulls": 1, "min": True, "max": True},
        ],
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["10", "9"], {"type": "integer", "min": 9, "max": 10}),
        (["10", "9.5"], {"type": "number", "min": 9.5, "max": 10}),
        (["-1e3", ".5", "+2."], {"type": "number", "min": -1000.0, "max": 2.0}),
        (["007", "12"], {"type": "text", "min": "007", "max": "12"}),
        (["1234567890123456789"], {"type": "text", "min": "1234567890123456789", "max": "1234567890123456789"}),
        (["1e999"], {"type": "text", "min": "1e999", "max": "1e999"}),
        (["nan", "1"], {"type": "text", "min": "1", "max": "nan"}),
        (["e5", "+"], {"type": "text", "min": "+", "max": "e5"}),
        (["True", "false"], {"type": "boolean", "min": False, "max": True}),
        (["true", "1"], {"type": "text", "min": "1", "max": "true"}),
        (["2024-02-29"], {"type": "date", "min": "2024-02-29", "max": "2024-02-29"}),
        (["2023-02-29"], {"type": "text", "min": "2023-02-29", "max": "2023-02-29"}),
        (["2024-02-29", "5"], {"type": "text", "min": "2024-02-29", "max": "5"}),
        (["", " "], {"type": None, "min": None, "max": None}),
    ],
)
def test_a_column_has_the_narrowest_type_that_fits_all_its_values(tmp_path: Path, values: list[str], expected: dict[str, Any]) -> None:
    assert column(tmp_path, *values) == expected


def test_the_mean_of_very_large_numbers_is_a_number(tmp_path: Path) -> None:
    result = summary(tmp_path, "x\n1e308\n1e308\n-1e308\n")

    assert result["columns"][0]["mean"] == pytest.approx(1e308 / 3)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    result = summary(tmp_path, f"a{delimiter}b\n1{delimiter}2\n")

    assert [found["name"] for found in result["columns"]] == ["a", "b"]


def test_a_given_delimiter_counts(tmp_path: Path) -> None:
    result = summary(tmp_path, "a,b:c\n1,2:3\n", delimiter=":")

    assert [found["name"] for found in result["columns"]] == ["a,b", "c"]


def test_a_byte_order_mark_blank_lines_and_quoted_line_breaks_are_no_data(tmp_path: Path) -> None:
    result = summary(tmp_path, b'\xef\xbb\xbfa,b\r\n"x\r\ny",1\r\n\r\nz,2\r\n')

    assert result["rows"] == 2
    assert [found["name"] for found in result["columns"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected a header"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields where the header has 2"),
        ('a,b\n"x\ny",2\n3,4,5\n', "line 4: 3 fields where the header has 2"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data"),
        ('a\n"x"y\n', "line 2: .*expected after"),
        (b"a\n\xff\n", "not UTF-8"),
        ("a\n" + "x" * (csv_summary.MAX_RECORD + 1), "line 2: .* longer than|line 2: field larger than"),
        ("a\n" + '"x\n",' * 400_000, "a row is longer than"),
        (",".join("x" * 300), "line 1: a header has at most 256 columns"),
        ("x" * 129, "line 1: a header has at most"),
    ],
)
def test_a_file_that_cannot_be_summarised_is_refused_with_its_line(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(CsvError, match=problem):
        summary(tmp_path, text)


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(CsvError, match="delimiter: expected one character"):
        summary(tmp_path, "a\n", delimiter=delimiter)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("number,text\n" + "".join(f"{row},{'x' * 200}{row}\n" for row in range(20_000)))
    fractions: list[float] = []

    tracemalloc.start()
    try:
        result = summarise(path, progress=lambda fraction, _rows: fractions.append(fraction))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result["rows"] == 20_000
    assert peak < path.stat().st_size / 4
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_the_largest_summary_fits_into_a_result(tmp_path: Path) -> None:
    wide = "\U0001f600" * csv_summary.MAX_NAME
    row = ",".join(["\U0001f600" * 300] * csv_summary.MAX_COLUMNS)

    result = summary(tmp_path, f"{','.join([wide] * csv_summary.MAX_COLUMNS)}\n{row}\n")

    assert len(msgspec.json.encode(result)) < 1 << 20

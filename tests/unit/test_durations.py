"""Durations and sizes: what people write, and back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.durations import format_duration, format_size, parse_duration, parse_size, to_timedelta


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0s", 0),
        ("500ms", 500),
        ("10s", 10_000),
        ("1.5s", 1_500),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("5m30ms", 300_030),
        ("90m", 5_400_000),
    ],
)
def test_a_duration_is_read(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10",
        "-5m",
        "5 m",
        "5mm",
        "5M",
        "1m1h",
        "1s1s",
        "1.5h",
        "1h30",
        "ms",
        "s",
        "1e3s",
        "10s\n",
        "\u0661s",
        "+1s",
        "1_000s",
        "inf",
        "PT10S",
        ".5s",
    ],
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "99999999999999999999d", f"{'9' * 400}d"])
def test_more_than_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 100 years"):
        parse_duration(text)


def test_a_hundred_years_are_allowed() -> None:
    assert parse_duration("36500d") == timedelta(days=36_500)


@given(st.integers(0, 36_500 * 86_400_000).map(lambda milliseconds: timedelta(milliseconds=milliseconds)))
def test_a_duration_that_was_written_is_read_back_to_the_millisecond(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=1500), "1s500ms"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=1), "1d"),
        (timedelta(microseconds=600), "1ms"),
    ],
)
def test_a_duration_is_written_largest_unit_first(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) <= duration <= timedelta(days=36_500)


def test_a_timedelta_passes_through() -> None:
    assert to_timedelta(timedelta(seconds=3)) == timedelta(seconds=3)
    assert to_timedelta("3s") == timedelta(seconds=3)


@pytest.mark.parametrize("value", [timedelta(seconds=-1), timedelta(days=36_501)])
def test_a_timedelta_out_of_range_is_refused(value: timedelta) -> None:
    with pytest.raises(ValueError, match="is not a duration between 0 and 100 years"):
        to_timedelta(value)


@pytest.mark.parametrize("value", [3, 3.5, None, b"3s"])
def test_a_bare_number_is_no_duration(value: object) -> None:
    with pytest.raises(TypeError, match="expected a duration"):
        to_timedelta(value)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1", 1), ("7B", 7), ("512KiB", 524_288), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648)])
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1MB", "1 MiB", "1.5MiB", "-1", "MiB", "1mib", "1MiB\n", "1k"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_size_that_was_written_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (1536, "1536B"), (3 << 10, "3KiB"), (1 << 30, "1GiB")])
def test_a_size_is_written_in_the_largest_unit_that_is_exact(size: int, text: str) -> None:
    assert format_size(size) == text

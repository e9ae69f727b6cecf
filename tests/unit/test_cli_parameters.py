"""What operators write on the command line: durations, times, payloads and metadata."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from jobqueue_cli.parameters import DURATION, INSTANT, MOMENT, PAYLOAD, read_metadata

CONTEXT = click.Context(click.Command("test"))


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172_800)])
def test_a_duration_is_written_as_in_the_config_file(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["30", "-1s", "soon", ""])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30s"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T09:00:00Z",
        "2026-11-25T10:00:00+01:00",
        "2026-11-25 10:00+01:00",
        "2026-11-25 10:00 +01:00",
        "2026-11-25 10:00 +0100",
        "2026-11-25 09:00 Z",
    ],
)
def test_a_time_is_brought_to_utc(text: str) -> None:
    assert INSTANT.convert(text, None, None) == datetime(2026, 11, 25, 9, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-25 10:00", "2026-11-25T10:00:00", "2026-11-25"])
def test_a_time_without_an_offset_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(click.BadParameter, match="add 'Z' for UTC"):
        INSTANT.convert(text, None, None)


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01T00:00Z", "0001-01-01T00:00+23:00", ""])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time, as in"):
        INSTANT.convert(text, None, None)


def test_a_moment_is_a_time_or_how_long_ago_it_was() -> None:
    assert MOMENT.convert("1h30m", None, None) == timedelta(hours=1, minutes=30)
    assert MOMENT.convert("2026-11-25T10:00+01:00", None, None) == datetime(2026, 11, 25, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"), [("soon", "neither how long ago"), ("-1h", "neither how long ago"), ("2026-11-25 10:00", "add 'Z' for UTC")]
)
def test_what_is_no_moment_is_refused_with_an_example(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        MOMENT.convert(text, None, None)


def test_a_payload_is_json_text_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"x": "ü"}', encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
    assert PAYLOAD.convert("null", None, None).value is None
    assert PAYLOAD.convert(f"@{file}", None, None).value == {"x": "ü"}
    assert PAYLOAD.convert("-", None, None).value == [1, 2]


@pytest.mark.parametrize(("text", "says"), [("{", "is not JSON"), ("", "is not JSON"), ("@/no/such/file", "No such file"), ("@", "Is a directory")])
def test_a_payload_that_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        PAYLOAD.convert(text, None, None)


def test_metadata_are_pairs_and_values_may_hold_equals_signs() -> None:
    assert read_metadata(CONTEXT, click.Option(["--metadata"]), ["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("pair", ["a", "=1", ""])
def test_metadata_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(click.BadParameter, match="is not key=value"):
        read_metadata(CONTEXT, click.Option(["--metadata"]), [pair])

"""What the command line shows: tables to a terminal, lines to a pipe, and nothing that could steer a terminal."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue_cli.rendering import ago, short_duration, write_fields, write_json, write_list
from jobqueue_cli.wording import counted, one_line, printable

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
JOB: dict[str, Any] = {
    "id": "1",
    "state": "queued",
    "created_at": "2026-11-24T11:57:00.250000Z",
    "depth": {"high": 2},
    "error": None,
    "paused": True,
    "payload": {"a": {"b": "ü"}},
}
COLUMNS = {"ID": "id", "CREATED": "created_at", "HIGH": "depth.high", "ERROR": "error", "PAUSED": "paused", "LOUD": lambda one: one["state"].upper()}


def sit_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def test_a_pipe_gets_a_line_for_each_object_with_tabs_and_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    write_list([JOB], COLUMNS, now=NOON)
    assert capsys.readouterr().out == "1\t2026-11-24T11:57:00.250000Z\t2\t-\tyes\tQUEUED\n"


def test_a_pipe_gets_nothing_for_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    write_list([], COLUMNS, now=NOON)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_table_with_headings_and_ages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sit_at_a_terminal(monkeypatch)
    write_list([JOB], COLUMNS, now=NOON)
    heading, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == ["ID", "CREATED", "HIGH", "ERROR", "PAUSED", "LOUD"]
    assert " ".join(row) == "1 3m ago 2 - yes QUEUED"


def test_a_terminal_is_told_that_a_list_is_empty(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sit_at_a_terminal(monkeypatch)
    write_list([], COLUMNS, now=NOON)
    assert capsys.readouterr() == ("", "none\n")


def test_fields_of_nested_objects_stand_on_lines_of_their_own_but_a_payload_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(JOB, now=NOON)
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert lines["depth.high"] == "2"
    assert json.loads(lines["payload"]) == JOB["payload"]
    assert lines["created_at"] == JOB["created_at"]


def test_a_terminal_shows_a_time_and_its_age(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sit_at_a_terminal(monkeypatch)
    write_fields({"created_at": JOB["created_at"]}, now=NOON)
    assert capsys.readouterr().out.split(maxsplit=1)[1].strip() == "2026-11-24T11:57:00.250000Z (3m ago)"


def test_a_terminal_shows_progress_as_a_share(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sit_at_a_terminal(monkeypatch)
    write_fields({"progress": {"fraction": 0.25, "message": "a quarter"}}, now=NOON)
    assert [line.split(maxsplit=1)[1].strip() for line in capsys.readouterr().out.splitlines()] == ["25%", "a quarter"]


def test_json_is_one_document_and_keeps_letters_readable(capsys: pytest.CaptureFixture[str]) -> None:
    write_json([JOB])
    out = capsys.readouterr().out
    assert json.loads(out) == [JOB]
    assert "ü" in out


@pytest.mark.parametrize("markup", ["[red]x[/red]", ":bomb:", "[/]"])
def test_what_looks_like_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], markup: str) -> None:
    sit_at_a_terminal(monkeypatch)
    write_list([{"error": markup}], {"ERROR": "error"}, now=NOON)
    assert markup in capsys.readouterr().out


@pytest.mark.parametrize("as_terminal", [True, False])
def test_an_error_cannot_steer_the_terminal_or_forge_a_line(
    as_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: as_terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    write_list([{"error": "\x1b[2Jgone\nforged\tcell\r"}], {"ERROR": "error"}, now=NOON)
    out = capsys.readouterr().out
    assert "\\x1b[2Jgone\\nforged\\tcell\\r" in out
    assert "\x1b[2J" not in out


def test_printable_keeps_line_ends_and_one_line_does_not() -> None:
    assert printable("a\nb\x07") == "a\nb\\x07"
    assert one_line("a\nb\x07\udc80") == "a\\nb\\x07\\udc80"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "0s"),
        (1.5, "1.5s"),
        (9.96, "10s"),
        (10, "10s"),
        (61, "1m1s"),
        (3600, "1h"),
        (3661, "1h1m"),
        (90_000, "1d1h"),
        (86_400 + 59, "1d"),
    ],
)
def test_a_duration_is_its_two_largest_units(seconds: float, text: str) -> None:
    assert short_duration(timedelta(seconds=seconds)) == text


def test_a_time_is_past_or_to_come() -> None:
    assert ago("2026-11-24T11:00:00Z", NOON) == "1h ago"
    assert ago("2026-11-24T12:30:00Z", NOON) == "in 30m"


def test_one_thing_is_singular() -> None:
    assert [counted(count, "job") for count in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]

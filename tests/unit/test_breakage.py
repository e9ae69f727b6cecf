from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqueue_core import durations
from jobqueue_core.supervision import breakage
from jobqueue_core.supervision.started import StartedTable


@pytest.fixture
def table() -> Iterator[StartedTable]:
    table = StartedTable.create(0)
    yield table
    table.close()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - what is tested
        return caught


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_error_is_one_line_with_its_notes() -> None:
    error = LookupError("no database\n  at 'db1'")
    error.add_note("raised by the lifespan shop.database\nwhen it was entered")

    assert breakage.describe(error) == "LookupError: no database at 'db1'; raised by the lifespan shop.database when it was entered"


@pytest.mark.parametrize(("error", "text"), [(KeyError(), "KeyError"), (Unreadable(), "Unreadable: (its message cannot be read: ValueError)")])
def test_an_error_that_says_nothing_is_named(error: Exception, text: str) -> None:
    assert breakage.describe(error) == text


def test_what_broke_a_service_is_logged_and_left_as_last_words(table: StartedTable, caplog: pytest.LogCaptureFixture) -> None:
    breakage.tell(raised(LookupError("no database")), table, role="worker")

    (line,) = caplog.records
    assert (line.levelno, line.__dict__["fields"]["reason"], table.words) == (logging.ERROR, "LookupError: no database", "LookupError: no database")


@pytest.mark.parametrize(("before", "lines"), [("LookupError: no database 1", 0), ("OSError: no database 1", 1), ("", 1)])
def test_the_same_error_again_is_only_left_as_last_words(before: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    table = StartedTable.create(0, before=before)

    breakage.tell(raised(LookupError("no database 2")), table, role="worker")

    assert len(caplog.records) == lines
    assert table.words == "LookupError: no database 2"
    table.close()


def test_a_traceback_begins_where_it_tells_something(table: StartedTable, caplog: pytest.LogCaptureFixture) -> None:
    def of_somebody_else() -> None:
        raise LookupError

    # Through a file of ours, as everything that breaks a service comes.
    code = compile("def ours(call):\n    call()\n", str(Path(durations.__file__)), "exec")
    scope: dict[str, object] = {}
    exec(code, scope)
    try:
        scope["ours"](of_somebody_else)  # type: ignore[operator]  # as above
    except LookupError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        breakage.tell(error, table, role="worker")

    (line,) = caplog.records
    shown = logging.Formatter().format(line)
    assert "in of_somebody_else" in shown
    assert "in ours" not in shown


def test_a_traceback_of_our_own_is_shown_whole(table: StartedTable, caplog: pytest.LogCaptureFixture) -> None:
    try:
        durations.parse_duration("soon")
    except ValueError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        breakage.tell(error, table, role="worker")

    (line,) = caplog.records
    assert "durations.py" in logging.Formatter().format(line)

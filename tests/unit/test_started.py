from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jobqueue_core.supervision.started import _HEADER, StartedTable, capacity_for

FIRST = "0192f0c4-7a3b-7def-8abc-000000000001"
SECOND = "0192f0c4-7a3b-7def-8abc-000000000002"


@pytest.fixture
def table() -> Iterator[StartedTable]:
    table = StartedTable.create(4)
    yield table
    table.close()


def test_an_empty_table_has_no_started_jobs(table: StartedTable) -> None:
    assert table.started() == set()


def test_a_job_is_started_until_its_slot_is_cleared(table: StartedTable) -> None:
    table.set(0, FIRST)
    table.set(3, SECOND)

    assert table.started() == {FIRST, SECOND}

    table.clear(0)

    assert table.started() == {SECOND}


def test_a_slot_can_be_used_again_after_it_was_cleared(table: StartedTable) -> None:
    table.set(1, FIRST)
    table.clear(1)
    table.set(1, SECOND)

    assert table.started() == {SECOND}


def test_a_slot_half_written_does_not_count(table: StartedTable) -> None:
    table._memory[_HEADER + 1 : _HEADER + 10] = FIRST[:9].encode()

    assert table.started() == set()


def test_an_id_of_another_length_is_refused_and_touches_no_other_slot(table: StartedTable) -> None:
    table.set(1, SECOND)
    with pytest.raises((ValueError, IndexError)):
        table.set(0, FIRST + "0")

    assert table.started() == {SECOND}


def test_a_slot_beyond_the_capacity_is_refused(table: StartedTable) -> None:
    with pytest.raises((ValueError, IndexError)):
        table.set(4, FIRST)


@pytest.mark.parametrize("concurrency", [1, 10, 1000])
def test_there_are_slots_for_all_handlers_twice_and_some_to_spare(concurrency: int) -> None:
    assert capacity_for(concurrency) > concurrency * 2


def test_a_table_without_slots_still_says_whether_its_process_finished() -> None:
    table = StartedTable.create(0)

    before = table.finished
    table.finish()

    assert (before, table.finished, table.started()) == (False, True, set())
    table.close()


def test_last_words_are_empty_until_something_is_said(table: StartedTable) -> None:
    assert (table.words, table.words_before) == ("", "")

    table.say("its descriptors were closed")
    table.set(3, FIRST)

    assert (table.words, table.words_before) == ("its descriptors were closed", "")
    assert table.started() == {FIRST}


def test_a_process_knows_the_last_words_of_the_one_before_it() -> None:
    table = StartedTable.create(0, before="no database")
    table.say("still no database")

    assert (table.words_before, table.words) == ("no database", "still no database")
    table.close()


@pytest.mark.parametrize("words", ["x" * 5000, "ü" * 5000, "half a character: \udce4"])
def test_last_words_of_any_kind_and_length_leave_the_rest_alone(table: StartedTable, words: str) -> None:
    table.set(3, FIRST)
    table.say(words)

    assert table.words[:10] == words[:10]
    assert (table.started(), table.words_before, table.finished) == ({FIRST}, "", False)


def test_what_a_process_wrote_can_be_read_after_it_was_killed(table: StartedTable) -> None:
    script = f"""
import os, sys, time
from jobqueue_core.supervision.started import StartedTable
table = StartedTable.attach({table.fd})
table.set(2, {FIRST!r})
table.say("goodbye")
print("set", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], pass_fds=[table.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "set\n"
        process.send_signal(signal.SIGKILL)

    assert process.returncode == -signal.SIGKILL
    assert table.started() == {FIRST}
    assert table.words == "goodbye"
    assert not table.finished


def test_attaching_closes_the_inherited_file_so_that_no_one_else_gets_it(table: StartedTable) -> None:
    inherited = os.dup(table.fd)
    other = StartedTable.attach(inherited)

    other.set(0, FIRST)

    assert table.started() == {FIRST}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inherited)
    other.close()

"""Lists of dead letters on PostgreSQL: none reads more than it shows, and counters agree with what is listed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import attrs
import psycopg
import pytest
from msgspec.structs import replace
from servers import PostgresPlace

from jobqueue_core.attempt import DeadLetter, DeadLetterState
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import NOON, dead_letter
from jobqueue_postgres import dead_letters
from jobqueue_postgres.connections import Connection
from jobqueue_postgres.storage import PostgresStorage

SECOND = timedelta(seconds=1)
_S: Final = DeadLetterState


@pytest.fixture(scope="module")
def letters() -> list[DeadLetter]:
    """Latest death first. Each type has its own queues and fingerprints: half of all pairs of names never go together."""
    states = [_S.OPEN, _S.OPEN, _S.REQUEUED, _S.DISCARDED, _S.REQUEUEING]
    return [
        replace(
            dead_letter(type=f"type.{number % 2}", queue=f"queue-{number % 4}", died_at=NOON - number * SECOND),
            fingerprint=f"print-{number % 8}",
            state=states[number % 5],
        )
        for number in range(5_000)
    ]


@pytest.fixture(scope="module")
def filled(module_postgres_place: PostgresPlace, letters: list[DeadLetter]) -> Iterator[PostgresStorage]:
    """A storage with so many of them that going through all shows."""
    storage = PostgresStorage(module_postgres_place.url, namespace=module_postgres_place.namespace)
    storage.record_dead_letters(letters)
    with psycopg.connect(module_postgres_place.url, autocommit=True) as connection:
        for table in ("dead_letter_queue", "dead_letter_counts"):
            connection.execute(f'VACUUM ANALYZE "{module_postgres_place.namespace}".{table}')
    yield storage
    storage.close()


_FILTERS: Final = [
    {"type": job_type, "queue": queue, "fingerprint": fingerprint, "state": state, "died_after": after, "died_before": before}
    for job_type, queue, fingerprint, state, (after, before) in itertools.product(
        [None, "type.0"],
        [None, "queue-0", "queue-1"],
        [None, "print-0", "print-1"],
        [None, _S.OPEN, _S.REQUEUEING],
        [(None, None), (None, NOON - 1_500 * SECOND), (NOON - 3_000 * SECOND, NOON - 1_500 * SECOND)],
    )
]
_READ: Final = """
SELECT
    pg_stat_get_xact_numscans('dead_letter_queue'::regclass), sum(pg_stat_get_xact_numscans(indexrelid)),
    sum(pg_stat_get_xact_tuples_returned(indexrelid)), sum(pg_stat_get_xact_blocks_fetched(indexrelid))
FROM pg_index WHERE indrelid = 'dead_letter_queue'::regclass AND NOT indisprimary
"""
"""Scans of the table, scans of its indexes, entries and blocks that these have read: of this transaction, and of some before it."""


@attrs.define
class Reading:
    """What has been read since :func:`_reading` began."""

    connection: Connection
    before: tuple[int, ...]

    def cost(self) -> tuple[int, ...]:
        """Scans of the table, scans of its indexes, entries and blocks that these have read."""
        return tuple(after - before for after, before in zip(_read(self.connection), self.before, strict=True))


def _read(connection: Connection) -> tuple[int, ...]:
    return tuple(map(int, connection.execute(_READ).fetchone() or ()))


@contextmanager
def _reading(storage: PostgresStorage) -> Iterator[Reading]:
    with storage.connections.transaction() as connection:
        yield Reading(connection, _read(connection))


def _matching(letters: list[DeadLetter], wanted: Mapping[str, Any]) -> list[DeadLetter]:
    after, before = wanted["died_after"], wanted["died_before"]
    return [
        one
        for one in letters
        if wanted["type"] in (None, one.job.type)
        and wanted["queue"] in (None, one.job.queue)
        and wanted["fingerprint"] in (None, one.fingerprint)
        and wanted["state"] in (None, one.state)
        and (after is None or one.died_at >= after)
        and (before is None or one.died_at <= before)
    ]


@pytest.mark.parametrize("offset", [0, 100])
def test_no_list_reads_more_than_it_shows(filled: PostgresStorage, letters: list[DeadLetter], offset: int) -> None:
    for wanted in _FILTERS:
        expected = _matching(letters, wanted)[offset : offset + 21]
        with _reading(filled) as reading:
            page = dead_letters.page(reading.connection, DeadLetterFilter(**wanted), cursor=None, offset=offset, limit=20)
            scans_of_all, scans, entries, blocks = reading.cost()
        assert list(page.dead_letters) == expected[:20], wanted
        assert (page.next is not None) == (len(expected) > 20), wanted
        assert scans_of_all == 0, wanted
        assert entries <= scans * (offset + 21), wanted
        assert blocks <= scans * 12, wanted


def test_no_list_is_longer_to_read_further_down(filled: PostgresStorage, letters: list[DeadLetter]) -> None:
    for wanted in _FILTERS:
        expected = _matching(letters, wanted)
        first = filled.dead_letters(DeadLetterFilter(**wanted), cursor=None, offset=len(expected) // 2, limit=1)
        if first.next is None:
            continue
        with _reading(filled) as reading:
            page = dead_letters.page(reading.connection, DeadLetterFilter(**wanted), cursor=first.next, offset=0, limit=20)
            scans_of_all, scans, entries, blocks = reading.cost()
        assert list(page.dead_letters) == expected[len(expected) // 2 + 1 :][:20], wanted
        assert (scans_of_all, entries <= scans * 21, blocks <= scans * 12) == (0, True, True), wanted


def test_counts_and_groups_are_right_by_counters_and_by_time(filled: PostgresStorage, letters: list[DeadLetter]) -> None:
    for wanted in _FILTERS:
        expected = _matching(letters, wanted)
        assert filled.count_dead_letters(DeadLetterFilter(**wanted)) == len(expected), wanted
        groups = {one.fingerprint: one for one in filled.dead_letter_groups(DeadLetterFilter(**wanted), limit=100)}
        assert groups.keys() == {one.fingerprint for one in expected}, wanted
        for fingerprint, group in groups.items():
            of_group = [one for one in expected if one.fingerprint == fingerprint]
            last = of_group[0]
            assert (group.count, group.first_died_at, group.last_died_at) == (len(of_group), of_group[-1].died_at, last.died_at), wanted
            assert (group.type, group.example_job_id, group.example_error) == (last.job.type, last.job.id, last.error), wanted


def test_counts_and_groups_without_a_time_read_no_dead_letters_but_the_ends_of_groups(filled: PostgresStorage) -> None:
    with _reading(filled) as reading:
        assert dead_letters.count(reading.connection, DeadLetterFilter(state=None)) == 5_000
        assert reading.cost() == (0, 0, 0, 0)
        assert len(dead_letters.groups(reading.connection, DeadLetterFilter(state=None), limit=3)) == 3
        scans_of_all, scans, entries, _blocks = reading.cost()
    assert scans_of_all == 0
    assert entries == scans <= 2 * 3 * len(_S)

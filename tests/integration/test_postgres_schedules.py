"""Schedules and ticks on PostgreSQL: found by an index, kept exactly, and nobody waits crosswise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from servers import PostgresPlace

from jobqueue_core.errors import IncompatibleData
from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import NOON, schedule, tick
from jobqueue_core.testing.storage_suite.arrangement import NASTY
from jobqueue_postgres import schedules
from jobqueue_postgres.storage import PostgresStorage

SECOND = timedelta(seconds=1)


@pytest.fixture
def storage(postgres_place: PostgresPlace) -> Iterator[PostgresStorage]:
    """A storage in the test's schema."""
    storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
    yield storage
    storage.close()


@pytest.fixture
def database(postgres_place: PostgresPlace) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the same schema."""
    with psycopg.connect(postgres_place.url, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{postgres_place.namespace}"')
        yield connection


def _put(storage: PostgresStorage, new: Schedule) -> Schedule:
    assert storage.put_schedule(new, expected_version=None)
    found = storage.schedule(new.name)
    assert found is not None
    return found


def test_any_text_of_a_schedule_comes_back(storage: PostgresStorage) -> None:
    for text in NASTY:
        full = schedule(f"nightly{text}", expression=text, type=text, timezone=text, queue=text, priority=text, misfire=text, overlap=text)
        full = replace(full, source=text, last_job_id=text, next_run=NOON)
        assert _put(storage, full) == replace(full, version=1)
        claimed = tick(full, due=NOON)
        assert storage.claim_tick(replace(full, version=1), claimed, next_run=None)
        assert storage.ticks(full.name, 10) == [claimed]
        storage.mark_sent(full.name, NOON)
        assert storage.delete_schedule(full.name)
        assert storage.ticks(full.name, 10) == []


@pytest.mark.parametrize("style", ["postgres", "iso_8601", "sql_standard", "postgres_verbose"])
def test_durations_are_exact_whatever_the_server_writes_them_like(postgres_place: PostgresPlace, style: str) -> None:
    storage = PostgresStorage(f"{postgres_place.url}?options=-cintervalstyle%3D{style}%20-cdatestyle%3DSQL", namespace=postgres_place.namespace)
    exact = schedule(
        timeout=timedelta(days=400, microseconds=1), jitter=timedelta(hours=30, milliseconds=1), next_run=NOON + timedelta(microseconds=1)
    )
    assert _put(storage, exact) == replace(exact, version=1)
    storage.close()


def test_of_ten_thousand_schedules_only_those_are_read_that_are_due(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    _put(storage, schedule("model", next_run=NOON, payload_json=b"[" + b"1," * 500 + b"1]"))
    database.execute(
        "INSERT INTO job_schedules (name, version, enabled, next_run, expression, timezone, type, payload, misfire, misfire_limit, overlap, source)"
        " SELECT 'copy-' || number, 1, number % 3 > 0, next_run + number * interval '1 second',"
        " expression, timezone, type, payload, misfire, misfire_limit, overlap, source"
        " FROM job_schedules, generate_series(1, 10000) AS number WHERE name = 'model'"
    )
    database.execute("ANALYZE job_schedules")
    read = "SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'job_schedules'::regclass"
    with storage.connections.transaction() as connection:
        before = connection.execute(read).fetchone() or ()
        due = schedules.due(connection, NOON + 5_000 * SECOND, 20)
        after = connection.execute(read).fetchone() or ()
    assert [one.next_run for one in due] == [NOON + number * SECOND for number in range(30) if number % 3 or number == 0][:20]
    scans, rows, fetched = (int(now) - int(then) for now, then in zip(after, before, strict=True))
    assert (scans, rows) == (0, 0)
    assert fetched <= 20


def test_the_latest_thousand_ticks_are_kept_and_those_not_sent(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    seen = _put(storage, schedule(next_run=NOON))
    assert storage.claim_tick(seen, tick(seen, due=NOON), next_run=NOON + 1_500 * SECOND)
    database.execute(
        "INSERT INTO job_schedule_ticks SELECT schedule, due_at + number * interval '1 second', claimed_at, true, job_id, record"
        " FROM job_schedule_ticks, generate_series(1, 1200) AS number"
    )
    moved = storage.schedule(seen.name)
    assert moved is not None
    assert storage.claim_tick(moved, tick(moved, due=NOON + 1_500 * SECOND), next_run=None)
    kept = [one.due for one in storage.ticks(seen.name, 5_000)]
    assert kept == [NOON + 1_500 * SECOND, *(NOON + number * SECOND for number in range(1_200, 201, -1)), NOON]


def test_claims_and_deletions_at_once_never_wait_crosswise(
    storage: PostgresStorage, postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_TICKS_KEPT", 2)  # so that each claim forgets one that a deletion forgets too

    def live(seed: int) -> None:
        chance = random.Random(seed)
        own = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
        for number in range(150):
            name = f"schedule-{chance.randrange(2)}"
            found = own.schedule(name)
            if found is None:
                own.put_schedule(schedule(name, next_run=NOON + (seed * 1_000 + number) * SECOND), expected_version=None)
            elif chance.random() < 0.2:
                own.delete_schedule(name)
            elif found.next_run is not None and own.claim_tick(found, tick(found, due=found.next_run), next_run=found.next_run + SECOND):
                own.mark_sent(name, found.next_run)
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(live, seed) for seed in range(4)]:
            done.result(timeout=60)
    assert {one.name for one in storage.schedules()} <= {f"schedule-{number}" for number in range(2)}


def test_a_tick_of_a_newer_release_is_not_guessed_at(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    seen = _put(storage, schedule(next_run=NOON))
    assert storage.claim_tick(seen, tick(seen, due=NOON), next_run=None)
    database.execute(r"UPDATE job_schedule_ticks SET record = '\x02' || record")
    with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
        storage.ticks(seen.name, 10)

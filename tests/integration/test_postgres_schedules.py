"""Schedules and ticks on PostgreSQL: found by an index, kept exactly, and nobody waits crosswise."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from servers import PostgresPlace

from jobqueue_core.errors import StorageUnavailable
from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import NOON, claim, schedule
from jobqueue_core.testing.storage_suite.arrangement import NASTY
from jobqueue_postgres import batches, schedules
from jobqueue_postgres.connections import Connection
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
        claimed = claim(replace(full, version=1))
        assert storage.claim_ticks([claimed]) == [True]
        assert storage.ticks(full.name, 10) == [claimed.tick]
        storage.mark_sent([(full.name, NOON)])
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


# What it costs --------------------------------------------------------------------------------------------------------------------------


def _copies(database: psycopg.Connection[Any]) -> None:
    """Ten thousand copies of the schedule ``model``: each third is disabled, each seventh paused."""
    database.execute(
        "INSERT INTO job_schedules"
        " (name, version, enabled, paused, next_run, expression, timezone, type, payload, misfire, misfire_limit, overlap, source)"
        " SELECT 'copy-' || number, 1, number % 3 > 0, number % 7 = 0, next_run + number * interval '1 second',"
        " expression, timezone, type, payload, misfire, misfire_limit, overlap, source"
        " FROM job_schedules, generate_series(1, 10000) AS number WHERE name = 'model'"
    )
    database.execute("ANALYZE job_schedules")


def _read_meanwhile(storage: PostgresStorage, act: Callable[[Connection], None], table: str) -> tuple[int, int, int]:
    """What *act* reads of *table* in one transaction: scans of the whole, their rows, and rows found by an index."""
    read = "SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = %s::regclass"
    with storage.connections.transaction() as connection:
        before = connection.execute(read, [table]).fetchone() or ()
        act(connection)
        after = connection.execute(read, [table]).fetchone() or ()
    scans, rows, fetched = (int(now) - int(then) for now, then in zip(after, before, strict=True))
    return scans, rows, fetched


def test_of_ten_thousand_schedules_only_those_are_read_that_are_due(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    _put(storage, schedule("model", next_run=NOON, payload_json=b"[" + b"1," * 500 + b"1]"))
    _copies(database)
    due: list[Schedule] = []
    scans, rows, fetched = _read_meanwhile(
        storage, lambda connection: due.extend(schedules.due(connection, NOON + 5_000 * SECOND, 20)), "job_schedules"
    )
    assert [one.next_run for one in due] == [NOON + number * SECOND for number in range(50) if number == 0 or (number % 3 and number % 7)][:20]
    assert (scans, rows) == (0, 0)
    assert fetched <= 20


def test_two_hundred_of_ten_thousand_schedules_are_claimed_without_reading_the_others(
    storage: PostgresStorage, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 1)
    _put(storage, schedule("model", next_run=NOON))
    _copies(database)
    database.execute(
        "INSERT INTO job_schedule_ticks SELECT name, next_run - number * interval '1 day', next_run, true, 'none', '\\x01'"
        " FROM job_schedules, generate_series(1, 5) AS number"
    )
    database.execute("ANALYZE job_schedule_ticks")
    due = storage.due_schedules(NOON + 10_000 * SECOND, 200)
    # More often than a statement is planned for its values.
    for table in ("job_schedules", "job_schedule_ticks") * 5:
        batch = [claim(one) for one in due]
        answers: list[bool] = []
        scans, rows, _fetched = _read_meanwhile(
            storage, lambda connection, batch=batch, answers=answers: answers.extend(schedules.claim_ticks(connection, batch)), table
        )
        assert (answers, scans, rows) == ([True] * 200, 0, 0)
        sent = [(one.name, one.next_run) for one in due if one.next_run is not None]
        scans, rows, _fetched = _read_meanwhile(storage, lambda connection, sent=sent: schedules.mark_sent(connection, sent), table)
        assert (scans, rows) == (0, 0)
        due = [replace(one, next_run=wanted.next_run, version=one.version + 1) for one, wanted in zip(due, batch, strict=True)]
    assert storage.unsent_ticks(NOON + timedelta(days=9), 10) == []


def test_marking_ticks_does_not_read_the_others_that_wait_to_be_sent(storage: PostgresStorage, database: psycopg.Connection[Any]) -> None:
    database.execute(
        "INSERT INTO job_schedule_ticks SELECT 'nightly', %s + number * interval '1 second', %s, true, 'none', '\\x01'"
        " FROM generate_series(1, 10000) AS number",
        [NOON, NOON],
    )
    # As after a quiet night: the planner knows of none.
    database.execute("ANALYZE job_schedule_ticks")
    database.execute("UPDATE job_schedule_ticks SET sent = false")
    sent = [("nightly", NOON + number * SECOND) for number in range(1, 101)]
    scans, _rows, fetched = _read_meanwhile(storage, lambda connection: schedules.mark_sent(connection, sent), "job_schedule_ticks")
    assert scans == 0
    assert fetched <= 500
    assert database.execute("SELECT count(*) FROM job_schedule_ticks WHERE sent").fetchone() == (100,)


def test_a_batch_that_is_too_big_for_one_statement_goes_in_one_transaction_all_the_same(
    storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_STATEMENT_BYTES", 1_000)
    payload = b'"' + b"x" * 400 + b'"'
    seen = [_put(storage, schedule(f"schedule-{number}", next_run=NOON, payload_json=payload)) for number in range(10)]
    lost = replace(seen[4], version=7)
    assert storage.claim_ticks([claim(one) for one in (*seen[:4], lost, *seen[5:])]) == [True] * 4 + [False] + [True] * 5
    assert sorted(one.schedule for one in storage.unsent_ticks(NOON + SECOND, 20)) == [one.name for one in seen if one.name != lost.name]


def test_the_latest_thousand_ticks_are_kept_and_those_not_sent(
    storage: PostgresStorage, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 1)
    seen = _put(storage, schedule(next_run=NOON))
    few = _put(storage, schedule("few", next_run=NOON))
    assert storage.claim_ticks([claim(seen, next_run=1_500 * SECOND), claim(few)]) == [True, True]
    storage.mark_sent([("few", NOON)])
    database.execute(
        "INSERT INTO job_schedule_ticks SELECT schedule, due_at + number * interval '1 second', claimed_at, true, job_id, record"
        " FROM job_schedule_ticks, generate_series(1, 1200) AS number WHERE schedule = 'nightly'"
    )
    assert storage.claim_ticks([claim(one) for one in storage.schedules()]) == [True, True]
    kept = [one.due for one in storage.ticks(seen.name, 5_000)]
    assert kept == [NOON + 1_500 * SECOND, *(NOON + number * SECOND for number in range(1_200, 201, -1)), NOON]
    assert len(storage.ticks("few", 5_000)) == 2


def test_ticks_do_not_pile_up_whatever_else_changes_their_schedule(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_TICKS_KEPT", 3)
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 5)
    seen = _put(storage, schedule(next_run=NOON))
    for _ in range(20):
        assert storage.claim_ticks([claim(seen, next_run=SECOND)]) == [True]
        storage.mark_sent([(seen.name, seen.next_run or NOON)])
        moved = storage.schedule(seen.name)
        assert moved is not None
        # A version of its own, and so the versions that are claimed are all odd.
        assert storage.put_schedule(moved, expected_version=moved.version)
        seen = replace(moved, version=moved.version + 1)
        assert len(storage.ticks(seen.name, 100)) <= 3 + 5


# Others ---------------------------------------------------------------------------------------------------------------------------------


def test_claims_and_deletions_at_once_never_wait_crosswise(
    storage: PostgresStorage, postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that each claim forgets one that a deletion forgets too.
    monkeypatch.setattr(schedules, "_TICKS_KEPT", 2)
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 1)
    names = [f"schedule-{number}" for number in range(4)]

    def live(seed: int) -> None:
        chance = random.Random(seed)
        own = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
        for number in range(100):
            some = [own.schedule(name) for name in chance.sample(names, k=3)]
            batch = [claim(one, next_run=SECOND) for one in some if one is not None]
            answers = own.claim_ticks(batch)
            sent = [(one.schedule.name, one.tick.due) for one, won in zip(batch, answers, strict=True) if won and one.tick is not None]
            own.mark_sent(sent)
            name = chance.choice(names)
            if chance.random() < 0.2:
                own.delete_schedule(name)
            own.put_schedule(schedule(name, next_run=NOON + (seed * 1_000 + number) * SECOND), expected_version=None)
        own.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(live, seed) for seed in range(4)]:
            done.result(timeout=60)
    assert {one.name for one in storage.schedules()} <= set(names)


def test_nobody_waits_for_a_scheduler_that_has_frozen_in_the_middle_of_a_claim(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    frozen, free = (_put(storage, schedule(name, next_run=NOON)) for name in ("frozen", "free"))
    other = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, timeout=timedelta(seconds=2))
    with storage.connections.transaction() as connection:
        assert schedules.claim_ticks(connection, [claim(frozen)]) == [True]
        begun = time.monotonic()
        assert other.claim_ticks([claim(frozen), claim(free)]) == [False, True]
        assert time.monotonic() - begun < 2
    assert other.claim_ticks([claim(frozen)]) == [False]
    assert [len(other.ticks(one.name, 10)) for one in (frozen, free)] == [1, 1]
    other.close()


def test_nobody_waits_for_one_that_has_frozen_while_it_marked_ticks(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    seen = [_put(storage, schedule(name, next_run=NOON)) for name in ("a", "b")]
    assert storage.claim_ticks([claim(one) for one in seen]) == [True, True]
    other = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, timeout=timedelta(seconds=2))
    with storage.connections.transaction() as connection:
        schedules.mark_sent(connection, [("a", NOON)])
        other.mark_sent([("b", NOON), ("a", NOON)])
        assert [one.schedule for one in other.unsent_ticks(NOON + SECOND, 10)] == ["a"]
    assert other.unsent_ticks(NOON + SECOND, 10) == []
    other.close()


@pytest.mark.slow
def test_what_a_frozen_scheduler_was_at_is_claimed_by_another_soon(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    seen = _put(storage, schedule(next_run=NOON))
    other = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
    wanted = claim(seen)

    def freeze_until_another_has_it() -> None:
        with storage.connections.transaction() as connection:
            assert schedules.claim_ticks(connection, [claim(seen)]) == [True]
            deadline, pause = time.monotonic() + 20, threading.Event()
            while other.claim_ticks([wanted]) != [True]:
                assert time.monotonic() < deadline
                pause.wait(0.1)

    with pytest.raises(StorageUnavailable):
        freeze_until_another_has_it()
    assert other.ticks(seen.name, 10) == storage.ticks(seen.name, 10) == [wanted.tick], "one job, although both thought that it was theirs"
    other.close()


@pytest.mark.parametrize(("record", "reason"), [(r"'\x02' || record", "upgrade jobqueue"), (r"'\x01ff'", "cannot be read"), ("''", "format none")])
def test_a_tick_of_a_newer_release_or_a_damaged_one_is_not_guessed_at_and_holds_up_no_other(
    storage: PostgresStorage, database: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture, record: str, reason: str
) -> None:
    bad, good = (_put(storage, schedule(name, next_run=NOON)) for name in (f"bad-{uuid.uuid4().hex}", "good"))
    claims = [claim(bad), claim(good)]
    assert storage.claim_ticks(claims) == [True, True]
    database.execute(f"UPDATE job_schedule_ticks SET record = {record} WHERE schedule LIKE 'bad%'")
    assert storage.ticks(bad.name, 10) == []
    assert storage.unsent_ticks(NOON + timedelta(days=1), 10) == [claims[1].tick]
    assert reason in caplog.text

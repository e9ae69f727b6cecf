"""Schedules in a SQLite file: what the release before has written, and what does not pile up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import NOON, claim, schedule
from jobqueue_sqlite import SqliteStorage, schedules
from jobqueue_sqlite.times import to_us

SECOND = timedelta(seconds=1)
_BEFORE: Final[dict[str, Any]] = {
    "name": "nightly",
    "expression": "0 3 * * *",
    "type": "test.job",
    "payload_json": b"{}",
    "timezone": "Europe/Zurich",
    "queue": None,
    "priority": "low",
    "max_retries": 3,
    "timeout": "PT90S",
    "enabled": True,
    "misfire": "once",
    "misfire_limit": 100,
    "overlap": "skip",
    "jitter": None,
    "start": None,
    "end": None,
    "source": "dynamic",
    "next_run": NOON,
    "last_run": None,
    "last_job_id": None,
    "version": 0,
}
"""A record from before schedules could be paused."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    """A storage in a file of the test's own."""
    with closing(SqliteStorage(tmp_path / "jobqueue.db")) as storage:
        yield storage


def _write_before(storage: SqliteStorage, **fields: object) -> Schedule:
    """Store a schedule as the release before did; as it is to be read."""
    record = _BEFORE | fields
    row = (record["name"], 7, record["enabled"], to_us(NOON), msgspec.msgpack.encode(record))
    with storage.database.write() as connection:
        connection.execute("INSERT INTO schedules (name, version, enabled, next_run_us, record) VALUES (?, ?, ?, ?, ?)", row)
    timeout = timedelta(seconds=90)
    return Schedule(**(record | {"timeout": timeout, "version": 7, "paused": False}))


def test_schedules_from_before_they_could_be_paused_go_on_as_they_were(storage: SqliteStorage) -> None:
    on = _write_before(storage)
    off = _write_before(storage, name="off", enabled=False)
    assert storage.schedules() == [on, off]
    assert storage.due_schedules(NOON, 10) == [on]
    assert storage.claim_ticks([claim(on)]) == [True]
    assert storage.put_schedule(replace(off, enabled=True), expected_version=7)
    assert [one.name for one in storage.due_schedules(NOON, 10)] == ["off"]


def test_the_release_before_leaves_what_is_paused_alone(storage: SqliteStorage) -> None:
    assert storage.put_schedule(schedule(next_run=NOON, paused=True), expected_version=None)
    with storage.database.read() as connection:
        due = connection.execute("SELECT record FROM schedules WHERE enabled = 1 AND next_run_us <= ?", (to_us(NOON),)).fetchall()
    assert due == []


def test_the_latest_thousand_ticks_are_kept_and_those_not_sent(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 1)
    assert storage.put_schedule(schedule(next_run=NOON), expected_version=None)
    (seen,) = storage.schedules()
    assert storage.claim_ticks([claim(seen, next_run=1_500 * SECOND)]) == [True]
    rows = [(number * 1_000_000,) for number in range(1, 1_201)]
    with storage.database.write() as connection:
        connection.executemany("INSERT INTO ticks SELECT schedule, due_us + ?, claimed_us, 1, record FROM ticks WHERE sent = 0", rows)
    assert storage.claim_ticks([claim(one) for one in storage.schedules()]) == [True]
    with storage.database.read() as connection:
        kept = [(due_us - to_us(NOON)) // 1_000_000 for (due_us,) in connection.execute("SELECT due_us FROM ticks ORDER BY due_us")]
    assert kept == [0, *range(202, 1_201), 1_500]


def test_ticks_do_not_pile_up_whatever_else_changes_their_schedule(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_TICKS_KEPT", 3)
    monkeypatch.setattr(schedules, "_TRIM_EVERY", 5)
    assert storage.put_schedule(schedule(next_run=NOON), expected_version=None)
    for _ in range(20):
        (seen,) = storage.schedules()
        assert storage.claim_ticks([claim(seen, next_run=SECOND)]) == [True]
        storage.mark_sent([(seen.name, seen.next_run or NOON)])
        # A version of its own, and so the versions that are claimed are all odd.
        (moved,) = storage.schedules()
        assert storage.put_schedule(moved, expected_version=moved.version)
        assert len(storage.ticks(seen.name, 100)) <= 3 + 5

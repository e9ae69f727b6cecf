"""Records that cannot be read, counters that are wrong, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.broker import Reclaimed
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import DeadReason, JobState, Priority
from jobqueue_core.testing.clock import ManualClock
from jobqueue_core.testing.factories import completed, died, failed, new_job, new_jobs
from jobqueue_sqlite import SqliteBroker, audit

if TYPE_CHECKING:
    from jobqueue_core.attempt import Lease

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


class Monotonic:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def broker(tmp_path: Path, clock: ManualClock, monotonic: Monotonic) -> Iterator[SqliteBroker]:
    with closing(SqliteBroker(tmp_path / "jobqueue.db", clock=clock, monotonic=monotonic)) as broker:
        yield broker
        assert drift(broker) == []


def drift(broker: SqliteBroker) -> list[audit.Drift]:
    with broker.database.write() as connection:
        assert audit.astray(connection) == []
        return audit.drift(connection)


def lease(broker: SqliteBroker, limit: int = 1000) -> list[Lease]:
    return broker.lease(["default"], limit, worker_id="w", lease_for=30 * SECOND, wait=timedelta(0), suspects=10)


def spoil(broker: SqliteBroker, record: object, *, where: str = "1") -> None:
    with broker.database.write() as connection:
        connection.execute(f"UPDATE jobs SET record = ? WHERE {where}", [record])


# Records -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [b"", b"\x00", b"\x01", b"\x01\xc1garbage", b"\x01\x90", "text", 7])
def test_jobs_that_cannot_be_read_become_dead_letters_and_block_nothing(broker: SqliteBroker, record: object) -> None:
    bad = [one.job.id for one in broker.enqueue(new_jobs(100)) if one.job]
    spoil(broker, record)
    (good,) = broker.enqueue([new_job(priority=Priority.LOW)])
    assert [one.job.id for one in lease(broker, 1)] == [good.job.id if good.job else None]
    letters = broker.outbox("dead", 1000).dead_letters
    assert [letter.job.id for letter in letters] == bad
    assert {letter.job.dead_reason for letter in letters} == {DeadReason.UNDECODABLE}
    assert {letter.raw for letter in letters} == {record if isinstance(record, bytes) else str(record).encode()}
    assert {job.state for job in broker.get(bad) if job} == {JobState.DEAD}


def test_a_running_job_that_cannot_be_read_is_reclaimed_as_a_dead_letter(broker: SqliteBroker, clock: ManualClock, monotonic: Monotonic) -> None:
    broker.enqueue(new_jobs(2))
    first, _second = lease(broker)
    spoil(broker, b"\x00", where=f"id = '{first.job.id}'")
    clock.advance(31 * SECOND)
    monotonic.seconds += 31
    reclaimed = broker.reclaim(100, max_crashes=3)
    assert (reclaimed.dead, reclaimed.requeued) == (1, 1)
    assert [letter.job.id for letter in reclaimed.dead_letters] == [first.job.id]


def test_a_job_that_cannot_be_read_can_still_be_shown_cancelled_and_expired(broker: SqliteBroker, clock: ManualClock) -> None:
    jobs = new_jobs(1, expires_in=SECOND) + new_jobs(1)
    broker.enqueue(jobs)
    spoil(broker, b"\x00")
    assert [(job.id, job.state) for job in broker.get([job.id for job in jobs]) if job] == [(job.id, JobState.QUEUED) for job in jobs]
    clock.advance(2 * SECOND)
    broker.prune(100)
    assert broker.cancel(jobs[1].id) == "finished"
    assert {letter.job.id for letter in broker.outbox("dead", 10).dead_letters} == {job.id for job in jobs}


def test_a_record_of_a_newer_release_is_refused_not_buried(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(1))
    spoil(broker, b"\x63rest")
    with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
        lease(broker)
    assert broker.outbox_lag().dead == 0


def test_outbox_entries_that_cannot_be_read_are_counted_and_acknowledged(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(3))
    broker.settle([completed(one) for one in lease(broker)], worker_id="w")
    with broker.database.write() as connection:
        connection.execute("UPDATE outbox_history SET record = x'01c1' WHERE number = 2")
    batch = broker.outbox("history", 10)
    assert (len(batch.executions), batch.malformed, len(batch.receipt)) == (2, 1, 3)
    broker.acknowledge(batch)
    assert broker.outbox_lag().history == 0


def test_an_error_with_lone_surrogates_is_settled_all_the_same(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(2))
    one, two = lease(broker)
    assert broker.settle([failed(one, error="no file \udcff"), died(two, error="\udcff", traceback="\udcff")], worker_id="w") == [True, True]
    (job,) = broker.get([one.job.id])
    assert job is not None
    assert job.last_error == "no file ?"


# Counters ------------------------------------------------------------------------------------------------------------------------------


def test_wrong_counters_are_found_and_put_right(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(5))
    with broker.database.write() as connection:
        connection.execute("UPDATE queues SET medium = 7")
        connection.execute("UPDATE numbers SET value = 3 WHERE name = 'outbox_dead'")
    assert drift(broker) == [audit.Drift(name="default.medium", kept=7, counted=5), audit.Drift(name="outbox_dead", kept=3, counted=0)]
    with broker.database.write() as connection:
        audit.repair(connection)
    assert drift(broker) == []


# The clock -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_after_a_jump_of_the_clock_nothing_is_reclaimed_for_one_lease_length(
    broker: SqliteBroker, clock: ManualClock, monotonic: Monotonic, jump: timedelta
) -> None:
    broker.enqueue(new_jobs(3))
    assert len(lease(broker)) == 3

    def pass_by(seconds: int) -> Reclaimed:
        clock.advance(timedelta(seconds=seconds))
        monotonic.seconds += seconds
        return broker.reclaim(100, max_crashes=3)

    clock.advance(jump)
    assert pass_by(1) == Reclaimed()
    assert pass_by(29) == Reclaimed()
    assert pass_by(2).requeued == 3


def test_without_a_jump_a_lease_that_has_run_out_is_reclaimed_at_once(broker: SqliteBroker, clock: ManualClock, monotonic: Monotonic) -> None:
    broker.enqueue(new_jobs(1))
    lease(broker)
    clock.advance(31 * SECOND)
    monotonic.seconds += 31
    assert broker.reclaim(100, max_crashes=3).requeued == 1

"""What a SQLite file may be when it is opened, and what becomes of it while it is in use."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from jobqueue_core.broker import JobFilter
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, QueueFull, StorageUnavailable
from jobqueue_core.job import JobState
from jobqueue_core.testing.factories import completed, execution, new_job, new_jobs
from jobqueue_sqlite import SqliteBroker, SqliteStorage
from jobqueue_sqlite.statements import migrations

SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobqueue.db"


@pytest.fixture
def broker(path: Path) -> Iterator[SqliteBroker]:
    with closing(SqliteBroker(path, busy_timeout=200 * MILLISECOND)) as broker:
        yield broker


def fill(path: Path) -> None:
    """Make a file with some hundred pages, none of them in the -wal file."""
    with closing(SqliteBroker(path)) as broker:
        broker.enqueue(new_jobs(200, payload_json=b'"' + b"x" * 4000 + b'"'))


def refused(path: Path) -> str:
    """What the broker says of a file that it must refuse and must not change."""
    before = path.read_bytes()
    with pytest.raises(IncompatibleData) as raised:
        SqliteBroker(path)
    assert path.read_bytes() == before
    return str(raised.value)


def leases(broker: SqliteBroker, limit: int = 100) -> list[object]:
    return list(broker.lease(["default"], limit, worker_id="w", lease_for=30 * SECOND, wait=timedelta(0), suspects=1))


# Opening -------------------------------------------------------------------------------------------------------------------------------


def test_a_new_file_has_the_latest_schema_and_writes_ahead(path: Path, broker: SqliteBroker) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (migrations()[-1].version,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_every_connection_syncs_fully(broker: SqliteBroker) -> None:
    with broker.database.write() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_empty_file_that_someone_has_made_is_a_new_one(path: Path) -> None:
    path.touch()
    with closing(SqliteBroker(path)) as broker:
        assert broker.queues() == []


def test_a_path_with_signs_that_mean_something_in_urls_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a ?b#c%20d&e.db"
    with closing(SqliteBroker(path)) as broker:
        broker.enqueue([new_job()])
    assert path.exists()


def test_a_newer_schema_is_refused_with_its_version_and_what_to_do(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    said = refused(path)
    assert "999" in said
    assert "upgrade jobqueue" in said


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be one. " * 1000)
    assert "recover" in refused(path)


def test_a_truncated_file_is_refused_and_left_alone(path: Path) -> None:
    fill(path)
    path.write_bytes(path.read_bytes()[:20_000])
    assert str(path) in refused(path)


def test_a_file_cut_within_its_first_page_is_refused_and_left_alone(path: Path) -> None:
    fill(path)
    path.write_bytes(path.read_bytes()[:600])
    assert str(path) in refused(path)


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    assert "another program" in refused(path)


def test_an_emptied_file_beside_a_log_that_holds_data_is_refused(path: Path) -> None:
    path.touch()
    path.with_name(path.name + "-wal").write_bytes(b"x" * 100)
    assert "-wal" in refused(path)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="folder must exist"):
        SqliteBroker(tmp_path / "nowhere" / "jobqueue.db")
    with pytest.raises(StorageUnavailable, match="folder must exist"):
        SqliteStorage(tmp_path / "nowhere" / "jobqueue.db")


def test_threads_that_open_a_new_file_at_once_all_find_it_ready(path: Path) -> None:
    start = threading.Barrier(6)
    answers: list[object] = []

    def open_and_enqueue() -> None:
        start.wait()
        with closing(SqliteBroker(path)) as broker:
            answers.extend(one.status for one in broker.enqueue([new_job()]))

    threads = [threading.Thread(target=open_and_enqueue) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == ["created"] * 6


# In use --------------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_vanishes_does_not_come_back_empty(path: Path, broker: SqliteBroker) -> None:
    broker.enqueue([new_job()])
    with broker.database.read():  # keeps the one connection that reads, so that the next must be opened
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with pytest.raises(BrokerUnavailable):
            broker.queues()
    assert not path.exists()


def test_no_job_is_acknowledged_into_a_file_that_was_moved_or_replaced(path: Path, broker: SqliteBroker) -> None:
    broker.enqueue([new_job()])
    moved = path.rename(path.with_name("moved.db"))
    with pytest.raises(BrokerUnavailable, match="put it back"):
        broker.enqueue([new_job()])
    path.touch()
    with pytest.raises(BrokerUnavailable, match="put it back"):
        broker.enqueue([new_job()])
    moved.rename(path)
    assert [one.status for one in broker.enqueue([new_job()])] == ["created"]


def test_while_another_process_writes_a_call_fails_in_time_and_then_works(path: Path, broker: SqliteBroker) -> None:
    with closing(SqliteStorage(path, busy_timeout=200 * MILLISECOND)) as storage:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable) as raised:
                broker.enqueue([new_job()])
            with pytest.raises(StorageUnavailable):
                storage.record_executions([execution()], record="all")
            assert time.monotonic() - began < 3
            assert not raised.value.maybe_accepted
            assert broker.queues() == []
            other.execute("ROLLBACK")
        assert [one.status for one in broker.enqueue([new_job()])] == ["created"]
        storage.record_executions([execution()], record="all")


def test_a_full_disk_refuses_jobs_keeps_what_is_there_and_recovers(broker: SqliteBroker) -> None:
    broker.enqueue(new_jobs(20))
    held = leases(broker)
    with broker.database.write() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    big = new_jobs(50, payload_json=b'"' + b"x" * 5000 + b'"')
    with pytest.raises(QueueFull, match="free disk space"):
        broker.enqueue(big)
    assert broker.get([job.id for job in big]) == [None] * 50
    outcomes = [completed(lease, b'"' + b"y" * 9000 + b'"') for lease in held]  # type: ignore[arg-type]
    with pytest.raises(QueueFull):
        broker.settle(outcomes, worker_id="w")
    assert len(broker.jobs(JobFilter(state=JobState.PROCESSING), cursor=None, limit=50).jobs) == 20
    with broker.database.write() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert broker.settle(outcomes, worker_id="w") == [True] * 20
    assert {one.status for one in broker.enqueue(big)} == {"created"}


def test_a_full_disk_makes_storage_unavailable_not_refuse_rows(path: Path) -> None:
    with closing(SqliteStorage(path)) as storage:
        with storage.database.write() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageUnavailable, match="free disk space"):
            storage.record_executions([execution(error="x" * 2000) for _ in range(100)], record="all")


def test_after_closing_a_call_fails_with_the_brokers_own_error(path: Path) -> None:
    broker = SqliteBroker(path)
    broker.close()
    broker.close()
    with pytest.raises(BrokerUnavailable):
        broker.enqueue([new_job()])
    with pytest.raises(BrokerUnavailable):
        broker.queues()


def test_closing_ends_a_wait(path: Path) -> None:
    broker = SqliteBroker(path)
    answers: list[object] = []
    thread = threading.Thread(
        target=lambda: answers.append(broker.lease(["default"], 1, worker_id="w", lease_for=SECOND, wait=60 * SECOND, suspects=1))
    )
    thread.start()
    while not broker._bell._waiters:
        time.sleep(0.001)
    broker.close()
    thread.join(10)
    assert answers == [[]]


def test_nothing_goes_wrong_with_half_of_a_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = migrations()
    broken = (*steps[:-1], type(steps[-1])(version=steps[-1].version, name="broken", statements=(*steps[-1].statements[:3], "SELECT nonsense")))
    monkeypatch.setattr("jobqueue_sqlite.database.migrations", lambda: broken)
    with pytest.raises(IncompatibleData):
        SqliteBroker(path)
    monkeypatch.undo()
    with closing(SqliteBroker(path)) as broker:
        assert [one.status for one in broker.enqueue([new_job()])] == ["created"]


def test_a_log_that_is_removed_while_in_use_acknowledges_nothing_more(path: Path, broker: SqliteBroker) -> None:
    broker.enqueue([new_job()])
    path.with_name("jobqueue.db-wal").unlink()
    with pytest.raises(BrokerUnavailable, match="-wal file was removed") as raised:
        broker.enqueue([new_job()])
    assert not raised.value.maybe_accepted
    broker.close()
    with closing(SqliteBroker(path)) as restarted:
        assert [one.status for one in restarted.enqueue([new_job()])] == ["created"]

"""The execution history on PostgreSQL: partitions made ahead and dropped, rollups that count once whoever records."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from servers import PostgresPlace

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.errors import StorageRejected, StorageUnavailable
from jobqueue_core.storage import ExecutionFilter
from jobqueue_core.testing.factories import execution
from jobqueue_postgres.partitions import missing
from jobqueue_postgres.storage import PostgresStorage

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def storage(postgres_place: PostgresPlace) -> Iterator[PostgresStorage]:
    """A storage that keeps executions for ten days."""
    storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, retention=10 * DAY)
    yield storage
    storage.close()


def _prune(storage: PostgresStorage, now: datetime, *, retention: timedelta = 10 * DAY) -> None:
    """What a recorder does each minute."""
    for _ in range(1_000):
        if storage.prune_executions(now - retention, 50) < 50:
            return
    pytest.fail("pruning did not come to an end")


def _partitions(place: PostgresPlace) -> dict[str, int]:
    """Partition -> rows in it, without the common beginning of their names."""
    with psycopg.connect(place.url) as connection:
        connection.execute(f'SET search_path TO "{place.namespace}"')
        names = [name for (name,) in connection.execute("SELECT relid::text FROM pg_partition_tree('job_executions') WHERE isleaf").fetchall()]
        rows = {}
        for name in names:
            row = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
            assert row is not None
            rows[name.removeprefix("job_executions_")] = row[0]
    return rows


def _all(storage: PostgresStorage) -> list[Execution]:
    return list(storage.executions(ExecutionFilter(), cursor=None, offset=0, limit=500).executions)


# Partitions ----------------------------------------------------------------------------------------------------------------------------


def test_partitions_are_ready_for_today_and_three_days_ahead(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    _prune(storage, NOW)
    assert list(_partitions(postgres_place)) == [
        "default",
        "2026112400_2026112500",
        "2026112500_2026112600",
        "2026112600_2026112700",
        "2026112700_2026112800",
    ]
    storage.record_executions([execution(finished_at=NOW + days * DAY) for days in range(5)], record="all")
    assert list(_partitions(postgres_place).values()) == [1, 1, 1, 1, 1]


def test_what_came_before_its_partition_moves_into_it(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    rows = [execution(finished_at=NOW - hours * 6 * HOUR) for hours in range(20)]
    storage.record_executions(rows, record="all")
    assert _partitions(postgres_place) == {"default": 20}
    _prune(storage, NOW)
    found = _partitions(postgres_place)
    assert found.pop("default") == 0
    assert sum(found.values()) == 20
    assert _all(storage) == rows
    storage.record_executions(rows, record="all")
    assert _all(storage) == rows, "a repeat is known wherever the row is"


def test_old_partitions_are_dropped_whole_and_others_left(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    rows = [execution(finished_at=NOW - days * DAY) for days in range(10)]
    storage.record_executions(rows, record="all")
    _prune(storage, NOW)
    _prune(storage, NOW + 5 * DAY)
    assert _all(storage) == rows[:6], "of ten days, five have passed; the day in which the limit lies stays"
    assert min(name for name in _partitions(postgres_place) if name != "default") == "2026111900_2026112000"


def test_what_is_in_no_partition_is_forgotten_row_by_row(storage: PostgresStorage) -> None:
    ancient = [execution(finished_at=NOW - 400 * DAY - number * HOUR) for number in range(120)]
    recent = execution(finished_at=NOW)
    _prune(storage, NOW)
    storage.record_executions([*ancient, recent], record="all")
    _prune(storage, NOW)
    assert _all(storage) == [recent]


def test_after_a_long_pause_partitions_go_on_where_they_ended(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    _prune(storage, NOW)
    _prune(storage, NOW + 8 * DAY)
    names = sorted(name for name in _partitions(postgres_place) if name != "default")
    assert [name[:10] for name in names[1:]] == [name[11:] for name in names[:-1]], "no gap"
    assert names[-1][:10] == "2026120500"


@pytest.mark.parametrize(
    ("retention", "first", "count"),
    [
        (timedelta(minutes=1), (datetime(2026, 11, 24, 12, tzinfo=UTC), datetime(2026, 11, 24, 13, tzinfo=UTC)), 4),
        (3 * DAY, (datetime(2026, 11, 24, 12, tzinfo=UTC), datetime(2026, 11, 24, 13, tzinfo=UTC)), 4),
        (4 * DAY, (datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC)), 4),
        (100 * DAY, (datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC)), 4),
        (101 * DAY, (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)), 4),
    ],
    ids=["1m", "3d", "4d", "100d", "101d"],
)
def test_how_long_a_partition_is_follows_from_the_retention(retention: timedelta, first: tuple[datetime, datetime], count: int) -> None:
    found = list(missing([], None, NOW, retention=retention))
    assert found[0] == first
    assert len(found) == count
    assert all(one[1] == other[0] for one, other in pairwise(found))


@pytest.mark.parametrize("retention", [timedelta(hours=1), 3 * DAY, 30 * DAY, 100 * DAY, 400 * DAY, 3650 * DAY], ids=str)
def test_there_are_never_many_partitions(retention: timedelta) -> None:
    assert len(list(missing([], datetime(1971, 1, 1, tzinfo=UTC), NOW, retention=retention))) <= 130


def test_a_changed_retention_goes_on_where_the_last_partition_ends(postgres_place: PostgresPlace) -> None:
    for retention in (10 * DAY, 200 * DAY, timedelta(hours=5), 10 * DAY):
        storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, retention=retention)
        _prune(storage, NOW, retention=retention)
        storage.record_executions([execution(finished_at=NOW + days * DAY) for days in range(3)], record="all")
        storage.close()
    names = sorted(name for name in _partitions(postgres_place) if name != "default")
    assert [name[:10] for name in names[1:]] == [name[11:] for name in names[:-1]]
    assert _partitions(postgres_place)["default"] == 0


def test_a_clock_that_jumps_ahead_and_comes_back_leaves_partitions_that_fit_again(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    _prune(storage, NOW)
    assert storage.prune_executions(NOW + 365 * DAY - 10 * DAY, 50) >= 0
    _prune(storage, NOW + DAY)
    storage.record_executions([execution(finished_at=NOW + days * DAY) for days in range(1, 5)], record="all")
    assert _partitions(postgres_place)["default"] == 0
    assert len(_all(storage)) == 4


def test_recorders_that_tidy_up_at_once_make_each_partition_once(postgres_place: PostgresPlace) -> None:
    some = [PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, retention=10 * DAY) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: _prune(one, NOW), some))
    assert len(_partitions(postgres_place)) == 5
    for one in some:
        one.close()


def test_a_partition_that_a_long_query_keeps_from_being_dropped_is_dropped_later(storage: PostgresStorage, postgres_place: PostgresPlace) -> None:
    storage.record_executions([execution(finished_at=NOW - 9 * DAY)], record="all")
    _prune(storage, NOW)
    with psycopg.connect(postgres_place.url) as reader:
        reader.execute(f'SELECT * FROM "{postgres_place.namespace}".job_executions')
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            _prune(storage, NOW + 5 * DAY)
    _prune(storage, NOW + 5 * DAY)
    assert _all(storage) == []


# Recording -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_recorders_at_once_with_overlapping_batches_count_each_row_once(postgres_place: PostgresPlace, *, pooled: bool) -> None:
    dice = random.Random(4)
    rows = [
        execution(type=f"type.{number % 7}", state=dice.choice(list(ExecutionState)), finished_at=NOW + timedelta(seconds=number))
        for number in range(900)
    ]
    storages = [PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, pooled=pooled) for _ in range(4)]
    errors: list[Exception] = []

    def record(number: int) -> None:
        order = random.Random(number)
        for _ in range(12):
            batch = order.sample(rows, 200)
            try:
                storages[number].record_executions(batch, record="all")
            except Exception as error:  # noqa: BLE001 - any is a failure of the test
                errors.append(error)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    storages[0].record_executions(rows, record="all")
    found = storages[0].statistics(since=NOW - HOUR, until=NOW + 2 * HOUR)
    assert found.overall.total == 900
    kept = {row.id for row in rows}
    cursor, seen = None, []
    while True:
        page = storages[0].executions(ExecutionFilter(), cursor=cursor, offset=0, limit=500)
        seen += [one.id for one in page.executions]
        if (cursor := page.next) is None:
            break
    for one in storages:
        one.close()
    assert sorted(seen) == sorted(kept)


@pytest.mark.parametrize("policies", [("all", "none", "all"), ("none", "failures", "all", "none")], ids=str)
def test_a_batch_that_is_repeated_after_the_policy_has_changed_counts_once(storage: PostgresStorage, policies: tuple[Any, ...]) -> None:
    rows = [execution(finished_at=NOW, state=state) for state in ExecutionState]
    for policy in policies:
        storage.record_executions(rows, record=policy)
    assert storage.statistics(since=NOW - HOUR, until=NOW + HOUR).overall.total == len(rows)
    assert {one.id for one in _all(storage)} == {one.id for one in rows}


def test_what_no_row_can_hold_is_refused_alone(storage: PostgresStorage) -> None:
    good = execution(finished_at=NOW)
    for bad in (execution(id="no uuid"), execution(job_id="1234"), execution(run=2**40), execution(attempt=-(2**31) - 1)):
        with pytest.raises(StorageRejected):
            storage.record_executions([good, bad], record="all")
        assert _all(storage) == []
    storage.record_executions([good], record="all")
    assert _all(storage) == [good]


def test_names_that_no_index_could_hold_are_stored_and_found(storage: PostgresStorage) -> None:
    row = execution(finished_at=NOW, type="ü\U0001f600" * 300, queue="q\0" * 300, error="x" * 100_000)
    storage.record_executions([row], record="all")
    wanted = ExecutionFilter(type=row.type, queue=row.queue)
    (found,) = storage.executions(wanted, cursor=None, offset=0, limit=5).executions
    assert (found.id, found.error) == (row.id, row.error)
    assert storage.statistics(since=NOW - HOUR, until=NOW + HOUR).overall.total == 1


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -1.0, 1e308, 0.0])
def test_a_duration_that_is_none_is_stored_and_counted(storage: PostgresStorage, duration: float) -> None:
    storage.record_executions([execution(finished_at=NOW, duration_ms=duration)], record="all")
    assert len(_all(storage)) == 1
    assert storage.statistics(since=NOW - HOUR, until=NOW + HOUR).overall.total == 1


def test_statistics_over_hours_and_minutes_add_up_to_the_rows(storage: PostgresStorage) -> None:
    dice = random.Random(5)
    rows = [execution(finished_at=NOW + timedelta(minutes=dice.randrange(-600, 600))) for _ in range(400)]
    storage.record_executions(rows, record="all")
    for _ in range(60):
        since, until = sorted(NOW + timedelta(minutes=dice.randrange(-700, 700)) for _ in range(2))
        expected = sum(since <= row.finished_at < until for row in rows)
        assert storage.statistics(since=since, until=until).overall.total == expected, (since, until)


def test_of_executions_that_only_count_the_latest_are_remembered(
    storage: PostgresStorage, postgres_place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue_postgres.history._COUNTED_KEPT", 50)
    for _ in range(5):
        storage.record_executions([execution(finished_at=NOW) for _ in range(40)], record="none")
    with psycopg.connect(postgres_place.url) as connection:
        assert connection.execute(f'SELECT count(*) FROM "{postgres_place.namespace}".job_executions_counted').fetchone() == (50,)
    assert storage.statistics(since=NOW - HOUR, until=NOW + HOUR).overall.total == 200

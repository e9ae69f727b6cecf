"""Executions: each stored once, found again, counted, and forgotten in time."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import DeadReason, Priority
from jobqueue_core.storage import ExecutionFilter, RecordPolicy, Storage
from jobqueue_core.testing.factories import execution, tampered
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NASTY, NOON, SECOND, OpenStorage, StorageArrangement, at_once


class HistoryContract(StorageArrangement):
    """``History``, but for statistics."""

    def all_executions(self, storage: Storage, limit: int = 3, **wanted: Any) -> list[Execution]:
        """All pages of a listing."""
        found: list[Execution] = []
        cursor = None
        while True:
            page = storage.executions(ExecutionFilter(**wanted), cursor=cursor, offset=0, limit=limit)
            assert len(page.executions) <= limit
            found += page.executions
            if page.next is None:
                return found
            cursor = page.next

    def record(self, storage: Storage, *executions: Execution, record: RecordPolicy = "all") -> list[Execution]:
        """Store executions."""
        storage.record_executions(executions, record=record)
        return list(executions)

    def test_an_execution_comes_back_as_it_was(self, storage: Storage, other: Storage) -> None:
        full = execution(
            run=7,
            attempt=3,
            type="email.send:v2",
            queue="mail",
            priority=Priority.CRITICAL,
            state=ExecutionState.DEAD,
            finished_at=NOON + timedelta(microseconds=123_456),
            started_at=NOON - timedelta(microseconds=1),
            duration_ms=0.125,
            error="ValueError: 7",
            worker_id="worker-9",
            created_at=NOON - HOUR,
            scheduled_at=NOON - SECOND,
            max_retries=0,
            crashes=1,
            deaths=2,
            dead_reason=DeadReason.DISCARDED,
            metadata={"jobqueue.schedule": "nightly", "city": "zürich"},
        )
        self.record(storage, full)
        assert other.job_executions(full.job_id) == [full]
        assert self.all_executions(other) == [full]

    def test_unset_fields_of_an_execution_stay_unset(self, storage: Storage) -> None:
        bare = execution(started_at=None, worker_id=None, created_at=None, max_retries=None)
        self.record(storage, bare)
        assert storage.job_executions(bare.job_id) == [bare]

    @pytest.mark.parametrize("text", NASTY, ids=ascii)
    def test_no_text_of_an_execution_is_refused_or_changed(self, storage: Storage, text: str) -> None:
        nasty = execution(state=ExecutionState.FAILED, error=text, metadata={"key": text}, worker_id=text)
        self.record(storage, nasty, plain := execution())
        assert storage.job_executions(nasty.job_id) == [nasty]
        assert storage.job_executions(plain.job_id) == [plain]

    def test_the_executions_of_a_job_are_listed_by_run(self, storage: Storage) -> None:
        job_id = str(uuid.uuid4())
        runs = [execution(job_id=job_id, run=run, finished_at=NOON + run * SECOND) for run in (2, 10, 1, 9)]
        self.record(storage, *runs, execution())
        assert [one.run for one in storage.job_executions(job_id)] == [1, 2, 9, 10]
        assert storage.job_executions(str(uuid.uuid4())) == []

    def test_executions_are_listed_newest_first(self, storage: Storage) -> None:
        rows = [execution(finished_at=NOON + timedelta(milliseconds=number // 3)) for number in range(20)]
        self.record(storage, *rows)
        expected = sorted(rows, key=lambda one: (one.finished_at, one.id), reverse=True)
        assert self.all_executions(storage) == expected
        assert self.all_executions(storage, limit=500) == expected

    def test_a_walk_is_not_disturbed_by_rows_that_are_added(self, storage: Storage, other: Storage) -> None:
        rows = self.record(storage, *(execution(finished_at=NOON + number * SECOND) for number in range(20)))
        seen: list[Execution] = []
        cursor = None
        while True:
            page = storage.executions(ExecutionFilter(), cursor=cursor, offset=0, limit=4)
            seen += page.executions
            if (cursor := page.next) is None:
                break
            self.record(other, execution(finished_at=NOON + HOUR), execution(finished_at=NOON + HOUR))
        assert len({one.id for one in seen}) == len(seen)
        assert {one.id for one in rows} <= {one.id for one in seen}

    def test_an_offset_skips_executions(self, storage: Storage) -> None:
        rows = self.record(storage, *(execution(finished_at=NOON - number * SECOND) for number in range(10)))
        page = storage.executions(ExecutionFilter(), cursor=None, offset=7, limit=2)
        assert list(page.executions) == rows[7:9]
        assert page.next is not None
        assert list(storage.executions(ExecutionFilter(), cursor=page.next, offset=0, limit=5).executions) == rows[9:]
        beyond = storage.executions(ExecutionFilter(), cursor=None, offset=10_000, limit=2)
        assert (beyond.executions, beyond.next) == ((), None)

    def test_listings_can_be_narrowed(self, storage: Storage) -> None:
        states = list(ExecutionState)
        rows = self.record(
            storage,
            *(
                execution(type=f"type.{number % 2}", queue=f"queue-{number % 3}", state=states[number % 7], finished_at=NOON - number * SECOND)
                for number in range(42)
            ),
        )
        assert self.all_executions(storage, type="type.1") == rows[1::2]
        assert self.all_executions(storage, queue="queue-2") == rows[2::3]
        assert self.all_executions(storage, type="type.1", queue="queue-2") == rows[5::6]
        for number, state in enumerate(states):
            assert self.all_executions(storage, state=state) == rows[number::7]
        assert self.all_executions(storage, since=NOON - 5 * SECOND, until=NOON) == rows[1:6]
        assert self.all_executions(storage, type="type.0", queue="queue-0", state=states[0]) == rows[:1]
        assert self.all_executions(storage, type="no.such") == []

    def test_a_cursor_of_executions_that_was_tampered_with_is_refused_or_read_and_breaks_nothing(self, storage: Storage) -> None:
        self.record(storage, *(execution() for _ in range(5)))
        cursor = storage.executions(ExecutionFilter(), cursor=None, offset=0, limit=2).next
        assert cursor is not None
        for forged in tampered(cursor):
            with suppress(InvalidJob):
                storage.executions(ExecutionFilter(), cursor=forged, offset=0, limit=2)

    @pytest.mark.parametrize("cursor", ["nonsense", "~", "a~b", "~~~~~", "\u0000", "ö"])
    def test_a_cursor_that_no_page_of_executions_gave_is_refused(self, storage: Storage, cursor: str) -> None:
        self.record(storage, execution())
        with pytest.raises(InvalidJob) as caught:
            storage.executions(ExecutionFilter(), cursor=cursor, offset=0, limit=10)
        assert caught.value.field == "cursor"

    @pytest.mark.parametrize("when", [datetime(2000, 2, 29, tzinfo=UTC), datetime(2099, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)], ids=str)
    def test_an_execution_of_any_day_is_stored(self, storage: Storage, when: datetime) -> None:
        (row,) = self.record(storage, execution(finished_at=when))
        assert self.all_executions(storage) == [row]

    def test_a_thousand_rows_go_in_one_call(self, storage: Storage) -> None:
        rows = self.record(storage, *(execution(finished_at=NOON - number * SECOND) for number in range(1000)))
        assert self.all_executions(storage, limit=500) == rows

    def test_recording_nothing_is_harmless(self, storage: Storage) -> None:
        self.record(storage)
        assert self.all_executions(storage) == []

    def test_repeating_a_batch_stores_each_row_once(self, storage: Storage, other: Storage) -> None:
        old, new = execution(finished_at=NOON), execution(finished_at=NOON + SECOND)
        self.record(storage, old)
        self.record(other, old, new, new)
        self.record(storage, new, old)
        assert self.all_executions(storage) == [new, old]

    def test_two_recorders_with_one_batch_store_each_row_once(self, storage: Storage, other: Storage) -> None:
        rows = [execution() for _ in range(100)]
        at_once([partial(one.record_executions, rows, record="all") for one in (storage, other, storage)])
        assert len(self.all_executions(storage, limit=500)) == 100
        assert storage.statistics(since=NOON - HOUR * 24, until=NOON + HOUR).overall.total == 100

    @pytest.mark.parametrize(
        ("record", "kept"), [("all", set(ExecutionState)), ("failures", set(ExecutionState) - {ExecutionState.COMPLETED}), ("none", set())]
    )
    def test_the_policy_decides_what_becomes_a_row(self, storage: Storage, record: RecordPolicy, kept: set[ExecutionState]) -> None:
        self.record(storage, *(execution(state=state) for state in ExecutionState), record=record)
        assert {one.state for one in self.all_executions(storage)} == kept

    def test_executions_are_there_after_closing_and_opening(self, open_storage: OpenStorage) -> None:
        first = open_storage()
        (row,) = self.record(first, execution())
        first.close()
        second = open_storage()
        assert self.all_executions(second) == [row]
        second.close()

    def test_pruning_forgets_what_is_old_in_bounded_steps(self, storage: Storage) -> None:
        rows = self.record(storage, *(execution(finished_at=NOON - number * 24 * HOUR) for number in range(10)))
        before = NOON - 3.5 * 24 * HOUR
        steps = [storage.prune_executions(before, 4)]
        while steps[-1]:
            assert len(steps) < 50, "pruning did not come to an end"
            steps.append(storage.prune_executions(before, 4))
        assert self.all_executions(storage) == rows[:4]
        assert [len(storage.job_executions(one.job_id)) for one in rows] == [1] * 4 + [0] * 6

    def test_pruning_forgets_statistics_too(self, storage: Storage) -> None:
        self.record(storage, execution(finished_at=NOON), execution(finished_at=NOON - 72 * HOUR))
        while storage.prune_executions(NOON - 24 * HOUR, 100):
            pass
        assert storage.statistics(since=NOON - 100 * HOUR, until=NOON + HOUR).overall.total == 1

    def test_pruning_nothing_says_so(self, storage: Storage) -> None:
        (row,) = self.record(storage, execution())
        assert storage.prune_executions(NOON - 24 * HOUR, 10) == 0
        assert self.all_executions(storage) == [row]

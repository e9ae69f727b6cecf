"""The ends of jobs: of each job the last run, if it ended the job."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import pytest

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import DeadReason, JobState
from jobqueue_core.storage import EndFilter, Storage
from jobqueue_core.testing.factories import execution, tampered
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NOON, SECOND, StorageArrangement

__all__ = ["EndContract"]

_UNTIL = NOON + HOUR
_GONE_ON = (ExecutionState.FAILED, ExecutionState.SNOOZED, ExecutionState.RETURNED, ExecutionState.LOST)


class EndContract(StorageArrangement):
    """``ends`` and ``have_ended`` of ``History``."""

    def all_ends(self, storage: Storage, limit: int = 3, **wanted: Any) -> list[Execution]:
        """All pages of a listing."""
        found: list[Execution] = []
        cursor = None
        while True:
            page = storage.ends(EndFilter(**{"until": _UNTIL, **wanted}), cursor=cursor, limit=limit)
            assert len(page.executions) <= limit
            found += page.executions
            if page.next is None:
                return found
            cursor = page.next

    def runs(self, storage: Storage, *states: ExecutionState, first: int = 0, **fields: Any) -> list[Execution]:
        """Store the runs of one job, a second apart, in *states*; those that are dead have a reason."""
        job_id = str(uuid.uuid4())
        rows = [
            execution(
                job_id=job_id,
                run=number,
                state=state,
                finished_at=NOON + (first + number) * SECOND,
                created_at=NOON,
                dead_reason=DeadReason.DISCARDED if state is ExecutionState.DEAD else None,
                **fields,
            )
            for number, state in enumerate(states, 1)
        ]
        storage.record_executions(rows, record="all")
        return rows

    @pytest.mark.parametrize(
        ("last", "state"),
        [
            ({"state": ExecutionState.COMPLETED}, JobState.COMPLETED),
            ({"state": ExecutionState.CANCELLED}, JobState.CANCELLED),
            ({"state": ExecutionState.DEAD, "dead_reason": DeadReason.DISCARDED}, JobState.DEAD),
            ({"state": ExecutionState.LOST, "dead_reason": DeadReason.WORKER_LOST}, JobState.DEAD),
        ],
    )
    def test_a_run_that_ended_its_job_is_listed_under_the_state_it_left_it_in(self, storage: Storage, last: dict[str, Any], state: JobState) -> None:
        end = execution(**last)
        storage.record_executions([end, execution(state=ExecutionState.FAILED)], record="all")
        assert self.all_ends(storage) == [end]
        assert {wanted: self.all_ends(storage, state=wanted) for wanted in JobState} == {one: [end] if one is state else [] for one in JobState}

    @pytest.mark.parametrize("last", _GONE_ON)
    def test_a_job_whose_last_run_did_not_end_it_is_not_listed(self, storage: Storage, last: ExecutionState) -> None:
        self.runs(storage, ExecutionState.DEAD, last)
        assert self.all_ends(storage) == []

    def test_of_a_job_that_ended_more_than_once_only_the_last_end_is_listed(self, storage: Storage) -> None:
        rows = self.runs(storage, ExecutionState.FAILED, ExecutionState.DEAD, ExecutionState.DEAD, ExecutionState.COMPLETED)
        assert self.all_ends(storage) == [rows[3]]
        assert self.all_ends(storage, state=JobState.DEAD) == []

    def test_what_came_after_the_limit_in_time_does_not_count(self, storage: Storage) -> None:
        rows = self.runs(storage, ExecutionState.DEAD, ExecutionState.FAILED, ExecutionState.COMPLETED)
        assert self.all_ends(storage, until=rows[2].finished_at) == [], "then it had failed"
        assert self.all_ends(storage, until=rows[1].finished_at) == [rows[0]], "then it was dead"
        assert self.all_ends(storage, until=rows[0].finished_at) == []

    def test_the_limit_in_time_holds_whatever_the_cursor(self, storage: Storage) -> None:
        jobs = [self.runs(storage, ExecutionState.COMPLETED, first=number) for number in range(6)]
        cursor = storage.ends(EndFilter(until=_UNTIL), cursor=None, limit=1).next
        page = storage.ends(EndFilter(until=jobs[3][0].finished_at), cursor=cursor, limit=10)
        assert list(page.executions) == [rows[0] for rows in jobs[2::-1]]

    def test_a_run_number_that_begins_anew_does_not_hide_the_last_run(self, storage: Storage) -> None:
        old = execution(run=7, finished_at=NOON)
        new = execution(job_id=old.job_id, run=1, finished_at=NOON + SECOND)
        storage.record_executions([old, new], record="all")
        assert self.all_ends(storage) == [new]

    def test_ends_at_one_moment_are_all_listed(self, storage: Storage) -> None:
        rows = [execution() for _ in range(10)]
        storage.record_executions(rows, record="all")
        assert self.all_ends(storage) == sorted(rows, key=lambda one: one.id, reverse=True)

    def test_ends_of_all_states_are_listed_newest_first_and_past_those_that_do_not_count(self, storage: Storage) -> None:
        ending = [ExecutionState.COMPLETED, ExecutionState.DEAD, ExecutionState.CANCELLED]
        jobs = [self.runs(storage, ending[number % 3], first=-number) for number in range(12)]
        for number in range(12):
            self.runs(storage, _GONE_ON[number % 4], first=-number)
            self.runs(storage, ExecutionState.DEAD, ExecutionState.FAILED, first=-number)
        assert self.all_ends(storage, limit=1) == [rows[-1] for rows in jobs]
        assert self.all_ends(storage, limit=500) == [rows[-1] for rows in jobs]

    def test_ends_can_be_narrowed(self, storage: Storage) -> None:
        done = ExecutionState.COMPLETED
        jobs = [self.runs(storage, done, type=f"type.{number % 2}", queue=f"queue-{number % 3}", first=-number) for number in range(12)]
        ends = [rows[-1] for rows in jobs]
        assert self.all_ends(storage, type="type.1") == ends[1::2]
        assert self.all_ends(storage, queue="queue-2") == ends[2::3]
        assert self.all_ends(storage, type="type.1", queue="queue-2", state=JobState.COMPLETED) == ends[5::6]
        assert self.all_ends(storage, type="type.1", state=JobState.DEAD) == []

    def test_a_walk_over_ends_is_not_disturbed_by_runs_that_are_added(self, storage: Storage, other: Storage) -> None:
        jobs = [self.runs(storage, ExecutionState.DEAD, first=number) for number in range(12)]
        seen: list[Execution] = []
        cursor = None
        while True:
            page = storage.ends(EndFilter(until=_UNTIL), cursor=cursor, limit=2)
            seen += page.executions
            if (cursor := page.next) is None:
                break
            late = [execution(job_id=rows[0].job_id, run=2, finished_at=_UNTIL + len(seen) * SECOND) for rows in jobs]
            other.record_executions(late, record="all")
        assert seen == [rows[0] for rows in reversed(jobs)]

    def test_it_is_known_of_many_jobs_whether_they_have_ended(self, storage: Storage) -> None:
        states = [ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD, ExecutionState.LOST, ExecutionState.CANCELLED]
        jobs = [self.runs(storage, ExecutionState.FAILED, state) for state in states]
        asked = [(rows[0].job_id, NOON) for rows in jobs] + [(str(uuid.uuid4()), NOON)]
        assert storage.have_ended(asked, EndFilter(until=_UNTIL)) == [True, False, True, False, True, False]
        assert storage.have_ended(asked[::-1], EndFilter(until=_UNTIL)) == [False, True, False, True, False, True]
        assert storage.have_ended(asked, EndFilter(until=_UNTIL, state=JobState.DEAD)) == [False, False, True, False, False, False]
        assert storage.have_ended([], EndFilter(until=_UNTIL)) == []

    def test_an_end_is_known_from_its_own_moment_on_and_before_the_limit(self, storage: Storage) -> None:
        rows = self.runs(storage, ExecutionState.DEAD, ExecutionState.COMPLETED)
        died, completed = (one.finished_at for one in rows)
        job_id = rows[0].job_id
        assert storage.have_ended([(job_id, completed)], EndFilter(until=_UNTIL)) == [True]
        assert storage.have_ended([(job_id, completed + SECOND / 1_000_000)], EndFilter(until=_UNTIL)) == [False]
        assert storage.have_ended([(job_id, died)], EndFilter(until=completed, state=JobState.DEAD)) == [True], "then it was dead"
        assert storage.have_ended([(job_id, died)], EndFilter(until=died)) == [False]

    def test_a_cursor_of_ends_that_was_tampered_with_is_refused_or_read_and_breaks_nothing(self, storage: Storage) -> None:
        storage.record_executions([execution() for _ in range(5)], record="all")
        cursor = storage.ends(EndFilter(until=_UNTIL), cursor=None, limit=2).next
        assert cursor is not None
        for forged in tampered(cursor):
            with suppress(InvalidJob):
                storage.ends(EndFilter(until=_UNTIL), cursor=forged, limit=2)
        with pytest.raises(InvalidJob) as caught:
            storage.ends(EndFilter(until=_UNTIL), cursor="nonsense", limit=2)
        assert caught.value.field == "cursor"

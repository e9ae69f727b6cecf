"""Totals: counts and durations by type since the storage was set up, which nothing makes less."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.storage import ExecutionTotals, RecordPolicy, Storage
from jobqueue_core.testing.factories import execution
from jobqueue_core.testing.storage_suite.arrangement import (
    HOUR,
    NOON,
    SECOND,
    OpenStorage,
    StorageArrangement,
    at_once,
    record_overlapping,
    two_types,
)

_ALL = 1_000


def _sizes(totals: ExecutionTotals) -> Mapping[str, int]:
    """How many executions there are of each type."""
    return {name: sum(one.counts.values()) for name, one in totals.by_type.items()}


class TotalsContract(StorageArrangement):
    """``History.totals``."""

    def test_a_new_storage_has_no_totals(self, storage: Storage) -> None:
        assert storage.totals(_ALL) == ExecutionTotals()

    @pytest.mark.parametrize("record", ["all", "failures", "none"])
    def test_totals_count_each_execution_once_by_type_and_state_whatever_the_policy(
        self, storage: Storage, other: Storage, record: RecordPolicy
    ) -> None:
        record_overlapping(storage, other, two_types(apart=HOUR), record=record)
        totals = storage.totals(_ALL)
        assert (totals.types, set(totals.by_type)) == (2, {"a", "b"})
        for kind, times in (("a", 1), ("b", 2)):
            assert dict(totals.by_type[kind].counts) == {state: times * (number + 1) for number, state in enumerate(ExecutionState)}

    def test_totals_count_once_when_the_policy_changes_between_repeats(self, storage: Storage) -> None:
        rows = [execution(), execution(state=ExecutionState.FAILED)]
        policies: tuple[RecordPolicy, ...] = ("none", "all", "failures", "none")
        for record in policies:
            storage.record_executions(rows, record=record)
        assert _sizes(storage.totals(_ALL)) == {"test.job": 2}

    @pytest.mark.parametrize("record", ["all", "none"])
    def test_nothing_that_is_forgotten_makes_totals_less(self, storage: Storage, record: RecordPolicy) -> None:
        long_ago = datetime(1990, 1, 1, tzinfo=UTC)
        rows = [execution(finished_at=finished_at, duration_ms=50.0) for finished_at in (long_ago, NOON, NOON + HOUR)]
        storage.record_executions(rows, record=record)
        before = storage.totals(_ALL).by_type["test.job"]
        while storage.prune_executions(NOON + 1000 * HOUR, 100) >= 100:
            pass
        assert storage.statistics(since=NOON - HOUR, until=NOON + 2 * HOUR).overall.total == 0
        after = storage.totals(_ALL).by_type["test.job"]
        assert sum(after.counts.values()) == 3
        assert (after.counts, after.durations.buckets, after.durations.total_ms) == (
            before.counts,
            before.durations.buckets,
            before.durations.total_ms,
        )

    def test_totals_are_no_part_of_any_time_range(self, storage: Storage) -> None:
        storage.record_executions([execution(finished_at=NOON)], record="all")
        ever = storage.statistics(since=datetime(1970, 1, 2, tzinfo=UTC), until=datetime(9000, 1, 1, tzinfo=UTC))
        assert ever.overall.total == 1
        assert storage.statistics(since=datetime(1970, 1, 2, tzinfo=UTC), until=NOON - HOUR).overall.total == 0
        assert storage.statistics(since=NOON + HOUR, until=datetime(9000, 1, 1, tzinfo=UTC)).overall.total == 0

    def test_totals_go_on_from_where_they_were(self, storage: Storage, other: Storage) -> None:
        for number in range(5):
            (storage, other)[number % 2].record_executions([execution(finished_at=NOON + number * 24 * HOUR, duration_ms=10.0)], record="all")
            totals = storage.totals(_ALL).by_type["test.job"]
            assert (totals.counts[ExecutionState.COMPLETED], totals.durations.count) == (number + 1, number + 1)
            assert totals.durations.total_ms == pytest.approx(10.0 * (number + 1))

    def test_durations_add_up_to_a_histogram(self, storage: Storage) -> None:
        spent = {1.0: 5, 20.0: 3, 400.0: 7, 90_000.0: 2}
        states = (ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD)
        rows = [
            execution(duration_ms=duration_ms, state=states[number % 3], finished_at=NOON + number * SECOND)
            for duration_ms, times in spent.items()
            for number in range(times)
        ]
        storage.record_executions(rows[::2], record="all")
        storage.record_executions(rows[1::2], record="none")
        durations = storage.totals(_ALL).by_type["test.job"].durations
        assert durations.up_to([0.5, 5.0, 100.0, 1_000.0, 1_000_000.0]) == [0, 5, 8, 15, 17]
        assert durations.total_ms == pytest.approx(sum(duration_ms * times for duration_ms, times in spent.items()), rel=0.001)

    def test_runs_that_were_cut_off_have_no_duration_in_totals(self, storage: Storage) -> None:
        cut_off = (ExecutionState.CANCELLED, ExecutionState.SNOOZED, ExecutionState.RETURNED, ExecutionState.LOST)
        storage.record_executions([execution(state=state, duration_ms=1e6) for state in cut_off], record="all")
        totals = storage.totals(_ALL).by_type["test.job"]
        assert sum(totals.counts.values()) == 4
        assert (totals.durations.count, totals.durations.total_ms) == (0, 0.0)

    def test_of_many_types_the_largest_are_shown_and_all_are_counted(self, storage: Storage) -> None:
        rows = [execution(type=f"type.{number}") for number in range(30) for _ in range(1 + number % 10)]
        storage.record_executions(rows, record="all")
        totals = storage.totals(5)
        assert totals.types == 30
        # Those of one size by name.
        assert list(_sizes(totals).items()) == [("type.19", 10), ("type.29", 10), ("type.9", 10), ("type.18", 9), ("type.28", 9)]
        assert len(storage.totals(_ALL).by_type) == 30

    def test_recorders_at_once_lose_no_count_of_the_totals(self, open_storage: OpenStorage, storage: Storage) -> None:
        others = [open_storage() for _ in range(4)]
        batches = [[execution(type=f"type.{number % 3}", finished_at=NOON + timedelta(days=number)) for number in range(60)] for _ in others]
        at_once([partial(other.record_executions, batch, record="all") for other, batch in zip(others, batches, strict=True)])
        for other in others:
            other.close()
        assert _sizes(storage.totals(_ALL)) == {"type.0": 80, "type.1": 80, "type.2": 80}

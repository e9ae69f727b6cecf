"""Statistics: counts and durations by type, from rollups."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.storage import ExecutionStatistics, RecordPolicy, Storage, TypeStatistics
from jobqueue_core.testing.factories import execution
from jobqueue_core.testing.storage_suite.arrangement import HOUR, NOON, SECOND, StorageArrangement, record_overlapping, two_types

_TOLERANCE = 0.1
_DRAW = random.Random(1)  # noqa: S311 - a test must be repeatable


def _percentile(durations: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    return sorted(durations)[max(math.ceil(share * len(durations)) - 1, 0)]


_DURATIONS: dict[str, list[float]] = {
    "even": [float(number) for number in range(1, 1001)],
    "exponential": [_DRAW.expovariate(1 / 200) + 0.05 for _ in range(1000)],
    "one": [25.0],
    "equal": [3.3] * 50,
    "tiny": [0.02 + number / 1e5 for number in range(200)],
    "hours": [3_600_000.0 + number * 10_000 for number in range(200)],
    "two-kinds": [1.0] * 90 + [10_000.0] * 110,
}


class StatisticsContract(StorageArrangement):
    """``History.statistics``."""

    def numbers(self, storage: Storage) -> ExecutionStatistics:
        """What happened round noon."""
        return storage.statistics(since=NOON - HOUR, until=NOON + HOUR)

    def test_without_executions_there_is_nothing(self, storage: Storage) -> None:
        assert self.numbers(storage) == ExecutionStatistics(overall=TypeStatistics(), by_type={})

    @pytest.mark.parametrize("record", ["all", "failures", "none"])
    def test_every_execution_counts_once_by_state_and_type_whatever_the_policy(self, storage: Storage, other: Storage, record: RecordPolicy) -> None:
        record_overlapping(storage, other, two_types(apart=SECOND), record=record)
        numbers = self.numbers(storage)
        assert set(numbers.by_type) == {"a", "b"}
        for times, found in ((1, numbers.by_type["a"]), (2, numbers.by_type["b"]), (3, numbers.overall)):
            expected = {state.value: times * (number + 1) for number, state in enumerate(ExecutionState)}
            assert {state.value: getattr(found, state.value) for state in ExecutionState} == expected
            assert found.total == sum(expected.values())

    @pytest.mark.parametrize("record", ["all", "failures", "none"])
    def test_a_backlog_of_many_days_counts_once_when_it_is_repeated(self, storage: Storage, record: RecordPolicy) -> None:
        rows = [execution(finished_at=NOON + days * 24 * HOUR) for days in range(5)]
        storage.record_executions(rows, record=record)
        storage.record_executions(rows, record=record)
        assert storage.statistics(since=NOON - HOUR, until=NOON + 200 * HOUR).overall.total == 5

    def test_only_the_time_range_counts(self, storage: Storage) -> None:
        storage.record_executions([execution(finished_at=NOON + hours * HOUR) for hours in (-3, 0, 0, 3)], record="all")
        assert self.numbers(storage).overall.total == 2
        assert storage.statistics(since=NOON - 4 * HOUR, until=NOON - 2 * HOUR).overall.total == 1
        assert storage.statistics(since=NOON - 4 * HOUR, until=NOON + 4 * HOUR).overall.total == 4

    def test_a_range_of_whole_minutes_is_exact(self, storage: Storage) -> None:
        minute = timedelta(minutes=1)
        storage.record_executions([execution(finished_at=NOON + offset) for offset in (-SECOND, 0 * SECOND, 59 * SECOND, minute)], record="all")
        assert storage.statistics(since=NOON, until=NOON + minute).overall.total == 2

    @pytest.mark.parametrize("name", list(_DURATIONS))
    def test_durations_are_summed_up_within_ten_per_cent(self, storage: Storage, name: str) -> None:
        durations = _DURATIONS[name]
        states = (ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD)
        rows = [
            execution(duration_ms=duration, state=states[number % 3], finished_at=NOON + timedelta(seconds=number % 300))
            for number, duration in enumerate(durations)
        ]
        storage.record_executions(rows[: len(rows) // 2], record="all")
        storage.record_executions(rows[len(rows) // 2 :], record="none")
        numbers = self.numbers(storage)
        assert numbers.by_type["test.job"] == numbers.overall
        assert numbers.overall.avg_duration_ms == pytest.approx(sum(durations) / len(durations), rel=0.001)
        found = (numbers.overall.p50_duration_ms, numbers.overall.p95_duration_ms, numbers.overall.p99_duration_ms)
        assert found == pytest.approx([_percentile(durations, share) for share in (0.5, 0.95, 0.99)], rel=_TOLERANCE)

    def test_runs_that_were_cut_off_have_no_say_in_durations(self, storage: Storage) -> None:
        cut_off = (ExecutionState.CANCELLED, ExecutionState.SNOOZED, ExecutionState.RETURNED, ExecutionState.LOST)
        storage.record_executions([execution(state=state, duration_ms=1e6) for state in cut_off], record="all")
        before = self.numbers(storage).overall
        assert (before.total, before.avg_duration_ms, before.p50_duration_ms, before.p99_duration_ms) == (4, None, None, None)
        storage.record_executions([execution(duration_ms=10.0)], record="all")
        after = self.numbers(storage).overall
        assert after.total == 5
        assert after.avg_duration_ms == pytest.approx(10.0)

    def test_a_run_that_took_no_time_is_measured_as_such(self, storage: Storage) -> None:
        storage.record_executions([execution(duration_ms=0.0, finished_at=NOON)], record="all")
        overall = self.numbers(storage).overall
        assert overall.avg_duration_ms == pytest.approx(0.0, abs=0.1)
        assert overall.p99_duration_ms == pytest.approx(0.0, abs=0.1)

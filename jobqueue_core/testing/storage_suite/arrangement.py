"""What every part of the suite stands on: the fixtures that a third party overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, TypeVar

import pytest

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.storage import RecordPolicy, Storage
from jobqueue_core.testing.factories import NOON, execution

__all__ = ["HOUR", "NASTY", "NOON", "SECOND", "OpenStorage", "StorageArrangement", "at_once", "record_overlapping", "two_types"]

T = TypeVar("T")
OpenStorage = Callable[[], Storage]
"""Opens one more storage object on the data of the running test; the suite closes it."""

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
NASTY: Final = (
    "\u0000",
    "a\u0000b",
    "\n",
    "",
    "\\u0000 \\N \\. \\",
    "\t\r\n",
    "'; DROP TABLE x; --",
    '"{}",(null)',
    "😀\U0010ffff\ud7ff\ufffe",
    "%s {0} $1 :a ?",
)
"""Texts that a careless storage refuses, cuts short or reads as something else."""
_PATIENCE: Final = 20.0


class StorageArrangement:
    """The fixtures. Override ``open_storage``."""

    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        """Override it: a callable that opens a storage object. All it opens in one test work on the same data, which no other test sees."""
        pytest.fail(f"{type(self).__name__} must override the fixture 'open_storage' to say what is tested")

    @pytest.fixture
    def storage(self, open_storage: OpenStorage) -> Iterator[Storage]:
        """The storage under test."""
        storage = open_storage()
        yield storage
        storage.close()

    @pytest.fixture
    def other(self, open_storage: OpenStorage, storage: Storage) -> Iterator[Storage]:  # noqa: ARG002 - the first is opened first
        """Another object on the same data: what another process would see."""
        other = open_storage()
        yield other
        other.close()

    def test_a_storage_says_what_it_is_and_which_protocol_it_speaks(self, storage: Storage) -> None:
        assert storage.PROTOCOL == 1
        assert storage.describe()


def two_types(*, apart: timedelta) -> list[Execution]:
    """Executions from noon on of the types ``a`` and ``b``: of the first state one and two, of the second two and four, and so on."""
    return [
        execution(type=kind, state=state, finished_at=NOON + number * apart)
        for kind, times in (("a", 1), ("b", 2))
        for number, state in enumerate(ExecutionState)
        for _ in range(times * (number + 1))
    ]


def record_overlapping(storage: Storage, other: Storage, rows: Sequence[Execution], *, record: RecordPolicy) -> None:
    """Record *rows* as two recorders may that know nothing of each other: each of them twice at least, in portions that overlap."""
    storage.record_executions(rows[:30], record=record)
    other.record_executions(rows, record=record)
    storage.record_executions([*rows[10:], *rows[:20]], record=record)


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What *calls* return when each has a thread."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.result(timeout=_PATIENCE) for future in futures]

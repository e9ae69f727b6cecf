"""The recorder: moves executions and dead letters from the broker's outbox into storage.

Any number may run at once: storage knows every row by its id, and an outbox entry is removed only once storage has it. When storage is away
nothing is lost and nobody is slowed down: the outbox waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobqueue_core.attempt import DeadLetter, Execution
from jobqueue_core.broker import Broker, OutboxKind
from jobqueue_core.errors import BrokerError, IncompatibleData, StorageError, StorageRejected
from jobqueue_core.job import JobState
from jobqueue_core.service import Exit, Stop
from jobqueue_core.storage import RecordPolicy, Storage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Recorder"]

_log = logging.getLogger("jobqueue.recorder")
_BATCH: Final = 2_000
_KINDS: Final[tuple[OutboxKind, ...]] = ("dead", "history")
"""Dead letters first: history may be dropped when there is too much of it."""
_POLL: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_TIDY: Final = 60.0
"""Seconds between two times that it tidies up, and between two warnings that it is behind."""
_TIDY_SOON: Final = 15.0
"""The same after it has failed, or while the outbox is full."""
_PRUNE_STEP: Final = 1_000
_REQUEUE_OVERDUE: Final = timedelta(seconds=30)
_BEHIND: Final = timedelta(seconds=60)
"""How long rows may wait before somebody should know."""


@attrs.define(kw_only=True)
class Recorder:
    """Records until it is stopped.

    Args:
        broker: Whose outbox.
        storage: Where to.
        record: Which executions become rows.
        retention: How long rows are kept.
        clock: This host's; rows are old only if it says so too.
    """

    broker: Broker
    storage: Storage
    record: RecordPolicy = "all"
    retention: timedelta = timedelta(days=30)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _pause: float = _POLL
    _sizes: dict[OutboxKind, int] = attrs.field(factory=dict)
    """How many rows to move at once: fewer after storage has not managed."""
    _tidy_at: float = float("-inf")
    _is_tidy: bool = True
    """False while tidying up fails: that is said once."""
    _is_drained: bool = False
    """Whether the outbox was empty when it was last read."""
    _is_behind: bool = False
    _dropped: int | None = None
    """How many rows the broker had dropped when it was last asked."""

    def run(self, stop: Stop) -> Exit:
        """Record until *stop* rises, and then what is there at that moment."""
        while not stop.wait(self._pause if self._step() else 0.0):
            pass
        self._step()
        return Exit.OK

    def record_waiting(self) -> int:
        """Move everything that waits now; says how many rows.

        Raises:
            BrokerError: The broker is away.
            StorageError: Storage is away; what was not moved waits on.
        """
        moved = 0
        for kind in _KINDS:
            while step := self._move(kind):
                moved += step
        return moved

    def tidy(self) -> None:
        """Forget rows past their retention, and finish dead letter retries that were left half done. Raises as :meth:`record_waiting`."""
        self._forget()
        self._finish_requeues()

    def _forget(self) -> None:
        # By both clocks: a broker whose clock has jumped ahead must not make all history old.
        before = min(self.broker.now(), self.clock()) - self.retention
        while self.storage.prune_executions(before, _PRUNE_STEP) == _PRUNE_STEP:
            pass
        while self.storage.prune_dead_letters(before, _PRUNE_STEP) == _PRUNE_STEP:
            pass

    def _finish_requeues(self) -> None:
        """Only once the outbox is empty: what has become of a job may still be in it."""
        now = self.broker.now()
        for letter in self.storage.stale_requeues(now - _REQUEUE_OVERDUE, _PRUNE_STEP):
            # Nothing can requeue it any more (its not_after has passed), so what the broker says now stays true.
            job = self.broker.get([letter.job.id])[0]
            if job is None:
                # Never retried, or retried, finished and forgotten: then there is a later death, or history has a later run.
                latest = self.storage.dead_letter(letter.job.id)
                has_died_again = latest is not None and latest.job.deaths > letter.job.deaths
                untouched = not has_died_again and all(run.run <= letter.job.run for run in self.storage.job_executions(letter.job.id))
            else:
                untouched = job.state is JobState.DEAD and job.deaths == letter.job.deaths
            self.storage.finish_requeues([(letter.job.id, letter.job.deaths)], now=now, requeued=not untouched)
            _log.warning(
                "finished a dead letter retry that was left half done",
                extra={"fields": {"job_id": letter.job.id, "death": letter.job.deaths, "requeued": not untouched}},
            )

    def _step(self) -> bool:
        """Move one batch of each kind; True when the outbox was nearly empty, so that there is time for a pause."""
        self._tidy_when_due()
        fullest, failure = 0.0, None
        # Each by itself: dead letters that storage does not manage must not keep history from it.
        for kind in _KINDS:
            try:
                fullest = max(fullest, self._move(kind) / self._size(kind))
                self._sizes[kind] = min(self._size(kind) * 2, _BATCH)
            except (BrokerError, StorageError) as error:
                # Perhaps it was too much for the time that storage is given.
                self._sizes[kind] = max(self._size(kind) // 2, 1)
                failure = error
        if failure is not None:
            if self._pause == _POLL:
                level = logging.ERROR if isinstance(failure, IncompatibleData) else logging.WARNING
                _log.log(level, "recording waits: %s", failure)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            return True
        if self._pause != _POLL:
            _log.info("recording goes on")
        self._pause = _POLL
        self._is_drained = fullest < 1
        return self._is_drained

    def _size(self, kind: OutboxKind) -> int:
        return self._sizes.get(kind, _BATCH)

    def _tidy_when_due(self) -> None:
        # Before the first batch too: what it writes goes into partitions that were made ahead.
        if monotonic() < self._tidy_at:
            return
        parts = (self._watch_lag, self._forget, self._finish_requeues if self._is_drained else lambda: None)
        failure = None
        for part in parts:
            try:
                part()
            except (BrokerError, StorageError) as error:
                failure = error
        if failure is not None and self._is_tidy:
            _log.warning("tidying up waits: %s", failure)
        self._is_tidy = failure is None
        self._tidy_at = monotonic() + (_TIDY if self._is_tidy and self._is_drained else _TIDY_SOON)

    def _watch_lag(self) -> None:
        lag = self.broker.outbox_lag()
        fields = {"history": lag.history, "dead": lag.dead, "oldest_age": round(lag.oldest_age.total_seconds(), 3), "dropped": lag.dropped}
        if self._dropped is not None and lag.dropped > self._dropped:
            _log.error("the broker dropped history that storage had not taken: see [history] max_pending", extra={"fields": fields})
        self._dropped = lag.dropped
        is_behind = lag.oldest_age > _BEHIND
        if is_behind:
            _log.warning("recording is behind", extra={"fields": fields})
        elif self._is_behind:
            _log.info("recording has caught up", extra={"fields": fields})
        self._is_behind = is_behind

    def _move(self, kind: OutboxKind) -> int:
        batch = self.broker.outbox(kind, self._size(kind))
        if not batch.receipt:
            return 0
        rows: Sequence[Any]
        if kind == "dead":
            rows = batch.dead_letters
            self._store(rows, self.storage.record_dead_letters)
        else:
            rows = batch.executions
            self._store(rows, lambda some: self.storage.record_executions(some, record=self.record))
        if batch.malformed:
            _log.error("dropped outbox entries that cannot be read", extra={"fields": {"outbox": kind, "entries": batch.malformed}})
        self.broker.acknowledge(batch)
        # What one item of a receipt stands for is the broker's affair: a row, or a whole batch of them.
        return max(len(rows), len(batch.receipt))

    def _store(self, rows: Sequence[Any], store: Callable[[Sequence[Any]], None]) -> None:
        # Halving finds the culprit: one row that storage will never take must not hold up those behind it.
        if not rows:
            return
        try:
            store(rows)
        except StorageRejected as error:
            if len(rows) == 1:
                _log.error("storage refuses a row for good: %s", error, extra={"fields": _named(rows[0])})
                return
            middle = len(rows) // 2
            self._store(rows[:middle], store)
            self._store(rows[middle:], store)


def _named(row: Execution | DeadLetter) -> dict[str, Any]:
    if isinstance(row, DeadLetter):
        return {"job_id": row.job.id, "death": row.job.deaths, "type": row.job.type, "queue": row.job.queue}
    return {"job_id": row.job_id, "run": row.run, "type": row.type, "queue": row.queue}

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
from jobqueue_core.broker import Broker, OutboxKind, OutboxLag
from jobqueue_core.errors import BrokerError, IncompatibleData, StorageError, StorageRejected
from jobqueue_core.requeueing import settle_overdue
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
"""Seconds between two times that it tidies up."""
_TIDY_SOON: Final = 15.0
"""The same when it failed, or did not come to its end."""
_REMIND: Final = 60.0
"""Seconds between two times that the same is complained of."""
_PRUNE_STEP: Final = 1_000
_PRUNE_STEPS: Final = 100
"""How many at once: recording must not wait for long while a retention that was cut down is caught up with."""
_BEHIND: Final = timedelta(seconds=60)
"""How long rows may wait before somebody should know."""


@attrs.define
class _Complaint:
    """Something that may go wrong for a while: said when that begins and when it is over; what needs somebody, each minute."""

    wrong: str
    over: str
    _is_said: bool = False
    _needs_somebody: bool = False
    _again_at: float = float("-inf")

    def say(self, error: Exception) -> None:
        """It goes wrong now."""
        needs_somebody = isinstance(error, IncompatibleData)
        is_news = needs_somebody > self._needs_somebody
        if is_news or (monotonic() >= self._again_at and (needs_somebody or not self._is_said)):
            _log.log(logging.ERROR if needs_somebody else logging.WARNING, f"{self.wrong}: %s", error)
            self._is_said = True
            self._again_at = monotonic() + _REMIND
        self._needs_somebody = needs_somebody

    def end(self) -> None:
        """It goes right now."""
        if self._is_said:
            _log.info(self.over)
        self._is_said = self._needs_somebody = False


@attrs.define
class _LagWatch:
    """Says when recording falls behind, at most once a minute, when it has caught up, and what the broker had to drop."""

    _is_behind: bool = False
    _dropped: int | None = None
    """How many rows the broker had dropped when it was last said."""
    _again_at: float = float("-inf")

    def look(self, lag: OutboxLag) -> bool:
        """Look; False while it is behind."""
        fields = {"history": lag.history, "dead": lag.dead, "oldest_age": round(lag.oldest_age.total_seconds(), 3), "dropped": lag.dropped}
        is_behind = lag.oldest_age > _BEHIND
        has_dropped = self._dropped is not None and lag.dropped > self._dropped
        if (is_behind or has_dropped) and monotonic() >= self._again_at:
            if has_dropped:
                _log.error("the broker dropped history that storage had not taken: see [history] max_pending", extra={"fields": fields})
                self._dropped = lag.dropped
            if is_behind:
                _log.warning("recording is behind", extra={"fields": fields})
            self._again_at = monotonic() + _REMIND
        if self._is_behind and not is_behind:
            _log.info("recording has caught up", extra={"fields": fields})
        if not has_dropped:
            # The count begins anew with a broker that has lost its data.
            self._dropped = lag.dropped
        self._is_behind = is_behind
        return not is_behind


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
    _waits: _Complaint = attrs.field(factory=lambda: _Complaint("recording waits", "recording goes on"))
    _tidy_at: float = float("-inf")
    _untidy: _Complaint = attrs.field(factory=lambda: _Complaint("tidying up waits", "tidying up goes on"))
    _lag: _LagWatch = attrs.field(factory=_LagWatch)

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

    def tidy(self) -> bool:
        """Forget rows past their retention, and settle dead letter retries that were left half done. Raises as :meth:`record_waiting`.

        Returns:
            False when there is more to do.
        """
        return all([self._forget(), self._settle()])

    def _forget(self) -> bool:
        # By both clocks: a broker whose clock has jumped ahead must not make all history old.
        before = min(self.broker.now(), self.clock()) - self.retention
        are_forgotten = [_forget(prune, before) for prune in (self.storage.prune_executions, self.storage.prune_dead_letters)]
        return all(are_forgotten)

    def _settle(self) -> bool:
        return settle_overdue(self.broker, self.storage)

    def _step(self) -> bool:
        """Move one batch of each kind; True when the outbox was nearly empty, so that there is time for a pause."""
        self._tidy_when_due()
        fullest, failure = 0.0, None
        # Each by itself: dead letters that storage does not manage must not keep history from it.
        for kind in _KINDS:
            size = self._size(kind)
            try:
                fullest = max(fullest, self._move(kind) / size)
                # Slowly: each time that it is too much again costs as long as storage is given.
                self._sizes[kind] = min(size + size // 8 + 1, _BATCH)
            except (BrokerError, StorageError) as error:
                # Perhaps it was too much for the time that storage is given.
                self._sizes[kind] = max(size // 2, 1)
                failure = error
        if failure is not None:
            self._waits.say(failure)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            return True
        self._waits.end()
        self._pause = _POLL
        return fullest < 1

    def _size(self, kind: OutboxKind) -> int:
        return self._sizes.get(kind, _BATCH)

    def _tidy_when_due(self) -> None:
        # Before the first batch too: what it writes goes into partitions that were made ahead.
        if monotonic() < self._tidy_at:
            return
        is_tidy, failure = True, None
        for part in (self._watch_lag, self._forget, self._settle):
            try:
                is_tidy &= part()
            except (BrokerError, StorageError) as error:
                failure = error
        if failure is None:
            self._untidy.end()
        else:
            self._untidy.say(failure)
        self._tidy_at = monotonic() + (_TIDY if is_tidy and failure is None else _TIDY_SOON)

    def _watch_lag(self) -> bool:
        return self._lag.look(self.broker.outbox_lag())

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


def _forget(prune: Callable[[datetime, int], int], before: datetime) -> bool:
    """Forget in steps; False when there is more."""
    return any(prune(before, _PRUNE_STEP) < _PRUNE_STEP for _ in range(_PRUNE_STEPS))


def _named(row: Execution | DeadLetter) -> dict[str, Any]:
    if isinstance(row, DeadLetter):
        return {"job_id": row.job.id, "death": row.job.deaths, "type": row.job.type, "queue": row.job.queue}
    return {"job_id": row.job_id, "run": row.run, "type": row.type, "queue": row.queue}

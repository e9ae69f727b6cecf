"""Keeps what a worker holds: renews its leases, beats its heart, passes on cancels and progress.

Its thread never waits for a handler, so that a lease is kept whatever a handler does to the event loop or to its own thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.broker import HEARTBEAT, Consumer, RunningJob, WorkerInfo
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerError
from jobqueue_core.worker.holdings import Holdings
from jobqueue_core.worker.settlement import collect_report
from jobqueue_core.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from jobqueue_core.worker.run import Run

__all__ = ["Keeper"]

_log = logging.getLogger("jobqueue.worker")
_TICK: Final = 0.1
_BEAT_AGAIN: Final = 1.0
"""When to beat again if the broker did not hear it: two missed beats would be taken for the worker's death."""
_ASK: Final = 1.0
"""How often a running job's lease is renewed at least: the answer says whether somebody wants it cancelled."""


@attrs.define(kw_only=True)
class Keeper:
    """The keeper thread's work.

    Args:
        describe: Makes the worker's heartbeat, given what it runs.
        also: Called every tick, for the worker's own watch (recycling, summary).
    """

    broker: Consumer
    holdings: Holdings
    watchdog: Watchdog
    worker_id: str
    lease_for: timedelta
    describe: Callable[[Sequence[RunningJob]], WorkerInfo]
    also: Callable[[float], None]
    is_silent: bool = False
    """Whether the broker did not answer when it was asked last."""
    _stopped: threading.Event = attrs.field(factory=threading.Event)
    _beat_due: float = float("-inf")

    def run(self) -> None:
        """Keep until :meth:`stop`."""
        while not self._stopped.wait(_TICK):
            self.tick(monotonic())

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stopped.set()

    def tick(self, now: float) -> None:
        """Do whatever is due at *now*, by the monotonic clock."""
        held = self.holdings.leases()
        active = [run for run in held if run.started_at and not run.done]
        self._try(lambda: self._report(active))
        self._try(lambda: self._renew(held, now))
        self.holdings.trim()
        self._return_late(held, now)
        if now >= self._beat_due:
            self._beat_due = now + _BEAT_AGAIN
            self._try(lambda: self._beat(active, now))
        self.also(now)

    def beat_soon(self) -> None:
        """Beat at the next tick: there is news."""
        self._beat_due = 0.0

    def _beat(self, active: list[Run], now: float) -> bool:
        self.broker.beat(self.describe(_running(active)))
        self._beat_due = now + HEARTBEAT.total_seconds()
        return True

    def _facts(self, run: Run) -> dict[str, object]:
        return {**run.lease.job.log_facts(), "worker": self.worker_id}

    def _report(self, active: list[Run]) -> bool:
        collected = [(run, report) for run in active if (report := collect_report(run)) is not None]
        if collected:
            try:
                self.broker.report([report for _, report in collected], worker_id=self.worker_id)
            except BrokerError:
                for run, report in collected:
                    if run.context is not None:
                        run.context.put_back(report.progress, report.lines)
                raise
        return bool(collected)

    def _renew(self, held: list[Run], now: float) -> bool:
        third = self.lease_for.total_seconds() / 3
        due = [run for run in held if now - run.renewed_at >= (min(_ASK, third) if run.started_at and not run.done else third)]
        if not due:
            return False
        tokens = [run.lease.token for run in due]
        answer = self.broker.renew(tokens, worker_id=self.worker_id, lease_for=self.lease_for)
        kept = [token for token in tokens if token not in answer.lost]
        self.holdings.renewed(kept, sent_at=now, valid_until=now + self.lease_for.total_seconds())
        for run in self.holdings.lost(answer.lost):
            _log.warning("lease lost while running", extra={"fields": self._facts(run)})
            self.watchdog.end(run, "cancel", now)
        if answer.cancel_requested:
            for run in due:
                if run.lease.token in answer.cancel_requested and run.started_at and not run.done:
                    self.watchdog.end(run, "cancel", now)
        return True

    def _return_late(self, held: list[Run], now: float) -> None:
        third = self.lease_for.total_seconds() / 3
        late = [run for run in held if not run.started_at and not run.done and now - run.buffered_at >= third]
        if late:
            self.holdings.give_back(late)

    def _try(self, call: Callable[[], bool]) -> None:
        """Make a call that says whether the broker was asked at all: only its answer shows that it is back."""
        try:
            answered = call()
        except BrokerError as error:
            if not self.is_silent:
                lease = format_duration(self.lease_for)
                _log.warning("broker away: %s; nothing new is started beyond the leases held (%s)", error, lease)
            self.is_silent = True
        else:
            self.is_silent = self.is_silent and not answered


def _running(active: list[Run]) -> list[RunningJob]:
    # The broker's time of the lease is close enough, and needs no clock of this host.
    return [RunningJob(run.lease.job.id, run.lease.job.type, run.lease.job.started_at or run.lease.job.created_at) for run in active]

"""Carries outcomes out: hands them to the broker in batches until it has answered, then tells log and observers."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar, assert_never

from jobqueue_core.attempt import Cancelled, Completed, Dead, Outcome, Report, Retrying, Returned, Settlement, Snoozed
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.broker import Consumer
    from jobqueue_core.observers import Observers
    from jobqueue_core.worker.holdings import Holdings, Run

__all__ = ["Settler", "collect_report"]

T = TypeVar("T")

_log = logging.getLogger("jobqueue.worker")
_BATCH: Final = 500
_LINGER_BELOW: Final = 100
_LINGER: Final = 0.002
_IDLE: Final = 0.5
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 1.0


class Settler:
    """The settle thread's work.

    The first outcome after a pause goes at once; under load a moment is waited for more to share the round trip.
    """

    def __init__(
        self,
        broker: Consumer,
        holdings: Holdings,
        *,
        worker_id: str,
        observers: Observers,
        due_in: Callable[[timedelta], None] | None = None,
    ) -> None:
        self._broker = broker
        self._holdings = holdings
        self._worker_id = worker_id
        self._observers = observers
        self._due_in = due_in
        self._finished = threading.Event()
        self.counts: Counter[str] = Counter()
        """How many runs have ended how, for the summary."""

    def run(self) -> None:
        """Settle until :meth:`finish` and everything has been settled."""
        loaded = False
        while True:
            if not self._holdings.waiting_outcomes():
                loaded = False
                if self._finished.is_set():
                    return
                self._holdings.wait_for_outcomes(_IDLE)
            elif loaded and self._holdings.waiting_outcomes() < _LINGER_BELOW:
                time.sleep(_LINGER)
            self._settle(self._holdings.outcomes(_BATCH))
            self._release()
            loaded = True

    def finish(self) -> None:
        """Let :meth:`run` return once nothing is left to settle."""
        self._finished.set()
        self._holdings.ring_settler()

    def _settle(self, ended: list[tuple[Run, Outcome, float]]) -> None:
        if not ended:
            return
        settlements = [
            Settlement(
                lease=run.lease,
                outcome=outcome,
                max_retries=run.context.max_retries if run.context is not None else 0,
                duration=timedelta(seconds=seconds),
            )
            for run, outcome, seconds in ended
        ]
        reports = [report for run, _, _ in ended if (report := collect_report(run)) is not None]
        if reports:
            self._insist(lambda: self._broker.report(reports, worker_id=self._worker_id))
        begun = time.monotonic()
        answers = self._insist(lambda: self._broker.settle(settlements, worker_id=self._worker_id))
        if answers is None:
            answers = [False] * len(ended)
        self._holdings.settled([run for run, _, _ in ended], time.monotonic() - begun)
        for (run, outcome, seconds), kept in zip(ended, answers, strict=True):
            if kept:
                self._tell(run, outcome, seconds)
            else:
                self.counts["lost"] += 1
                _log.warning("outcome refused: the lease was lost", extra={"fields": _facts(run, seconds)})

    def _release(self) -> None:
        releases = self._holdings.releases()
        if releases:
            self._insist(lambda: self._broker.release(releases, worker_id=self._worker_id))

    def _insist(self, call: Callable[[], T]) -> T | None:
        """Call until the broker answers: an outcome is sent again until it is accepted or refused (DESIGN R3)."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return call()
            except BrokerError as error:
                if self._finished.is_set() and pause >= _LAST_PAUSE:
                    _log.error("gave up settling at shutdown: %s; what was held is reclaimed when its lease ends", error)
                    return None
                if pause == _FIRST_PAUSE:
                    _log.warning("cannot settle, trying again: %s", error)
                time.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)

    def _tell(self, run: Run, outcome: Outcome, seconds: float) -> None:
        observers, job = self._observers, run.lease.job
        if observers.finished is not None:
            observers.finished(job, outcome, timedelta(seconds=seconds))
        match outcome:
            case Completed():
                self.counts["completed"] += 1
            case Retrying():
                self.counts["failed"] += 1
                _log.info("retried", extra={"fields": {**_facts(run, seconds), "delay": format_duration(outcome.delay), "error": outcome.error}})
                if observers.retried is not None:
                    observers.retried(job, outcome.delay, outcome.error)
                self._wake_upkeep(outcome.delay)
            case Dead():
                self.counts["dead"] += 1
                _log.warning("dead", extra={"fields": {**_facts(run, seconds), "reason": outcome.reason.value, "error": outcome.error}})
                if observers.dead is not None:
                    observers.dead(job, outcome.reason.value, outcome.error)
            case Snoozed():
                self.counts["snoozed"] += 1
                self._wake_upkeep(outcome.delay)
            case Cancelled():
                self.counts["cancelled"] += 1
                _log.info("cancelled", extra={"fields": _facts(run, seconds)})
            case Returned():
                self.counts["returned"] += 1
                _log.info("returned", extra={"fields": _facts(run, seconds)})
            case _:
                assert_never(outcome)

    def _wake_upkeep(self, delay: timedelta) -> None:
        if self._due_in is not None:
            self._due_in(delay)


def collect_report(run: Run) -> Report | None:
    """What a run has to say for itself since it was last asked."""
    news = run.context.take_report() if run.context is not None else None
    return None if news is None else Report(lease=run.lease, progress=news[0], lines=news[1])


def _facts(run: Run, seconds: float) -> dict[str, object]:
    job = run.lease.job
    return {
        "job_id": job.id,
        "type": job.type,
        "queue": job.queue,
        "attempt": job.attempt,
        "run": job.run,
        "worker": job.worker_id,
        "duration_ms": round(seconds * 1000, 3),
    }

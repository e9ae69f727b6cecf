"""Carries outcomes out: hands them to the broker in batches until it has answered, then tells log and observers."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar, assert_never

from jobqueue_core.attempt import Cancelled, Completed, Crashed, Dead, Outcome, Report, Retrying, Returned, Settlement, Snoozed
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerError
from jobqueue_core.job import DeadReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.broker import Consumer
    from jobqueue_core.observers import Observers
    from jobqueue_core.worker.holdings import Holdings
    from jobqueue_core.worker.run import Run

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
        self._releasing = 0
        """Jobs that are being given back."""
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

    def left_behind(self, lease: timedelta) -> int:
        """How many jobs could not be settled or given back, to be asked at the very end; says so in the log."""
        jobs = len(self._holdings.leases()) + self._releasing
        if jobs:
            facts = {"worker": self._worker_id, "jobs": jobs, "within": format_duration(lease)}
            _log.error("jobs left behind: the broker took no outcomes; they run again when their leases end", extra={"fields": facts})
        return jobs

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
            return
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
            self._releasing = len(releases)
            if self._insist(lambda: self._broker.release(releases, worker_id=self._worker_id)) is not None:
                self._releasing = 0

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
        if self._observers.finished is not None:
            self._observers.finished(run.lease.job, outcome, timedelta(seconds=seconds))
        match outcome:
            case Completed():
                self.counts["completed"] += 1
                if _log.isEnabledFor(logging.DEBUG):
                    _log.debug("completed", extra={"fields": _facts(run, seconds)})
            case Retrying():
                self._tell_retry(run, outcome, seconds)
            case Dead():
                self._tell_death(run, outcome.reason, {"error": outcome.error}, seconds)
            case Crashed():
                self._tell_crash(run, outcome, seconds)
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

    def _tell_retry(self, run: Run, outcome: Retrying, seconds: float) -> None:
        self.counts["failed"] += 1
        _log.info("retried", extra={"fields": {**_facts(run, seconds), "delay": format_duration(outcome.delay), "error": outcome.error}})
        if self._observers.retried is not None:
            self._observers.retried(run.lease.job, outcome.delay, outcome.error)
        self._wake_upkeep(outcome.delay)

    def _tell_death(self, run: Run, reason: DeadReason, why: dict[str, object], seconds: float) -> None:
        self.counts["dead"] += 1
        event = "worker_lost" if reason is DeadReason.WORKER_LOST else "dead"
        _log.warning(event, extra={"fields": {**_facts(run, seconds), "reason": reason.value, **why}})
        if self._observers.dead is not None:
            self._observers.dead(run.lease.job, reason.value, str(why["error"]))

    def _tell_crash(self, run: Run, outcome: Crashed, seconds: float) -> None:
        self.counts["crashed"] += 1
        crashes = run.lease.job.crashes + 1
        why: dict[str, object] = {"crashes": crashes, "error": outcome.error}
        if crashes < outcome.max_crashes:
            _log.warning("crashed", extra={"fields": {**_facts(run, seconds), **why}})
        else:
            self._tell_death(run, DeadReason.WORKER_LOST, why, seconds)

    def _wake_upkeep(self, delay: timedelta) -> None:
        if self._due_in is not None:
            self._due_in(delay)


def collect_report(run: Run) -> Report | None:
    """What a run has to say for itself since it was last asked."""
    news = run.context.take_report() if run.context is not None else None
    return None if news is None else Report(lease=run.lease, progress=news[0], lines=news[1])


def _facts(run: Run, seconds: float) -> dict[str, object]:
    job = run.lease.job
    return {**job.log_facts(), "worker": job.worker_id, "duration_ms": round(seconds * 1000, 3)}

"""Takes jobs in: the lease thread asks for as many as there is room for, and sends back what this worker cannot run."""

from __future__ import annotations

import logging
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.attempt import Dead, Lease, Release
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerError
from jobqueue_core.job import DeadReason
from jobqueue_core.worker.plan import Plan
from jobqueue_core.worker.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobqueue_core.broker import Consumer
    from jobqueue_core.service import Stop
    from jobqueue_core.worker.holdings import Holdings

__all__ = ["Intake"]

_log = logging.getLogger("jobqueue.worker")
_WAIT_SHARE: Final = 0.15
"""How much of a lease may pass while the broker waits for work: a lease counts from when it was asked for."""
_FIRST_PARK: Final = timedelta(seconds=15)
_LAST_PARK: Final = timedelta(minutes=5)
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 1.0


class Intake:
    """The lease thread's work.

    Args:
        broker: Where from.
        holdings: Where to.
        plans: The handlers, by type and alias.
        queues: Names, most urgent first.
        worker_id: Who holds the leases.
        lease_for: For how long.
        poll_interval: How long to wait for work at most before asking again.
        unknown_type_after: A job whose type nobody serves for so long is dead.
    """

    def __init__(
        self,
        broker: Consumer,
        holdings: Holdings,
        plans: Mapping[str, Plan],
        *,
        queues: Sequence[str],
        worker_id: str,
        lease_for: timedelta,
        poll_interval: timedelta,
        unknown_type_after: timedelta,
    ) -> None:
        self._broker = broker
        self._holdings = holdings
        self._plans = plans
        self._queues = queues
        self._worker_id = worker_id
        self._lease_for = lease_for
        self._lease_seconds = lease_for.total_seconds()
        self._wait = min(poll_interval, lease_for * _WAIT_SHARE)
        self._poll_seconds = poll_interval.total_seconds()
        self._unknown_type_after = unknown_type_after

    def run(self, stop: Stop) -> None:
        """Lease until *stop* rises. A broker that is away is asked again, for ever."""
        pause = _FIRST_PAUSE
        while not stop.level:
            want, suspects = self._holdings.room()
            if not want:
                self._holdings.wait_for_room(self._poll_seconds)
                continue
            sent = monotonic()
            try:
                leases = self._broker.lease(
                    self._queues, want, worker_id=self._worker_id, lease_for=self._lease_for, wait=self._wait, suspects=suspects
                )
            except BrokerError as error:
                if pause == _FIRST_PAUSE:
                    _log.warning("cannot lease, trying again: %s", error)
                stop.wait(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            if pause != _FIRST_PAUSE:
                _log.info("broker is back")
            pause = _FIRST_PAUSE
            runs = [run for lease in leases if (run := self._admit(lease, sent)) is not None]
            if runs:
                self._holdings.add(runs)

    def _admit(self, lease: Lease, sent: float) -> Run | None:
        plan = self._plans.get(lease.job.type)
        if plan is None:
            self._park(lease, sent)
            return None
        return Run(lease, plan, sent_at=sent, valid_until=sent + self._lease_seconds)

    def _park(self, lease: Lease, sent: float) -> None:
        """Put off a job whose type has no handler here: 15 s, doubling to 5 min, dead after ``unknown_type_after``."""
        job = lease.job
        now = job.started_at or job.created_at
        waited = timedelta(0) if job.unknown_since is None else now - job.unknown_since
        if waited >= self._unknown_type_after:
            run = Run(lease, Plan.missing(job.type), sent_at=sent, valid_until=sent + self._lease_seconds)
            error = f"no worker has had a handler for {job.type!r} since {job.unknown_since}"
            self._holdings.settle_unstarted(run, Dead(reason=DeadReason.NO_HANDLER, error=error))
            return
        # After n delays of 15 s * 2**k the job has waited 15 s * (2**n - 1): what it has waited tells the next delay.
        delay = min(_FIRST_PARK + waited, _LAST_PARK)
        _log.info("no handler", extra={"fields": {**job.log_facts(), "worker": self._worker_id, "delay": format_duration(delay)}})
        self._holdings.refuse(Release(lease=lease, delay=delay, unknown_type=True))

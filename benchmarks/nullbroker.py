"""A broker that costs nothing: leases lie ready in memory, and settlements are concluded and dropped.

What a worker costs with it is the worker's own share: the core's threads, lock, contexts, outcomes and ``lifecycle.conclude``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobqueue_core import lifecycle
from jobqueue_core.attempt import Lease, Release, Settlement
from jobqueue_core.broker import Reclaimed, Renewal

if TYPE_CHECKING:
    from jobqueue_core.job import NewJob

__all__ = ["NullBroker"]


class NullBroker:
    """As much of a broker as a worker meets."""

    def __init__(self, jobs: Sequence[NewJob]) -> None:
        now = datetime.now(UTC)
        self._leases = [Lease(lifecycle.begin(lifecycle.accept(new, now), "worker", now), f"sd {number}-0") for number, new in enumerate(jobs)]
        self._position = 0
        self._interrupted = threading.Event()

    def lease(self, _queues: Sequence[str], limit: int, *, wait: timedelta, **_: Any) -> list[Lease]:
        taken = self._leases[self._position : self._position + limit]
        self._position += len(taken)
        if not taken:
            self._interrupted.wait(wait.total_seconds())
            self._interrupted.clear()
        return taken

    def interrupt(self) -> None:
        self._interrupted.set()

    def settle(self, settlements: Sequence[Settlement], **_: Any) -> list[bool]:
        now = datetime.now(UTC)
        for one in settlements:
            lifecycle.conclude(one.lease.job, one.outcome, now=now, duration=one.duration, cancel_requested=False, max_retries=one.max_retries)
        return [True] * len(settlements)

    def release(self, releases: Sequence[Release], **_: Any) -> list[bool]:
        self._leases += [one.lease for one in releases]
        return [True] * len(releases)

    def renew(self, _tokens: Sequence[str], **_: Any) -> Renewal:
        return Renewal(lost=frozenset(), cancel_requested=frozenset())

    def report(self, _reports: Sequence[Any], **_: Any) -> None: ...

    def beat(self, _worker: Any) -> None: ...

    def leave(self, _worker_id: str) -> None: ...

    def promote(self, _limit: int) -> int:
        return 0

    def reclaim(self, _limit: int, **_: Any) -> Reclaimed:
        return Reclaimed()

    def prune(self, _limit: int) -> int:
        return 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def types(self) -> list[Any]:
        return []

    def close(self) -> None: ...

"""A broker that tells when its first job is asked for and when its last one is settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqueue_core.attempt import Lease, Settlement

__all__ = ["WatchedBroker"]


class WatchedBroker:
    """Passes everything on to another broker.

    Args:
        broker: Who does the work.
        jobs: How many settled jobs make the end.
        on_start: Called when the first lease is asked for.
        on_settled: Called with each batch that was settled, and whether it was the last.
    """

    def __init__(self, broker: Any, jobs: int, *, on_start: Callable[[], None], on_settled: Callable[[Sequence[Settlement], bool], None]) -> None:
        self._broker = broker
        self._left = jobs
        self._on_start: Callable[[], None] | None = on_start
        self._on_settled = on_settled
        self.leases = 0
        self.settles = 0

    def lease(self, queues: Sequence[str], limit: int, **options: Any) -> list[Lease]:
        if self._on_start is not None:
            self._on_start()
            self._on_start = None
        self.leases += 1
        leases: list[Lease] = self._broker.lease(queues, limit, **options)
        return leases

    def settle(self, settlements: Sequence[Settlement], *, worker_id: str) -> list[bool]:
        answers: list[bool] = self._broker.settle(settlements, worker_id=worker_id)
        self.settles += 1
        self._left -= sum(answers)
        self._on_settled(settlements, self._left <= 0)
        return answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

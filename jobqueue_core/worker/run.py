"""One leased job on its way through the worker."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Task

    from jobqueue_core.attempt import Lease
    from jobqueue_core.context import JobContext
    from jobqueue_core.worker.plan import Plan

__all__ = ["Run"]


class Run:
    """One leased job on its way through the worker."""

    __slots__ = (
        "buffered_at",
        "context",
        "done",
        "forced",
        "forced_at",
        "lease",
        "plan",
        "renewed_at",
        "slot",
        "started_at",
        "stopped_at",
        "task",
        "valid_until",
        "written_off",
    )

    def __init__(self, lease: Lease, plan: Plan, *, sent_at: float, valid_until: float) -> None:
        self.lease = lease
        self.plan = plan
        self.buffered_at = sent_at
        self.renewed_at = sent_at
        """When the last lease or renewal was sent, by the monotonic clock."""
        self.valid_until = valid_until
        """Until when the lease surely holds; nothing is started beyond it (DESIGN R3)."""
        self.context: JobContext | None = None
        self.started_at = 0.0
        self.stopped_at = 0.0
        """When its handler was asked to stop."""
        self.forced_at = 0.0
        """When its end was first tried to be forced."""
        self.forced = False
        """Whether that has been done."""
        self.slot = -1
        self.task: Task[None] | None = None
        self.done = False
        self.written_off = False

    @property
    def deadline(self) -> float:
        """When its handler's time is over, by the monotonic clock; infinity while it has not begun."""
        return inf if self.context is None else self.context.deadline_at

"""The runs of a schedule: the jobs it has made, and what became of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Self

import attrs

from jobqueue_core.job import Job, JobState, rfc3339
from jobqueue_core.scheduling.jobs import TICK

if TYPE_CHECKING:
    from jobqueue_core.objects import ScheduleRunObject
    from jobqueue_core.storage import Tick

__all__ = ["ScheduleRun"]


@attrs.frozen(kw_only=True)
class ScheduleRun:
    """One job that a schedule has made, and what became of it."""

    schedule: str
    due: datetime
    """The tick; for one that was run by hand, when that was asked."""
    job_id: str
    manual: bool
    sent: bool
    """False: claimed, and not known to be with the broker yet."""
    state: JobState | None
    """None: neither the broker nor history knows the job, any more or yet."""
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None

    @classmethod
    def of(cls, tick: Tick, job: Job | None) -> Self:
        """The run that *tick* stands for, given what is known of its job."""
        return cls(
            schedule=tick.schedule,
            due=tick.due,
            job_id=tick.job.id,
            manual=TICK not in tick.job.metadata,
            sent=tick.sent,
            state=None if job is None else job.state,
            started_at=None if job is None else job.started_at,
            finished_at=None if job is None else job.completed_at,
            error=None if job is None else job.last_error,
        )

    def to_dict(self) -> ScheduleRunObject:
        """The run as ``--json`` and the REST API show it."""
        return {
            "schedule": self.schedule,
            "due": rfc3339(self.due),
            "job_id": self.job_id,
            "manual": self.manual,
            "sent": self.sent,
            "state": self.state,
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(self.finished_at),
            "error": self.error,
        }

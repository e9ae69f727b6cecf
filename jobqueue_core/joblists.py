"""Lists of jobs: live ones as the broker has them, finished ones as history remembers them, and no job twice.

Two sources are walked side by side: what the broker has, and the ends of jobs in history (``EndFilter``) before an instant at which history was
complete. A job is history's if it has an end there, else it is the broker's. Nothing that happens later changes this, so it does not matter which
source is asked when, nor what becomes of jobs meanwhile: whether a job may be listed is asked of the one fact, how it is shown is as it is now.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import attrs
import msgspec

from jobqueue_core.broker import Broker, JobFilter, JobPage
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Job, JobState
from jobqueue_core.storage import EndFilter, History, state_at_end

if TYPE_CHECKING:
    from jobqueue_core.attempt import Execution

__all__ = ["archived", "list_jobs"]

_EXAMINED: Final = 5_000
"""How many of the broker's jobs to look at in a call, and a step more where a page does not fit: less than 10,000 in any case."""
_PORTION: Final = 500
"""How many at once; and in all, while history has enough for the page."""
_HISTORY_PAGES: Final = 10
_SETTLING: Final = timedelta(seconds=10)
"""How much longer the broker is asked for the jobs that ended last than its outbox demands: shards of a broker may differ in their clocks. It keeps
finished jobs for a minute at least."""


class _Walk(msgspec.Struct, frozen=True, array_like=True):
    """How far a walk has come: the cursors of both sources, empty at the beginning, None at the end."""

    until: Annotated[datetime, msgspec.Meta(tz=True)]
    """Ends before it are history's."""
    broker: str | None = ""
    history: str | None = ""
    is_sparse: bool = False
    """Most of the broker's jobs are history's here, so that many should be asked for at once."""


def list_jobs(broker: Broker, history: History | None, wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
    """List jobs: live ones newest first, then finished ones, those that ended last first; so within a page, and roughly from page to page.

    Examines at most 10,000 of the broker's jobs a call, and ten pages of history, so that a page may be short and still have a *next*.

    Args:
        broker: Has the jobs that live, and those that ended lately.
        history: Remembers those that ended; None lists what the broker has.
        wanted: Which to list. When it names a state of live jobs, history is not asked.
        cursor: Where a former page ended.
        limit: Most jobs to list.

    Raises:
        InvalidJob: The cursor is not one that a former page gave (field ``cursor``).
        BrokerError: The broker failed.
        StorageError: History did, and the page would lack something.
    """
    if history is None or (wanted.state is not None and not wanted.state.finished):
        return broker.jobs(wanted, cursor=cursor, limit=limit)
    walk = _begin(broker) if cursor is None else _read(cursor)
    page = _Page(broker=broker, history=history, wanted=wanted, room=limit, walk=walk)
    page.take_from_broker()
    page.take_from_history()
    at_end = page.walk.broker is None and page.walk.history is None
    return JobPage(jobs=_in_order(page.jobs), next=None if at_end else _write(page.walk))


def archived(last: Execution) -> Job:
    """A job as its last execution remembers it: finished, without payload and result."""
    return Job(
        id=last.job_id,
        type=last.type,
        payload_json=b"",
        queue=last.queue,
        priority=last.priority,
        # A last run after which the job should have come again, and did not: it can only have been cancelled while it waited.
        state=state_at_end(last) or JobState.CANCELLED,
        created_at=last.created_at or last.finished_at,
        scheduled_at=last.scheduled_at,
        started_at=last.started_at,
        completed_at=last.finished_at,
        max_retries=last.max_retries,
        retry_count=last.attempt - 1,
        run=last.run,
        crashes=last.crashes,
        deaths=last.deaths,
        last_error=last.error,
        dead_reason=last.dead_reason,
        metadata=last.metadata,
        worker_id=last.worker_id,
        archived=True,
    )


@attrs.define(kw_only=True)
class _Page:
    """The page that is being made."""

    broker: Broker
    history: History
    wanted: JobFilter
    room: int
    walk: _Walk
    jobs: list[Job] = attrs.field(factory=list)

    @property
    def _ends(self) -> EndFilter:
        return EndFilter(until=self.walk.until, type=self.wanted.type, queue=self.wanted.queue, state=self.wanted.state)

    def take_from_broker(self) -> None:
        """Go through the broker's jobs; take those that are not history's."""
        budget = _EXAMINED if self.walk.history is None else _PORTION
        # A broker may pass over as many as it may to find those of a filter: of such it is asked for no more than there is room for, once.
        portion = _PORTION if self.wanted == JobFilter() else self.room
        size = portion if self.walk.is_sparse else self.room
        while self.room and budget > 0 and self.walk.broker is not None:
            found = self.broker.jobs(self.wanted, cursor=self.walk.broker or None, limit=size)
            own = self._without_ended(found.jobs)
            if len(own) > self.room:
                size = self.room
                continue
            is_sparse = len(own) * 2 < len(found.jobs)
            self._take(own, msgspec.structs.replace(self.walk, broker=found.next, is_sparse=is_sparse))
            # How many a broker has passed over to find these is not known: perhaps as many as it may.
            budget -= len(found.jobs) if self.wanted == JobFilter() else _EXAMINED
            size = portion if is_sparse else self.room

    def take_from_history(self) -> None:
        """Go through the ends of jobs; take those jobs, as they are now."""
        for _ in range(_HISTORY_PAGES):
            if not self.room or self.walk.history is None:
                return
            found = self.history.ends(self._ends, cursor=self.walk.history or None, limit=self.room)
            self._take(self._as_they_are(found.executions), msgspec.structs.replace(self.walk, history=found.next))

    def _take(self, jobs: Sequence[Job], walk: _Walk) -> None:
        self.jobs += jobs
        self.room -= len(jobs)
        self.walk = walk

    def _without_ended(self, jobs: Sequence[Job]) -> list[Job]:
        asked = [(job.id, since) for job in jobs if (since := self._may_have_ended_since(job)) is not None]
        answers = self.history.have_ended(asked, self._ends) if asked else []
        ended = {job_id for (job_id, _), has_ended in zip(asked, answers, strict=True) if has_ended}
        return [job for job in jobs if job.id not in ended]

    def _as_they_are(self, ends: Sequence[Execution]) -> list[Job]:
        known = self.broker.get([end.job_id for end in ends]) if ends else []
        return [job for end, now in zip(ends, known, strict=True) if (job := self._as_it_is(end, now)) is not None]

    def _as_it_is(self, end: Execution, now: Job | None) -> Job | None:
        if now is None:
            return archived(end)
        since = self._may_have_ended_since(now)
        if since is None or end.finished_at < since:
            # Another job, which was given the id of one that was forgotten, or one whose end the broker has forgotten; it is the broker's.
            return None
        return now if self.wanted.state in (None, now.state) else None

    def _may_have_ended_since(self, job: Job) -> datetime | None:
        """Since when history may have an end of *job* before ``until``; None when it has none."""
        if job.deaths > (job.state is JobState.DEAD):
            return job.created_at
        if job.state.finished and job.completed_at is not None and job.completed_at < self.walk.until:
            return job.completed_at
        return None


def _in_order(jobs: Sequence[Job]) -> tuple[Job, ...]:
    finished = [job for job in jobs if job.state.finished]
    finished.sort(key=lambda job: (job.completed_at or job.created_at, job.id), reverse=True)
    return (*(job for job in jobs if not job.state.finished), *finished)


# Cursors -------------------------------------------------------------------------------------------------------------------------------


def _begin(broker: Broker) -> _Walk:
    # History has all that is not in the outbox. The time first, then how long the oldest has waited since: so neither is too late.
    now = broker.now()
    return _Walk(until=now - broker.outbox_lag().oldest_age - _SETTLING)


def _write(walk: _Walk) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(walk)).decode().rstrip("=")


def _read(cursor: str) -> _Walk:
    """What :func:`_write` wrote.

    Raises:
        InvalidJob: It is nothing of the kind.
    """
    try:
        return msgspec.json.decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True), type=_Walk)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list") from error

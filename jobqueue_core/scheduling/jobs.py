"""The jobs of a schedule: how a tick becomes one, and whether the last one still runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from jobqueue_core.job import rfc3339
from jobqueue_core.requests import JobOptions
from jobqueue_core.storage import Schedule, Tick

if TYPE_CHECKING:
    from jobqueue_core.client import JobQueue
    from jobqueue_core.job import NewJob
    from jobqueue_core.storage import Schedules

__all__ = ["RESEND_AFTER", "SCHEDULE", "TICK", "make_manual_tick", "make_tick", "send_ticks", "unfinished"]

SCHEDULE: Final = "jobqueue.schedule"
"""The key of a job's metadata that names the schedule it came from."""
TICK: Final = "jobqueue.tick"
"""The key of the tick it came from; a job that was made by hand has none."""

RESEND_AFTER: Final = timedelta(seconds=5)
"""A tick that was claimed so long ago and is not marked as sent is sent again, by anyone."""
_WINDOW: Final = timedelta(seconds=30)
"""How long after it was read a tick may be sent. Shorter than the least time for which a broker remembers a finished job, one minute: whoever was
frozen after the claim finds its job there, or comes too late (DESIGN R21)."""

_LATEST: Final = 10
"""Among how many ticks to look for the last one that was claimed: by when they were due, which is another order after a run by hand."""


def make_tick(queue: JobQueue, schedule: Schedule, due: datetime, *, now: datetime) -> Tick:
    """The tick of *schedule* at *due*, with the job it is to become: its id, its jitter and where it goes are settled here, once.

    Raises:
        InvalidJob: No such job can be made.
        BrokerUnavailable: The broker cannot say which queue the type belongs to.
    """
    jitter = schedule.jitter * random.random() if schedule.jitter else timedelta(0)  # noqa: S311 - it spreads load, and hides nothing
    job = _make_job(queue, schedule, due + jitter, {SCHEDULE: schedule.name, TICK: str(rfc3339(due))})
    return Tick(schedule=schedule.name, due=due, job=job, claimed_at=now)


def make_manual_tick(queue: JobQueue, schedule: Schedule, *, now: datetime) -> Tick:
    """A tick of *schedule* that somebody has asked for at *now*; raises as :func:`make_tick`."""
    # Beside the whole second, so that it takes the place of no other: neither of the timetable's nor of another that is asked for just now.
    due = now + timedelta(microseconds=random.randint(1, 999))  # noqa: S311 - it hides nothing
    due = due if due.microsecond else due + timedelta(microseconds=1)
    return Tick(schedule=schedule.name, due=due, job=_make_job(queue, schedule, now, {SCHEDULE: schedule.name}), claimed_at=now)


def _make_job(queue: JobQueue, schedule: Schedule, at: datetime, metadata: dict[str, str]) -> NewJob:
    options = JobOptions(
        queue=schedule.queue,
        priority=schedule.priority,
        scheduled_at=at,
        max_retries=schedule.max_retries,
        timeout=schedule.timeout,
        metadata=metadata,
    )
    # The payload stays as it was written, to the byte.
    return replace(queue.build(schedule.type, None, options, ours=True), payload_json=schedule.payload_json)


def send_ticks(queue: JobQueue, storage: Schedules, ticks: Sequence[Tick], *, now: datetime) -> list[Tick]:
    """Enqueue the jobs of claimed ticks, and mark those as sent that the broker has; says which.

    Args:
        queue: Where to.
        storage: Where the ticks are marked.
        ticks: Claimed or read at *now*.
        now: The broker's time then.

    Raises:
        BrokerUnavailable, QueueFull: They stay to be sent again, though some may have arrived.
    """
    answers = queue.send([one.job for one in ticks], not_after=now + _WINDOW)
    sent = [tick for tick, answer in zip(ticks, answers, strict=True) if answer.status in ("created", "existing")]
    storage.mark_sent([(one.schedule, one.due) for one in sent])
    return sent


def unfinished(queue: JobQueue, storage: Schedules, schedules: Iterable[Schedule]) -> frozenset[str]:
    """The names of those of *schedules* whose last job has not ended, or is still on its way to the broker."""
    last = {one.name: one.last_job_id for one in schedules if one.last_job_id is not None}
    running, unknown = _known_to(queue, last)
    on_their_way = {name for name in unknown if any(not tick.sent and tick.job.id == last[name] for tick in storage.ticks(name, _LATEST))}
    # What was sent between the two questions is known now.
    arrived, _unknown = _known_to(queue, {name: last[name] for name in unknown - on_their_way})
    return frozenset(running | on_their_way | arrived)


def _known_to(queue: JobQueue, jobs: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """The names of those of *jobs* (name -> id) that the broker knows and that have not ended, and of those it does not know."""
    found = dict(zip(jobs, queue.broker.get(list(jobs.values())) if jobs else [], strict=True))
    return (
        {name for name, job in found.items() if job is not None and not job.state.finished},
        {name for name, job in found.items() if job is None},
    )

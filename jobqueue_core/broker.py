"""The Broker: carries jobs to workers and knows their state.

A broker is one object that plays all the roles below; each caller is typed against the role it needs. To write one, implement every method
as documented and run the conformance suite against it (``jobqueue_core.testing.broker_suite``; docs/writing-a-plugin.md shows how).

What holds for all of them:

* **Batches.** One call carries many jobs and costs one round trip; answers come in the order of the arguments.
* **Atomic.** A call that changes a job changes everything about it in one step: state, counters, outbox, unique key. A crash in between two
  calls is harmless; there is no in between within one.
* **Repeatable.** A caller that got no answer (``BrokerUnavailable``) may send the same call again.
* **Threads.** Any method may be called from any thread, several at once.
* **The broker's clock decides.** Durations in arguments become instants inside the call; ``now()`` reads that clock.
* **The rules are shared.** What an event makes of a job is computed by ``jobqueue_core.lifecycle``; a broker stores the result.
* **Errors.** ``BrokerUnavailable`` when the server does not answer within 5 s, ``QueueFull`` when it has no room, ``IncompatibleData`` when a
  record is newer than this release. Nothing else for what a server or network can do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import attrs
import msgspec

from jobqueue_core.attempt import DeadLetter, Execution, Lease, LogLine, Release, Report, Settlement
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Job, JobState, NewJob, Priority, rfc3339

if TYPE_CHECKING:
    from jobqueue_core.objects import EnqueuedObject, QueueObject, TypeObject, WorkerObject

__all__ = [
    "HEARTBEAT",
    "PROTOCOL",
    "WORKER_SHOWN",
    "Broker",
    "BrokerPlugin",
    "Consumer",
    "Control",
    "Enqueued",
    "Event",
    "EventPage",
    "Inspection",
    "JobFilter",
    "JobPage",
    "Outbox",
    "OutboxBatch",
    "OutboxKind",
    "OutboxLag",
    "Producer",
    "QueueStats",
    "Reclaimed",
    "Renewal",
    "Requeued",
    "RunningJob",
    "TypeInfo",
    "Upkeep",
    "WorkerInfo",
]

PROTOCOL: Final = 1
"""The version of the protocols in this file and ``storage.py``; a broker states the one it implements and assembly checks it."""


HEARTBEAT: Final = timedelta(seconds=5)
"""How often a worker beats."""
WORKER_SHOWN: Final = 2 * HEARTBEAT
"""How long a worker is shown after it last beat: one that dies together with whoever would have told disappears within this time."""


# What producers ask for and get --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Enqueued:
    """What became of one job of an ``enqueue``.

    ``created``: it is stored. ``existing``: *job* was there before, by its id, unique key or idempotency key. ``refused``: *problem* says why
    (``idempotency_conflict``: the key was used with another body, *job* is that one; ``late``: *not_after* had passed; ``id_conflict``: another job,
    of another type or queue, has this id). ``unknown``: the client got no answer for it; sending it again makes no second job.
    """

    status: Literal["created", "existing", "refused", "unknown"]
    job: Job | None = None
    problem: str | None = None
    job_id: str | None = None
    """Under which id it was sent, where no job is given and the client knows it."""

    def to_dict(self) -> EnqueuedObject:
        """The answer as the REST API shows it."""
        return {
            "status": self.status,
            "id": self.job_id if self.job is None else self.job.id,
            "job": None if self.job is None else self.job.to_dict(),
            "problem": self.problem,
        }


Requeued = Literal["requeued", "already", "completed", "key_taken", "late"]
"""What became of a dead letter retry: done; the job is live again or has died again since; it has completed since; another job holds its unique
key; *not_after* had passed."""


class Producer(Protocol):
    """Takes jobs in."""

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        """Store *jobs*, all or, when it raises, perhaps some.

        A job whose id is known (live or finished and not yet forgotten) is ``existing``. So is one whose unique key is held by an unfinished
        job of the same queue, or whose ``unique_for`` has not passed since the holder was enqueued (*job* is the holder, even if finished).
        All keys of one job are checked before anything of it is written. Within the call, earlier jobs hold keys against later ones.

        Args:
            jobs: What to store; checked by the caller.
            not_after: Refuse (``late``) when the broker's clock is past it.

        Raises:
            BrokerUnavailable: No answer; ``maybe_accepted`` says whether some may be stored.
            QueueFull: No room; nothing was stored.
        """

    def requeue(self, job: Job, *, not_after: datetime | None = None) -> Requeued:
        """Make a dead job live again (DESIGN R13).

        Done when the broker's record of the job is dead with the same ``deaths`` as *job*, or there is no record. *job* is taken from the dead
        letter, perhaps with another payload; ``lifecycle.requeue`` says what becomes of it. A unique key is taken again.

        Raises:
            BrokerUnavailable: No answer; calling again finds out (``already``).
            QueueFull: No room; nothing was stored.
        """


# What workers ask for and get ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Renewal:
    """The answer to a renewal: tokens that hold nothing any more, and tokens whose job someone asked to cancel."""

    lost: frozenset[str]
    cancel_requested: frozenset[str]


class RunningJob(msgspec.Struct, frozen=True):
    """What a worker is running, as it last said."""

    job_id: str
    type: str
    started_at: datetime


class TypeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A job type that running workers serve: where its jobs go unless told otherwise, and what its payload looks like."""

    type: str
    queue: str
    priority: Priority
    description: str = ""
    payload_schema: dict[str, Any] | None = None
    """JSON Schema 2020-12 of the payload; None when the handler's annotation says nothing."""
    aliases: tuple[str, ...] = ()
    last_seen: datetime | None = None

    def to_dict(self) -> TypeObject:
        """The type as ``--json`` and the REST API show it."""
        return {
            "type": self.type,
            "queue": self.queue,
            "priority": self.priority,
            "description": self.description,
            "payload_schema": self.payload_schema,
            "aliases": list(self.aliases),
            "last_seen": rfc3339(self.last_seen),
        }


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process. *id* is unique to the process; *name* is a label that several may share."""

    id: str
    name: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    concurrency: int
    lease: timedelta
    started_at: datetime
    types: tuple[TypeInfo, ...] = ()
    running: tuple[RunningJob, ...] = ()
    stopping: bool = False
    last_beat: datetime | None = None

    def to_dict(self) -> WorkerObject:
        """The worker as ``--json`` and the REST API show it."""
        return {
            "id": self.id,
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
            "version": self.version,
            "queues": list(self.queues),
            "concurrency": self.concurrency,
            "lease": format_duration(self.lease),
            "started_at": rfc3339(self.started_at),
            "last_beat": rfc3339(self.last_beat),
            "stopping": self.stopping,
            "types": [one.type for one in self.types],
            "running": [{"job_id": one.job_id, "type": one.type, "started_at": rfc3339(one.started_at)} for one in self.running],
        }


class Consumer(Protocol):
    """Hands jobs out and takes outcomes back."""

    def lease(self, queues: Sequence[str], limit: int, *, worker_id: str, lease_for: timedelta, wait: timedelta, suspects: int) -> list[Lease]:
        """Take up to *limit* due jobs, most urgent first, and hold them under a lease for *lease_for*.

        Order: queues as given, within a queue critical > high > medium > low, within a priority jobs given back or reclaimed before those
        never started, then as they became ready. Paused queues give nothing. A job past its ``expires_at`` is cancelled instead
        (``lifecycle.expire``). A due ``scheduled`` or ``retrying`` job becomes available by ``promote`` within a second of its time, never before.

        Args:
            queues: Names; ``"*"`` means every other queue, after those named.
            limit: Most jobs to take; at least one.
            worker_id: Who holds them.
            lease_for: How long, unless renewed; at least a second.
            wait: How long to wait for a first job; zero returns at once. New work ends the wait within 20 ms.
            suspects: Most jobs with ``crashes`` above zero to take. A broker that cannot choose may hand out more; the worker gives them back.

        Raises:
            BrokerUnavailable: No answer. Nothing was taken, or its lease will lapse.
        """

    def interrupt(self) -> None:
        """Make every ``lease`` that waits in this process return at once, and the next one too if none waits; from any thread."""

    def renew(self, tokens: Sequence[str], *, worker_id: str, lease_for: timedelta) -> Renewal:
        """Hold each lease for *lease_for* from now, also one whose time has passed but which nobody has reclaimed (DESIGN R9)."""

    def settle(self, settlements: Sequence[Settlement], *, worker_id: str) -> list[bool]:
        """Make outcomes durable and give up their leases; each in one atomic step with its execution, dead letter and counters.

        Returns:
            For each, True when it was carried out now or by an earlier call with the same settlement; False when the lease was lost, and then
            nothing was written.
        """

    def release(self, releases: Sequence[Release], *, worker_id: str) -> list[bool]:
        """Give back jobs that were not started (``lifecycle.give_back``, ``lifecycle.park``); answers as ``settle``."""

    def report(self, reports: Sequence[Report], *, worker_id: str) -> None:
        """Store progress and log lines of running jobs. Of a lost lease nothing is stored. A job keeps its latest 1,000 lines."""

    def beat(self, worker: WorkerInfo) -> None:
        """Say that *worker* lives, and what it runs. A worker that has not done so for ``WORKER_SHOWN`` is not shown any more."""

    def leave(self, worker_id: str) -> None:
        """Forget a worker that has stopped and holds nothing."""


# What keeps it going -------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Reclaimed:
    """What a reclaim did with jobs whose worker was lost."""

    requeued: int = 0
    dead: int = 0
    cancelled: int = 0
    dead_letters: tuple[DeadLetter, ...] = ()
    """The dead letters made, for the log."""


class Upkeep(Protocol):
    """The chores. Every worker and scheduler runs them, any number at once; each call is bounded and independent of traffic."""

    def promote(self, limit: int) -> int:
        """Make up to *limit* due scheduled and retrying jobs available, those due first; says how many, so that the caller goes on while full."""

    def reclaim(self, limit: int, *, max_crashes: int) -> Reclaimed:
        """Take up to *limit* jobs from leases that have run out: a crash is counted and a ``lost`` run recorded for each (DESIGN R4).

        The old lease's token is worth nothing afterwards. After a jump of the broker's clock or a restart nothing is reclaimed for one lease length.
        """

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        """Take everything from a worker that is known to be dead, and forget it: it is not shown any more.

        Args:
            worker_id: Whose leases; it never comes back.
            started: Ids of jobs whose handlers were running: these are counted as crashed. The others are returned uncounted.
            error: How it died, as it will stand in ``last_error``.
            max_crashes: As for ``reclaim``.
        """

    def prune(self, limit: int) -> int:
        """Forget up to *limit* finished jobs past their retention, expired keys and workers long gone; also cancel expired waiting jobs."""


# What operators ask for ----------------------------------------------------------------------------------------------------------------


class Control(Protocol):
    """Changes what an operator may change."""

    def cancel(self, job_id: str) -> Literal["cancelled", "requested", "finished", "unknown"]:
        """Cancel a waiting, scheduled or retrying job at once; ask a running one to stop."""

    def pause(self, queue: str) -> None:
        """Hand out nothing more from *queue*; what runs goes on, and jobs may still be enqueued."""

    def resume(self, queue: str) -> None:
        """Undo ``pause``."""

    def purge(self, queue: str, limit: int) -> int:
        """Cancel up to *limit* waiting, scheduled and retrying jobs of *queue*; says how many, so that the caller goes on until zero."""


@attrs.frozen(kw_only=True)
class JobFilter:
    """Which jobs to list; None means any."""

    state: JobState | None = None
    type: str | None = None
    queue: str | None = None


@attrs.frozen(kw_only=True)
class JobPage:
    """Some jobs, and the cursor that continues after them; None at the end. A page may be short and still have a *next*."""

    jobs: tuple[Job, ...]
    next: str | None


@attrs.frozen(kw_only=True)
class QueueStats:
    """One queue in numbers. Costs the same whatever its depth."""

    name: str
    paused: bool
    depth: Mapping[Priority, int]
    """Jobs waiting, by priority."""
    processing: int
    scheduled: int
    retrying: int
    oldest_age: timedelta | None
    """How long the job that has been ready longest has waited; None when none waits."""
    completed: int
    """Totals of ends, since the queue exists. *failed* counts runs that will be retried."""
    failed: int
    dead: int
    cancelled: int
    enqueued: int
    rates: Mapping[str, float]
    """Per second over the last five minutes: ``enqueued``, ``completed``, ``failed``, ``dead``."""

    @property
    def waiting(self) -> int:
        """Jobs waiting, all priorities."""
        return sum(self.depth.values())

    def to_dict(self) -> QueueObject:
        """The queue as ``--json`` and the REST API show it; *oldest_age* in seconds."""
        return {
            "name": self.name,
            "paused": self.paused,
            "depth": {
                "critical": self.depth.get(Priority.CRITICAL, 0),
                "high": self.depth.get(Priority.HIGH, 0),
                "medium": self.depth.get(Priority.MEDIUM, 0),
                "low": self.depth.get(Priority.LOW, 0),
            },
            "waiting": self.waiting,
            "processing": self.processing,
            "scheduled": self.scheduled,
            "retrying": self.retrying,
            "oldest_age": None if self.oldest_age is None else round(self.oldest_age.total_seconds(), 3),
            "totals": {
                "enqueued": self.enqueued,
                "completed": self.completed,
                "failed": self.failed,
                "dead": self.dead,
                "cancelled": self.cancelled,
            },
            "rates": {
                "enqueued": round(self.rates["enqueued"], 3),
                "completed": round(self.rates["completed"], 3),
                "failed": round(self.rates["failed"], 3),
                "dead": round(self.rates["dead"], 3),
            },
        }


class Event(msgspec.Struct, frozen=True):
    """Something that happened: a settle batch (ids and outcomes) or a control action."""

    id: str
    at: datetime
    kind: str
    data: dict[str, Any]


@attrs.frozen(kw_only=True)
class EventPage:
    """Events after a position. *reset* says that the position is no longer in the log: the reader has missed some."""

    events: tuple[Event, ...]
    position: str
    reset: bool = False


class Inspection(Protocol):
    """Answers questions."""

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        """The jobs as they are now; None for one that is unknown or forgotten."""

    def jobs(self, wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
        """List jobs: newest id first while no more than 10,000 have to be looked at; beyond, in the broker's own order.

        Examines at most 10,000 a call; no job comes twice in a walk, but for what the broker's own documentation excepts.

        Raises:
            InvalidJob: The cursor is not one that a former page gave (field ``cursor``).
        """

    def queues(self) -> list[QueueStats]:
        """All queues that have ever had a job or are paused, by name."""

    def queue(self, name: str) -> QueueStats | None:
        """One queue; None when it is unknown."""

    def workers(self) -> list[WorkerInfo]:
        """The workers that have beaten within ``WORKER_SHOWN``, oldest first."""

    def types(self) -> list[TypeInfo]:
        """The types that running workers serve, or have served in the last day, by name."""

    def logs(self, job_id: str) -> list[LogLine]:
        """The lines a job's handlers logged, oldest first."""

    def events(self, after: str | None, *, limit: int, wait: timedelta) -> EventPage:
        """Read the event log after *after* (None: from now on), waiting up to *wait* for a first event.

        The log is capped, and written only while someone has read it within the last minute (DESIGN R15).
        """


# What recorders ask for ----------------------------------------------------------------------------------------------------------------


OutboxKind = Literal["history", "dead"]


@attrs.frozen(kw_only=True)
class OutboxBatch:
    """Entries read from an outbox; *receipt* acknowledges exactly these. *malformed* counts entries that could not be read and are in the receipt."""

    kind: OutboxKind
    executions: tuple[Execution, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    receipt: tuple[str, ...] = ()
    malformed: int = 0


@attrs.frozen(kw_only=True)
class OutboxLag:
    """Rows that wait for storage, the age of the oldest, and history rows dropped because more than ``[history] max_pending`` waited."""

    history: int = 0
    dead: int = 0
    oldest_age: timedelta = timedelta(0)
    dropped: int = 0


class Outbox(Protocol):
    """Executions and dead letters on their way to storage; written by ``settle``, ``reclaim`` and friends in their own atomic step."""

    def outbox(self, kind: OutboxKind, limit: int) -> OutboxBatch:
        """Read up to *limit* rows, oldest first, without removing them. Two readers may see the same rows: storage knows them by id."""

    def acknowledge(self, batch: OutboxBatch) -> None:
        """Remove what storage has now; repeating it is harmless."""

    def outbox_lag(self) -> OutboxLag:
        """How far storage is behind."""


class Broker(Producer, Consumer, Upkeep, Control, Inspection, Outbox, Protocol):
    """All roles in one."""

    PROTOCOL: int

    def now(self) -> datetime:
        """The broker's clock: aware, UTC."""

    def describe(self) -> str:
        """What and where it is, for people and logs, without secrets: ``sqlite:///srv/jobqueue.db``."""

    def close(self) -> None:
        """Let go of connections and files; the object is not used again."""


@attrs.frozen(kw_only=True)
class BrokerPlugin:
    """What the hook ``jobqueue_brokers`` returns: one broker that can be chosen by ``[broker] plugin = name``."""

    name: str
    open: Any
    """``(settings: Settings) -> Broker``. Imports its driver only when called.

    Raises:
        ConfigError: The settings do not suit it.
        PluginError: Its driver is not installed; the message names the extra.
        BrokerError: It cannot be reached or refuses its data.
    """
    default_url: str
    schemes: tuple[str, ...]
    """The url schemes it takes."""
    url_variable: str | None = None
    """The environment variable that holds its url, as ``REDIS_URL``."""
    url_aliases: Mapping[str, str] = {}
    """Other spellings of a scheme -> the one in *schemes*."""
    url_problems: Callable[[str], Sequence[str]] = lambda _url: ()
    """What is wrong with a url of one of its schemes, each as the end of a sentence that begins with the key; without connecting, and no secrets."""


def split_cursor(cursor: str, parts: int) -> list[str]:
    """Take a cursor apart that was made of *parts* joined by ``~``.

    Raises:
        InvalidJob: It has another shape.
    """
    pieces = cursor.split("~")
    if len(pieces) != parts:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list")
    return pieces

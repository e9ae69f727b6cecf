"""The Storage: remembers executions, dead letters and schedules after the broker has let them go.

Three optional roles; a storage plugin plays those it can. Writes are idempotent, because what comes from an outbox may come twice. No query
decides by the database's own clock: the broker's time is passed in. The conformance suite is ``jobqueue_core.testing.storage_suite``.

Errors: ``StorageUnavailable`` when it does not answer, ``StorageRejected`` when it refuses the rows of one call for good (the recorder then
halves the batch, so that one bad row never blocks the rest), ``IncompatibleData`` when its schema is too old or too new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

import attrs
import msgspec

from jobqueue_core.attempt import DeadLetter, DeadLetterState, Execution, ExecutionState
from jobqueue_core.durations import format_duration
from jobqueue_core.histogram import Histogram
from jobqueue_core.job import JobState, NewJob, Priority, rfc3339
from jobqueue_core.payload import shown_json

if TYPE_CHECKING:
    from jobqueue_core.objects import DeadLetterGroupObject, ScheduleObject
    from jobqueue_core.scheduling.definition import Misfire, Overlap

__all__ = [
    "Claim",
    "DeadLetterFilter",
    "DeadLetterGroup",
    "DeadLetterPage",
    "DeadLetters",
    "EndFilter",
    "ExecutionFilter",
    "ExecutionPage",
    "ExecutionStatistics",
    "ExecutionTotals",
    "History",
    "RecordPolicy",
    "Schedule",
    "Schedules",
    "Storage",
    "StoragePlugin",
    "Tick",
    "TypeStatistics",
    "TypeTotals",
    "state_at_end",
]

RecordPolicy = Literal["all", "failures", "none"]
"""Which executions become rows: all; all but completed ones; none. Statistics count every one."""


# History -------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ExecutionFilter:
    """Which executions to list; None means any. *since* is inclusive, *until* exclusive, both by ``finished_at``."""

    type: str | None = None
    queue: str | None = None
    state: ExecutionState | None = None
    since: datetime | None = None
    until: datetime | None = None


@attrs.frozen(kw_only=True)
class ExecutionPage:
    """Some executions, and the cursor that continues after them; None at the end."""

    executions: tuple[Execution, ...]
    next: str | None


_ENDS: Final[Mapping[ExecutionState, JobState]] = {
    ExecutionState.COMPLETED: JobState.COMPLETED,
    ExecutionState.DEAD: JobState.DEAD,
    ExecutionState.LOST: JobState.DEAD,
    ExecutionState.CANCELLED: JobState.CANCELLED,
}


def state_at_end(execution: Execution) -> JobState | None:
    """The state in which *execution* left its job, if it ended it; None when the job went on."""
    if execution.state is ExecutionState.LOST and execution.dead_reason is None:
        return None
    return _ENDS.get(execution.state)


@attrs.frozen(kw_only=True)
class EndFilter:
    """Which ends of jobs to list; None means any.

    The end of a job is the last of its executions that finished before *until*, if it ended the job (:func:`state_at_end`).
    """

    until: datetime
    type: str | None = None
    queue: str | None = None
    state: JobState | None = None

    @property
    def execution_states(self) -> list[ExecutionState]:
        """The states of executions that may be such an end."""
        return [execution for execution, job in _ENDS.items() if self.state is None or job is self.state]

    def takes(self, execution: Execution) -> bool:
        """Whether *execution*, if it is the last, ended its job in the state that is wanted."""
        state = state_at_end(execution)
        return state is not None and (self.state is None or state is self.state)


@attrs.frozen(kw_only=True)
class TypeStatistics:
    """The executions of one job type, or of all."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    snoozed: int = 0
    returned: int = 0
    lost: int = 0
    avg_duration_ms: float | None = None
    """Durations are of runs that completed, failed or died; None without any. Percentiles are read off a histogram and are right within 10 %."""
    p50_duration_ms: float | None = None
    p95_duration_ms: float | None = None
    p99_duration_ms: float | None = None


@attrs.frozen(kw_only=True)
class ExecutionStatistics:
    """Executions of a time range, in all and by job type; from rollups, so that the table is not scanned."""

    overall: TypeStatistics
    by_type: Mapping[str, TypeStatistics]


@attrs.frozen(kw_only=True)
class TypeTotals:
    """The executions of one job type, since ever."""

    counts: Mapping[ExecutionState, int]
    """By every state."""
    durations: Histogram
    """Of runs that completed, failed or died."""


@attrs.frozen(kw_only=True)
class ExecutionTotals:
    """Executions since ever, by job type: of those types that have the most, largest first; *types* says how many there are."""

    types: int = 0
    by_type: Mapping[str, TypeTotals] = {}


class History(Protocol):
    """Remembers executions."""

    def record_executions(self, executions: Sequence[Execution], *, record: RecordPolicy) -> None:
        """Store executions, each once whatever is repeated, and count them in the rollups in the same transaction."""

    def executions(self, wanted: ExecutionFilter, *, cursor: str | None, offset: int, limit: int) -> ExecutionPage:
        """List executions, newest first (by ``finished_at``, then id); *offset* skips rows and is at most 10,000.

        Raises:
            InvalidJob: The cursor is not one that a former page gave (field ``cursor``).
        """

    def job_executions(self, job_id: str) -> list[Execution]:
        """All executions of one job, by run."""

    def ends(self, wanted: EndFilter, *, cursor: str | None, limit: int) -> ExecutionPage:
        """List the ends of jobs, newest first, as :meth:`executions`: each job once. A page may be short and still have a *next*.

        Raises:
            InvalidJob: The cursor is not one that a former page gave (field ``cursor``).
        """

    def have_ended(self, jobs: Sequence[tuple[str, datetime]], wanted: EndFilter) -> list[bool]:
        """For each of *jobs*, by (id, since): whether its last execution that finished from *since* on, and before ``until``, is its end.

        Of *wanted* its state counts too; type and queue do not.
        """

    def statistics(self, *, since: datetime, until: datetime) -> ExecutionStatistics:
        """What happened in a time range, to the minute."""

    def totals(self, limit: int) -> ExecutionTotals:
        """What the executions of the *limit* largest types add up to since the storage was set up; costs the same whatever the history's length.

        Counters for monitoring: nothing of it is ever forgotten, so that no figure of a type is less than it was, whatever is pruned.
        """

    def prune_executions(self, before: datetime, limit: int) -> int:
        """Forget executions (and rollups) older than *before*, in bounded steps; called once before anything is recorded, and then each minute.

        Returns:
            How many were forgotten, at most *limit*; one that forgets many at once (a partition) says *limit*. The caller goes on until it is less.
        """


# Dead letters --------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class DeadLetterFilter:
    """Which dead letters to list or act on; None means any. *died_before* is inclusive: bulk actions set it to when they began."""

    type: str | None = None
    queue: str | None = None
    state: DeadLetterState | None = DeadLetterState.OPEN
    fingerprint: str | None = None
    died_after: datetime | None = None
    died_before: datetime | None = None


@attrs.frozen(kw_only=True)
class DeadLetterPage:
    """Some dead letters, and the cursor that continues after them; None at the end."""

    dead_letters: tuple[DeadLetter, ...]
    next: str | None


@attrs.frozen(kw_only=True)
class DeadLetterGroup:
    """Open dead letters with one fingerprint."""

    fingerprint: str
    type: str
    count: int
    first_died_at: datetime
    last_died_at: datetime
    example_job_id: str
    example_error: str

    def to_dict(self) -> DeadLetterGroupObject:
        """The group as ``--json`` and the REST API show it."""
        return {
            "fingerprint": self.fingerprint,
            "type": self.type,
            "count": self.count,
            "first_died_at": rfc3339(self.first_died_at),
            "last_died_at": rfc3339(self.last_died_at),
            "example_job_id": self.example_job_id,
            "example_error": self.example_error,
        }


class DeadLetters(Protocol):
    """Remembers dead letters until someone retries or discards them."""

    def record_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Store dead letters; one that is known by (job id, death) changes nothing."""

    def dead_letters(self, wanted: DeadLetterFilter, *, cursor: str | None, offset: int, limit: int) -> DeadLetterPage:
        """List dead letters, latest death first.

        Raises:
            InvalidJob: The cursor is not one that a former page gave (field ``cursor``).
        """

    def dead_letter(self, job_id: str) -> DeadLetter | None:
        """The latest death of a job; None when it has none."""

    def dead_letter_groups(self, wanted: DeadLetterFilter, *, limit: int) -> list[DeadLetterGroup]:
        """The matching dead letters by fingerprint, largest group first."""

    def count_dead_letters(self, wanted: DeadLetterFilter) -> int:
        """How many match."""

    def begin_requeues(self, deaths: Sequence[tuple[str, int]], *, now: datetime) -> list[bool]:
        """Mark dead letters, each by (job id, death), as being retried since *now* (DESIGN R20), in one transaction.

        Returns:
            For each, in order, whether it was open and is now this caller's to retry. One that is named twice is begun once.
        """

    def finish_requeues(self, deaths: Sequence[tuple[str, int]], *, now: datetime, requeued: bool) -> None:
        """Mark dead letters that were being retried as requeued at *now*, or as open again, in one transaction; repeating it is harmless.

        Only retries that began at *now* or earlier: one that somebody has begun since is theirs. Who began it therefore finishes with the same *now*.
        """

    def stale_requeues(self, before: datetime, limit: int) -> list[DeadLetter]:
        """Dead letters whose retry began before *before* and was not finished."""

    def discard(self, job_id: str, death: int) -> bool:
        """Mark an open dead letter as discarded; False when it is not open."""

    def prune_dead_letters(self, before: datetime, limit: int) -> int:
        """Forget up to *limit* requeued or discarded dead letters that died before *before*. Open ones are never forgotten."""


# Schedules -----------------------------------------------------------------------------------------------------------------------------


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A cron line with a type and payload.

    *version* grows with each edit and each claimed tick: whoever writes says which version it has seen.
    """

    name: str
    expression: str
    type: str
    payload_json: bytes
    timezone: str = "UTC"
    queue: str | None = None
    priority: str | None = None
    max_retries: int | None = None
    timeout: timedelta | None = None
    enabled: bool = True
    """By its definition; it fires when it is enabled and not *paused*."""
    paused: bool = False
    """By an operator; an edit of the config file does not change it."""
    misfire: str = "once"
    misfire_limit: int = 100
    overlap: str = "allow"
    jitter: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None
    source: str = "dynamic"
    """``config`` for one that stands in a config file."""
    next_run: datetime | None = None
    last_run: datetime | None = None
    last_job_id: str | None = None
    version: int = 0

    @property
    def fires(self) -> bool:
        """Whether it makes jobs when it is due."""
        return self.enabled and not self.paused

    def to_dict(self) -> ScheduleObject:
        """The schedule as ``--json`` and the REST API show it."""
        return {
            "name": self.name,
            "expression": self.expression,
            "timezone": self.timezone,
            "type": self.type,
            "payload": shown_json(self.payload_json),
            "queue": self.queue,
            "priority": None if self.priority is None else Priority(self.priority),
            "max_retries": self.max_retries,
            "timeout": None if self.timeout is None else format_duration(self.timeout),
            "enabled": self.fires,
            "paused": self.paused,
            "misfire": cast("Misfire", self.misfire),
            "misfire_limit": self.misfire_limit,
            "overlap": cast("Overlap", self.overlap),
            "jitter": None if self.jitter is None else format_duration(self.jitter),
            "start": rfc3339(self.start),
            "end": rfc3339(self.end),
            "source": "config" if self.source == "config" else "dynamic",
            "next_run": rfc3339(self.next_run) if self.fires else None,
            "last_run": rfc3339(self.last_run),
            "last_job_id": self.last_job_id,
            "version": self.version,
        }


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """One claimed moment of a schedule, and the job it is to become under an id that was fixed when it was claimed."""

    schedule: str
    due: datetime
    job: NewJob
    claimed_at: datetime
    sent: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to move *schedule*, as it was read, on to *next_run*, and to fire *tick*; None moves it on without one."""

    schedule: Schedule
    tick: Tick | None
    next_run: datetime | None


class Schedules(Protocol):
    """Remembers schedules and decides, by compare-and-set, who fires a tick (DESIGN R21)."""

    def schedules(self) -> list[Schedule]:
        """All schedules, by name."""

    def schedule(self, name: str) -> Schedule | None:
        """One schedule; None when there is none."""

    def put_schedule(self, schedule: Schedule, *, expected_version: int | None) -> bool:
        """Write a schedule; its stored version becomes one more than *expected_version*.

        Args:
            schedule: What to write. Its own ``version`` counts only for a new one, as the first version: one that no former schedule of that name
                has had, so that nobody takes the one for the other.
            expected_version: The version that must be there now; None when there must be none.

        Returns:
            False when another version is there; nothing was written.
        """

    def delete_schedule(self, name: str) -> bool:
        """Delete a schedule; False when there is none."""

    def due_schedules(self, now: datetime, limit: int) -> list[Schedule]:
        """Schedules that are enabled and not paused and whose ``next_run`` is not after *now*, longest due first."""

    def claim_ticks(self, claims: Sequence[Claim]) -> list[bool]:
        """In one transaction, for each of *claims*: move the schedule on from the version and ``next_run`` that were read, and store its tick.

        The stored ``version`` grows by one; with a tick ``last_run`` and ``last_job_id`` become the tick's. No schedule is claimed twice in a call.

        Returns:
            For each, in order, whether it was carried out. Not so when someone else was first (another version or next run is there, the tick
            exists, someone is at it just now); then nothing of that claim was written.
        """

    def unsent_ticks(self, before: datetime, limit: int) -> list[Tick]:
        """Ticks claimed before *before* and not marked as sent, oldest first."""

    def mark_sent(self, ticks: Sequence[tuple[str, datetime]]) -> None:
        """Mark ticks, each by (schedule, due), as sent, in one transaction; repeating it is harmless."""

    def ticks(self, schedule: str, limit: int) -> list[Tick]:
        """The latest ticks of a schedule, newest first."""


class Storage(History, DeadLetters, Schedules, Protocol):
    """All roles in one."""

    PROTOCOL: int

    def describe(self) -> str:
        """What and where it is, without secrets."""

    def close(self) -> None:
        """Let go of connections and files; the object is not used again."""


@attrs.frozen(kw_only=True)
class StoragePlugin:
    """What the hook ``jobqueue_storages`` returns: one storage that can be chosen by ``[storage] plugin = name``."""

    name: str
    open: Any
    """``(settings: Settings) -> Storage``; as ``BrokerPlugin.open``, raising ``StorageError`` instead of ``BrokerError``."""
    schemes: tuple[str, ...]
    default_url: str | None = None
    """None: a url must be given."""
    url_variable: str | None = None
    url_aliases: Mapping[str, str] = {}
    url_problems: Callable[[str], Sequence[str]] = lambda _url: ()
    """As ``BrokerPlugin.url_problems``."""
    probe: Callable[[Any], None] = lambda _settings: None
    """``(settings: Settings) -> None``: looks before ``jobqueue-run`` starts whether the storage can be used, within seconds. For one that is opened
    without looking: ``IncompatibleData`` keeps the roles from starting, ``StorageUnavailable`` is warned of."""

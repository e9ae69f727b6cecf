"""The objects that people and programs see: what REST, MCP and ``--json`` show of a job, a queue, a dead letter ...

Declared once, here. The ``to_dict`` methods return them, so that the type checker sees that they do; what describes them to others (OpenAPI,
MCP's tools) is made from these declarations. A field that is always there may be null; nothing is ever left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from jobqueue_core.attempt import DeadLetterState, ExecutionState
from jobqueue_core.job import DeadReason, JobState, Priority
from jobqueue_core.scheduling.definition import Misfire, Overlap

__all__ = [
    "BulkResultObject",
    "Count",
    "DeadLetterGroupObject",
    "DeadLetterObject",
    "DepthObject",
    "DurationText",
    "EnqueuedObject",
    "ExecutionObject",
    "ExecutionStatisticsObject",
    "InstantText",
    "JobCountsObject",
    "JobId",
    "JobObject",
    "JobType",
    "JsonValue",
    "LogLineObject",
    "OutboxLagObject",
    "ProgressObject",
    "QueueName",
    "QueueObject",
    "QueueRatesObject",
    "QueueTotalsObject",
    "RunningJobObject",
    "ScheduleObject",
    "ScheduleRunObject",
    "StatisticsObject",
    "TypeObject",
    "WorkerObject",
]

JobId = Annotated[str, Meta(description="The job's UUID.", extra_json_schema={"format": "uuid"})]
InstantText = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""A time as RFC 3339 in UTC."""
DurationText = Annotated[str, Meta(examples=["30s", "1h30m"])]
"""A duration: ``30s``, ``1h30m``."""
JobType = Annotated[str, Meta(description="The job's type, by which its handler is found.", examples=["email.send"])]
QueueName = Annotated[str, Meta(examples=["default"])]
JsonValue = Annotated[Any, Meta(description="Any JSON value.")]
Count = Annotated[int, Meta(ge=0)]


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


class ProgressObject(TypedDict):
    """What a running handler said last of how far it is."""

    fraction: Annotated[float, Meta(ge=0, le=1)]
    message: str | None


class JobObject(TypedDict):
    """A job as it is now."""

    id: JobId
    type: JobType
    payload: Annotated[Any, Meta(description="Null also when the job comes from history.")]
    queue: QueueName
    priority: Priority
    state: JobState
    max_retries: Annotated[int | None, Meta(description="Null until a worker has taken the job, unless its producer said so.")]
    retry_count: Count
    retry_delay: Annotated[DurationText | None, Meta(description="The delay before the latest retry.")]
    attempt: Annotated[int, Meta(ge=1, description="Which attempt the next (or current) run is.")]
    run: Annotated[int, Meta(ge=0, description="How many times a handler was started, over the whole life.")]
    crashes: Annotated[int, Meta(ge=0, description="How many times it took its worker down.")]
    deaths: Annotated[int, Meta(ge=0, description="How many times it has died.")]
    timeout: Annotated[DurationText | None, Meta(description="For one run; null as for max_retries.")]
    scheduled_at: Annotated[InstantText | None, Meta(description="When it becomes (or became) due, if it was ever delayed.")]
    created_at: InstantText
    started_at: Annotated[InstantText | None, Meta(description="When its latest run started.")]
    completed_at: Annotated[InstantText | None, Meta(description="When it ended, however it ended.")]
    expires_at: Annotated[InstantText | None, Meta(description="A run that has not started by then never will.")]
    last_error: str | None
    dead_reason: DeadReason | None
    metadata: dict[str, str]
    headers: dict[str, str]
    result: Annotated[Any, Meta(description="What the handler returned; null also when the job comes from history.")]
    progress: ProgressObject | None
    unique_key: str | None
    worker_id: Annotated[str | None, Meta(description="Who holds it, or held it last.")]
    cancel_requested: bool
    archived: Annotated[bool, Meta(description="True when it comes from history, after the broker's record has gone.")]


class EnqueuedObject(TypedDict):
    """What became of one job of a batch.

    *created*: it is stored. *existing*: it was there before, by its id, unique key or idempotency key. *refused*: *problem* says why. *unknown*: no
    answer came for it; sending it again under this id makes no second job.
    """

    status: Literal["created", "existing", "refused", "unknown"]
    id: JobId | None
    job: JobObject | None
    problem: str | None


class LogLineObject(TypedDict):
    """One line that a handler logged."""

    at: InstantText
    run: Count
    level: str
    message: str


# Queues --------------------------------------------------------------------------------------------------------------------------------


class DepthObject(TypedDict):
    """Jobs that wait, by priority."""

    critical: Count
    high: Count
    medium: Count
    low: Count


class QueueTotalsObject(TypedDict):
    """Totals since the queue exists. *failed* counts runs that are retried."""

    enqueued: Count
    completed: Count
    failed: Count
    dead: Count
    cancelled: Count


class QueueRatesObject(TypedDict):
    """Per second, over the last five minutes."""

    enqueued: float
    completed: float
    failed: float
    dead: float


class QueueObject(TypedDict):
    """One queue in numbers."""

    name: QueueName
    paused: bool
    depth: DepthObject
    waiting: Annotated[int, Meta(ge=0, description="Jobs that wait, all priorities.")]
    processing: Count
    scheduled: Count
    retrying: Count
    oldest_age: Annotated[float | None, Meta(description="Seconds that the job that has been ready longest has waited; null when none waits.")]
    totals: QueueTotalsObject
    rates: QueueRatesObject


# Dead letters --------------------------------------------------------------------------------------------------------------------------


class DeadLetterObject(TypedDict):
    """One death of a job."""

    job_id: JobId
    death: Annotated[int, Meta(ge=0, description="Which of its deaths, from 1.")]
    type: JobType
    queue: QueueName
    priority: Priority
    payload: JsonValue
    error: str
    traceback: str | None
    fingerprint: Annotated[str, Meta(description="The same for deaths by the same error.")]
    dead_reason: DeadReason | None
    state: DeadLetterState
    attempts: Count
    run: Count
    max_retries: int | None
    metadata: dict[str, str]
    created_at: InstantText
    started_at: InstantText | None
    died_at: InstantText
    requeued_at: InstantText | None
    requeue_count: Count
    raw_bytes: Annotated[int | None, Meta(description="Of an entry that could not be read: how many bytes were found.")]


class DeadLetterGroupObject(TypedDict):
    """Open dead letters with one fingerprint."""

    fingerprint: str
    type: JobType
    count: Count
    first_died_at: InstantText
    last_died_at: InstantText
    example_job_id: JobId
    example_error: str


class BulkResultObject(TypedDict):
    """What a bulk action did with the dead letters that were open when it began; with *dry_run* what it would do."""

    matched: Count
    done: Count
    skipped: Annotated[int, Meta(ge=0, description="Someone else acted on them meanwhile, or they cannot be retried.")]
    dry_run: bool


# History and statistics ----------------------------------------------------------------------------------------------------------------


class ExecutionObject(TypedDict):
    """One run of a job, and how it ended."""

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    job_id: JobId
    run: Count
    attempt: Count
    type: JobType
    queue: QueueName
    priority: Priority
    state: ExecutionState
    error: str | None
    worker_id: str | None
    started_at: InstantText | None
    finished_at: InstantText
    duration_ms: float
    scheduled_at: InstantText | None
    metadata: dict[str, str]


class ExecutionStatisticsObject(TypedDict):
    """Executions in numbers. Durations are of runs that completed, failed or died; null without any. Percentiles are right within 10 %."""

    total: Count
    completed: Count
    failed: Count
    dead: Count
    cancelled: Count
    snoozed: Count
    returned: Count
    lost: Count
    avg_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None


class JobCountsObject(TypedDict):
    """Jobs that have not ended, by state."""

    waiting: Count
    processing: Count
    scheduled: Count
    retrying: Count


class OutboxLagObject(TypedDict):
    """How far storage is behind the broker."""

    history: Annotated[int, Meta(ge=0, description="Executions that wait to be recorded.")]
    dead: Annotated[int, Meta(ge=0, description="Dead letters that wait to be recorded.")]
    oldest_age: Annotated[float, Meta(description="Seconds that the oldest of them has waited.")]
    dropped: Annotated[int, Meta(ge=0, description="Executions that were dropped because more than [history] max_pending waited.")]


class StatisticsObject(TypedDict):
    """The whole in numbers. What storage knows is null while it is away, and *storage_error* says why."""

    jobs: JobCountsObject
    totals: QueueTotalsObject
    workers: Count
    outbox_lag: OutboxLagObject
    executions_24h: ExecutionStatisticsObject | None
    types_24h: dict[str, ExecutionStatisticsObject] | None
    dead_letter_count: int | None
    storage_error: str | None


# Schedules -----------------------------------------------------------------------------------------------------------------------------


class ScheduleObject(TypedDict):
    """A schedule: when it is due, and what job it makes then."""

    name: str
    expression: Annotated[str, Meta(examples=["*/5 * * * *", "@hourly"])]
    timezone: str
    type: JobType
    payload: JsonValue
    queue: str | None
    priority: Priority | None
    max_retries: int | None
    timeout: DurationText | None
    enabled: Annotated[bool, Meta(description="Whether it makes jobs when it is due.")]
    paused: Annotated[bool, Meta(description="By an operator.")]
    misfire: Annotated[Misfire, Meta(description="What to do about missed ticks.")]
    misfire_limit: int
    overlap: Annotated[Overlap, Meta(description="Whether to fire while the last job has not ended.")]
    jitter: DurationText | None
    start: InstantText | None
    end: InstantText | None
    source: Annotated[Literal["config", "dynamic"], Meta(description="Where it stands: in a config file (config), or only in storage (dynamic).")]
    next_run: InstantText | None
    last_run: InstantText | None
    last_job_id: JobId | None
    version: int


class ScheduleRunObject(TypedDict):
    """One job that a schedule has made, and what became of it."""

    schedule: str
    due: InstantText
    job_id: JobId
    manual: Annotated[bool, Meta(description="Somebody ran the schedule by hand.")]
    sent: Annotated[bool, Meta(description="False: claimed, and not known to be with the broker yet.")]
    state: Annotated[JobState | None, Meta(description="Null: nobody knows the job, any more or yet.")]
    started_at: InstantText | None
    finished_at: InstantText | None
    error: str | None


# Workers and types ---------------------------------------------------------------------------------------------------------------------


class RunningJobObject(TypedDict):
    """What a worker runs."""

    job_id: JobId
    type: JobType
    started_at: InstantText


class WorkerObject(TypedDict):
    """One worker process."""

    id: str
    name: str
    host: str
    pid: int
    version: str
    queues: list[str]
    concurrency: int
    lease: DurationText
    started_at: InstantText
    last_beat: InstantText | None
    stopping: bool
    types: list[str]
    running: list[RunningJobObject]


class TypeObject(TypedDict):
    """A job type that running workers serve."""

    type: JobType
    queue: Annotated[str, Meta(description="Where its jobs go unless told otherwise.")]
    priority: Priority
    description: str
    payload_schema: Annotated[dict[str, Any] | None, Meta(description="JSON Schema 2020-12 of the payload; null when the handler does not say.")]
    aliases: list[str]
    last_seen: InstantText | None

"""The job: what it is, what it may hold, and how it is written down.

A :class:`NewJob` is what a producer asks for; the broker answers with a :class:`Job`. Both are msgspec structs, not attrs classes, because a
worker reads tens of thousands of them a second (docs/decisions/0002-job-is-a-msgspec-struct.md).
"""

from __future__ import annotations

import enum
import os
import re
import time
import zlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, overload
from uuid import UUID

import msgspec

from jobqueue_core.durations import format_duration
from jobqueue_core.errors import IncompatibleData, InvalidJob
from jobqueue_core.payload import shown_json

if TYPE_CHECKING:
    from jobqueue_core.objects import JobObject

__all__ = [
    "JOB_TYPE_PATTERN",
    "QUEUE_PATTERN",
    "WIRE_FORMAT",
    "DeadReason",
    "Idempotency",
    "Job",
    "JobState",
    "NewJob",
    "Priority",
    "Progress",
    "check_job_id",
    "check_job_type",
    "check_queue",
    "decode_job",
    "encode_job",
    "new_job_id",
    "rfc3339",
]


class Priority(enum.StrEnum):
    """How urgent a job is within its queue; strictly obeyed."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for critical to 3 for low: ascending rank is descending urgency."""
        return _RANKS[self]


_RANKS: Final = {priority: rank for rank, priority in enumerate(Priority)}


class JobState(enum.StrEnum):
    """Where a job is in its life."""

    # What may follow what: lifecycle.TRANSITIONS.

    SCHEDULED = "scheduled"
    """Not due yet: enqueued with a delay, or snoozed."""
    QUEUED = "queued"
    """Due, waiting for a worker."""
    PROCESSING = "processing"
    """Held by a worker under a lease."""
    RETRYING = "retrying"
    """Failed, waiting for its next attempt."""
    COMPLETED = "completed"
    DEAD = "dead"
    """Will not be tried again by itself; ``dead_reason`` says why."""
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True when the job has ended: nothing changes it but a retry from the dead letter queue."""
        return self in _FINISHED


_FINISHED: Final = frozenset({JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED})


class DeadReason(enum.StrEnum):
    """Why a job died."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    DISCARDED = "discarded"
    INVALID_PAYLOAD = "invalid_payload"
    WORKER_LOST = "worker_lost"
    UNDECODABLE = "undecodable"
    NO_HANDLER = "no_handler"


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far a run has come, as its handler last said."""

    fraction: float
    message: str | None = None


class Idempotency(msgspec.Struct, frozen=True):
    """The REST header ``Idempotency-Key``: kept 24 hours, in a namespace of its own.

    *fingerprint* is a hash of the request's body: the same key with another fingerprint is refused.
    """

    key: str
    fingerprint: str


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job to be enqueued, checked and ready to send (made by ``JobQueue``; ``NewJob`` itself checks nothing).

    A delay or an expiry travels as a duration and becomes an instant by the broker's clock, unless the producer named the instant itself.
    At most one of *delay* and *scheduled_at*, and of *expires_in* and *expires_at*, is set.
    """

    id: str
    type: str
    payload_json: bytes
    queue: str = "default"
    priority: Priority = Priority.MEDIUM
    delay: timedelta | None = None
    scheduled_at: datetime | None = None
    expires_in: timedelta | None = None
    expires_at: datetime | None = None
    max_retries: int | None = None
    timeout: timedelta | None = None
    unique_key: str | None = None
    unique_for: timedelta | None = None
    metadata: dict[str, str] = {}
    headers: dict[str, str] = {}
    idempotency: Idempotency | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One job as its broker knows it: immutable; each transition makes another.

    New fields are added at the end, with a default: that is what lets two adjacent releases read each other's records.
    """

    id: str
    type: str
    payload_json: bytes
    """The payload as JSON text, kept byte for byte: big numbers, key order and escapes survive a dead letter retry."""
    queue: str
    priority: Priority
    state: JobState
    created_at: datetime
    scheduled_at: datetime | None = None
    """When it becomes (or became) due, if it was ever delayed."""
    started_at: datetime | None = None
    """When its latest run started."""
    completed_at: datetime | None = None
    """When it ended, however it ended."""
    expires_at: datetime | None = None
    """A run that has not started by then never will."""
    max_retries: int | None = None
    """None: the handler's, then ``[job] default_max_retries``, filled in when a worker leases the job."""
    timeout: timedelta | None = None
    """None: as for *max_retries*."""
    retry_count: int = 0
    retry_delay: timedelta | None = None
    """The delay before the latest retry."""
    run: int = 0
    """How many times a handler was started, over the whole life."""
    crashes: int = 0
    deaths: int = 0
    last_error: str | None = None
    dead_reason: DeadReason | None = None
    metadata: dict[str, str] = {}
    headers: dict[str, str] = {}
    result_json: bytes | None = None
    progress: Progress | None = None
    unique_key: str | None = None
    unique_for: timedelta | None = None
    worker_id: str | None = None
    """Who holds it, or held it last."""
    cancel_requested: bool = False
    unknown_since: datetime | None = None
    """Since when workers have found no handler for its type; None once one has run."""
    archived: bool = False
    """True when this comes from history, after the broker's record has gone."""

    @property
    def payload(self) -> Any:
        """The payload as a JSON value, decoded at each access."""
        return msgspec.json.decode(self.payload_json) if self.payload_json else None

    @property
    def result(self) -> Any:
        """What the handler returned, as a JSON value; None before it has."""
        return msgspec.json.decode(self.result_json) if self.result_json else None

    @property
    def attempt(self) -> int:
        """Which attempt the next (or current) run is, from 1."""
        return self.retry_count + 1

    def log_facts(self) -> dict[str, object]:
        """What a log line says of it: which job, and which run."""
        return {"job_id": self.id, "type": self.type, "queue": self.queue, "attempt": self.attempt, "run": self.run}

    def to_dict(self) -> JobObject:
        """The job as the REST API, MCP and ``--json`` show it: JSON values, times as RFC 3339, durations as text."""
        return {
            "id": self.id,
            "type": self.type,
            "payload": shown_json(self.payload_json),
            "queue": self.queue,
            "priority": self.priority,
            "state": self.state,
            "max_retries": self.max_retries,
            "retry_count": self.retry_count,
            "retry_delay": None if self.retry_delay is None else format_duration(self.retry_delay),
            "attempt": self.attempt,
            "run": self.run,
            "crashes": self.crashes,
            "deaths": self.deaths,
            "timeout": None if self.timeout is None else format_duration(self.timeout),
            "scheduled_at": rfc3339(self.scheduled_at),
            "created_at": rfc3339(self.created_at),
            "started_at": rfc3339(self.started_at),
            "completed_at": rfc3339(self.completed_at),
            "expires_at": rfc3339(self.expires_at),
            "last_error": self.last_error,
            "dead_reason": self.dead_reason,
            "metadata": self.metadata,
            "headers": self.headers,
            "result": shown_json(self.result_json),
            "progress": None if self.progress is None else {"fraction": self.progress.fraction, "message": self.progress.message},
            "unique_key": self.unique_key,
            "worker_id": self.worker_id,
            "cancel_requested": self.cancel_requested,
            "archived": self.archived,
        }


@overload
def rfc3339(instant: datetime) -> str: ...


@overload
def rfc3339(instant: datetime | None) -> str | None: ...


def rfc3339(instant: datetime | None) -> str | None:
    """*instant* (aware, UTC) as RFC 3339 text with ``Z``; None stays None."""
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


# Names ---------------------------------------------------------------------------------------------------------------------------------

JOB_TYPE_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}"
QUEUE_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}"
"""Of queues, and of schedules too."""
_JOB_TYPE: Final = re.compile(JOB_TYPE_PATTERN)
_QUEUE: Final = re.compile(QUEUE_PATTERN)
_UUID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def check_job_type(job_type: object, field: str = "type") -> str:
    """Return *job_type* when it is a legal name.

    Raises:
        InvalidJob: It is not a string of 1 to 128 letters, digits, ``_ . : -`` that begins with a letter or digit.
    """
    if isinstance(job_type, str) and _JOB_TYPE.fullmatch(job_type):
        return job_type
    raise InvalidJob(field, f"{_short(job_type)} is not a job type: 1 to 128 letters, digits, '_', '.', ':' or '-', beginning with a letter or digit")


def check_queue(queue: object, field: str = "queue") -> str:
    """Return *queue* when it is a legal name.

    Raises:
        InvalidJob: It is not a string of 1 to 100 letters, digits, ``_ . -`` that begins with a letter or digit.
    """
    if isinstance(queue, str) and _QUEUE.fullmatch(queue):
        return queue
    raise InvalidJob(field, f"{_short(queue)} is not a queue name: 1 to 100 letters, digits, '_', '.' or '-', beginning with a letter or digit")


def check_job_id(job_id: object, field: str = "id") -> str:
    """Return *job_id* in its canonical form: any UUID, lower case, with hyphens.

    Raises:
        InvalidJob: It is neither a UUID object nor 32 hexadecimal digits, plain or in groups of 8-4-4-4-12.
    """
    if isinstance(job_id, UUID):
        return str(job_id)
    # Not left to UUID(), which takes braces, "urn:uuid:" and hyphens anywhere.
    if isinstance(job_id, str) and _UUID.fullmatch(job_id):
        return str(UUID(job_id))
    raise InvalidJob(field, f"{_short(job_id)} is not a UUID")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else shown[:97] + "..."


def new_job_id(queue: str) -> str:
    """A UUIDv7 (RFC 9562) whose 12 bits of ``rand_a`` are a hash of *queue*.

    Ids made in one millisecond for one queue are not ordered among themselves: ``rand_a``, where RFC 9562 would let us count, says instead
    which queue to ask on a Redis Cluster.
    """
    milliseconds = time.time_ns() // 1_000_000
    queue_bits = zlib.crc32(queue.encode()) & 0xFFF
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | queue_bits << 64 | 0b10 << 62 | int.from_bytes(os.urandom(8), "big") >> 2
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# The wire format -----------------------------------------------------------------------------------------------------------------------

WIRE_FORMAT: Final = 1
"""The first byte of every encoded job. A release reads its own number and the one before it."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Job)
_READABLE: Final = (WIRE_FORMAT,)


def encode_job(job: Job) -> bytes:
    """Write *job* down: the format number as one byte, then its fields as a msgpack array."""
    return b"\x01" + _encoder.encode(job)


def decode_job(data: bytes) -> Job:
    """Read what :func:`encode_job` wrote.

    Raises:
        IncompatibleData: The format number is newer than this release.
        ValueError: The bytes are not a job.
    """
    if not data or data[0] not in _READABLE:
        number = data[0] if data else "none"
        if data and data[0] > WIRE_FORMAT:
            msg = f"a job record has format {number}; this release reads up to {WIRE_FORMAT}: upgrade jobqueue"
            raise IncompatibleData(msg)
        msg = f"not a job record: format number {number}"
        raise ValueError(msg)
    try:
        return _decoder.decode(data[1:])
    except msgspec.DecodeError as error:
        msg = f"not a job record: {error}"
        raise ValueError(msg) from error

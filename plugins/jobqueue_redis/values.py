r"""What is written down of a job, and reading it back.

A *value* is the payload's home: the field ``1`` of a stream entry (the field's name is the format number), and the end of the records of delayed
and finished jobs::

    value = time (8 bytes, µs, big endian: Redis TIME in the step that wrote it) + rest
    rest  = flags (1 byte) + encode_job(job)

The time is written by the script, for only the broker's clock counts. So that everything else can be written by the client beforehand, instants of
the job that depend on it are written as if that time were ``EPOCH``: whatever lies before the year 2000 is relative to the value's time. *flags* is
1 for a job made under an idempotency key, whose record is kept as long as the key, plus 2 for one that has crashed (DESIGN R5).

The record of a job, ``job:<id>``, begins with the format number and a letter::

    \x01 w <code> <space> <entry id>                                   waiting, or leased: the entry holds the job
    \x01 d <code> <space> <value>                                      delayed: scheduled or retrying
    \x01 f <c|d|x> <deaths> : <queue> <space> <value>                  completed, dead or cancelled; expires

A token of a lease is ``<code> <entry id>``: while the entry exists it names exactly one lease (DESIGN R8, R9).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs
import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.attempt import DeadLetter
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.fingerprint import error_fingerprint
from jobqueue_core.job import DeadReason, Job, JobState, Priority, Progress, decode_job, encode_job

from .keys import Place

__all__ = [
    "EPOCH",
    "FORMAT",
    "IDEMPOTENCY_KEPT",
    "Known",
    "absolute",
    "bury",
    "extra",
    "keep_until",
    "read_look",
    "read_value",
    "rest_of",
    "worker_of",
]

FORMAT: Final = 1
"""The format number of records and entries. A release reads its own and the one before it."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""What "now" is called while a value is made."""
IDEMPOTENCY_KEPT: Final = timedelta(hours=24)
_RELATIVE: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Instants before this are relative."""
_MICROSECOND: Final = timedelta(microseconds=1)
_HEADER: Final = 10
"""Bytes before the job's fields: time, flags, and the job's own format number."""
_KEEPS: Final = 1
_FLAGS: Final = {(False, False): b"\x00", (True, False): b"\x01", (False, True): b"\x02", (True, True): b"\x03"}
"""By whether it was made under an idempotency key, and has crashed."""
_FIRST_PRINTABLE: Final = ord(" ")
"""No format number: what has it in its place is somebody's text."""
_FINISHED: Final = {"c": JobState.COMPLETED, "d": JobState.DEAD, "x": JobState.CANCELLED}
_DELAYED: Final = {"d": JobState.SCHEDULED, "t": JobState.RETRYING}

_progress = msgspec.msgpack.Decoder(Progress)
_encoder = msgspec.msgpack.Encoder()


# Values --------------------------------------------------------------------------------------------------------------------------------


def rest_of(job: Job, *, keeps: bool) -> bytes:
    """What a script needs to make a value of *job*."""
    return _FLAGS[keeps, job.crashes > 0] + encode_job(job)


def read_value(value: bytes) -> tuple[Job, bool]:
    """The job in a value, and whether its record is kept for an idempotency key.

    Raises:
        ValueError: It is none.
        IncompatibleData: It was written by a newer release.
    """
    if len(value) < _HEADER or value[_HEADER - 1] >= _FIRST_PRINTABLE:
        msg = "not a value of this broker"
        raise ValueError(msg)
    try:
        return absolute(decode_job(value[9:]), int.from_bytes(value[:8], "big")), value[8] & _KEEPS == _KEEPS
    except OverflowError as error:
        msg = f"its time is out of range: {error}"
        raise ValueError(msg) from error


def absolute(job: Job, time_us: int) -> Job:
    """*job* with its relative instants made absolute: *time_us* is the time of its value."""
    time = time_us * _MICROSECOND
    if job.created_at < _RELATIVE:
        job = replace(job, created_at=job.created_at + time)
    if job.scheduled_at is not None and job.scheduled_at < _RELATIVE:
        job = replace(job, scheduled_at=job.scheduled_at + time)
    if job.completed_at is not None and job.completed_at < _RELATIVE:
        job = replace(job, completed_at=job.completed_at + time)
    if job.expires_at is not None and job.expires_at < _RELATIVE:
        job = replace(job, expires_at=job.expires_at + time)
    if job.unknown_since is not None and job.unknown_since < _RELATIVE:
        job = replace(job, unknown_since=job.unknown_since + time)
    return job


def keep_until(job: Job, *, keeps: bool) -> int | None:
    """Until when (µs) the record of *job* is needed however short ``result_ttl`` is: as long as its keys may be asked for. None: no longer."""
    ends = []
    if keeps:
        ends.append(job.created_at + IDEMPOTENCY_KEPT)
    if job.unique_for is not None and job.unique_key is not None:
        ends.append(job.created_at + job.unique_for)
    return (max(ends) - EPOCH) // _MICROSECOND if ends else None


def extra(job: Job, *, keeps: bool) -> bytes:
    """What else ``finish`` in the scripts is to do for *job*, which has ended."""
    if job.deaths == 0 and job.unique_key is None and job.expires_at is None and not keeps:
        return b""
    until = keep_until(job, keeps=keeps)
    more: dict[str, Any] = {"deaths": job.deaths}
    if job.unique_key is not None:
        more["unique"] = job.unique_key
    if job.expires_at is not None:
        more["expires"] = True
    if until is not None:
        more["keep_until"] = until
    return _encoder.encode(more)


# What the script part `look` tells ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Known:
    """A job as the broker knows it now.

    *place* is where an unfinished one is; *entry* is its entry's id while it is in a stream, and *fields* what that entry holds.
    """

    job: Job
    keeps: bool = False
    place: Place | None = None
    entry: str | None = None
    readable: bool = True

    @property
    def token(self) -> str:
        """Names the place of a job in a stream, and the lease while it is leased."""
        return f"{self.place.code} {self.entry}" if self.place is not None else ""


def read_look(job_id: str, reply: Sequence[Any] | None) -> Known | None:
    """What ``look`` says of a job; None when it is unknown. One that cannot be read is shown with what is known of it.

    Raises:
        IncompatibleData: Its record was written by a newer release.
    """
    if not reply:
        return None
    record: bytes = reply[0]
    if bytes([FORMAT]) < record[:1] < b" ":
        raise IncompatibleData(f"the record of job {job_id} has format {record[0]}; this release reads up to {FORMAT}: upgrade jobqueue")
    try:
        match record[1:2]:
            case b"w":
                return _in_stream(job_id, record, reply)
            case b"d":
                code, _, value = record[2:].partition(b" ")
                place = Place.from_code(code.decode())
                job, keeps = read_value(value)
                return Known(job=replace(job, state=_DELAYED[place.letter]), keeps=keeps, place=place)
            case b"f":
                _, _, value = record.partition(b" ")
                job, keeps = read_value(value)
                return Known(job=replace(job, state=_FINISHED[record[2:3].decode()]), keeps=keeps)
            case _:
                return Known(job=_unreadable(job_id, "its record is of no known kind"), readable=False)
    except (ValueError, LookupError) as error:
        return Known(job=_unreadable(job_id, str(error)), readable=False)


def _in_stream(job_id: str, record: bytes, reply: Sequence[Any]) -> Known:
    code, _, entry = record[2:].decode().partition(" ")
    place = Place.from_code(code)
    fields: Sequence[bytes] = reply[1] if len(reply) > 1 else ()
    try:
        if len(fields) != 2:
            raise ValueError("its entry is missing from the stream" if not fields else "its entry cannot be read")  # noqa: TRY301 - as what is below
        job, keeps = read_value(fields[1])
    except ValueError as error:
        job = replace(_unreadable(job_id, str(error)), queue=place.queue, priority=place.priority)
        return Known(job=job, place=place, entry=entry, readable=False)
    if len(reply) > 2:
        consumer, started_us, cancels, progress = reply[2:6]
        job = lifecycle.begin(job, worker_of(consumer), EPOCH + timedelta(microseconds=int(started_us)))
        if cancels or progress:
            job = replace(job, cancel_requested=bool(cancels), progress=_progress.decode(progress) if progress else None)
    elif job.state is not JobState.QUEUED:
        job = replace(job, state=JobState.QUEUED)
    return Known(job=job, keeps=keeps, place=place, entry=entry)


def worker_of(consumer: bytes) -> str:
    """The worker's id in the name of a consumer, which is ``<worker id>:<milliseconds of its leases>``."""
    return consumer.decode().rpartition(":")[0]


# What cannot be read -------------------------------------------------------------------------------------------------------------------


def _unreadable(job_id: str, what: str) -> Job:
    return Job(
        id=job_id,
        type="unknown",
        payload_json=b"null",
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.QUEUED,
        created_at=EPOCH,
        last_error=what,
    )


def bury(place: Place, now: datetime, problem: str, *, raw: bytes | None, job_id: str | None = None, job_type: str = "unknown") -> DeadLetter:
    """The dead letter of what was found at *place* and cannot be read; *raw* are its bytes, None when nothing was left of it."""
    text = f"undecodable: {problem}"[:500]
    job = Job(
        id=job_id or str(uuid.uuid4()),
        type=job_type,
        payload_json=b"null",
        queue=place.queue,
        priority=place.priority,
        state=JobState.DEAD,
        created_at=now,
        completed_at=now,
        deaths=1,
        last_error=text,
        dead_reason=DeadReason.UNDECODABLE,
    )
    return DeadLetter(job=job, died_at=now, error=text, fingerprint=error_fingerprint(job_type, "undecodable"), raw=raw)

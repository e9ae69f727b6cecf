"""Rows of the jobs table, and what they say of a job."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.attempt import DeadLetter
from jobqueue_core.fingerprint import error_fingerprint
from jobqueue_core.job import DeadReason, Job, JobState, Priority, Progress, decode_job

from .statements import statement
from .times import from_us

__all__ = ["PRIORITIES", "JobRow", "as_json", "bury", "job_of", "rows_by_id", "show"]

PRIORITIES: Final = tuple(Priority)
"""By rank."""


class JobRow(NamedTuple):
    """One row of the view ``job_rows``."""

    number: int
    id: str
    type: str
    queue: str
    priority: int
    state: str
    record: object
    """Bytes, unless someone else has been at the file."""
    deaths: int
    expires_us: int | None
    held_until_us: int | None
    worker_id: str | None
    started_us: int | None
    progress: bytes | None
    cancel_requested: int


_progress = msgspec.msgpack.Decoder(Progress)


def job_of(row: JobRow) -> Job:
    """The job as it is now: its record, and what the columns have seen since.

    Raises:
        ValueError: The record cannot be read.
        IncompatibleData: It was written by a newer release.
    """
    if not isinstance(row.record, bytes):
        msg = f"not a job record: {type(row.record).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - what is wrong is the data
    job = decode_job(row.record)
    state = JobState(row.state)
    if state is JobState.PROCESSING:
        started_at = from_us(row.started_us or 0)
        progress = None if row.progress is None else _progress.decode(row.progress)
        job = lifecycle.begin(job, row.worker_id or "", started_at)
        if progress is not None or row.cancel_requested:
            job = replace(job, progress=progress, cancel_requested=bool(row.cancel_requested))
    elif job.state is not state:
        job = replace(job, state=state)
    return job


def show(row: JobRow, now: datetime) -> Job:
    """As :func:`job_of`, and for a record that cannot be read what the columns know: for answers, where one bad row must not hide the others."""
    try:
        return job_of(row)
    except ValueError as error:
        return replace(bury(row, now, error).job, state=JobState(row.state), completed_at=None, deaths=row.deaths)


def bury(row: JobRow, now: datetime, error: ValueError) -> DeadLetter:
    """The dead letter of a job whose record cannot be read; its bytes are kept."""
    text = f"undecodable record: {error}"[:500]
    job = Job(
        id=row.id,
        type=row.type,
        payload_json=b"null",
        queue=row.queue,
        priority=PRIORITIES[row.priority],
        state=JobState.DEAD,
        created_at=now,
        completed_at=now,
        deaths=row.deaths + 1,
        last_error=text,
        dead_reason=DeadReason.UNDECODABLE,
    )
    raw = row.record if isinstance(row.record, bytes) else str(row.record).encode()
    return DeadLetter(job=job, died_at=now, error=text, fingerprint=error_fingerprint(row.type, "undecodable record"), raw=raw)


def rows_by_id(connection: sqlite3.Connection, job_ids: Sequence[str]) -> dict[str, JobRow]:
    """The rows of those of *job_ids* that are known."""
    rows = connection.execute(statement("jobs_by_id"), {"ids": as_json(job_ids)})
    return {row.id: row for row in map(JobRow._make, rows)}


def as_json(values: Iterable[Any]) -> str:
    """*values* as SQLite's ``json_each`` takes them: one parameter for any number of them."""
    return json.dumps(list(values))

"""Executions on their way into the database: many in one COPY, packed by hand, because a recorder has tens of thousands of them a second.

They land in a temporary table of the session, from where one statement takes those that are new. Behind a transaction pooler there are no
sessions: there they travel as arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.errors import StorageRejected
from jobqueue_core.histogram import Histogram

from .statements import statement
from .texts import escaped, indexed
from .times import pg_microseconds

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["Incoming", "bring"]

_TIMED: Final = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.DEAD})
"""The runs whose durations count."""
_TEMPORARY: Final = "pg_temp.incoming_executions"
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = struct.pack(">h", -1)
_NULL: Final = struct.pack(">i", -1)
_FIELDS: Final = 22
# Each field has its length in front: finished_at, id, job_id, run, attempt, crashes, deaths, duration_ms, kept.
_FIXED: Final = struct.Struct(">h iq i16s i16s ii ii ii ii id i?").pack
_INT: Final = struct.Struct(">ii").pack
_SHORT: Final = struct.Struct(">ih").pack
_LONG: Final = struct.Struct(">iq").pack
_LENGTH: Final = struct.Struct(">i").pack

_json = msgspec.json.Encoder()


@attrs.frozen
class Incoming:
    """One execution, and whether it becomes a row or only counts."""

    execution: Execution
    is_kept: bool


def bring(connection: Connection, rows: Sequence[Incoming]) -> tuple[str, dict[str, Any]]:
    """Bring *rows* to the server; says what to read them from (for ``FROM``), and with which parameters.

    Raises:
        StorageRejected: A row cannot be written down.
    """
    try:
        if connection.pooled:
            return statement("incoming_arrays"), _arrays(rows)
        if not connection.has_incoming:
            connection.execute(statement("incoming_create"))
        data = b"".join([_HEADER, *map(_packed, rows), _TRAILER])
    except (struct.error, ValueError, OverflowError, TypeError) as error:
        raise StorageRejected(f"an execution cannot be written down: {error}") from error
    with connection.cursor() as cursor, cursor.copy(statement("incoming_copy")) as copy:
        copy.write(data)
    return _TEMPORARY, {}


# For COPY ------------------------------------------------------------------------------------------------------------------------------


def _packed(row: Incoming) -> bytes:
    one = row.execution
    fixed = _FIXED(
        _FIELDS,
        8,
        pg_microseconds(one.finished_at),
        16,
        _uuid(one.id),
        16,
        _uuid(one.job_id),
        4,
        one.run,
        4,
        one.attempt,
        4,
        one.crashes,
        4,
        one.deaths,
        8,
        one.duration_ms,
        1,
        row.is_kept,
    )
    bucket = _bucket(one)
    return b"".join(
        (
            fixed,
            _NULL if bucket is None else _SHORT(2, bucket),
            _NULL if one.max_retries is None else _INT(4, one.max_retries),
            _NULL if one.started_at is None else _LONG(8, pg_microseconds(one.started_at)),
            _NULL if one.created_at is None else _LONG(8, pg_microseconds(one.created_at)),
            _NULL if one.scheduled_at is None else _LONG(8, pg_microseconds(one.scheduled_at)),
            _indexed(one.type),
            _indexed(one.queue),
            _name(one.priority.value),
            _name(one.state.value),
            _NULL if one.dead_reason is None else _name(one.dead_reason.value),
            _text(one.error),
            _NULL if one.worker_id is None else _name(one.worker_id),
            _sized(_json.encode(one.metadata)) if one.metadata else _NULL,
        )
    )


def _uuid(text: str) -> bytes:
    found = bytes.fromhex(text.replace("-", ""))
    if len(found) != 16:
        raise ValueError(f"{text!r:.60} is not a UUID")
    return found


def _bucket(execution: Execution) -> int | None:
    return Histogram.bucket(execution.duration_ms) if execution.state in _TIMED else None


def _sized(data: bytes) -> bytes:
    return _LENGTH(len(data)) + data


def _text(text: str | None) -> bytes:
    return _NULL if text is None else _sized(escaped(text).encode())


@lru_cache(maxsize=1024)
def _name(text: str) -> bytes:
    """A text that many rows share."""
    return _text(text)


@lru_cache(maxsize=1024)
def _indexed(text: str) -> bytes:
    """The same in a column that is in an index."""
    return _sized(indexed(text).encode())


# For arrays ----------------------------------------------------------------------------------------------------------------------------

_ARRAYS: Final[dict[str, Callable[[Incoming], Any]]] = {
    "finished_at": lambda row: row.execution.finished_at,
    "id": lambda row: row.execution.id,
    "job_id": lambda row: row.execution.job_id,
    "run": lambda row: row.execution.run,
    "attempt": lambda row: row.execution.attempt,
    "crashes": lambda row: row.execution.crashes,
    "deaths": lambda row: row.execution.deaths,
    "duration_ms": lambda row: float(row.execution.duration_ms),
    "kept": lambda row: row.is_kept,
    "bucket": lambda row: _bucket(row.execution),
    "max_retries": lambda row: row.execution.max_retries,
    "started_at": lambda row: row.execution.started_at,
    "created_at": lambda row: row.execution.created_at,
    "scheduled_at": lambda row: row.execution.scheduled_at,
    "type": lambda row: indexed(row.execution.type),
    "queue": lambda row: indexed(row.execution.queue),
    "priority": lambda row: row.execution.priority.value,
    "state": lambda row: row.execution.state.value,
    "dead_reason": lambda row: None if row.execution.dead_reason is None else row.execution.dead_reason.value,
    "error": lambda row: escaped(row.execution.error),
    "worker_id": lambda row: escaped(row.execution.worker_id),
    "metadata": lambda row: _json.encode(row.execution.metadata).decode() if row.execution.metadata else None,
}


def _arrays(rows: Iterable[Incoming]) -> dict[str, Any]:
    some = list(rows)
    return {name: [value(row) for row in some] for name, value in _ARRAYS.items()}

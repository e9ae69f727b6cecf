"""Executions: stored once, found again, forgotten in time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.broker import split_cursor
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import DeadReason, Priority
from jobqueue_core.storage import EndFilter, ExecutionFilter, ExecutionPage, RecordPolicy

from .filters import filtered
from .incoming import Incoming, bring
from .statements import statement
from .texts import indexed, unescaped
from .times import cursor_instant, instant_of_cursor

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["ends", "executions", "forget", "have_ended", "job_executions", "record"]

_COUNTED_KEPT: Final = 200_000
_FORGET_STEP: Final = 20_000

_metadata = msgspec.json.Decoder(dict[str, str])


def record(connection: Connection, found: Sequence[Execution], *, policy: RecordPolicy) -> None:
    """See ``History.record_executions``."""
    by_id = {one.id: one for one in found}
    rows = [Incoming(one, _is_kept(one, policy)) for one in by_id.values()]
    if not rows:
        return
    source, bound = bring(connection, rows)
    connection.execute(statement("executions_add").replace("/*incoming*/", source), bound)
    if policy != "all":
        connection.execute(statement("counted_forget"), {"keep": _COUNTED_KEPT, "limit": _FORGET_STEP})
    # Only now: had anything failed, the table would have gone with the transaction.
    connection.has_incoming = not connection.pooled


def _is_kept(execution: Execution, policy: RecordPolicy) -> bool:
    match policy:
        case "all":
            return True
        case "failures":
            return execution.state is not ExecutionState.COMPLETED
        case "none":
            return False


def executions(connection: Connection, wanted: ExecutionFilter, *, cursor: str | None, offset: int, limit: int) -> ExecutionPage:
    """See ``History.executions``."""
    after_at, after_id = (None, None) if cursor is None else _cursor(cursor)
    states = list(ExecutionState) if wanted.state is None else [wanted.state]
    conditions = _names(wanted) | {"finished_since": wanted.since, "finished_until": wanted.until, "after_execution": after_id}
    bound = conditions | {
        "after_at": after_at,
        "after_id": after_id,
        "states": [state.value for state in states],
        "limit": limit + 1,
        "offset": offset,
    }
    is_plain = wanted.type is None and wanted.queue is None and wanted.state is None
    text = filtered("executions_list" if is_plain else "executions_list_by_state", conditions)
    # Not prepared: a plan for any parameters would not know how few rows are wanted.
    rows = connection.execute(_with_columns(text), bound, prepare=False).fetchall()
    page = [_execution(row) for row in rows[:limit]]
    following = _cursor_after(page[-1]) if len(rows) > limit else None
    return ExecutionPage(executions=tuple(page), next=following)


def job_executions(connection: Connection, job_id: str) -> list[Execution]:
    """See ``History.job_executions``."""
    return [_execution(row) for row in connection.execute(_with_columns(statement("executions_of_job")), {"job_id": job_id}).fetchall()]


def ends(connection: Connection, wanted: EndFilter, *, cursor: str | None, limit: int) -> ExecutionPage:
    """See ``History.ends``."""
    after_at, after_id = (None, None) if cursor is None else _cursor(cursor)
    conditions = _names(wanted) | {"finished_until": wanted.until, "after_execution": after_id}
    bound = conditions | {
        "after_at": after_at,
        "after_id": after_id,
        "states": [state.value for state in wanted.execution_states],
        "limit": limit + 1,
        "offset": 0,
    }
    text = filtered("executions_list_by_state", conditions).replace("/*columns*/", f"/*columns*/, {statement('executions_is_last')}")
    rows = connection.execute(_with_columns(text), bound, prepare=False).fetchall()
    found = [(_execution(row[:-1]), row[-1]) for row in rows[:limit]]
    following = _cursor_after(found[-1][0]) if len(rows) > limit else None
    return ExecutionPage(executions=tuple(one for one, is_last in found if is_last and wanted.takes(one)), next=following)


def have_ended(connection: Connection, jobs: Sequence[tuple[str, datetime]], wanted: EndFilter) -> list[bool]:
    """See ``History.have_ended``."""
    if not jobs:
        return []
    since = [since for _, since in jobs]
    bound = {"job_ids": [job_id for job_id, _ in jobs], "since": since, "earliest": min(since), "finished_until": wanted.until}
    rows = connection.execute(_with_columns(statement("executions_last_of_jobs")), bound, prepare=False).fetchall()
    ended = {number for *row, number in rows if wanted.takes(_execution(tuple(row)))}
    return [number in ended for number in range(1, len(jobs) + 1)]


def forget(connection: Connection, before: datetime, limit: int) -> int:
    """Forget up to *limit* executions that finished before *before* and are in no partition; says how many."""
    return connection.execute(statement("executions_forget"), {"before": before, "limit": limit}).rowcount


def _with_columns(text: str) -> str:
    return text.replace("/*columns*/", statement("executions_columns"))


def _names(wanted: ExecutionFilter | EndFilter) -> dict[str, Any]:
    return {
        "execution_type": indexed(wanted.type),
        "execution_queue": None if wanted.type else indexed(wanted.queue),
        "execution_queue_of_type": indexed(wanted.queue) if wanted.type else None,
    }


def _cursor_after(execution: Execution) -> str:
    return f"{cursor_instant(execution.finished_at)}~{execution.id}"


def _cursor(cursor: str) -> tuple[datetime, str]:
    instant, execution_id = split_cursor(cursor, 2)
    finished_at = instant_of_cursor(instant, cursor)
    try:
        return finished_at, str(uuid.UUID(execution_id))
    except ValueError as error:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list") from error


def _execution(row: tuple[Any, ...]) -> Execution:
    (
        execution_id,
        job_id,
        run,
        attempt,
        job_type,
        queue,
        priority,
        state,
        finished_at,
        started_at,
        duration_ms,
        error,
        worker_id,
        created_at,
        scheduled_at,
        max_retries,
        crashes,
        deaths,
        dead_reason,
        metadata,
    ) = row
    return Execution(
        id=execution_id,
        job_id=job_id,
        run=run,
        attempt=attempt,
        type=unescaped(job_type),
        queue=unescaped(queue),
        priority=Priority(priority),
        state=ExecutionState(state),
        finished_at=finished_at,
        started_at=started_at,
        duration_ms=duration_ms,
        error=unescaped(error),
        worker_id=unescaped(worker_id),
        created_at=created_at,
        scheduled_at=scheduled_at,
        max_retries=max_retries,
        crashes=crashes,
        deaths=deaths,
        dead_reason=None if dead_reason is None else DeadReason(dead_reason),
        metadata={} if metadata is None else _metadata.decode(metadata),
    )

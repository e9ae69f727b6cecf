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
from jobqueue_core.storage import ExecutionFilter, ExecutionPage, RecordPolicy

from .filters import filtered
from .incoming import Incoming, bring
from .statements import statement
from .texts import indexed, unescaped
from .times import cursor_instant, instant_of_cursor

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["executions", "forget", "job_executions", "record"]

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
    conditions = {
        "execution_type": indexed(wanted.type),
        "execution_queue": None if wanted.type else indexed(wanted.queue),
        "execution_queue_of_type": indexed(wanted.queue) if wanted.type else None,
        "finished_since": wanted.since,
        "finished_until": wanted.until,
        "after_execution": after_id,
    }
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
    following = f"{cursor_instant(page[-1].finished_at)}~{page[-1].id}" if len(rows) > limit else None
    return ExecutionPage(executions=tuple(page), next=following)


def job_executions(connection: Connection, job_id: str) -> list[Execution]:
    """See ``History.job_executions``."""
    return [_execution(row) for row in connection.execute(_with_columns(statement("executions_of_job")), {"job_id": job_id}).fetchall()]


def forget(connection: Connection, before: datetime, limit: int) -> int:
    """Forget up to *limit* executions that finished before *before* and are in no partition; says how many."""
    return connection.execute(statement("executions_forget"), {"before": before, "limit": limit}).rowcount


def _with_columns(text: str) -> str:
    return text.replace("/*columns*/", statement("executions_columns"))


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

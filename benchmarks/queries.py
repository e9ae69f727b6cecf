"""How long every query of the PostgreSQL storage takes on a large history, slowest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobqueue_core.attempt import DeadLetterState, ExecutionState
from jobqueue_core.job import JobState
from jobqueue_core.storage import DeadLetterFilter, EndFilter, ExecutionFilter

from .database import filled, own_schema
from .tables import Results

if TYPE_CHECKING:
    from jobqueue_postgres.storage import PostgresStorage

    from .options import Options

__all__ = ["run"]

Query = Callable[[], object]


def run(options: Options, database: str) -> Results:
    """The table: milliseconds of each query, the slowest median first."""
    from jobqueue_postgres.storage import PostgresStorage

    with own_schema(database) as namespace:
        filled(database, namespace, executions=options.executions, dead_letters=options.executions // 25)
        storage = PostgresStorage(database, namespace=namespace)
        rows = {label: {"ms": [_timed(query) for _ in range(options.repeats)]} for label, query in _queries(storage)}
        storage.close()
    slowest_first = sorted(rows.items(), key=lambda row: sorted(row[1]["ms"])[options.repeats // 2], reverse=True)
    return Results(f"queries: {options.executions:,} executions and {options.executions // 25:,} dead letters", dict(slowest_first))


def _timed(query: Query) -> float:
    began = time.perf_counter()
    query()
    return (time.perf_counter() - began) * 1e3


def _queries(storage: PostgresStorage) -> Iterator[tuple[str, Query]]:
    now = datetime.now(UTC)
    first = storage.executions(ExecutionFilter(), cursor=None, offset=0, limit=50).executions[0]
    letters = storage.dead_letters(DeadLetterFilter(), cursor=None, offset=0, limit=50).dead_letters
    yield "executions of a job", lambda: storage.job_executions(first.job_id)
    yield "statistics of 24 hours", lambda: storage.statistics(since=now - timedelta(days=1), until=now + timedelta(minutes=1))
    yield "statistics of 29 days", lambda: storage.statistics(since=now - timedelta(days=29), until=now)
    yield "totals of 1,000 types", lambda: storage.totals(1_000)
    recent = storage.executions(ExecutionFilter(), cursor=None, offset=0, limit=500).executions
    ends = [(one.job_id, one.finished_at) for one in recent]
    yield "ends of jobs", lambda: storage.ends(EndFilter(until=now), cursor=None, limit=50)
    yield "ends of jobs: dead", lambda: storage.ends(EndFilter(until=now, state=JobState.DEAD), cursor=None, limit=50)
    yield "ends of jobs: deep, 500", lambda: storage.ends(EndFilter(until=now), cursor=_cursor(now, first.id), limit=500)
    yield "have 500 jobs ended", lambda: storage.have_ended(ends, EndFilter(until=now))
    yield from _lists("executions", lambda **how: _executions(storage, **how), _EXECUTION_FILTERS, deep=_cursor(now, first.id))
    narrow = {**_LETTER_FILTERS, "fingerprint": {"fingerprint": letters[0].fingerprint}, "to now": {"died_before": now}}
    yield from _lists("dead letters", lambda **how: _dead_letters(storage, **how), narrow, deep=f"{_cursor(now, letters[0].job.id)}~1")
    for name, wanted in narrow.items():
        yield f"count of dead letters: {name}", lambda wanted=wanted: storage.count_dead_letters(DeadLetterFilter(**wanted))
        yield f"groups of dead letters: {name}", lambda wanted=wanted: storage.dead_letter_groups(DeadLetterFilter(**wanted), limit=50)
    yield "one dead letter", lambda: storage.dead_letter(letters[0].job.id)
    yield "half-done retries", lambda: storage.stale_requeues(now, 1_000)


def _lists(what: str, page: Callable[..., object], filters: dict[str, dict[str, Any]], *, deep: str) -> Iterator[tuple[str, Query]]:
    for name, wanted in filters.items():
        for how, options in (("", {}), (", 500", {"limit": 500}), (", offset 10,000", {"offset": 10_000}), (", in the midst", {"cursor": deep})):
            yield f"{what}: {name}{how}", lambda wanted=wanted, options=options: page(wanted=wanted, **options)


def _executions(storage: PostgresStorage, *, wanted: dict[str, Any], cursor: str | None = None, offset: int = 0, limit: int = 50) -> object:
    return storage.executions(ExecutionFilter(**wanted), cursor=cursor, offset=offset, limit=limit)


def _dead_letters(storage: PostgresStorage, *, wanted: dict[str, Any], cursor: str | None = None, offset: int = 0, limit: int = 50) -> object:
    return storage.dead_letters(DeadLetterFilter(**wanted), cursor=cursor, offset=offset, limit=limit)


def _cursor(now: datetime, row_id: str) -> str:
    return f"{int((now - timedelta(days=14)).timestamp() * 1e6)}~{row_id}"


_EXECUTION_FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "type": {"type": "type.3"},
    "queue": {"queue": "queue-2"},
    "completed": {"state": ExecutionState.COMPLETED},
    "lost (few)": {"state": ExecutionState.LOST},
    "cancelled (none)": {"state": ExecutionState.CANCELLED},
    "failed of type": {"type": "type.3", "state": ExecutionState.FAILED},
    "failed in queue": {"queue": "queue-2", "state": ExecutionState.FAILED},
    "type and queue": {"type": "type.3", "queue": "queue-0"},
    "type and queue, never together": {"type": "type.3", "queue": "queue-4"},
    "unknown type": {"type": "no.such"},
}
_LETTER_FILTERS: dict[str, dict[str, Any]] = {
    "open": {},
    "all": {"state": None},
    "discarded": {"state": DeadLetterState.DISCARDED},
    "type": {"type": "type.3"},
    "queue": {"queue": "queue-3"},
    "type and queue": {"type": "type.3", "queue": "queue-3"},
    "type and queue, never together": {"type": "type.3", "queue": "queue-4"},
    "unknown type": {"type": "no.such"},
}

"""The ends of jobs on PostgreSQL: looked up by job, also before the server knows anything about the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from servers import PostgresPlace

from jobqueue_core.storage import EndFilter
from jobqueue_core.testing.factories import NOON, execution
from jobqueue_postgres import history
from jobqueue_postgres.storage import PostgresStorage

_ROWS = 3_000
_UNTIL = EndFilter(until=NOON + timedelta(hours=1))


class _Explaining:
    """A connection that keeps the plan of what it executes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plan = ""

    def execute(self, text: str, bound: dict[str, Any], **options: Any) -> Any:
        self.plan = "\n".join(line for (line,) in self._connection.execute(f"EXPLAIN {text}", bound, **options).fetchall())
        return self._connection.execute(text, bound, **options)


@pytest.fixture
def storage(postgres_place: PostgresPlace) -> Iterator[PostgresStorage]:
    """A storage whose tables have never been analysed."""
    storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)
    with storage.connections.transaction() as connection:
        connection.execute("ALTER TABLE job_executions_default SET (autovacuum_enabled = off)")
    storage.record_executions([execution(finished_at=NOON - timedelta(seconds=number)) for number in range(_ROWS)], record="all")
    yield storage
    storage.close()


def _plan(storage: PostgresStorage, query: Callable[[Any], object]) -> str:
    with storage.connections.transaction() as connection:
        explaining = _Explaining(connection)
        query(explaining)
        return explaining.plan


def test_the_last_execution_of_a_job_is_found_by_job_without_statistics(storage: PostgresStorage) -> None:
    asked = [(one.job_id, one.finished_at) for one in storage.ends(_UNTIL, cursor=None, limit=100).executions]
    plan = _plan(storage, lambda connection: history.have_ended(connection, asked, _UNTIL))
    assert "job_id_run_idx" in plan
    assert "pkey" not in plan


def test_whether_an_end_is_the_last_of_its_job_is_found_by_job_without_statistics(storage: PostgresStorage) -> None:
    plan = _plan(storage, lambda connection: history.ends(connection, _UNTIL, cursor=None, limit=100))
    subplan = plan[plan.index("SubPlan") :]
    assert "job_id_run_idx" in subplan
    assert "pkey" not in subplan

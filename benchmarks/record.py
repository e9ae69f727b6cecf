"""How many executions a second a storage takes."""

from __future__ import annotations

import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobqueue_core.job import new_job_id
from jobqueue_core.testing.factories import execution

from .database import own_schema
from .tables import Results, Row, interleaved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobqueue_core.attempt import Execution
    from jobqueue_core.storage import Storage

    from .options import Options

__all__ = ["run"]

_BATCH = 2_000
"""As a recorder reads them."""


def run(options: Options, database: str) -> Results:
    """The table."""
    rows = [
        Row("postgres", partial(_on_postgres, database, options.jobs, pooled=False)),
        Row("postgres, pooled", partial(_on_postgres, database, options.jobs, pooled=True)),
        Row("sqlite", partial(_on_sqlite, options.jobs)),
    ]
    return interleaved(f"record: executions into a storage, {_BATCH} a call", rows, options.repeats)


def _on_postgres(database: str, count: int, *, pooled: bool) -> dict[str, float]:
    from jobqueue_postgres.storage import PostgresStorage

    with own_schema(database) as namespace:
        storage = PostgresStorage(database, namespace=namespace, pooled=pooled)
        storage.prune_executions(datetime.now(UTC) - timedelta(days=30), 1)  # makes partitions, as a recorder does when it starts
        return _measure(storage, count)


def _on_sqlite(count: int) -> dict[str, float]:
    from jobqueue_sqlite.storage import SqliteStorage

    with tempfile.TemporaryDirectory(prefix="jobqueue-benchmark-") as folder:
        return _measure(SqliteStorage(Path(folder) / "history.db"), count)


def _measure(storage: Storage, count: int) -> dict[str, float]:
    batches = [_batch(number) for number in range(count // _BATCH)]
    storage.record_executions(_batch(-1), record="all")  # connections are made
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        storage.record_executions(batch, record="all")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    again = time.perf_counter()
    for batch in batches:
        storage.record_executions(batch, record="all")
    again = time.perf_counter() - again
    stored = storage.statistics(since=_BEGAN - timedelta(days=1), until=_BEGAN + timedelta(days=1)).overall.total
    storage.close()
    if stored != (len(batches) + 1) * _BATCH:
        msg = f"{(len(batches) + 1) * _BATCH} executions were recorded, but storage counts {stored}"
        raise SystemExit(msg)
    rows = len(batches) * _BATCH
    return {"rows/s": rows / wall, "rows/s, known ones": rows / again, "process µs": cpu / rows * 1e6}


_BEGAN = datetime.now(UTC)


def _batch(number: int) -> Sequence[Execution]:
    began = _BEGAN + timedelta(milliseconds=20 * number)
    return [
        execution(
            id=str(uuid.uuid4()),
            job_id=new_job_id("default"),
            type=f"type.{at % 5}",
            finished_at=began + timedelta(microseconds=10 * at),
            duration_ms=1.0 + at % 97,
        )
        for at in range(_BATCH)
    ]

"""What ten thousand schedules cost a scheduler: a look when nothing is due, one tick, and all of them due at once."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from jobqueue_core import JobQueue
from jobqueue_core.service import Stop
from jobqueue_core.testing.factories import schedule
from jobqueue_cron.ticker import Ticker

from .database import own_schema
from .servers import empty, open_broker
from .tables import Results, Row, interleaved

if TYPE_CHECKING:
    from jobqueue_core.storage import Storage

    from .options import Options

__all__ = ["run"]

_SCHEDULES = 10_000
_EACH = 100
"""How often to measure what is short."""
_LATER = timedelta(hours=1)


def run(options: Options, url: str, database: str | None) -> Results:
    """The table."""
    rows = [Row(f"{options.broker}, sqlite", partial(_on_sqlite, url))]
    if database is not None:
        rows.append(Row(f"{options.broker}, postgres", partial(_on_postgres, url, database)))
    return interleaved(f"schedules: {_SCHEDULES} of them, and one scheduler", rows, options.repeats)


def _on_sqlite(url: str) -> dict[str, float]:
    from jobqueue_sqlite.storage import SqliteStorage

    with tempfile.TemporaryDirectory(prefix="jobqueue-benchmark-") as folder:
        return _measure(url, lambda: SqliteStorage(Path(folder) / "schedules.db"))


def _on_postgres(url: str, database: str) -> dict[str, float]:
    from jobqueue_postgres.storage import PostgresStorage

    with own_schema(database) as namespace:
        return _measure(url, lambda: PostgresStorage(database, namespace=namespace))


def _measure(url: str, open_storage: Callable[[], Storage]) -> dict[str, float]:
    namespace = f"benchmark-{secrets.token_hex(4)}"
    storage, broker = open_storage(), open_broker(url, namespace)
    with JobQueue(broker, storage) as queue:
        names = [f"schedule-{number}" for number in range(_SCHEDULES)]
        for name in names:
            storage.put_schedule(
                schedule(name, expression="0 0 1 1 *", queue="default", priority="low", next_run=broker.now() + _LATER), expected_version=None
            )
        ticker, stop = Ticker(queue, storage, poll_interval=timedelta(seconds=1)), Stop()
        ticker.turn(stop)

        began = time.perf_counter()
        for _ in range(_EACH):
            ticker.turn(stop)
        nothing = (time.perf_counter() - began) / _EACH

        one = 0.0
        for name in names[:_EACH]:
            _make_due(storage, name, broker.now())
            began = time.perf_counter()
            ticker.turn(stop)
            one += (time.perf_counter() - began) / _EACH

        for name in names:
            _make_due(storage, name, broker.now())
        wall, cpu = time.perf_counter(), time.process_time()
        ticker.turn(stop)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        waiting = sum(one.waiting for one in broker.queues())
    empty(url, namespace)
    if waiting != _SCHEDULES + _EACH:
        msg = f"{_SCHEDULES + _EACH} ticks were due, but {waiting} jobs are there"
        raise SystemExit(msg)
    return {"ms, none due": nothing * 1e3, "ms, one due": one * 1e3, "s, all due": wall, "process µs": cpu / _SCHEDULES * 1e6}


def _make_due(storage: Storage, name: str, now: object) -> None:
    found = storage.schedule(name)
    if found is None or not storage.put_schedule(replace(found, next_run=now), expected_version=found.version):
        msg = f"schedule {name} was changed by somebody else"
        raise SystemExit(msg)

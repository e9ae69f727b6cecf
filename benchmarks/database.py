"""A PostgreSQL schema of the benchmark's own on a given server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["filled", "own_schema"]


@contextmanager
def own_schema(url: str) -> Iterator[str]:
    """The name of a migrated schema, which is dropped afterwards."""
    import psycopg

    from jobqueue_postgres.migrating import migrate

    namespace = f"benchmark-{secrets.token_hex(4)}"
    try:
        migrate(url, namespace=namespace)
        yield namespace
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE'.encode())


def filled(url: str, namespace: str, *, executions: int, dead_letters: int) -> None:
    """Fill a schema with a month of history, by SQL: the storage itself would take minutes."""
    import psycopg

    from jobqueue_core.job import encode_job
    from jobqueue_core.testing.factories import dead_job

    text = Path(__file__).with_name("history.sql").read_text(encoding="utf-8")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'SET search_path TO "{namespace}"'.encode())
        settings = {"executions": str(executions), "dead_letters": str(dead_letters), "record": encode_job(dead_job(payload_json=b"")).hex()}
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (f"benchmark.{name}", value))
        connection.execute(text.encode())
        for table in ("job_executions", "dead_letter_queue", "job_execution_rollups", "job_execution_durations"):
            connection.execute(f"VACUUM ANALYZE {table}".encode())

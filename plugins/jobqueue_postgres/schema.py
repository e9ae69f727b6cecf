"""Which version of the schema a database has, and whether this release can work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobqueue_core.errors import IncompatibleData, StorageUnavailable

from .migrations_on_disk import bundled
from .statements import statement

if TYPE_CHECKING:
    import psycopg

__all__ = ["check_access", "check_schema"]


def check_schema(connection: psycopg.Connection[Any], where: str) -> None:
    """Refuse a database whose schema is too old or too new for this release.

    Raises:
        IncompatibleData: With the command to run.
        StorageUnavailable: Our role may not look.
    """
    needed = max(bundled())
    version, readable_from = _version(connection, needed)
    if version < needed:
        check_access(connection, where)
        has = f"is at version {version:04}" if version else "has not been made"
        raise IncompatibleData(f"{where}: the schema {has}, this release needs {needed:04}: run 'jobqueue migrate'")
    if version > needed and readable_from > needed:
        raise IncompatibleData(f"{where}: the schema is at version {version:04}, this release works up to {needed:04}: upgrade jobqueue")


def check_access(connection: psycopg.Connection[Any], where: str) -> None:
    """Refuse a schema that our role may not use: it would be taken for one in which nothing is.

    Raises:
        StorageUnavailable: With what to grant.
    """
    closed = connection.execute(statement("schema_closed")).fetchone()
    if closed is not None:
        raise StorageUnavailable(f"{where}: our role may not use the schema {closed[0]!r}: GRANT USAGE ON SCHEMA to it (docs/postgres.md)")


def _version(connection: psycopg.Connection[Any], needed: int) -> tuple[int, int]:
    exists = connection.execute(statement("migrations_table_exists")).fetchone()
    if exists is None or not exists[0]:
        return 0, 0
    row = connection.execute(statement("schema_version"), {"needed": needed}).fetchone()
    return (0, 0) if row is None or row[0] is None else (row[0], row[1])

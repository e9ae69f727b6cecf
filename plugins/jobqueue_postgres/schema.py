"""Which version of the schema a database has, and whether this release can work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_core.errors import IncompatibleData

from .migrations_on_disk import bundled
from .statements import statement

if TYPE_CHECKING:
    from .connections import Connection

__all__ = ["check_schema"]


def check_schema(connection: Connection, where: str) -> None:
    """Refuse a database whose schema is too old or too new for this release.

    Raises:
        IncompatibleData: With the command to run.
    """
    needed = max(bundled())
    version, readable_from = _version(connection)
    if version < needed:
        has = f"is at version {version:04}" if version else "has not been made"
        raise IncompatibleData(f"{where}: the schema {has}, this release needs {needed:04}: run 'jobqueue migrate'")
    if version > needed and readable_from > needed:
        raise IncompatibleData(f"{where}: the schema is at version {version:04}, this release works up to {needed:04}: upgrade jobqueue")


def _version(connection: Connection) -> tuple[int, int]:
    exists = connection.execute(statement("migrations_table_exists")).fetchone()
    if exists is None or not exists[0]:
        return 0, 0
    row = connection.execute(statement("schema_version")).fetchone()
    return (0, 0) if row is None else (row[0], row[1])

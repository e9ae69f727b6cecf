"""What PostgreSQL and its driver report, in the framework's words: a driver's exception never leaves this package."""

from __future__ import annotations

from typing import Final

import psycopg

from jobqueue_core.errors import IncompatibleData, JobQueueError, StorageRejected, StorageUnavailable

__all__ = ["REFUSED", "bare", "storage_fault"]

REFUSED: Final = ("22", "23", "54")
"""SQLSTATE classes that speak of the rows: data exception, integrity constraint violation, program limit exceeded."""
_ALIEN: Final = frozenset({"42P01", "42703", "42883", "42704", "3F000", "42P10", "42804"})
"""A table, column, function, type, schema or index that should be there is not, or is another."""


def storage_fault(where: str, error: psycopg.Error | UnicodeEncodeError) -> JobQueueError:
    """The error to raise instead of *error*.

    Args:
        where: The database, without secrets.
        error: What the driver said.
    """
    text = _text(error)
    if isinstance(error, UnicodeEncodeError):
        return StorageRejected(f"{where}: cannot be written down: {text}")
    state = error.sqlstate or ""
    if state == "23514" and error.diag.constraint_name is None:
        # Not the row's fault: a partition for it was made while it waited for the default one.
        return StorageUnavailable(f"{where}: {text}: try again")
    if state[:2] in REFUSED or (not state and isinstance(error, psycopg.DataError)):
        return StorageRejected(f"{where}: {text}")
    if state in _ALIEN:
        return IncompatibleData(
            f"{where}: not as this release made it ({text}): was it changed by hand? Restore it, or drop its schema and run 'jobqueue migrate'"
        )
    return StorageUnavailable(f"{where}: {text}{_remedy(state)}")


def bare(error: Exception) -> Exception:
    """*error* without its details: they repeat the row, and a cause is printed with a traceback."""
    return type(error)(_text(error)) if isinstance(error, psycopg.Error) else error


def _text(error: Exception) -> str:
    """The error in one line, without details: they repeat the row, which may hold what nobody must see."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return " ".join(str(error).split()) or type(error).__name__


def _remedy(state: str) -> str:
    match state:
        case "42501":
            return ": grant it to the role (docs/postgres.md lists what it needs)"
        case "57014":
            return ": it took longer than is allowed"
        case "53300":
            return ": raise max_connections, or put a pooler before it and set [storage] pooled"
        case "25006":
            return ": it is a standby, or default_transaction_read_only is set; give [storage] url the primary, or target_session_attrs=read-write"
        case "55P03":
            return ": somebody else uses the table for long; pg_stat_activity and pg_locks say who; try again"
        case _:
            return ""

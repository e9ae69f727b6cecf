"""What SQLite reports, in the framework's words: a driver's exception never leaves this package."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, Protocol

from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, JobQueueError, QueueFull, StorageRejected, StorageUnavailable

__all__ = ["Faults", "broker_faults", "busy", "storage_faults"]

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ALIEN: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH})
_REFUSED: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG})


class Faults(Protocol):
    """Turns an error of SQLite into one of ours."""

    def __call__(self, path: Path, error: sqlite3.Error, *, committing: bool) -> JobQueueError:
        """The error to raise instead.

        Args:
            path: The database.
            error: What SQLite said.
            committing: True when it said so while committing: with an I/O error nobody knows what reached the disk.
        """


def broker_faults(path: Path, error: sqlite3.Error, *, committing: bool) -> JobQueueError:
    """As a broker raises them."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return QueueFull(f"{path}: no room for more ({error}): free disk space; nothing was stored")
    if damage := _damage(path, error, code):
        return damage
    return BrokerUnavailable(_sentence(path, error, code), maybe_accepted=committing and code == sqlite3.SQLITE_IOERR)


def storage_faults(path: Path, error: sqlite3.Error, *, committing: bool) -> JobQueueError:  # noqa: ARG001 - a repeated write changes nothing
    """As a storage raises them."""
    code = _code(error)
    if code in _REFUSED or isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError)):
        return StorageRejected(f"{path}: {error}")
    if damage := _damage(path, error, code):
        return damage
    return StorageUnavailable(_sentence(path, error, code))


def busy(error: sqlite3.Error) -> bool:
    """True when someone else is writing."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _damage(path: Path, error: sqlite3.Error, code: int | None) -> IncompatibleData | None:
    if code in _DAMAGED:
        return IncompatibleData(
            f"{path}: damaged, or not a SQLite database ({error}): stop everything that uses it, copy it together with its -wal file, and "
            f"put a backup in its place or try 'sqlite3 {path} .recover'; it was not changed"
        )
    if code in _ALIEN:
        return IncompatibleData(f"{path}: not as this release made it ({error}): was it replaced, or changed by another program?")
    return None


def _sentence(path: Path, error: sqlite3.Error, code: int | None) -> str:
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{path}: another process holds the write lock ({error}); try again"
        case sqlite3.SQLITE_CANTOPEN:
            return f"{path}: cannot be opened ({error}): its folder must exist and be writable"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return f"{path}: cannot be written ({error}): give this user the right to write the file and its folder"
        case sqlite3.SQLITE_FULL:
            return f"{path}: no room for more ({error}): free disk space"
        case _:
            return f"{path}: {error}"

"""One SQLite file: its connections, transactions and schema version.

Each process has one connection that writes, used by one thread at a time, and a pool of connections that read. Waiting for the writing
connection is a lock within the process and short polls between processes, so that a writer waits for milliseconds, not for SQLite's backoff.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jobqueue_core.errors import IncompatibleData

from .faults import Faults, busy
from .statements import migrations, statement

__all__ = ["Database"]

_APPLICATION: Final = 0x4A4F4251
"""``PRAGMA application_id``: "JOBQ"."""
_BUSY_SLICE: Final = 10
"""Milliseconds that one attempt to begin waits inside SQLite."""
_CACHE_KIB: Final = 16_384
_WAL_LIMIT: Final = 64 << 20


class _Connections:
    """What one process has open. After a fork the child makes its own and never touches the parent's."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.writing = threading.Lock()
        self.writer: sqlite3.Connection | None = None
        self.wal: tuple[int, int] | None = None
        """Which file the writer's log is, from its first transaction on."""
        self.readers: deque[sqlite3.Connection] = deque()


class Database:
    """A file that broker and storage may share.

    Args:
        path: The file; made when it is missing.
        busy_timeout: How long to wait for others that write.
        faults: Turns errors of SQLite into ours.

    Raises:
        IncompatibleData: The file is damaged, not ours, or newer than this release.
        BrokerUnavailable: It cannot be opened (from a broker's *faults*; ``StorageUnavailable`` from a storage's).
    """

    def __init__(self, path: Path | str, *, busy_timeout: timedelta, faults: Faults) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links, and the file is named as it was given
        self._patience = busy_timeout.total_seconds()
        self._faults = faults
        self._closed = False
        self._abandoned: list[_Connections] = []
        self._own = _Connections()
        self._identity: tuple[int, int] | None = None
        with self._translated():
            self._create()

    # Transactions ----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that may write, alone among all processes; committed at the end, rolled back when something is raised.

        Raises:
            JobQueueError: What *faults* makes of an error of SQLite; nothing was written, unless it says ``maybe_accepted``.
        """
        own = self._connections()
        deadline = time.monotonic() + self._patience
        with self._translated():
            if not own.writing.acquire(timeout=self._patience):
                raise _locked()
        try:
            with self._translated():
                self._check_place()
                if own.writer is None:
                    own.writer = self._connect(busy_ms=_BUSY_SLICE)
                connection = own.writer
                self._begin(connection, deadline)
            try:
                with self._translated():
                    self._check_log(own)
                    yield connection
                with self._translated(committing=True):
                    connection.execute("COMMIT")
            except BaseException:
                self._roll_back(own)
                raise
        finally:
            own.writing.release()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads; each statement sees what is committed when it begins."""
        own = self._connections()
        with self._translated():
            try:
                connection = own.readers.pop()
            except IndexError:
                connection = self._connect(busy_ms=round(self._patience * 1000))
            try:
                yield connection
            finally:
                if self._closed:
                    connection.close()
                else:
                    own.readers.append(connection)

    def close(self) -> None:
        """Close what this process has open; what is in use is closed when it is given back."""
        self._closed = True
        own = self._connections()
        with self._translated():
            while own.readers:
                own.readers.pop().close()
            if own.writing.acquire(timeout=self._patience):
                try:
                    if own.writer is not None:
                        own.writer.close()
                        own.writer = None
                finally:
                    own.writing.release()

    @contextmanager
    def _translated(self, *, committing: bool = False) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._faults(self.path, error, committing=committing) from error

    def _begin(self, connection: sqlite3.Connection, deadline: float) -> None:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not busy(error) or time.monotonic() >= deadline:
                    raise
            else:
                return

    def _roll_back(self, own: _Connections) -> None:
        connection = own.writer
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # A connection that cannot even roll back (I/O error) is of no use: closing it undoes what it began.
            own.writer = own.wal = None
            connection.close()

    # Connections -----------------------------------------------------------------------------------------------------------------------

    def _connections(self) -> _Connections:
        if self._own.pid != os.getpid():
            # SQLite's connections must not cross a fork, nor be closed on its other side: that would drop the parent's locks.
            self._abandoned.append(self._own)
            self._own = _Connections()
        return self._own

    def _connect(self, *, busy_ms: int, create: bool = False) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("this database object has been closed")
        # Only the first opening may create: a file that vanishes later must not come back empty.
        uri = f"file:{quote(str(self.path))}?mode={'rwc' if create else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_ms / 1000, check_same_thread=False, cached_statements=256)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        return connection

    def _check_log(self, own: _Connections) -> None:
        # Under the write lock, so that nobody is just making it. What is written to a log that was deleted is gone with its last user.
        found = _identify(f"{self.path}-wal")
        if own.wal is None:
            own.wal = found
        elif found != own.wal:
            raise sqlite3.OperationalError("its -wal file was removed or replaced while in use: restart what uses it")

    def _check_place(self) -> None:
        # An open file can be written after it was deleted: jobs would be acknowledged that nobody will ever find.
        if _identify(self.path) != self._identity:
            raise sqlite3.OperationalError("was removed, moved or replaced while in use: put it back, or restart what uses it")

    # Schema ----------------------------------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        wal = self.path.with_name(self.path.name + "-wal")
        # In this order: whoever creates the file writes its first page before there is a -wal file.
        orphan = wal.exists() and wal.stat().st_size > 0
        if orphan and (not self.path.exists() or self.path.stat().st_size == 0):
            raise IncompatibleData(f"{self.path}: missing or empty, but {wal.name} beside it holds data: put the file back, or move {wal.name} away")
        connection = self._connect(busy_ms=round(self._patience * 1000), create=True)
        try:
            self._check_owner(connection)
            self._use_wal(connection)
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._identity = _identify(self.path)
        self._own.readers.append(connection)

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        version, application, tables = connection.execute(statement("file_owner")).fetchone()
        latest = migrations()[-1].version
        if application == _APPLICATION:
            if version > latest:
                raise IncompatibleData(f"{self.path}: has schema version {version}, this release reads up to {latest}: upgrade jobqueue")
        elif version or application or tables:
            raise IncompatibleData(f"{self.path}: is the database of another program: name another file")

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # Changing the journal mode does not wait for others by itself.
        deadline = time.monotonic() + self._patience
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
                continue
            if mode != "wal":
                raise IncompatibleData(f"{self.path}: its file system does not support write-ahead logging: put the file on a local disk")
            return

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "user_version") == migrations()[-1].version:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again: another process may have been here while this one waited.
            self._check_owner(connection)
            version = _pragma(connection, "user_version")
            for migration in migrations():
                if migration.version > version:
                    for text in migration.statements:
                        connection.execute(text)
                    connection.execute(f"PRAGMA user_version = {migration.version}")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _identify(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - before every write: Path.stat takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("another thread of this process is writing")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error

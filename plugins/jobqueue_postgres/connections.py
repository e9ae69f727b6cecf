"""Connections to one database: made when they are needed, kept for the next who needs one.

A pool of our own (docs/decisions/0017): when the server is away whoever asks is told so at once and why, and the first who asks after its return gets
a connection. No wait for the server is without an end, also when it has frozen.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.rows import TupleRow

from jobqueue_core.errors import StorageUnavailable

from .addresses import described, parameters
from .faults import bare, storage_fault
from .schema import check_schema
from .statements import statement

if TYPE_CHECKING:
    from psycopg.abc import PQGen

__all__ = ["Connection", "Connections"]

T = TypeVar("T")

_MOST: Final = 16
"""Connections of one process: more threads than that wait for one."""
_PATIENCE: Final = 5.0
"""Seconds to wait for a connection of the pool, or for a new one."""
_IDLE: Final = 300.0
"""Seconds after which a connection that nobody needed is closed."""
_MARGIN: Final = 1.0
"""Seconds on top of the statement timeout: by then a server that lives has said that it gives up. With the usual timeout five in all."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection that waits for an answer only so long."""

    answer_within: float = _PATIENCE
    """Seconds."""
    idle_since: float = 0.0
    pooled: bool = False
    """Whether nothing may be kept in the session."""
    has_incoming: bool = False
    """Whether the temporary table for COPY has been made in this session."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As the driver's, with an end."""
        try:
            return super().wait(gen, interval=interval, timeout=self.answer_within if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - the driver names it so
            # What the server makes of the statement nobody will hear: the connection is of no use any more.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_within:g} s") from error


class Connections:
    """The connections of one storage.

    Args:
        url: A libpq url.
        namespace: The schema in which our tables are; empty for the connection's own search path.
        pooled: *url* leads through a pooler that hands out a server connection for one transaction only: nothing is kept in a session.
        timeout: How long a statement may take.
    """

    def __init__(self, url: str, *, namespace: str = "", pooled: bool = False, timeout: timedelta = timedelta(seconds=4)) -> None:
        self.pooled: Final = pooled
        self.where: Final = described(url)
        self._url = url
        self._search_path = f'"{namespace}"' if namespace else ""
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._free = threading.BoundedSemaphore(_MOST)
        self._lock = threading.Lock()
        self._is_closed = False

    @contextmanager
    def transaction(self, *, timeout: timedelta | None = None) -> Iterator[Connection]:
        """A transaction, committed at the end unless an exception leaves the block.

        Args:
            timeout: How long a statement in it may take; None for the usual.

        Raises:
            StorageUnavailable: The server does not answer, or not in time; what was written may be there.
            StorageRejected: It refuses what was to be written.
            IncompatibleData: Its schema is too old or too new.
        """
        allowed = timeout or self._timeout
        try:
            with self._held() as connection:
                connection.answer_within = allowed.total_seconds() + _MARGIN
                try:
                    with connection.transaction():
                        if self.pooled or timeout is not None:
                            self._set_up(connection, allowed, local=True)
                        yield connection
                except BaseException:
                    # Whether the session still has its table nobody knows: it is looked for again.
                    connection.has_incoming = False
                    raise
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise storage_fault(self.where, error) from bare(error)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Taking and giving back ------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _held(self) -> Generator[Connection]:
        if not self._free.acquire(timeout=_PATIENCE):
            raise StorageUnavailable(f"{self.where}: all {_MOST} connections of this process have been busy for {_PATIENCE:g} s")
        try:
            connection = self._take() or self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if monotonic() - connection.idle_since < _IDLE and not _has_news(connection):
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        usable = not connection.closed and connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        overdue: list[Connection] = []
        with self._lock:
            if usable and not self._is_closed:
                connection.idle_since = monotonic()
                self._idle.append(connection)
                # The one on top is the one that is used: those at the bottom have been idle longest.
                while connection.idle_since - self._idle[0].idle_since > _IDLE:
                    overdue.append(self._idle.pop(0))
            else:
                overdue.append(connection)
        for one in overdue:
            one.close()

    def _connect(self) -> Connection:
        options: dict[str, Any] = {
            "connect_timeout": int(_PATIENCE),
            "application_name": "jobqueue",
            # A peer that has gone without a word is noticed, also by whoever only listens.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        } | parameters(self._url)
        connection = Connection.connect(**options, autocommit=True, prepare_threshold=None if self.pooled else 3)
        # What a role's settings might say otherwise, and the statements rely on.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.read_only = False
        connection.pooled = self.pooled
        try:
            connection.answer_within = self._timeout.total_seconds() + _MARGIN
            with connection.transaction():
                self._set_up(connection, self._timeout, local=self.pooled)
                check_schema(connection, self.where)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection, timeout: timedelta, *, local: bool) -> None:
        settings = {"timeout": f"{int(timeout.total_seconds() * 1000)}ms", "search_path": self._search_path, "local": local}
        connection.execute(statement("session_set_up"), settings)


def _has_news(connection: Connection) -> bool:
    """Whether the server has said something while nobody asked: it closes the connection, or has."""
    poller = select.poll()
    try:
        poller.register(connection.fileno(), select.POLLIN)
    except psycopg.Error:
        return True
    return bool(poller.poll(0))

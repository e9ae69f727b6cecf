"""Applies migrations, and undoes them: a file at a time, each in a transaction together with its own bookkeeping (DESIGN R19).

Any number may run at once. Who holds the lock is asked for again and again, never waited for: a waiter inside ``pg_advisory_lock()`` has a
snapshot, for which a ``CREATE INDEX CONCURRENTLY`` of the holder would wait in turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, Literal, Self

import attrs
import psycopg

from jobqueue_core.errors import Conflict, IncompatibleData, StorageUnavailable

from .addresses import described, parameters
from .faults import bare, storage_fault
from .migrations_on_disk import Migration, bundled, runs_in_transaction, statements_of
from .schema import check_access
from .statements import statement

__all__ = ["Applied", "Step", "migrate", "plan", "status"]

_OLDEST_SERVER: Final = 140_000
_POLL: Final = 0.2
_CONNECT_WITHIN: Final = 5


@attrs.frozen
class Applied:
    """A migration that a database has."""

    version: int
    name: str
    checksum: str
    readable_from: int
    at: datetime

    @property
    def label(self) -> str:
        """As its files are called."""
        return f"{self.version:04}_{self.name}"


@attrs.frozen
class Step:
    """One migration to apply or to undo."""

    direction: Literal["up", "down"]
    migration: Migration

    @property
    def text(self) -> str:
        """What is executed."""
        return self.migration.up if self.direction == "up" else self.migration.down or ""

    @property
    def runs_in_transaction(self) -> bool:
        """Whether it may."""
        return runs_in_transaction(self.text)


def migrate(
    url: str,
    *,
    namespace: str = "",
    target: int | None = None,
    migrations: Mapping[int, Migration] | None = None,
    say: Callable[[Step], None] = lambda _step: None,
    wait: timedelta = timedelta(seconds=60),
) -> list[Step]:
    """Bring the schema to version *target*.

    Args:
        url: A direct connection, not through a transaction pooler: it would do for most files, but not for those that run in no transaction.
        namespace: The schema; made when it is missing. Empty: the first of the connection's search path.
        target: The version to reach, up or down; None for the latest.
        migrations: What there is; None for what this release brings.
        say: Told of each step before it is taken.
        wait: How long to wait for another who migrates.

    Returns:
        The steps that were taken, by this call.

    Raises:
        Conflict: *target* is no version, or a migration cannot be undone (code ``unknown_version``, ``no_way_down``).
        IncompatibleData: The database is newer than this release, an applied file was changed, or the server cannot be used.
        StorageUnavailable: It does not answer, someone else is at it, or a migration failed; nothing of that one was done.
    """
    known = bundled() if migrations is None else migrations
    goal = _goal(known, target)
    with _Migrator.at(url, namespace=namespace, wait=wait) as migrator:
        migrator.check_server()
        done: list[Step] = []
        while (step := migrator.step(known, goal, say=say)) is not None:
            done.append(step)
        return done


def plan(url: str, *, namespace: str = "", target: int | None = None) -> list[Step]:
    """The steps that :func:`migrate` would take now. Raises as that."""
    known = bundled()
    goal = _goal(known, target)
    have = {one.version: one for one in status(url, namespace=namespace)}
    steps = []
    while (step := _following(described(url), have, known, goal)) is not None:
        steps.append(step)
        one = step.migration
        if step.direction == "up":
            have[one.version] = Applied(one.version, one.name, one.checksum, one.readable_from, datetime.now(UTC))
        else:
            del have[one.version]
    return steps


def status(url: str, *, namespace: str = "") -> list[Applied]:
    """The migrations that the database has, in order.

    Raises:
        StorageUnavailable: It does not answer.
    """
    with _Migrator.at(url, namespace=namespace, wait=timedelta(0)) as migrator, migrator.connection.transaction():
        migrator.enter_schema()
        return _applied(migrator.connection)


def _goal(known: Mapping[int, Migration], target: int | None) -> int:
    latest = max(known, default=0)
    if target is None:
        return latest
    if target != 0 and target not in known:
        raise Conflict(f"there is no migration {target:04}: the latest is {latest:04}", code="unknown_version")
    return target


def _following(where: str, have: Mapping[int, Applied], known: Mapping[int, Migration], goal: int) -> Step | None:
    """The next step to *goal*; None when it is reached."""
    newest = max(have, default=0)
    if newest > max(known, default=0) == goal and max(one.readable_from for version, one in have.items() if version > goal) <= goal:
        return None  # a newer release has been at it, and says that this one can work on what it made
    for version, applied in sorted(have.items()):
        if version not in known:
            raise IncompatibleData(f"{where}: its schema has migration {applied.label}, which this release does not know: upgrade jobqueue")
        if known[version].checksum != applied.checksum:
            raise IncompatibleData(f"{where}: migration {known[version].label} was changed after it was applied: restore the file")
    latest = max(have, default=0)
    if latest < goal:
        return Step("up", known[latest + 1])
    if latest == goal:
        return None
    if known[latest].down is None:
        raise Conflict(f"migration {known[latest].label} cannot be undone: it has no file {known[latest].label}.down.sql", code="no_way_down")
    return Step("down", known[latest])


def _applied(connection: psycopg.Connection[Any]) -> list[Applied]:
    row = connection.execute(statement("migrations_table_exists")).fetchone()
    if row is None or not row[0]:
        return []
    return [Applied(*one) for one in connection.execute(statement("migrations_list")).fetchall()]


# Taking steps --------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Migrator:
    """A connection to one schema, and how to work there alone."""

    url: str
    where: str
    namespace: str
    wait: timedelta
    connection: psycopg.Connection[Any]

    @classmethod
    @contextmanager
    def at(cls, url: str, *, namespace: str, wait: timedelta) -> Iterator[Self]:
        """Connect; a driver's exception does not get out."""
        where = described(url)
        options: dict[str, Any] = {
            "connect_timeout": _CONNECT_WITHIN,
            "application_name": "jobqueue migrate",
            **parameters(url),
        }
        try:
            with psycopg.connect(**options, autocommit=True, prepare_threshold=None) as connection:
                # A snapshot from before the lock would not show what its former holder did.
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                yield cls(url=url, where=where, namespace=namespace, wait=wait, connection=connection)
        except psycopg.Error as error:
            raise storage_fault(where, error) from bare(error)

    def check_server(self) -> None:
        """Refuse a server or database that will not do."""
        version = self.connection.info.server_version
        if version < _OLDEST_SERVER:
            raise IncompatibleData(f"{self.where}: PostgreSQL {version // 10_000} is too old: 14 or newer is needed")
        row = self.connection.execute(statement("migrations_encoding")).fetchone()
        if row is not None and row[0] != "UTF8":
            raise IncompatibleData(f"{self.where}: the database is encoded in {row[0]}: make one with ENCODING 'UTF8' TEMPLATE template0")

    def step(self, known: Mapping[int, Migration], goal: int, *, say: Callable[[Step], None]) -> Step | None:
        """Take the next step to *goal*; None when it is reached."""
        while True:
            with self._alone() as search_path:
                have = {one.version: one for one in _applied(self.connection)}
                step = _following(self.where, have, known, goal)
                if step is None:
                    return None
                if not have:
                    self._make_room()
                if step.runs_in_transaction:
                    say(step)
                    self._take(step, [step.text])
                    return step
            # Our own table is committed: now another connection sees it.
            with self._alone() as search_path:
                # Someone else may have taken the step between the two transactions.
                if (step.migration.version in {one.version for one in _applied(self.connection)}) == (step.direction == "down"):
                    say(step)
                    self._take_outside_transaction(step, search_path)
                    return step

    def _make_room(self) -> None:
        """Make what is missing of the schema and the table of what was applied; to make what is there would need a right that nobody needs."""
        if self.namespace and self._answers("migrations_schema_is_missing", {"schema": self.namespace}):
            self.connection.execute(f"CREATE SCHEMA {_quoted(self.namespace)}".encode())
        if not self._answers("migrations_table_exists"):
            self.connection.execute(statement("migrations_table"))

    def _take_outside_transaction(self, step: Step, search_path: str) -> None:
        """Execute a file statement by statement, while this connection holds the lock in an open transaction."""
        with self.at(self.url, namespace=self.namespace, wait=self.wait) as other:
            other.connection.execute(statement("migrations_session"), {"search_path": search_path})
            other._end_with_us(local=False)  # noqa: SLF001 - another of this class
            # The lock is asked for once more, so that nothing is noted when it was lost with its connection.
            other._take(step, statements_of(step.text), still=lambda: self._answers("migrations_lock"))  # noqa: SLF001

    def _take(self, step: Step, statements: Sequence[str], *, still: Callable[[], bool] = lambda: True) -> None:
        one = step.migration
        try:
            for text in statements:
                # Without parameters a text may hold many statements.
                self.connection.execute(text.encode())
        except psycopg.Error as error:
            raise StorageUnavailable(f"migration {one.label}.{step.direction}.sql failed{_because(self.where, step, error)}") from error
        if not still():
            raise StorageUnavailable(f"{self.where}: somebody else migrates it meanwhile")
        if step.direction == "up":
            bound = {"version": one.version, "name": one.name, "checksum": one.checksum, "readable_from": one.readable_from}
            self.connection.execute(statement("migrations_note"), bound)
        else:
            self.connection.execute(statement("migrations_forget"), {"version": one.version})

    @contextmanager
    def _alone(self) -> Iterator[str]:
        """A transaction in the schema, which nobody else migrates meanwhile; gives the search path."""
        deadline = monotonic() + self.wait.total_seconds()
        pause = threading.Event()
        while True:
            with self.connection.transaction():
                search_path = self.enter_schema()
                if self._answers("migrations_lock"):
                    self._end_with_us(local=True)
                    yield search_path
                    return
            if monotonic() > deadline:
                raise StorageUnavailable(f"{self.where}: somebody else has been migrating it for {self.wait.total_seconds():g} s")
            pause.wait(_POLL)

    def enter_schema(self) -> str:
        """Make the schema this transaction's own; gives the search path."""
        if self.namespace:
            schema = _quoted(self.namespace)
        else:
            row = self.connection.execute(statement("migrations_own_schema")).fetchone()
            if row is None or row[0] is None:
                raise IncompatibleData(f"{self.where}: no schema of the connection's search_path exists: make one, or set [run] namespace")
            schema = _quoted(row[0])
        # pg_temp last: else a temporary table could stand for one of ours in what runs with its owner's rights.
        search_path = f"{schema}, pg_temp"
        self.connection.execute(statement("migrations_search_path"), {"search_path": search_path})
        # What is made in a schema that is closed to us would go to the next of the search path, a temporary one.
        check_access(self.connection, self.where)
        return search_path

    def _end_with_us(self, *, local: bool) -> None:
        """Let the server give up what it executes when this process dies. Where it cannot, it first comes to the end of a statement."""
        with suppress(psycopg.errors.InvalidParameterValue), self.connection.transaction():
            self.connection.execute(statement("migrations_watch_client"), {"local": local})

    def _answers(self, name: str, bound: Mapping[str, Any] | None = None) -> bool:
        row = self.connection.execute(statement(name), bound).fetchone()
        return row is not None and bool(row[0])


def _because(where: str, step: Step, error: psycopg.Error) -> str:
    done = "" if step.runs_in_transaction else ", what stands before the statement that failed is done"
    return f"{done}: {storage_fault(where, error)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""What ``jobqueue doctor`` looks at on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_core.checks import Check, Finding
from jobqueue_core.errors import BrokerError

from .dead_letters import refused
from .migrations_on_disk import bundled
from .statements import statement
from .storage import PostgresStorage

if TYPE_CHECKING:
    from datetime import datetime

    from jobqueue_core.app import App

    from .connections import Connection

__all__ = ["checks"]

_MANY: Final = 1_000
_NEARLY: Final = 0.9
_FORGOTTEN: Final = timedelta(minutes=2)
_RECORDER: Final = "run a worker or scheduler: a recorder runs beside them"


def checks() -> list[Check]:
    """All checks of this plugin: one, so that a server that is away is waited for once."""
    return [Check(name="postgresql", run=_check)]


def _check(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    storage = app.storage
    if not isinstance(storage, PostgresStorage):
        return []
    pooled = storage.connections.pooled
    with storage.connections.transaction() as connection:
        missing = _rights(connection, pooled=pooled)
        found = [*_server(connection, pooled=pooled), *_migrations(connection), *missing]
    if missing:
        return found
    try:
        now = app.broker.now()
    except BrokerError:
        return found  # which is said elsewhere; without its clock nobody knows what is late
    with storage.connections.transaction() as connection:
        found += [*_partitions(connection, now), *_refused(connection)]
    return [*found, *_requeues(storage, now)]


def _server(connection: Connection, *, pooled: bool) -> Iterable[Finding]:
    row = connection.execute(statement("checks_server")).fetchone()
    if row is None:
        return
    version, role, is_superuser, has_tls, is_local, fsync, commit, most, used, is_standby, pid = row
    yield Finding(level="ok", text=f"PostgreSQL {version}, role {role}, {'with' if has_tls else 'without'} TLS")
    if is_standby:
        yield Finding(level="error", text="the server is a standby, and takes no writes", remedy="give [storage] url the primary")
    if is_superuser:
        yield Finding(level="warning", text=f"role {role} is a superuser, and need not be", remedy="docs/postgres.md has a role with what it needs")
    if not has_tls and not is_local:
        yield Finding(level="warning", text="the connection crosses the network without TLS", remedy="add ?sslmode=verify-full to [storage] url")
    if not fsync:
        yield Finding(level="warning", text="fsync is off: a crash of the machine may destroy the database", remedy="turn it on in postgresql.conf")
    if commit == "off":
        text = "synchronous_commit is off: a crash of the server forgets dead letters that the broker has let go"
        yield Finding(level="warning", text=text, remedy=f"ALTER ROLE {role} SET synchronous_commit = on")
    # A pooler tells its clients a process of its own making.
    if pid != connection.info.backend_pid and not pooled:
        text = "the connection leads through a pooler, and [storage] pooled is not set"
        yield Finding(level="warning", text=text, remedy="set it, unless the pooler keeps a session for each client (docs/postgres.md)")
    if used > most * _NEARLY:
        text = f"{used} of max_connections = {most} are used"
        yield Finding(level="warning", text=text, remedy="raise it, or put a pooler before it and set [storage] pooled")


def _migrations(connection: Connection) -> Iterable[Finding]:
    applied = {version: (name, checksum) for version, name, checksum, *_ in connection.execute(statement("migrations_list")).fetchall()}
    for version, one in bundled().items():
        if version in applied and applied[version][1] != one.checksum:
            text = f"migration {one.label} was applied from another file than this release has: the schema may be another"
            yield Finding(level="error", text=text, remedy="restore the file that was applied, or drop the schema and run: jobqueue migrate")
    for version in sorted(applied.keys() - bundled().keys()):
        text = f"the schema has migration {version:04}_{applied[version][0]} of a newer release, which says that this one can work on it"
        yield Finding(level="ok", text=text, remedy="upgrade jobqueue here too")


def _rights(connection: Connection, *, pooled: bool) -> list[Finding]:
    missing = [row[0] for row in connection.execute(statement("checks_rights"), {"pooled": pooled}).fetchall()]
    if not missing:
        return []
    shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    return [Finding(level="error", text=f"the role lacks {shown}", remedy="GRANT it: docs/postgres.md has the statements")]


def _partitions(connection: Connection, now: datetime) -> Iterable[Finding]:
    row = connection.execute(statement("checks_partitions"), {"most": _MANY}).fetchone()
    strays, ends_at = (0, None) if row is None else row
    if ends_at is None or ends_at <= now:
        yield Finding(level="warning", text="no partition is ready for what ends now", remedy=_RECORDER)
    if strays:
        count = f"{strays} or more" if strays >= _MANY else str(strays)
        remedy = "none as long as they are few: a recorder forgets them with time"
        yield Finding(level="ok", text=f"{count} executions are in no partition", remedy=remedy)


def _refused(connection: Connection) -> Iterable[Finding]:
    count, problem = refused(connection)
    if count:
        text = f"{count} dead letters are kept aside, for their table refuses them: {problem}"
        yield Finding(level="error", text=text, remedy="mend that (a constraint?): a recorder tries them again each minute")


def _requeues(storage: PostgresStorage, now: datetime) -> Iterable[Finding]:
    if storage.stale_requeues(now - _FORGOTTEN, 1):
        yield Finding(level="warning", text="dead letter retries were left half done more than two minutes ago", remedy=_RECORDER)

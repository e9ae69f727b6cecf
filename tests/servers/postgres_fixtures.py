"""What any test may ask for of PostgreSQL: a place on a running server, a server of its own, a network or a pooler between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from .pgbouncer import PgBouncer, find_pgbouncer
from .places import PostgresPlace
from .postgres_server import PostgresServer
from .programs import Program, given_postgres
from .proxy import Proxy
from .transaction_pooler import TransactionPooler

StartPostgres = Callable[..., PostgresServer]
Pooler = TransactionPooler | PgBouncer

_STRAY: Final = """
SELECT format('%s.%s', nspname, name)
FROM (SELECT relnamespace, relname FROM pg_class UNION ALL SELECT pronamespace, proname || '()' FROM pg_proc) AS found (namespace, name)
JOIN pg_namespace ON pg_namespace.oid = namespace
WHERE nspname !~ '^(test_|pg_|information_schema$)'
"""
"""What is in no test's schema."""


# Places on a server that is shared -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_program(request: pytest.FixtureRequest) -> Program | None:
    """Which server is started; None: the one that is chosen."""
    return getattr(request, "param", None)


@pytest.fixture(scope="session")
def started_postgres(postgres_program: Program | None) -> Iterator[PostgresServer]:
    """The server that this process has started for all tests."""
    with PostgresServer(postgres_program) as server:
        yield server


@pytest.fixture(scope="session")
def shared_postgres(request: pytest.FixtureRequest, postgres_program: Program | None) -> str:
    """The server in ``DATABASE_URL``, or one that this process has started. Ask for ``postgres_place`` instead."""
    return given_postgres() or request.getfixturevalue("started_postgres").url


@contextmanager
def _postgres_place(place: PostgresPlace) -> Iterator[PostgresPlace]:
    yield place
    direct = place.direct_url or place.url
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '10s'")  # for what the test has left running
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(place.namespace)))
        if direct != given_postgres():
            stray = [name for (name,) in connection.execute(_STRAY)]
            assert not stray, f"not in the test's namespace: {stray[:20]}"


@pytest.fixture
def empty_postgres_place(shared_postgres: str, own_namespace: str) -> Iterator[PostgresPlace]:
    """A place on the shared server where nothing is yet, not even the schema."""
    with _postgres_place(PostgresPlace(shared_postgres, own_namespace)) as place:
        yield place


@pytest.fixture
def postgres_place(empty_postgres_place: PostgresPlace) -> PostgresPlace:
    """A place on the shared server that no other test uses, migrated. The test may do nothing to the server."""
    return empty_postgres_place.migrate()


@pytest.fixture(scope="module")
def module_postgres_place(shared_postgres: str, module_namespace: str) -> Iterator[PostgresPlace]:
    """The same for what a whole module shares."""
    with _postgres_place(PostgresPlace(shared_postgres, module_namespace)) as place:
        yield place.migrate()


@pytest.fixture(scope="session", params=["pooler", *(["pgbouncer"] if find_pgbouncer() else [])])
def shared_pooler(request: pytest.FixtureRequest, started_postgres: PostgresServer) -> Iterator[Pooler]:
    """A transaction pooler before a server that others use too; what asks for it runs on each kind that is there."""
    with _pooler(request.param, started_postgres, size=3) as pooler:
        yield pooler


@pytest.fixture
def pooled_place(shared_pooler: Pooler, started_postgres: PostgresServer, own_namespace: str) -> Iterator[PostgresPlace]:
    """A place like ``postgres_place`` behind a transaction pooler, which gives the sessions of all tests to anyone."""
    with _postgres_place(PostgresPlace(shared_pooler.url, own_namespace, started_postgres.url)) as place:
        yield place.migrate()


@pytest.fixture
def pooler_url(shared_pooler: Pooler) -> str:
    """The url of that pooler; the test must keep to a namespace."""
    return shared_pooler.url


def _pooler(kind: str, server: PostgresServer, *, size: int) -> Pooler:
    return TransactionPooler(server.port, size=size) if kind == "pooler" else PgBouncer(server.port, size=size)


# Servers of the test's own ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_postgres(postgres_program: Program | None) -> Iterator[StartPostgres]:
    """Start servers of the test's own; options as those of ``PostgresServer``. Skips the test where one cannot do what is asked of it."""
    started: list[PostgresServer] = []

    def start_postgres(**options: Any) -> PostgresServer:
        try:
            started.append(PostgresServer(postgres_program, **options))
        except LookupError as error:
            if not options.get("tls"):
                raise
            pytest.skip(str(error))
        return started[-1]

    yield start_postgres
    for server in started:
        server.close()


@pytest.fixture
def postgres_server(start_postgres: StartPostgres) -> PostgresServer:
    """A server of the test's own, which keeps its data over a restart. ``PostgresPlace(url, namespace).migrate()`` makes a place on it."""
    return start_postgres()


@pytest.fixture
def postgres_proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    """A network before ``postgres_server`` that can fail."""
    with Proxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
def transaction_pooler(postgres_server: PostgresServer) -> Iterator[TransactionPooler]:
    """A transaction pooler with two connections to ``postgres_server``."""
    with TransactionPooler(postgres_server.port) as pooler:
        yield pooler


@pytest.fixture
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """The same, but PgBouncer; skips the test where that is not installed."""
    if find_pgbouncer() is None:
        pytest.skip("no program pgbouncer")
    with PgBouncer(postgres_server.port) as pooler:
        yield pooler

"""Connections to PostgreSQL: kept, dropped, bounded in number and time, and errors in words that say what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from servers import PostgresPlace, PostgresServer

from jobqueue_core.errors import IncompatibleData, StorageRejected, StorageUnavailable
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import dead_letter
from jobqueue_postgres.connections import Connections
from jobqueue_postgres.storage import PostgresStorage

_PIDS = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()"


@pytest.fixture
def connections(postgres_place: PostgresPlace) -> Iterator[Connections]:
    """The connections of one storage."""
    connections = Connections(_named(postgres_place), namespace=postgres_place.namespace, timeout=timedelta(seconds=2))
    yield connections
    connections.close()


def _named(place: PostgresPlace, **options: str) -> str:
    extra = "".join(f"&{name}={value}" for name, value in options.items())
    return f"{place.url}?application_name={place.namespace}{extra}"


def _ours(place: PostgresPlace) -> list[int]:
    """The server processes of the test's connections."""
    with psycopg.connect(place.url) as connection:
        return [pid for (pid,) in connection.execute(_PIDS, (place.namespace,)).fetchall()]


def test_a_connection_is_used_again(connections: Connections, postgres_place: PostgresPlace) -> None:
    pids = set()
    for _ in range(5):
        with connections.transaction() as connection:
            pids |= set(connection.execute("SELECT pg_backend_pid()").fetchall())
    assert len(pids) == 1
    assert len(_ours(postgres_place)) == 1
    connections.close()
    with psycopg.connect(postgres_place.url) as other:
        for _ in range(200):
            if not other.execute(_PIDS, (postgres_place.namespace,)).fetchall():
                break
            other.rollback()
            threading.Event().wait(0.01)
        else:
            pytest.fail("the connection is still there after closing")


def test_opening_a_storage_connects_to_nothing() -> None:
    storage = PostgresStorage("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1"):
        storage.schedules()
    storage.close()


def test_a_connection_that_the_server_has_closed_is_not_handed_out(connections: Connections, postgres_place: PostgresPlace) -> None:
    with connections.transaction():
        pass
    (pid,) = _ours(postgres_place)
    with psycopg.connect(postgres_place.url, autocommit=True) as other:
        assert other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone() == (True,)
    with connections.transaction() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_more_threads_than_connections_wait_for_one_another(connections: Connections, postgres_place: PostgresPlace) -> None:
    seen = []

    def work(_number: int) -> None:
        with connections.transaction() as connection:
            connection.execute("SELECT pg_sleep(0.02)")
            seen.append(len(_ours(postgres_place)))

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(40)))
    assert len(seen) == 40
    assert max(seen) <= 16


def test_a_statement_that_takes_too_long_is_given_up_by_the_server(connections: Connections) -> None:
    with pytest.raises(StorageUnavailable, match="longer than is allowed"), connections.transaction(timeout=timedelta(milliseconds=50)) as connection:
        connection.execute("SELECT pg_sleep(30)")
    with connections.transaction() as connection:
        assert connection.execute("SELECT current_setting('statement_timeout')").fetchone() == ("2s",)


def test_an_error_rolls_back_and_leaves_the_connection_usable(connections: Connections) -> None:
    def half() -> None:
        with connections.transaction() as connection:
            connection.execute("CREATE TABLE half_done ()")
            connection.execute("SELECT 1 / 0")

    with pytest.raises(StorageRejected):
        half()
    with connections.transaction() as connection:
        assert connection.execute("SELECT to_regclass('half_done')").fetchone() == (None,)


def test_the_session_is_in_the_namespace_and_in_utc(connections: Connections, postgres_place: PostgresPlace) -> None:
    with connections.transaction() as connection:
        row = connection.execute("SELECT current_schema(), current_setting('TimeZone')").fetchone()
    assert row == (postgres_place.namespace, "UTC")


def test_a_pooled_connection_leaves_nothing_in_the_session(postgres_place: PostgresPlace) -> None:
    connections = Connections(postgres_place.url, namespace=postgres_place.namespace, pooled=True)
    with connections.transaction() as connection:
        inside = connection.execute("SELECT current_setting('search_path')").fetchone()
    outside = connection.execute("SELECT current_setting('search_path'), current_setting('statement_timeout')").fetchone()
    storage = PostgresStorage(postgres_place.url, namespace=postgres_place.namespace, pooled=True)
    storage.record_dead_letters([dead_letter() for _ in range(20)])
    with storage.connections.transaction() as other:
        left = other.execute(
            "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())"
        ).fetchone()
    storage.close()
    connections.close()
    assert inside == (f'"{postgres_place.namespace}"',)
    assert outside == ('"$user", public', "0")
    assert left == (0, 0)


def test_a_namespace_with_capitals_and_hyphens_is_a_schema_of_that_name(postgres_place: PostgresPlace) -> None:
    place = PostgresPlace(postgres_place.url, f"Odd-{postgres_place.namespace[-12:]}").migrate()
    storage = PostgresStorage(place.url, namespace=place.namespace)
    storage.record_dead_letters([dead_letter()])
    assert storage.count_dead_letters(DeadLetterFilter()) == 1
    storage.close()
    with psycopg.connect(place.url, autocommit=True) as connection:
        assert connection.execute(f'SELECT count(*) FROM "{place.namespace}".dead_letter_queue').fetchone() == (1,)
        connection.execute(f'DROP SCHEMA "{place.namespace}" CASCADE')


def test_the_errors_of_a_server_say_what_to_do_and_no_secret(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE ROLE reader LOGIN")
    postgres_server.execute("CREATE DATABASE other")
    PostgresPlace(postgres_server.url, "mine").migrate()
    postgres_server.execute("GRANT USAGE ON SCHEMA mine TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA mine TO reader")
    at = f"127.0.0.1:{postgres_server.port}"
    cases = {
        f"postgresql://nobody:hunter2@{at}/postgres": (StorageUnavailable, 'role "nobody" does not exist'),
        f"postgresql://postgres:hunter2@{at}/nowhere": (StorageUnavailable, 'database "nowhere" does not exist'),
        f"postgresql://postgres:hunter2@{at}/other": (IncompatibleData, "run 'jobqueue migrate'"),
        f"postgresql://postgres:hunter2@{at}/other?sslmode=require": (StorageUnavailable, "SSL"),
    }
    for url, (kind, text) in cases.items():
        storage = PostgresStorage(url, namespace="mine")
        with pytest.raises(kind, match=text) as caught:
            storage.schedules()
        assert "hunter2" not in str(caught.value)
    storage = PostgresStorage(f"postgresql://reader:hunter2@{at}/postgres", namespace="mine")
    assert storage.count_dead_letters(DeadLetterFilter()) == 0
    with pytest.raises(StorageUnavailable, match=r"permission denied.*grant it to the role"):
        storage.record_dead_letters([dead_letter()])
    storage.close()


def test_a_connection_is_encrypted_and_the_certificate_checked(start_postgres: object) -> None:
    try:
        server = start_postgres(tls=True)  # type: ignore[operator]  # a fixture
    except LookupError as error:
        pytest.skip(str(error))
    PostgresPlace(server.url, "mine").migrate()
    url = f"postgresql://postgres@localhost:{server.port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={server.certificate}"
    storage = PostgresStorage(url, namespace="mine")
    with storage.connections.transaction() as connection:
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
    storage.close()
    stranger = PostgresStorage(url.replace("@localhost", "@elsewhere"), namespace="mine")
    with pytest.raises(StorageUnavailable, match="elsewhere"):
        stranger.schedules()
    stranger.close()

"""Migrations on a server that others use, by roles that may not do everything and sessions that are set up in every way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from servers import PostgresPlace, PostgresServer, TransactionPooler

from jobqueue_core.errors import StorageUnavailable
from jobqueue_postgres.migrating import migrate, status
from jobqueue_postgres.migrations_on_disk import Migration, bundled
from jobqueue_postgres.storage import PostgresStorage


def _known(*texts: str) -> dict[int, Migration]:
    return {
        version: Migration(version=version, name=f"step{version}", up=text, down="SELECT 1", readable_from=version)
        for version, text in enumerate(texts, start=1)
    }


def _until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, what
        pause.wait(0.01)
    return found


@pytest.fixture
def go(empty_postgres_place: PostgresPlace) -> Callable[..., list[int]]:
    """Migrate the test's own schema by the texts given; *options* are settings of the session. Says which were applied."""

    def go(*texts: str, options: str = "") -> list[int]:
        url = f"{empty_postgres_place.url}?options={quote(options)}" if options else empty_postgres_place.url
        return [step.migration.version for step in migrate(url, namespace=empty_postgres_place.namespace, migrations=_known(*texts))]

    return go


# Outside transactions ------------------------------------------------------------------------------------------------------------------


def test_an_index_is_made_concurrently_however_long_it_waits_for_older_transactions_and_other_migrators(
    go: Callable[..., list[int]], empty_postgres_place: PostgresPlace
) -> None:
    table = "CREATE TABLE one (number integer)"
    index = """-- migrate: no-transaction
        DO $$ BEGIN ASSERT current_setting('lock_timeout') = '0', 'or it would give up'; END $$;
        CREATE INDEX CONCURRENTLY one_number ON one (number);
    """
    go(table)
    with psycopg.connect(empty_postgres_place.url) as older, psycopg.connect(empty_postgres_place.url, autocommit=True) as looking:
        older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        older.execute(f"SELECT * FROM {empty_postgres_place.namespace}.one".encode())
        with ThreadPoolExecutor() as pool:
            taken = [pool.submit(go, table, index) for _ in range(3)]
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE INDEX CONCURRENTLY one_number%'"
            _until(lambda: looking.execute(waits).fetchall(), "it waits for the older transaction")
            older.rollback()
            assert sorted(one.result() for one in taken) == [[], [], [2]]
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass"
        assert looking.execute(valid, (f"{empty_postgres_place.namespace}.one_number",)).fetchall() == [(True,)]


def test_a_file_outside_transactions_that_fails_is_not_noted_and_begins_again(
    go: Callable[..., list[int]], empty_postgres_place: PostgresPlace
) -> None:
    file = "-- migrate: no-transaction\nCREATE TABLE IF NOT EXISTS one ();\nSELECT 1 / {};\nCREATE TABLE two ();"
    with pytest.raises(StorageUnavailable, match=r"step1\.up\.sql failed, what stands before the statement that failed is done.*division by zero"):
        go(file.format(0))
    assert status(empty_postgres_place.url, namespace=empty_postgres_place.namespace) == []
    assert go(file.format(1)) == [1]


def test_functions_may_be_made_outside_transactions_too(go: Callable[..., list[int]]) -> None:
    body = "$$\nBEGIN\n    PERFORM ';';\n    RETURN 1;\nEND\n$$"
    assert go(f"-- migrate: no-transaction\nCREATE FUNCTION one() RETURNS integer LANGUAGE plpgsql AS {body};\nSELECT one();\n") == [1]


# Sessions ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "-c idle_in_transaction_session_timeout=200",
        "-c statement_timeout=200",
        "-c search_path=pg_catalog",
        "-c datestyle=SQL,DMY -c timezone=Asia/Kathmandu",
    ],
)
def test_how_the_role_sets_up_its_sessions_does_not_matter(go: Callable[..., list[int]], options: str) -> None:
    texts = ["CREATE TABLE one (); SELECT pg_sleep(0.4)", "-- migrate: no-transaction\nSELECT pg_sleep(0.4);\nCREATE TABLE two ();"]
    assert go(*texts, options=options) == [1, 2]


def test_an_index_does_not_wait_for_the_lock_of_its_own_migrator_where_transactions_are_serializable(go: Callable[..., list[int]]) -> None:
    index = "-- migrate: no-transaction\nSET lock_timeout = '5s';\nCREATE INDEX CONCURRENTLY one_number ON one (number);"
    assert go("CREATE TABLE one (number integer)", index, options="-c default_transaction_isolation=serializable") == [1, 2]


def test_files_are_read_as_they_are_written_whatever_encoding_the_url_names(empty_postgres_place: PostgresPlace) -> None:
    url = f"{empty_postgres_place.url}?client_encoding=LATIN1"
    migrate(url, namespace=empty_postgres_place.namespace, migrations=_known("CREATE TABLE one (text text DEFAULT 'é→')"))
    with psycopg.connect(empty_postgres_place.url) as connection:
        found = "SELECT column_default FROM information_schema.columns WHERE table_schema = %s AND table_name = 'one'"
        assert connection.execute(found, (empty_postgres_place.namespace,)).fetchall() == [("'é→'::text",)]


def test_a_transaction_pooler_does_for_files_in_transactions(transaction_pooler: TransactionPooler, postgres_server: PostgresServer) -> None:
    for _ in range(2):
        migrate(transaction_pooler.url, namespace="behind")
    assert [one.version for one in status(postgres_server.url, namespace="behind")] == list(bundled())


# Roles ---------------------------------------------------------------------------------------------------------------------------------


def test_a_role_needs_no_right_for_what_is_there_and_is_told_which_one_it_lacks(postgres_server: PostgresServer) -> None:
    at = f"127.0.0.1:{postgres_server.port}/postgres"
    for sql in ("CREATE ROLE owner LOGIN", "CREATE ROLE reader LOGIN", "CREATE SCHEMA theirs AUTHORIZATION owner"):
        postgres_server.execute(sql)
    migrate(f"postgresql://owner@{at}", namespace="theirs")

    for look in (
        lambda: migrate(f"postgresql://reader@{at}", namespace="theirs"),
        lambda: status(f"postgresql://reader@{at}", namespace="theirs"),
        lambda: PostgresStorage(f"postgresql://reader@{at}", namespace="theirs").schedules(),
    ):
        with pytest.raises(StorageUnavailable, match="our role may not use the schema 'theirs': GRANT USAGE"):
            look()
    postgres_server.execute("GRANT USAGE ON SCHEMA theirs TO reader")
    with pytest.raises(StorageUnavailable, match="permission denied for table jobqueue_migrations: grant it"):
        status(f"postgresql://reader@{at}", namespace="theirs")
    postgres_server.execute("GRANT SELECT ON theirs.jobqueue_migrations TO reader")
    assert migrate(f"postgresql://reader@{at}", namespace="theirs") == [], "it looks, and makes nothing"
    with pytest.raises(StorageUnavailable, match="permission denied for database"):
        migrate(f"postgresql://reader@{at}", namespace="another")


def test_two_namespaces_of_a_database_do_not_wait_for_each_other(postgres_server: PostgresServer) -> None:
    with ThreadPoolExecutor() as pool, psycopg.connect(postgres_server.url, autocommit=True) as looking:
        slow = pool.submit(migrate, postgres_server.url, namespace="slow", migrations=_known("SELECT pg_sleep(30)"))
        sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        ((pid,),) = _until(lambda: looking.execute(sleeping).fetchall(), "it has begun")
        assert len(migrate(postgres_server.url, namespace="quick")) == len(bundled())
        assert looking.execute(sleeping).fetchall() == [(pid,)], "the other goes on"
        looking.execute("SELECT pg_terminate_backend(%s)", (pid,))
        assert isinstance(slow.exception(), StorageUnavailable)


def test_without_a_namespace_tables_go_to_the_first_schema_of_the_search_path_that_exists(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE SCHEMA mine")
    migrate(f"{postgres_server.url}?options=-csearch_path%3Dnowhere,mine,public")
    assert postgres_server.execute("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'dead_letter_queue'") == [("mine",)]
    storage = PostgresStorage(f"{postgres_server.url}?options=-csearch_path%3Dmine")
    assert storage.schedules() == []
    storage.close()

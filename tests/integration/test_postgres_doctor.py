"""What ``jobqueue doctor`` finds on a PostgreSQL server, and how little it says of one that is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
from servers import PostgresPlace, PostgresServer

from jobqueue_core.app import App
from jobqueue_core.checks import Finding
from jobqueue_core.errors import IncompatibleData, StorageUnavailable
from jobqueue_core.testing.factories import dead_letter, execution
from jobqueue_postgres.checks import checks
from jobqueue_postgres.migrations_on_disk import bundled
from jobqueue_postgres.probe import probe
from jobqueue_postgres.statements import statement

Examine = Callable[..., list[Finding]]
_OF_THE_TEST_SERVER = ("is a superuser", "fsync is off")
"""What is wrong with every server that tests start."""


@pytest.fixture
def open_app(tmp_path: Path) -> Iterator[Callable[[PostgresPlace], App]]:
    """Open an app whose history is in a place, and whose jobs are in a file."""
    opened: list[App] = []

    def open_app(place: PostgresPlace) -> App:
        config = tmp_path / f"jobqueue-{len(opened)}.toml"
        config.write_text(f'[broker]\nurl = "sqlite:///{tmp_path}/jobs.db"\n{place.config}')
        opened.append(App.from_config(config, environ={}))
        return opened[-1]

    yield open_app
    for app in opened:
        app.close()


@pytest.fixture
def examine(open_app: Callable[[PostgresPlace], App]) -> Examine:
    """Look at a place: what is not in order there."""

    def examine(place: PostgresPlace, *, app: App | None = None) -> list[Finding]:
        return [one for one in _look(app or open_app(place)) if one.level != "ok"]

    return examine


def _look(app: App, *, fix: bool = False) -> list[Finding]:
    (check,) = checks()
    return check.run(app, fix)


def _texts(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings if not any(text in one.text for text in _OF_THE_TEST_SERVER)]


def _keep_partitions(app: App) -> None:
    """As a recorder does before it records."""
    app.storage.prune_executions(app.broker.now() - app.settings.history.retention, 10)


# The server ----------------------------------------------------------------------------------------------------------------------------


def test_of_a_server_that_is_in_order_its_version_role_and_encryption_are_said(
    open_app: Callable[[PostgresPlace], App], postgres_place: PostgresPlace
) -> None:
    app = open_app(postgres_place)
    _keep_partitions(app)
    findings = _look(app)
    assert _texts([one for one in findings if one.level != "ok"]) == []
    assert findings[0].text.startswith("PostgreSQL 1")
    assert "role postgres, without TLS" in findings[0].text


def test_settings_that_lose_data_are_warned_of_and_a_superuser_too(examine: Examine, postgres_server: PostgresServer) -> None:
    place = PostgresPlace(f"{postgres_server.url}?options=-csynchronous_commit%3Doff", "ns").migrate()
    found = {one.text.partition(":")[0]: one for one in examine(place)}
    assert {
        "fsync is off": "warning",
        "synchronous_commit is off": "warning",
        "role postgres is a superuser, and need not be": "warning",
    }.items() <= {text: one.level for text, one in found.items()}.items()
    assert found["synchronous_commit is off"].remedy == "ALTER ROLE postgres SET synchronous_commit = on"


def test_a_server_whose_connections_are_nearly_used_up_is_warned_of(examine: Examine, start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres(options={"max_connections": "20"})
    place = PostgresPlace(server.url, "ns").migrate()
    assert not any("max_connections" in text for text in _texts(examine(place)))
    with ExitStack() as stack:
        for _ in range(17):
            stack.enter_context(psycopg.connect(server.url))
        assert any(text.endswith("of max_connections = 20 are used") for text in _texts(examine(place)))


def test_a_pooler_that_the_settings_do_not_know_of_is_warned_of(examine: Examine, pooled_place: PostgresPlace) -> None:
    warning = "the connection leads through a pooler, and [storage] pooled is not set"
    assert warning not in _texts(examine(pooled_place))
    assert warning in _texts(examine(attrs.evolve(pooled_place, direct_url="")))


# Rights --------------------------------------------------------------------------------------------------------------------------------


def test_each_right_that_the_role_lacks_is_named(examine: Examine, postgres_server: PostgresServer) -> None:
    owned = PostgresPlace(postgres_server.url, "ns").migrate()
    place = PostgresPlace(f"postgresql://run@127.0.0.1:{postgres_server.port}/postgres", "ns")
    for sql in (
        "CREATE ROLE run LOGIN",
        "GRANT USAGE ON SCHEMA ns TO run",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ns TO run",
        "REVOKE INSERT, DELETE ON ns.dead_letter_queue FROM run",
        "REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC",
    ):
        postgres_server.execute(sql)
    (finding,) = [one for one in examine(place) if one.level == "error"]
    for right in (
        "DELETE on dead_letter_queue",
        "INSERT on dead_letter_queue",
        "EXECUTE on jobqueue_add_partition",
        "EXECUTE on jobqueue_drop_partition",
        "TEMPORARY on database postgres",
    ):
        assert right in finding.text
    for sql in (
        "GRANT INSERT, DELETE ON ns.dead_letter_queue TO run",
        "GRANT EXECUTE ON FUNCTION ns.jobqueue_add_partition, ns.jobqueue_drop_partition TO run",
        "GRANT TEMPORARY ON DATABASE postgres TO run",
    ):
        postgres_server.execute(sql)
    assert [one for one in examine(place) if one.level == "error"] == []
    assert any("is a superuser" in one.text for one in examine(owned))
    assert not any("is a superuser" in one.text for one in examine(place))


# What is in it -------------------------------------------------------------------------------------------------------------------------


def test_executions_in_no_partition_and_the_lack_of_one_are_said_until_a_recorder_has_been_there(
    open_app: Callable[[PostgresPlace], App], postgres_place: PostgresPlace
) -> None:
    app = open_app(postgres_place)
    now = app.broker.now()
    app.storage.record_executions([execution(finished_at=now), execution(finished_at=now)], record="all")

    def said() -> list[tuple[str, str]]:
        return [(one.level, one.text) for one in _look(app)]

    strays, none_ahead = ("ok", "2 executions are in no partition"), ("warning", "no partition is ready for what ends now")
    assert {strays, none_ahead} <= set(said())
    _keep_partitions(app)
    assert not {strays, none_ahead} & set(said())


def test_retries_that_were_left_half_done_are_warned_of_after_two_minutes(
    examine: Examine, open_app: Callable[[PostgresPlace], App], postgres_place: PostgresPlace
) -> None:
    app = open_app(postgres_place)
    letters = [dead_letter(), dead_letter()]
    app.storage.record_dead_letters(letters)
    warning = "dead letter retries were left half done more than two minutes ago"
    for letter, ago, is_said in zip(letters, (1, 3), (False, True), strict=True):
        app.storage.begin_requeues([(letter.job.id, 1)], now=app.broker.now() - timedelta(minutes=ago))
        assert (warning in _texts(examine(postgres_place, app=app))) is is_said


def test_a_schema_that_another_file_or_a_newer_release_has_made_is_said(
    open_app: Callable[[PostgresPlace], App], postgres_place: PostgresPlace
) -> None:
    app = open_app(postgres_place)
    with psycopg.connect(postgres_place.url, options=f"-c search_path={postgres_place.namespace}") as connection:
        connection.execute("UPDATE jobqueue_migrations SET checksum = 'x' WHERE version = 1")
        later = len(bundled()) + 1
        connection.execute("INSERT INTO jobqueue_migrations VALUES (%s, 'later', 'x', 1, '2026-01-01Z')", (later,))
    found = {one.text.partition(",")[0]: one.level for one in _look(app)}
    assert found["migration 0001_initial was applied from another file than this release has: the schema may be another"] == "error"
    assert found[f"the schema has migration {later:04}_later of a newer release"] == "ok"


# What keeps it from looking ------------------------------------------------------------------------------------------------------------


def test_a_schema_that_was_not_made_and_a_server_that_is_away_are_raised_with_what_to_do(
    examine: Examine, empty_postgres_place: PostgresPlace
) -> None:
    with pytest.raises(IncompatibleData, match="run 'jobqueue migrate'"):
        examine(empty_postgres_place)
    with pytest.raises(StorageUnavailable, match="refused"):
        examine(PostgresPlace("postgresql://u:hunter2@127.0.0.1:1/x", "ns"))


@pytest.mark.parametrize("is_away", [True, False])
def test_the_command_says_once_that_storage_is_away_or_not_migrated_and_looks_at_the_rest(
    empty_postgres_place: PostgresPlace, tmp_path: Path, *, is_away: bool
) -> None:
    place = attrs.evolve(empty_postgres_place, url="postgresql://u:hunter2@127.0.0.1:1/x") if is_away else empty_postgres_place
    config = tmp_path / "jobqueue.toml"
    config.write_text(f'[broker]\nurl = "sqlite:///{tmp_path}/jobs.db"\n{place.config}')
    environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-m", "jobqueue_cli", "-c", str(config), "doctor", "--json"], env=environ, capture_output=True, timeout=30, check=False
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    (error,) = [one for one in found if one["level"] == "error"]
    assert done.returncode == 1
    assert error["check"] == "storage"
    assert ("127.0.0.1" if is_away else "run 'jobqueue migrate'") in error["text"]
    assert b"hunter2" not in done.stdout + done.stderr
    assert "sqlite file" in {one["check"] for one in found}


def test_a_right_on_any_table_of_the_schema_counts(postgres_server: PostgresServer) -> None:
    PostgresPlace(postgres_server.url, "ns").migrate()
    postgres_server.execute("CREATE ROLE run LOGIN")
    postgres_server.execute("GRANT USAGE ON SCHEMA ns TO run")
    with psycopg.connect(f"postgresql://run@127.0.0.1:{postgres_server.port}/postgres", options="-c search_path=ns") as connection:
        missing = {right for (right,) in connection.execute(statement("checks_rights"), {"pooled": True}).fetchall()}
    tables = postgres_server.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'ns'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'jobqueue_migrations'"
    )
    assert {f"UPDATE on {table}" for (table,) in tables} <= missing


def test_roles_wait_a_few_seconds_only_for_a_server_that_hangs(postgres_server: PostgresServer) -> None:
    postgres_server.pause()
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="timeout"):
        probe(postgres_server.url, namespace="", pooled=False)
    assert time.monotonic() - began < 4.5, "the connections of a storage wait for five"

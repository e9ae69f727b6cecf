"""Migrations on a real server: each applied once, whole or not at all, and what does not fit refused with what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from servers import PostgresPlace, PostgresServer

from jobqueue_core.errors import Conflict, IncompatibleData, StorageUnavailable
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import NOON, claim, dead_letter, execution, schedule
from jobqueue_postgres.migrating import Step, migrate, status
from jobqueue_postgres.migrations_on_disk import Migration, bundled, read_migrations
from jobqueue_postgres.storage import PostgresStorage

_SLOW = """
import sys
from pathlib import Path
from jobqueue_postgres.migrating import migrate
from jobqueue_postgres.migrations_on_disk import read_migrations
migrate(sys.argv[1], namespace=sys.argv[2], migrations=read_migrations(Path(sys.argv[3])))
print("done", flush=True)
"""

Write = Callable[..., dict[int, Migration]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write migration files, and read them as a release would bring them."""

    def write(**texts: str) -> dict[int, Migration]:
        for name, text in texts.items():
            number, word, direction = name.removeprefix("m").split("_")
            (tmp_path / f"{number}_{word}.{direction}.sql").write_text(text)
        return dict(read_migrations(tmp_path))

    return write


class Schema:
    """A schema, and a look into it."""

    def __init__(self, place: PostgresPlace) -> None:
        self.place = place
        self.connection = psycopg.connect(place.url, autocommit=True, options=f"-c search_path={place.namespace}")

    def migrate(self, **options: Any) -> list[str]:
        """Migrate it; the steps that were taken."""
        return [_named(step) for step in migrate(self.place.url, namespace=self.place.namespace, **options)]

    def applied(self) -> list[str]:
        """The migrations that it has."""
        return [one.label for one in status(self.place.url, namespace=self.place.namespace)]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        cursor = self.connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def tables(self) -> set[str]:
        """The tables in it."""
        sql = "SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid WHERE relkind IN ('r', 'p') AND nspname = "
        return {name for (name,) in self.rows(f"{sql} '{self.place.namespace}'")}

    def open(self) -> PostgresStorage:
        """A storage on it."""
        return PostgresStorage(self.place.url, namespace=self.place.namespace)


@pytest.fixture
def schema(empty_postgres_place: PostgresPlace) -> Iterator[Schema]:
    """The test's own schema, not migrated."""
    schema = Schema(empty_postgres_place)
    yield schema
    schema.connection.close()


def _named(step: Step) -> str:
    return f"{step.direction} {step.migration.label}"


# Up and down ---------------------------------------------------------------------------------------------------------------------------


def test_migrating_brings_the_schema_that_the_storage_needs_and_nothing_more_the_second_time(schema: Schema) -> None:
    assert schema.migrate() == [f"up {one.label}" for one in bundled().values()]
    assert schema.migrate() == []
    storage = schema.open()
    storage.record_dead_letters([dead_letter()])
    storage.record_executions([execution()], record="all")
    assert storage.put_schedule(schedule(), expected_version=None)
    storage.close()


def test_down_takes_everything_away_and_up_makes_the_same_again(schema: Schema) -> None:
    described = """
        SELECT relname::text, attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND relname NOT LIKE 'jobqueue_migrations%' ORDER BY 1, attnum
    """
    functions = "SELECT proname::text, prosrc, prosecdef FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY 1"
    schema.migrate()
    before = (schema.rows(described), schema.rows(functions))
    assert schema.migrate(target=0) == [f"down {one.label}" for one in reversed(bundled().values())]
    assert schema.tables() == {"jobqueue_migrations"}
    assert schema.rows(functions) == []
    schema.migrate()
    assert (schema.rows(described), schema.rows(functions)) == before


def test_a_target_between_is_reached_from_both_sides(schema: Schema, write: Write) -> None:
    known = write(
        m0001_one_up="CREATE TABLE one ()",
        m0001_one_down="DROP TABLE one",
        m0002_two_up="CREATE TABLE two ()",
        m0002_two_down="DROP TABLE two",
        m0003_three_up="CREATE TABLE three ()",
    )
    assert schema.migrate(migrations=known, target=2) == ["up 0001_one", "up 0002_two"]
    assert schema.migrate(migrations=known, target=1) == ["down 0002_two"]
    assert schema.migrate(migrations=known) == ["up 0002_two", "up 0003_three"]
    with pytest.raises(Conflict, match=r"0003_three\.down\.sql"):
        schema.migrate(migrations=known, target=0)
    with pytest.raises(Conflict, match="no migration 0009"):
        schema.migrate(migrations=known, target=9)
    assert schema.applied() == ["0001_one", "0002_two", "0003_three"]


# What is stored ------------------------------------------------------------------------------------------------------------------------

# As the release wrote it that knew 0001 only.
_WRITTEN_BEFORE_0002 = """
    INSERT INTO job_schedules (name, version, enabled, next_run, expression, timezone, type, payload, misfire, misfire_limit, overlap, source)
    VALUES ('{name}', 7, {enabled}, '2030-01-01 12:00Z', '0 3 * * *', 'UTC', 'test.job', '{{}}', 'once', 100, 'allow', 'dynamic')
"""


def test_schedules_from_before_they_could_be_paused_go_on_and_so_does_the_release_that_writes_them(schema: Schema) -> None:
    schema.migrate(target=1)
    schema.rows(_WRITTEN_BEFORE_0002.format(name="on", enabled=True))
    schema.rows(_WRITTEN_BEFORE_0002.format(name="off", enabled=False))
    storage = schema.open()
    with pytest.raises(IncompatibleData, match="is at version 0001, this release needs 0002: run 'jobqueue migrate'"):
        storage.schedules()
    assert schema.migrate(target=2) == ["up 0002_paused_schedules"]
    schema.rows(_WRITTEN_BEFORE_0002.format(name="written after", enabled=True))
    on = schedule("on", next_run=NOON, version=7)
    assert storage.schedules() == [replace(on, name="off", enabled=False), on, replace(on, name="written after")]
    assert sorted(one.name for one in storage.due_schedules(NOON, 10)) == ["on", "written after"]
    assert storage.claim_ticks([claim(on)]) == [True]
    storage.close()


def test_what_is_paused_fires_neither_before_nor_after_the_way_down_and_up_again(schema: Schema) -> None:
    schema.migrate()
    storage = schema.open()
    for one in (schedule("on", next_run=NOON), schedule("paused", next_run=NOON, paused=True), schedule("off", next_run=NOON, enabled=False)):
        assert storage.put_schedule(one, expected_version=None)
    before = storage.schedules()
    assert schema.migrate(target=1)[-1] == "down 0002_paused_schedules"
    assert schema.rows("SELECT name, enabled FROM job_schedules ORDER BY name") == [("off", False), ("on", True), ("paused", False)]
    schema.migrate()
    off, on, paused = before
    assert storage.schedules() == [off, on, replace(paused, enabled=False, paused=False, version=2)]
    assert storage.due_schedules(NOON, 10) == [on]
    storage.close()


# All or nothing ------------------------------------------------------------------------------------------------------------------------


def test_a_migration_that_fails_leaves_nothing_of_itself_and_all_before_it(schema: Schema, write: Write) -> None:
    known = write(m0001_good_up="CREATE TABLE good ()", m0002_bad_up="CREATE TABLE bad (); SELECT 1 / 0")
    with pytest.raises(StorageUnavailable, match=r"0002_bad\.up\.sql failed.*division by zero"):
        schema.migrate(migrations=known)
    assert schema.tables() == {"jobqueue_migrations", "good"}
    assert schema.applied() == ["0001_good"]


@pytest.mark.parametrize("who", ["client", "server process"])
def test_a_migration_that_is_killed_leaves_nothing_and_the_next_one_completes(schema: Schema, write: Write, tmp_path: Path, who: str) -> None:
    write(m0001_slow_up="CREATE TABLE slow (); SELECT pg_sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, schema.place.url, schema.place.namespace, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    sleeping = (
        f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'CREATE TABLE slow%' AND '{schema.place.namespace}' <> ''"
    )
    (pid,) = _until(lambda: schema.rows(sleeping), "it has begun")[0]
    if who == "client":
        process.kill()
    else:
        schema.rows(f"SELECT pg_terminate_backend({pid})")
    process.communicate()
    assert schema.tables() == set()
    known = write(m0001_slow_up="CREATE TABLE slow ()")
    assert schema.migrate(migrations=known, wait=timedelta(seconds=20)) == ["up 0001_slow"]
    assert schema.tables() == {"jobqueue_migrations", "slow"}


def test_eight_processes_at_once_apply_each_migration_once(schema: Schema, write: Write, tmp_path: Path) -> None:
    write(
        m0001_one_up="CREATE TABLE one (); SELECT pg_sleep(0.2)",
        m0002_two_up="-- migrate: no-transaction\nCREATE TABLE two (number integer);\nCREATE INDEX CONCURRENTLY two_number ON two (number);\n",
        m0003_three_up="CREATE TABLE three ()",
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SLOW, schema.place.url, schema.place.namespace, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]
    said = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _error in said] == [b"done\n"] * 8, said
    assert schema.applied() == ["0001_one", "0002_two", "0003_three"]
    assert schema.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'two_number'::regclass") == [(True,)]


def test_whoever_waits_too_long_for_another_is_told(schema: Schema, write: Write) -> None:
    known = write(m0001_one_up="CREATE TABLE one ()")
    with psycopg.connect(schema.place.url, options=f"-c search_path={schema.place.namespace}") as other:
        other.execute("SELECT set_config('search_path', %s, true)", (f'"{schema.place.namespace}", pg_temp',))
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('jobqueue migrate ' || current_setting('search_path'), 0))")
        with pytest.raises(StorageUnavailable, match=r"somebody else has been migrating it for 0\.5 s"):
            schema.migrate(migrations=known, wait=timedelta(seconds=0.5))
    assert schema.migrate(migrations=known) == ["up 0001_one"]


# What does not fit ---------------------------------------------------------------------------------------------------------------------


def test_a_schema_that_was_not_made_is_refused_with_the_command_to_run(schema: Schema) -> None:
    storage = schema.open()
    for call in (storage.schedules, lambda: storage.count_dead_letters(DeadLetterFilter())):
        with pytest.raises(IncompatibleData, match="run 'jobqueue migrate'"):
            call()
    schema.migrate()
    assert storage.schedules() == [], "it goes on without a restart"
    schema.migrate(target=0)
    storage.close()


@pytest.mark.parametrize(("readable_from", "accepted"), [(1, True), (len(bundled()) + 1, False)])
def test_a_newer_schema_is_accepted_only_if_it_says_that_this_release_can_read_it(schema: Schema, readable_from: int, *, accepted: bool) -> None:
    schema.migrate()
    schema.rows(
        f"INSERT INTO jobqueue_migrations (version, name, checksum, readable_from) VALUES ({len(bundled()) + 1}, 'later', 'x', {readable_from})"
    )
    storage = schema.open()
    if accepted:
        assert storage.schedules() == []
    else:
        with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
            storage.schedules()
    storage.close()
    if accepted:
        assert schema.migrate() == [], "a host that migrates when it starts goes on"
    else:
        with pytest.raises(IncompatibleData, match=r"\d{4}_later, which this release does not know: upgrade jobqueue"):
            schema.migrate()
    with pytest.raises(IncompatibleData, match=r"\d{4}_later"):
        schema.migrate(target=0)


def test_a_file_that_was_changed_after_it_was_applied_is_refused(schema: Schema, write: Write) -> None:
    schema.migrate(migrations=write(m0001_one_up="CREATE TABLE one ()"))
    with pytest.raises(IncompatibleData, match="0001_one was changed after it was applied"):
        schema.migrate(migrations=write(m0001_one_up="CREATE TABLE one (number integer)", m0002_two_up="CREATE TABLE two ()"))
    assert schema.applied() == ["0001_one"]


def test_a_database_in_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(IncompatibleData, match=r"LATIN1.*ENCODING 'UTF8'"):
        migrate(postgres_server.url.removesuffix("postgres") + "latin")


# Roles ---------------------------------------------------------------------------------------------------------------------------------


def test_an_owner_that_is_no_superuser_migrates_and_another_role_runs_with_what_the_docs_grant_it(postgres_server: PostgresServer) -> None:
    at = f"127.0.0.1:{postgres_server.port}/jobs"
    for sql in ("CREATE ROLE owner LOGIN", "CREATE ROLE jobqueue_run LOGIN", "CREATE DATABASE jobs OWNER owner ENCODING 'UTF8' TEMPLATE template0"):
        postgres_server.execute(sql)
    migrate(f"postgresql://owner@{at}")
    page = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text(encoding="utf-8")
    (grants,) = [block for block in page.split("```sql\n")[1:] if block.startswith("REVOKE")]
    with psycopg.connect(f"postgresql://owner@{at}", autocommit=True) as connection:
        connection.execute(grants.partition("```")[0])

    storage = PostgresStorage(f"postgresql://jobqueue_run@{at}", retention=timedelta(days=10))
    now = execution().finished_at
    storage.record_executions([execution(finished_at=now - timedelta(days=days)) for days in (0, 1, 20)], record="all")
    while storage.prune_executions(now - timedelta(days=10), 10) == 10:
        pass
    storage.record_executions([execution(finished_at=now)], record="none")
    letter = dead_letter()
    storage.record_dead_letters([letter])
    assert storage.begin_requeues([(letter.job.id, 1)], now=now) == [True]
    storage.finish_requeues([(letter.job.id, 1)], now=now, requeued=True)
    assert storage.prune_dead_letters(now + timedelta(days=1), 10) == 1
    assert storage.put_schedule(schedule(), expected_version=None)
    assert storage.delete_schedule("nightly")
    storage.close()
    with psycopg.connect(f"postgresql://jobqueue_run@{at}") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DROP TABLE dead_letter_queue")


# The command ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(schema: Schema, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command ``jobqueue`` on the test's schema, as an operator runs it."""
    (tmp_path / "jobqueue.toml").write_text(schema.place.config)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")} | {
            "JOBQUEUE_CONFIG": str(tmp_path / "jobqueue.toml")
        }
        return subprocess.run(
            [sys.executable, "-m", "jobqueue_cli", *words],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return command


def test_the_command_shows_what_is_pending_applies_and_undoes_it(command: Callable[..., subprocess.CompletedProcess[str]], schema: Schema) -> None:
    assert [one["state"] for one in json.loads(command("migrate", "--status", "--json").stdout)] == ["pending"] * len(bundled())
    dry = json.loads(command("migrate", "--dry-run", "--json").stdout)
    assert [(one["direction"], one["migration"]) for one in dry] == [("up", one.label) for one in bundled().values()]
    assert "CREATE TABLE job_executions" in dry[0]["sql"]
    assert schema.tables() == set(), "nothing was done"
    first = command("migrate")
    assert (first.returncode, "applied 0001_initial" in first.stdout) == (0, True)
    assert "nothing to do" in command("migrate").stdout
    rows = json.loads(command("migrate", "--status", "--json").stdout)
    assert {one["state"] for one in rows} == {"applied"}
    assert all(one["applied_at"].endswith("Z") for one in rows)
    for one in reversed(bundled().values()):
        undone = json.loads(command("migrate", "--down", "--json").stdout)
        assert [(step["direction"], step["migration"]) for step in undone] == [("down", one.label)]
    assert schema.tables() == {"jobqueue_migrations"}


@pytest.mark.parametrize("words", ["--status --dry-run", "--down --to 1", "--to x", "--to 12345", "--status --yes"])
def test_options_that_do_not_go_together_are_a_usage_error(command: Callable[..., subprocess.CompletedProcess[str]], words: str) -> None:
    done = command("migrate", *words.split())
    assert (done.returncode, done.stdout) == (2, "")


def test_a_version_that_there_is_not_and_a_server_that_is_away_fail_with_a_sentence(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    unknown = command("migrate", "--to", "77")
    assert (unknown.returncode, "no migration 0077" in unknown.stderr) == (1, True)
    config = tmp_path / "jobqueue.toml"
    config.write_text('[storage]\nplugin = "postgres"\nurl = "postgresql://u:hunter2@127.0.0.1:1/x"\n')
    away = command("migrate", "--status")
    assert away.returncode == 1
    assert "127.0.0.1" in away.stderr
    assert "hunter2" not in away.stderr


def test_the_embedded_storage_needs_no_migrations_by_hand(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text("")
    done = command("migrate")
    assert (done.returncode, "sqlite" in done.stdout) == (0, True)


def test_roles_do_not_start_on_a_schema_that_was_not_made_and_do_without_a_server(schema: Schema, tmp_path: Path) -> None:
    config = tmp_path / "jobqueue.toml"
    config.write_text(schema.place.config)
    environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
    run = [sys.executable, "-m", "jobqueue_core.run", "-c", str(config)]
    for words in ([], ["--check"]):
        refused = subprocess.run([*run, *words], env=environ, capture_output=True, text=True, timeout=30, check=False)
        assert (refused.returncode, "run 'jobqueue migrate'" in refused.stderr) == (2, True)
    schema.migrate()
    assert subprocess.run([*run, "--check"], env=environ, capture_output=True, timeout=30, check=False).returncode == 0

    config.write_text('[storage]\nplugin = "postgres"\nurl = "postgresql://u:hunter2@127.0.0.1:1/x"\n')
    checked = subprocess.run([*run, "--check"], env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (checked.returncode, "storage cannot be used yet" in checked.stderr, "hunter2" in checked.stderr + checked.stdout) == (0, True, False)
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*run, "worker"], env=environ, stderr=stderr)
    try:
        _until(lambda: "worker up" in log.read_text(), "the worker runs without storage")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "hunter2" not in log.read_text()


def _until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < deadline, what
        pause.wait(0.01)
    return found

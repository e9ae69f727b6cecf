"""The way to Redis, over real servers and a network that fails: every call is answered in time, or ends in one of our errors."""

from __future__ import annotations

import gc
import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from servers import Proxy, RedisServer

from jobqueue_core.errors import BrokerUnavailable, ConfigError, IncompatibleData, QueueFull
from jobqueue_redis.link import Link
from jobqueue_redis.scripts import Script
from jobqueue_redis.waiting import Waiter

StartRedis = Callable[..., RedisServer]
SCRIPTS = {
    "echo": "return {ARGV[1], #ARGV, ARGV[#ARGV]}",
    "count": "return redis.call('INCR', ARGV[1] .. 'count')",
    "fill": "return redis.call('SET', ARGV[1] .. 'filling', ARGV[2])",
    "mark": "if redis.call('SADD', ARGV[1] .. 'marks', ARGV[2]) == 1 then redis.call('INCR', ARGV[1] .. 'count') end return ARGV[2]",
    "broken": "return redis.call('INCR', ARGV[1] .. 'queues')",
}


class OpenLink(Protocol):
    def __call__(self, url: str, **options: Any) -> Link: ...


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of the tests' own: what the real ones do is not the question here."""
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


@pytest.fixture
def link(redis_server: RedisServer, open_link: OpenLink) -> Link:
    return open_link(redis_server.url)


@contextmanager
def after(seconds: float, step: Callable[[], object]) -> Iterator[None]:
    """Do something a little later, in another thread."""
    timer = threading.Timer(seconds, step)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def within(least: float, most: float) -> Iterator[None]:
    """What is done inside takes so many seconds."""
    begun = time.monotonic()
    yield
    assert least <= time.monotonic() - begun <= most


def until(is_so: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


# Calls ---------------------------------------------------------------------------------------------------------------------------------


def test_a_call_sends_prefix_and_arguments_and_gets_the_reply(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server.url, namespace="mine")
    assert link.call("echo", link.home, "a", 7, b"\0\xff") == [b"mine:", 4, b"\0\xff"]
    assert link.shards() == [link.home] == [link.shard_of("any")] == link.shards_of_job("any")


def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(redis_server: RedisServer, link: Link) -> None:
    for _ in range(3):
        assert link.call("echo", link.home, "x")[2] == b"x"
        assert link.calls([("echo", link.home, ("y",)), ("mark", link.home, ("z",))])[1] == b"z"
        redis_server.command("SCRIPT", "FLUSH")


def test_several_calls_are_answered_in_order_by_one_round_trip(redis_server: RedisServer, link: Link) -> None:
    wanted = [("echo", link.home, (f"argument {number}",)) for number in range(200)]
    assert [reply[2].decode() for reply in link.calls(wanted)] == [args[0] for _, _, args in wanted]


def test_plain_commands_have_the_shape_of_resp2(link: Link) -> None:
    link.command(link.home, "HSET", "hash", "field", 1)
    assert link.commands(link.home, ("HGETALL", "hash"), ("GET", "nothing")) == [[b"field", b"1"], None]


def test_threads_never_get_each_others_replies_however_often_the_network_fails(redis_proxy: Proxy, open_link: OpenLink) -> None:
    link = open_link(redis_proxy.url)
    redis_proxy.reset_every(0.02)

    def run(thread: int) -> None:
        for number in range(150):
            text = f"{thread}-{number}" * (1 + number % 50)
            assert link.call("echo", link.home, text)[2] == text.encode()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(run, range(6)))


def test_a_reply_that_is_torn_anywhere_is_asked_for_again_and_done_once(redis_proxy: Proxy, redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_proxy.url)
    reply = b"$7\r\nmark-00\r\n"
    assert link.call("mark", link.home, "mark-xx") == b"mark-xx"
    for number in range(len(reply)):
        redis_proxy.cut_reply(after=number, containing=f"mark-{number:02}".encode())
        assert link.call("mark", link.home, f"mark-{number:02}") == f"mark-{number:02}".encode()
        assert link.call("echo", link.home, "next")[2] == b"next"
    assert redis_proxy.cuts == len(reply)
    assert int(redis_server.command("GET", "count")) == len(reply) + 1


def test_a_request_that_never_arrived_is_sent_again(redis_proxy: Proxy, open_link: OpenLink) -> None:
    link = open_link(redis_proxy.url)
    redis_proxy.cut_request(containing=b"marked", times=3)
    assert link.call("mark", link.home, "marked") == b"marked"
    assert redis_proxy.cuts == 3


def test_an_idle_connection_that_the_server_has_closed_is_not_used(redis_server: RedisServer, link: Link) -> None:
    link.call("echo", link.home, "x")
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")
    assert link.call("echo", link.home, "x")[2] == b"x"


def test_a_call_during_a_restart_waits_for_it(redis_server: RedisServer, link: Link) -> None:
    redis_server.kill()
    with after(1, redis_server.start), within(0.9, 4):
        assert link.call("echo", link.home, "x")[2] == b"x"


def test_a_server_that_is_not_there_is_reported_in_time_and_nothing_was_accepted(redis_server: RedisServer, link: Link) -> None:
    redis_server.kill()
    threading.Event().wait(0.1)  # what was sent just before might have got there
    with within(4, 6), pytest.raises(BrokerUnavailable, match=f"^redis://127.0.0.1:{redis_server.port}/0: cannot be reached") as caught:
        link.call("echo", link.home, "x")
    assert not caught.value.maybe_accepted
    assert caught.value.__cause__ is not None
    redis_server.start()
    assert link.call("echo", link.home, "x")[2] == b"x"


def test_a_server_that_hangs_is_reported_in_time_and_the_call_may_have_been_accepted(redis_server: RedisServer, link: Link) -> None:
    link.call("echo", link.home, "x")
    redis_server.pause()
    try:
        with within(4, 6), pytest.raises(BrokerUnavailable, match="no answer in time") as caught:
            link.call("echo", link.home, "y")
    finally:
        redis_server.resume()
    assert caught.value.maybe_accepted
    assert link.call("echo", link.home, "z")[2] == b"z"  # not the answer to y


def test_a_network_that_swallows_everything_is_reported_in_time(redis_proxy: Proxy, open_link: OpenLink) -> None:
    link = open_link(redis_proxy.url)
    redis_proxy.halt()
    with within(4, 6), pytest.raises(BrokerUnavailable):
        link.call("echo", link.home, "y")
    redis_proxy.pass_on()
    assert link.call("echo", link.home, "z")[2] == b"z"


def test_a_slow_network_only_takes_longer(redis_proxy: Proxy, open_link: OpenLink) -> None:
    link = open_link(redis_proxy.url)
    redis_proxy.delay(0.2)
    assert link.call("echo", link.home, "x" * 500_000)[2] == b"x" * 500_000


@pytest.mark.slow
def test_a_host_that_no_name_server_knows_is_reported_by_name() -> None:
    with within(0, 6), pytest.raises(BrokerUnavailable, match=r"no-such-host\.invalid") as caught:
        Link("redis://no-such-host.invalid")
    assert not caught.value.maybe_accepted


def test_a_replica_is_waited_for_to_become_a_master(redis_server: RedisServer, link: Link) -> None:
    redis_server.command("REPLICAOF", "127.0.0.1", "1")
    with after(0.5, lambda: redis_server.command("REPLICAOF", "NO", "ONE")):
        assert link.call("count", link.home) == 1


def test_a_script_of_somebody_else_that_runs_for_ever_is_waited_for(redis_server: RedisServer, link: Link) -> None:
    redis_server.config(lua_time_limit="10")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(redis_server.command, "EVAL", "while true do end", 0)
        with after(1, lambda: redis_server.command("SCRIPT", "KILL")):
            assert link.call("count", link.home) == 1
        with pytest.raises(Exception, match="killed"):
            running.result()


def test_a_full_memory_is_a_full_queue(redis_server: RedisServer, link: Link) -> None:
    redis_server.config(maxmemory="1")
    with within(0, 1), pytest.raises(QueueFull, match="maxmemory"):
        link.call("fill", link.home, "x")


def test_a_key_of_somebody_else_is_incompatible_data(link: Link) -> None:
    link.command(link.home, "SADD", "queues", "default")
    with within(0, 1), pytest.raises(IncompatibleData, match=r"broken.*WRONGTYPE"):
        link.call("broken", link.home)


def test_a_closed_link_says_so(link: Link) -> None:
    link.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        link.call("echo", link.home)


def test_connections_are_closed_with_the_link(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server.url)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: link.call("echo", link.home, "x"), range(50)))
    link.close()
    until(lambda: redis_server.command("INFO", "clients")["connected_clients"] == 1)  # the one that asks
    gc.collect()  # a socket that was not closed would be a warning, and that an error


def test_a_forked_process_has_connections_of_its_own(redis_server: RedisServer) -> None:
    program = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from jobqueue_redis.link import Link
link = Link(sys.argv[1])
link.command(link.home, "PING")
child = os.fork()
for number in range(500):
    assert link.command(link.home, "ECHO", f"{os.getpid()}-{number}") == f"{os.getpid()}-{number}".encode()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert link.command(link.home, "PING") == b"PONG"
"""
    done = subprocess.run([sys.executable, "-c", program, redis_server.url], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# Who we are ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def users(redis_server: RedisServer) -> RedisServer:
    redis_server.command("ACL", "SETUSER", "jobs", "on", ">p@ss/word", "~*", "+@all")
    redis_server.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+info", "+time", "+client", "+select")
    redis_server.command("ACL", "SETUSER", "default", "resetpass", ">secret")
    return redis_server


def test_a_user_logs_in(users: RedisServer, open_link: OpenLink) -> None:
    for url in (f"redis://jobs:p%40ss%2Fword@127.0.0.1:{users.port}/1", f"redis://:secret@127.0.0.1:{users.port}/1"):
        link = open_link(url)
        assert link.call("echo", link.home, "x")[2] == b"x"
        assert link.describe() == f"redis://127.0.0.1:{users.port}/1"


@pytest.mark.parametrize(("login", "advice"), [("", "name or password"), ("jobs:nonsense@", "name or password"), ("reader:pw@", "grant it")])
def test_who_may_not_in_is_told_so_at_once_and_what_to_look_at(users: RedisServer, login: str, advice: str) -> None:
    with within(0, 1), pytest.raises(BrokerUnavailable, match=advice) as caught:
        Link(f"redis://{login}127.0.0.1:{users.port}")
    assert "nonsense" not in str(caught.value)


def test_a_socket_and_a_database_of_ones_own(redis_server: RedisServer, open_link: OpenLink) -> None:
    link = open_link(f"{redis_server.unix_url}?db=3")
    assert link.call("count", link.home) == 1
    assert redis_server.command("GET", "count") is None
    assert link.describe() == f"{redis_server.unix_url}?db=3"


@pytest.mark.slow
def test_a_socket_that_is_not_there_is_reported(redis_server: RedisServer) -> None:
    with within(4, 6), pytest.raises(BrokerUnavailable, match="no-such-socket"):
        Link(f"{redis_server.unix_url}/no-such-socket")


# What the server must be ---------------------------------------------------------------------------------------------------------------


def test_a_server_that_evicts_jobs_is_refused(redis_server: RedisServer, open_link: OpenLink) -> None:
    redis_server.config(maxmemory_policy="allkeys-lru")
    with within(0, 1), pytest.raises(ConfigError, match="allkeys-lru"):
        Link(redis_server.url)
    open_link(redis_server.url, allow_eviction=True)


def test_a_server_that_begins_to_evict_jobs_is_not_used_any_more(redis_server: RedisServer, link: Link) -> None:
    redis_server.config(maxmemory_policy="allkeys-lru")
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BrokerUnavailable, match="allkeys-lru"):
        link.call("echo", link.home)


def test_a_server_that_evicts_what_expires_is_warned_of(redis_server: RedisServer, open_link: OpenLink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "jobqueue.redis")
    redis_server.config(maxmemory_policy="volatile-lru")
    open_link(redis_server.url)
    assert "volatile-lru" in caplog.text


# Replicas ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def replica(redis_server: RedisServer, start_redis: StartRedis) -> RedisServer:
    redis_server.config(repl_diskless_sync_delay="0")
    replica = start_redis(options={"replicaof": ("127.0.0.1", str(redis_server.port))})
    until(lambda: redis_server.command("INFO", "replication").get("slave0", {}).get("state") == "online")
    return replica


def test_what_is_to_be_replicated_is_answered_when_a_replica_has_it(redis_server: RedisServer, replica: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server.url, wait_replicas=1)
    for number in range(1, 30):
        assert link.call("count", link.home, replicate=True) == number
        assert int(replica.command("GET", "count")) == number


def test_too_few_replicas_are_reported_with_how_many_there_were(redis_server: RedisServer, replica: RedisServer, open_link: OpenLink) -> None:
    link = open_link(redis_server.url, wait_replicas=2)
    with within(3, 6), pytest.raises(BrokerUnavailable, match="only 1 of 2 replicas") as caught:
        link.call("count", link.home, replicate=True)
    assert caught.value.maybe_accepted
    with within(0, 1):
        assert link.call("count", link.home) == 2


def test_a_replica_that_lags_is_waited_for_also_by_who_did_not_write_himself(
    redis_server: RedisServer, replica: RedisServer, open_link: OpenLink
) -> None:
    link = open_link(redis_server.url, wait_replicas=1)
    replica.pause()
    redis_server.command("SET", "by", "another")
    # As after a lost reply: the script finds that all is done already, on a connection that has written nothing.
    with after(1, replica.resume), within(0.8, 4):
        link.call("echo", link.home, replicate=True)


# Time ----------------------------------------------------------------------------------------------------------------------------------


def test_now_is_the_servers_clock(redis_server: RedisServer, link: Link) -> None:
    before = redis_server.command("TIME")
    now = link.now()
    seconds, micros = redis_server.command("TIME")
    assert int(before[0]) + int(before[1]) / 1e6 <= now.timestamp() <= int(seconds) + int(micros) / 1e6


def test_after_a_restart_nothing_that_was_concluded_before_is_done(redis_server: RedisServer, link: Link) -> None:
    before = link.quiet_until()
    started_at = link.now().timestamp()
    assert link.call("count", link.home, quiet_us=before) == 1
    redis_server.kill()
    redis_server.start()
    with pytest.raises(BrokerUnavailable, match="waits") as caught:
        link.call("count", link.home, quiet_us=before)
    assert not caught.value.maybe_accepted
    now_us = link.quiet_until()
    assert now_us >= started_at * 1e6 > before
    assert link.call("count", link.home, quiet_us=now_us) == 2
    assert link.quiet_until() == now_us


def test_another_server_in_its_place_is_noticed(redis_server: RedisServer, start_redis: StartRedis, open_link: OpenLink) -> None:
    with Proxy(redis_server.port) as network:
        link = open_link(network.url)
        before = link.quiet_until()
        other = start_redis()
        network._target = ("127.0.0.1", other.port)
        network.reset()
        seconds, micros = redis_server.command("TIME")
        assert before < int(seconds) * 1_000_000 + int(micros) <= link.quiet_until()


def test_an_emptied_database_is_told_of_once(redis_server: RedisServer, open_link: OpenLink) -> None:
    links = [open_link(redis_server.url), open_link(redis_server.url)]
    assert not any(link.lost_generation() for link in links)
    redis_server.command("FLUSHALL")
    assert [link.lost_generation() for link in links] == [True, True]
    assert [link.lost_generation() for link in links] == [False, False]
    assert not open_link(redis_server.url).lost_generation()


def test_a_server_that_comes_back_without_its_data_is_told_of_whoever_was_there_first(start_redis: StartRedis, open_link: OpenLink) -> None:
    server = start_redis(appendonly=False)
    link = open_link(server.url)
    server.kill()
    server.start()
    open_link(server.url)
    assert link.lost_generation()


def test_a_full_server_takes_no_new_mark_until_there_is_room(redis_server: RedisServer, link: Link, open_link: OpenLink) -> None:
    redis_server.command("FLUSHALL")
    redis_server.config(maxmemory="1")
    assert not link.lost_generation()
    open_link(redis_server.url)
    redis_server.config(maxmemory="0")
    assert link.lost_generation()


# Waiting -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiter(link: Link) -> Iterator[Waiter]:
    waiter = Waiter(link)
    yield waiter
    waiter.close()


def blocked(server: RedisServer) -> int:
    number: int = server.command("INFO", "clients")["blocked_clients"]
    return number


def connections(server: RedisServer) -> int:
    number: int = server.command("INFO", "stats")["total_connections_received"]
    return number


def test_an_entry_ends_a_wait(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0"), ("wake:b", b"0-0")], 20)
        until(lambda: blocked(redis_server))
        redis_server.command("XADD", "wake:b", "*", "at", "now")
        assert waiting.result(1)


def test_an_entry_that_was_there_before_ends_a_wait_unless_it_was_known(redis_server: RedisServer, waiter: Waiter) -> None:
    entry = redis_server.command("XADD", "wake:a", "*", "at", "now")
    with within(0, 1):
        assert waiter.wait([("wake:a", "0-0")], 20)
    with within(0.05, 1):
        assert not waiter.wait([("wake:a", entry)], 0.05)


def test_no_time_is_no_wait(waiter: Waiter) -> None:
    with within(0, 0.1):
        assert not waiter.wait([("wake:a", "0-0")], 0)


def test_waiting_for_nothing_takes_its_time_too(waiter: Waiter) -> None:
    with within(0.2, 2):
        assert not waiter.wait([], 0.2)


def test_an_interrupt_ends_all_waits(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(waiter.wait, [("wake:a", "0-0")], 20) for _ in range(4)]
        until(lambda: blocked(redis_server) == 4)
        with within(0, 0.01):
            waiter.interrupt()
        assert [one.result(1) for one in waiting] == [False] * 4
    with within(0.2, 1):
        assert not waiter.wait([("wake:a", "0-0")], 0.2)


def test_an_interrupt_ends_the_next_wait_when_there_is_none(waiter: Waiter) -> None:
    waiter.interrupt()
    waiter.interrupt()
    with within(0, 0.1):
        assert not waiter.wait([("wake:a", "0-0")], 20)
    with within(0.2, 1):
        assert not waiter.wait([("wake:a", "0-0")], 0.2)


def test_an_interrupt_at_the_moment_an_entry_comes_is_not_lost(waiter: Waiter, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object) -> bool:
        waiter.interrupt()
        return True

    monkeypatch.setattr(waiter, "_wait", interrupted)
    assert not waiter.wait([("wake:a", "0-0")], 20)


def test_waits_that_are_interrupted_as_soon_as_they_begin_end_at_once(waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads, within(0, 10):
        for _ in range(200):
            waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
            waiter.interrupt()
            assert not waiting.result(1)


def test_connections_are_used_again_whatever_ended_the_wait(redis_server: RedisServer, waiter: Waiter) -> None:
    waiter.wait([("wake:a", "0-0")], 0.01)
    before = connections(redis_server)
    asked = 0
    for _ in range(5):
        waiter.wait([("wake:a", "0-0")], 0.01)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
            while not blocked(redis_server):
                asked += 1
            asked += 1
            waiter.interrupt()
            assert not waiting.result(1)
        redis_server.command("XADD", "wake:a", "*", "at", "now")
        assert waiter.wait([("wake:a", "0-0")], 20)
        redis_server.command("DEL", "wake:a")
        asked += 2
    assert connections(redis_server) - before == asked + 1  # each question of ours is a connection, and so is this one


def test_a_server_that_goes_away_ends_a_wait_at_once(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
        until(lambda: blocked(redis_server))
        redis_server.kill()
        with within(0, 1.5), pytest.raises(BrokerUnavailable, match="cannot be reached"):
            waiting.result(5)


def test_a_lost_connection_to_a_server_that_is_there_is_a_reason_to_look_again(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
        until(lambda: blocked(redis_server))
        redis_server.command("CLIENT", "KILL", "TYPE", "normal")
        assert waiting.result(1)


def test_a_server_that_hangs_does_not_hold_a_wait(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 1)
        until(lambda: blocked(redis_server))
        redis_server.pause()
        try:
            with within(0, 2.5):
                assert not waiting.result(5)
        finally:
            redis_server.resume()
    with within(0.1, 1):
        assert not waiter.wait([("wake:a", "0-0")], 0.1)


def test_a_server_that_becomes_a_replica_sends_everyone_to_look_again(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
        until(lambda: blocked(redis_server))
        redis_server.command("REPLICAOF", "127.0.0.1", "1")
        assert waiting.result(1)
    with within(0, 2), pytest.raises(BrokerUnavailable, match="is a replica"):
        waiter.wait([("wake:a", "0-0")], 20)


def test_a_bell_that_somebody_has_made_something_else_of_is_reported(redis_server: RedisServer, waiter: Waiter) -> None:
    redis_server.command("SET", "wake:a", "text")
    with pytest.raises(IncompatibleData, match="WRONGTYPE"):
        waiter.wait([("wake:a", "0-0")], 20)


def test_closing_ends_all_waits_for_good(redis_server: RedisServer, waiter: Waiter) -> None:
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(waiter.wait, [("wake:a", "0-0")], 20) for _ in range(2)]
        until(lambda: blocked(redis_server) == 2)
        waiter.close()
        assert [one.result(1) for one in waiting] == [False, False]
    with within(0, 0.1):
        assert not waiter.wait([("wake:a", "0-0")], 20)


def test_a_user_who_may_not_take_back_waits_can_still_be_interrupted(redis_server: RedisServer, open_link: OpenLink) -> None:
    redis_server.command("ACL", "SETUSER", "jobs", "on", ">pw", "~*", "+@all", "-client")
    waiter = Waiter(open_link(f"redis://jobs:pw@127.0.0.1:{redis_server.port}"))
    for _ in range(2):
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(waiter.wait, [("wake:a", "0-0")], 20)
            until(lambda: blocked(redis_server))
            waiter.interrupt()
            assert not waiting.result(1)
        until(lambda: not blocked(redis_server))
    waiter.close()

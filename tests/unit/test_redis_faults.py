"""What Redis and the network report, in the framework's words; and what a connection notices of the server behind it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from redis._parsers.base import BaseParser

from jobqueue_core.errors import BrokerUnavailable, ConfigError, IncompatibleData, JobQueueError, QueueFull
from jobqueue_redis.addresses import read_address
from jobqueue_redis.faults import Disturbed, Passing, is_passing, translate
from jobqueue_redis.server import Rules, Server
from jobqueue_redis.watch import Watch
from jobqueue_redis.wire import Effort, Wire

SECOND = 1_000_000


def said(text: str) -> redis.RedisError:
    """What the driver makes of an error reply."""
    return cast("redis.RedisError", BaseParser.parse_error(text))


def translated(text: str, what: str = "settle") -> JobQueueError:
    return translate(said(text), where="redis://h:6379/0", what=what, maybe_accepted=False)


@pytest.mark.parametrize(
    "text",
    [
        "READONLY You can't write against a read only replica.",
        "READONLY You can't write against a read only replica. script: f00, on @user_script:4.",
        "ERR Error running script (call to f_f00): @user_script:4: @user_script: 4: -READONLY You can't write against a read only replica. ",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN Hash slot not served",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "NOREPLICAS Not enough good replicas to write.",
        "MOVED 866 127.0.0.1:7001",
        "ERR max number of clients reached",
    ],
)
def test_what_passes_is_tried_again_and_then_says_that_nothing_was_done(text: str) -> None:
    assert is_passing(said(text))
    error = translated(text)
    assert isinstance(error, BrokerUnavailable)
    assert not error.maybe_accepted
    assert str(error).startswith("redis://h:6379/0: ")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("NOAUTH Authentication required.", "broker.url"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "broker.url"),
        ("ERR invalid password", "broker.url"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "grant it"),
        ("DENIED Redis is running in protected mode because protected mode is enabled", "password"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", "free disk space"),
    ],
)
def test_what_does_not_pass_by_itself_says_what_to_do(text: str, advice: str) -> None:
    assert not is_passing(said(text))
    error = translated(text)
    assert isinstance(error, BrokerUnavailable)
    assert advice in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:1.",
        "ERR Error running script (call to f_f00): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'. ",
    ],
)
def test_a_full_memory_is_a_full_queue(text: str) -> None:
    assert not is_passing(said(text))
    assert isinstance(translated(text), QueueFull)


def test_a_full_disk_is_a_full_queue_to_producers() -> None:
    assert isinstance(translated("MISCONF Errors writing to the AOF file: No space left on device", "enqueue"), QueueFull)


@pytest.mark.parametrize(
    "text", ["WRONGTYPE Operation against a key holding the wrong kind of value", "ERR unknown command 'XADD'", "ERR user_script:3: oops"]
)
def test_what_this_release_cannot_have_caused_is_incompatible_data(text: str) -> None:
    assert not is_passing(said(text))
    assert isinstance(translated(text), IncompatibleData)


@pytest.mark.parametrize("error", [redis.TimeoutError("Timeout reading"), redis.ConnectionError("reset"), Passing("is a replica")])
@pytest.mark.parametrize("maybe_accepted", [True, False])
def test_a_lost_answer_says_whether_the_call_may_have_been_carried_out(error: redis.RedisError, *, maybe_accepted: bool) -> None:
    assert is_passing(error)
    found = translate(error, where="w", what="enqueue", maybe_accepted=maybe_accepted)
    assert isinstance(found, BrokerUnavailable)
    assert found.maybe_accepted is maybe_accepted


# The server behind a connection ----------------------------------------------------------------------------------------------------------


class FakeWire:
    """Answers the look at a server."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        text = "".join(f"{name}:{value}\r\n" for name, value in facts.items()).encode()
        self._replies: list[Any] = [[b"1000", b"5"], b"# Server\r\n" + text, b"", b""]

    def send(self, request: bytes) -> None:
        assert b"INFO" in request

    def read(self, effort: Effort) -> Any:
        return self._replies.pop(0)


def look(facts: Mapping[str, str], *, server: Server | None = None, allow_eviction: bool = False, mode: Any = "standalone") -> Server:
    server = server or Server(
        read_address("redis://h"), "h", 6379, rules=Rules(allow_eviction=allow_eviction, mode=mode), watch=Watch(), role="server"
    )
    server._look(cast("Wire", FakeWire({"redis_version": "7.0.15", "redis_mode": mode, **facts})), Effort(0))
    return server


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7"])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(IncompatibleData, match=rf"Redis {version}: this release needs Redis 6\.2"):
        look({"redis_version": version})


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "8.0", "10.0.1", "unstable", ""])
def test_any_later_server_will_do(version: str) -> None:
    look({"redis_version": version})


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_server_that_would_evict_jobs_is_refused_unless_that_is_wanted(policy: str) -> None:
    with pytest.raises(ConfigError, match=rf"maxmemory-policy {policy}.*allow_eviction"):
        look({"maxmemory_policy": policy})
    look({"maxmemory_policy": policy}, allow_eviction=True)


def test_a_server_that_may_evict_what_expires_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "jobqueue.redis")
    server = look({"maxmemory_policy": "volatile-ttl"})
    look({"maxmemory_policy": "volatile-ttl"}, server=server)
    assert [record.name for record in caplog.records] == ["jobqueue.redis"]
    assert "volatile-ttl" in caplog.text


@pytest.mark.parametrize(
    ("mode", "found", "advice"),
    [
        ("standalone", "cluster", "use redis\\+cluster://h:6379"),
        ("standalone", "sentinel", "use redis\\+sentinel://h:6379/"),
        ("cluster", "standalone", "use redis://h:6379"),
    ],
)
@pytest.mark.parametrize("name", ["redis_mode", "server_mode"])
def test_a_server_of_another_kind_than_the_url_says_is_refused_with_the_right_url(mode: str, found: str, advice: str, name: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        look({"redis_mode": "", name: found}, server=look({}, mode=mode))


def test_a_replica_is_waited_for_to_become_a_master() -> None:
    with pytest.raises(Passing, match="is a replica, of m:1"):
        look({"role": "slave", "master_host": "m", "master_port": "1"})
    look({"role": "slave"}, mode="cluster")  # which sends us to its master by itself


# What the watch notices ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(seconds=100.0)


@pytest.fixture
def watch(clock: SimpleNamespace) -> Watch:
    return Watch(lambda: clock.seconds)


def test_a_server_that_has_been_running_is_quiet_since_its_start(watch: Watch, clock: SimpleNamespace) -> None:
    assert watch.quiet_us == 0
    watch.seen("server", "one", 3600, 10_000 * SECOND)
    assert watch.quiet_us == (10_000 - 3600 + 1) * SECOND  # whole seconds: it may have started up to one later
    clock.seconds += 100
    watch.seen("server", "one", 3700, 10_100 * SECOND - SECOND)
    assert watch.quiet_us == (10_000 - 3600 + 1) * SECOND


def test_a_server_that_says_no_uptime_disturbs_nothing(watch: Watch) -> None:
    watch.seen("server", "one", None, 10_000 * SECOND)
    assert watch.quiet_us == 0


def test_another_process_in_its_place_begins_anew_however_long_it_has_been_running(watch: Watch) -> None:
    watch.seen("server", "one", 3600, 10_000 * SECOND)
    watch.seen("server", "two", 9000, 10_000 * SECOND)
    assert watch.quiet_us == 10_000 * SECOND


@pytest.mark.parametrize("jump", [-6, 6, -100_000])
def test_a_jump_of_its_clock_begins_anew(watch: Watch, clock: SimpleNamespace, jump: int) -> None:
    watch.ticked("server", 10_000 * SECOND)
    clock.seconds += 60
    watch.ticked("server", (10_060 + jump) * SECOND)
    assert watch.quiet_us == (10_060 + jump) * SECOND


def test_a_clock_that_is_a_little_off_begins_nothing(watch: Watch, clock: SimpleNamespace) -> None:
    watch.ticked("server", 10_000 * SECOND)
    for drift in (4, 0, -4):
        clock.seconds += 60
        watch.ticked("server", int(9900 + clock.seconds + drift) * SECOND)
    assert watch.quiet_us == 0


def test_what_one_server_takes_over_from_another_begins_anew(watch: Watch, clock: SimpleNamespace) -> None:
    watch.seen("a", "one", None, 10_000 * SECOND)
    watch.moved("b")  # it has not been seen yet
    watch.seen("b", "two", 9000, 10_000 * SECOND)
    assert watch.quiet_us == 10_000 * SECOND
    clock.seconds += 30
    watch.moved("a")
    assert watch.quiet_us == 10_030 * SECOND


def test_a_conclusion_from_before_a_disturbance_is_given_up() -> None:
    assert not is_passing(Disturbed())
    error = translate(Disturbed(), where="w", what="reclaim", maybe_accepted=True)
    assert isinstance(error, BrokerUnavailable)
    assert not error.maybe_accepted

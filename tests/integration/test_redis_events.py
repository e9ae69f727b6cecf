"""The event log in Redis: what is not in it any more is owned up to, and what it costs is bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import Lease
from jobqueue_core.broker import EventPage
from jobqueue_core.job import Priority
from jobqueue_core.testing.factories import completed, new_job, new_jobs
from jobqueue_redis.broker import RedisBroker

_NOW = timedelta(0)
_SECOND = timedelta(seconds=1)

Key = Callable[[str], str]


@pytest.fixture
def broker(redis_url: str, redis_namespace: str) -> Iterator[RedisBroker]:
    with closing(RedisBroker(redis_url, namespace=redis_namespace)) as broker:
        yield broker


@pytest.fixture
def key(redis_namespace: str) -> Key:
    return lambda name: f"{redis_namespace}:{name}"


def after(broker: RedisBroker, position: str | None, *, limit: int = 100, wait: timedelta = _NOW) -> EventPage:
    return broker.events(position, limit=limit, wait=wait)


def listen(broker: RedisBroker) -> str:
    return after(broker, None).position


def tell(broker: RedisBroker, count: int = 1) -> None:
    for _ in range(count):
        broker.pause("letters")


def take(broker: RedisBroker, limit: int) -> list[Lease]:
    return broker.lease(["default"], limit, worker_id="worker-1", lease_for=30 * _SECOND, wait=_NOW, suspects=limit)


# What is missing -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "position",
    [
        "",
        "nonsense",
        "0",
        "0-0",
        "1-1",
        "-",
        "$",
        "99999999999999-0",
        "18446744073709551615-18446744073709551615",
        "9" * 40 + "-1",
        "\u0661-\u0662",
        "1-2-3",
        "(1-1",
    ],
)
def test_a_position_that_was_never_given_is_answered_by_a_reset(broker: RedisBroker, position: str) -> None:
    listen(broker)
    tell(broker)
    page = after(broker, position)
    assert (page.events, page.reset) == ((), True)
    tell(broker)
    assert [event.kind for event in after(broker, page.position).events] == ["paused"]


def test_after_a_time_without_readers_a_position_from_before_is_answered_by_a_reset(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    listen(broker)
    tell(broker)
    position = after(broker, listen(broker)).position
    redis_client.delete(key("events:listened"))  # as it does by itself after a minute
    tell(broker)
    page = after(broker, position)
    assert (page.events, page.reset) == ((), True)
    tell(broker)
    assert len(after(broker, page.position).events) == 1


def test_a_reset_is_owned_up_to_even_when_the_log_is_gone_too(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    position = listen(broker)
    given_ms = int(position.partition("-")[0])
    while broker.now().timestamp() * 1000 < given_ms + 2:
        # A log that begins in the millisecond in which the former one was read has missed nothing.
        pass
    redis_client.delete(key("events:listened"), key("events"))
    page = after(broker, position)
    assert page.reset
    assert not after(broker, page.position).reset


def test_a_reader_that_is_slower_than_the_log_is_long_is_told(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    start = listen(broker)
    broker.enqueue(new_jobs(500, type="t" * 120, queue="q" * 100))
    leases = broker.lease(["q" * 100], 500, worker_id="worker-1", lease_for=30 * _SECOND, wait=_NOW, suspects=500)
    for lease in leases:
        broker.settle([completed(lease)], worker_id="worker-1")
    middle = after(broker, start, limit=300).position
    assert redis_client.xlen(key("events")) == 500
    # The log is shortened, as it is when there are too many events for it, and the next event finds it so.
    last = redis_client.xrevrange(key("events"), count=1)[0][0]
    fill(redis_client, key("events"), 10_300)
    assert redis_client.xlen(key("events")) > 10_300
    tell(broker, 2)
    assert redis_client.xlen(key("events")) <= 10_200
    assert after(broker, middle).reset
    assert after(broker, start).reset
    assert after(broker, last.decode()).reset
    page = after(broker, after(broker, middle).position)
    assert not page.reset


def fill(client: Redis, stream: str, count: int) -> None:
    blob = msgspec.msgpack.encode(["paused", {"queue": "letters"}])
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(count):
            pipeline.xadd(stream, {"1": blob, "t": 1})
        pipeline.execute()


def test_big_events_make_the_log_shorter(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    listen(broker)
    event = b"\x92\xa1x\x81\xa1y" + msgspec.msgpack.encode("x" * 200_000)
    for _ in range(400):
        # As a settle batch of very many jobs would be told.
        broker.link.call("pause", broker.link.home, "letters", 1, event)
    assert redis_client.xlen(key("events")) <= 201
    assert redis_client.pttl(key("events:listened")) > 0


def test_rows_of_an_event_that_were_refused_are_not_told(broker: RedisBroker) -> None:
    position = listen(broker)
    broker.enqueue(new_jobs(3))
    leases = take(broker, 3)
    broker.settle([completed(leases[1])], worker_id="worker-1")
    broker.reclaim_worker("worker-1", started=[], error="killed", max_crashes=3)
    broker.settle([completed(lease) for lease in leases], worker_id="worker-1")
    (other,) = take(broker, 1)
    broker.settle([completed(leases[0]), completed(other)], worker_id="worker-1")
    told = [[job["id"] for job in event.data["jobs"]] for event in after(broker, position).events if event.kind == "settled"]
    assert told[0] == [leases[1].job.id]
    assert told[-1] == [other.job.id]


def test_what_stands_in_the_log_and_is_no_event_is_passed_over(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    position = listen(broker)
    for fields in ({"1": b"?"}, {"2": b"of tomorrow", "t": b"1"}, {"x": b"1"}, {"1": msgspec.msgpack.encode([1, 2])}):
        redis_client.xadd(key("events"), fields)  # type: ignore[arg-type]  # text and bytes are all it takes
    page = after(broker, position)
    assert (page.events, page.reset) == ((), False)
    assert page.position != position
    tell(broker)
    assert len(after(broker, position, limit=10).events) == 1


# What it costs -------------------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_while_nobody_listens_and_the_log_goes_away_by_itself(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    tell(broker)
    assert not redis_client.exists(key("events"))
    listen(broker)
    tell(broker)
    listened, log = redis_client.pttl(key("events:listened")), redis_client.pttl(key("events"))
    assert 50_000 < listened <= 60_000 < log <= 120_000


def test_a_reader_that_waits_is_woken_at_once_and_others_are_not_held_up(broker: RedisBroker) -> None:
    position = listen(broker)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(after, broker, position, wait=10 * _SECOND) for _ in range(8)]
        began = time.monotonic()
        broker.get([])
        tell(broker)
        assert [len(one.result(timeout=9).events) for one in waiting] == [1] * 8
    assert time.monotonic() - began < 3


def test_a_reader_that_begins_to_listen_waits_from_then(broker: RedisBroker) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(after, broker, None, wait=10 * _SECOND)
        until_listened(broker)
        tell(broker)
        assert [event.kind for event in waiting.result(timeout=9).events] == ["paused"]


def until_listened(broker: RedisBroker) -> None:
    deadline = time.monotonic() + 5
    while not broker.link.command(broker.link.home, "EXISTS", broker.link.home.key("LISTENED")):
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_listening_works_on_a_full_server(redis_server: RedisServer) -> None:
    with closing(RedisBroker(redis_server.url)) as broker:
        broker.enqueue([new_job(priority=Priority.HIGH)])
        redis_server.config(maxmemory="100kb")
        position = listen(broker)
        tell(broker)
        assert len(after(broker, position).events) == 1

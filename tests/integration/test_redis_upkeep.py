"""Forgetting in Redis, and workers that are not heard of any more; time that has to pass is written into the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from msgspec.structs import replace
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import Lease
from jobqueue_core.errors import QueueFull
from jobqueue_core.job import Job, JobState
from jobqueue_core.testing.factories import completed, failed, log_line, new_job, new_jobs, report, type_info, worker_info
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.times import to_us

_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_MOMENT = timedelta(milliseconds=1)

Key = Callable[[str], str]


@pytest.fixture
def broker(redis_url: str, redis_namespace: str) -> Iterator[RedisBroker]:
    with closing(RedisBroker(redis_url, namespace=redis_namespace)) as broker:
        yield broker


@pytest.fixture
def key(redis_namespace: str) -> Key:
    return lambda name: f"{redis_namespace}:{name}"


def put_expired(broker: RedisBroker, count: int = 1, *, delay: timedelta | None = None) -> list[Job]:
    """Jobs whose ``expires_at`` has passed."""
    answers = broker.enqueue(new_jobs(count, expires_in=_MOMENT, delay=delay))
    jobs = [answer.job for answer in answers if answer.job is not None]
    while broker.now() <= max(job.expires_at for job in jobs if job.expires_at is not None):
        pass
    return jobs


def take(broker: RedisBroker, limit: int = 100) -> list[Lease]:
    return broker.lease(["default"], limit, worker_id="worker-1", lease_for=30 * _SECOND, wait=timedelta(0), suspects=limit)


def state(broker: RedisBroker, job_id: str) -> JobState:
    (job,) = broker.get([job_id])
    assert job is not None
    return job.state


# Expired jobs --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, _HOUR])
def test_expired_jobs_are_cancelled_wherever_they_wait_and_forgotten_as_expiring(
    broker: RedisBroker, redis_client: Redis, key: Key, delay: timedelta | None
) -> None:
    jobs = put_expired(broker, 5, delay=delay)
    assert [broker.prune(3), broker.prune(3), broker.prune(3)] == [3, 2, 0]
    assert {state(broker, job.id) for job in jobs} == {JobState.CANCELLED}
    assert not redis_client.exists(key("expiring"))


def test_a_job_that_runs_past_its_time_runs_on_and_hides_no_other(broker: RedisBroker) -> None:
    broker.enqueue(new_jobs(3, expires_in=timedelta(milliseconds=300)))
    leases = take(broker)
    assert len(leases) == 3
    (waiting,) = put_expired(broker)
    while broker.now() <= max(lease.job.expires_at for lease in leases if lease.job.expires_at is not None):
        pass
    assert sum(broker.prune(1) for _ in range(6)) == 1
    assert state(broker, waiting.id) is JobState.CANCELLED
    assert [state(broker, lease.job.id) for lease in leases] == [JobState.PROCESSING] * 3
    assert all(broker.settle([completed(leases[0]), failed(leases[1], delay=_HOUR)], worker_id="worker-1"))


def test_a_job_that_comes_back_after_its_time_is_cancelled_within_a_minute(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    broker.enqueue(new_jobs(1, expires_in=timedelta(milliseconds=100)))
    (lease,) = take(broker)
    assert lease.job.expires_at is not None
    while broker.now() <= lease.job.expires_at:
        pass
    broker.prune(10)
    again = redis_client.zscore(key("expiring"), lease.job.id)
    assert again is not None
    assert again - to_us(broker.now()) <= 60_000_000
    broker.settle([failed(lease, delay=_HOUR)], worker_id="worker-1")
    redis_client.zadd(key("expiring"), {lease.job.id: 1})
    assert broker.prune(10) == 1
    assert state(broker, lease.job.id) is JobState.CANCELLED


@pytest.mark.parametrize("record", [b"\x01d nothing", b"\x01ws9default 1-1", b"\x01ws2default nonsense", b"\x01q", b""])
def test_an_expired_job_that_cannot_be_cancelled_hides_no_other(broker: RedisBroker, redis_client: Redis, key: Key, record: bytes) -> None:
    odd, newer, good = (put_expired(broker)[0] for _ in range(3))
    redis_client.set(key(f"job:{odd.id}"), record)
    redis_client.set(key(f"job:{newer.id}"), b"\x02of tomorrow")
    assert sum(broker.prune(2) for _ in range(4)) == 1
    assert state(broker, good.id) is JobState.CANCELLED
    assert redis_client.get(key(f"job:{newer.id}")) == b"\x02of tomorrow"


def test_what_is_said_to_expire_and_has_ended_is_forgotten(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    broker.enqueue(new_jobs(4, expires_in=_HOUR))
    ended = dict.fromkeys(redis_client.zrange(key("expiring"), 0, -1), 1)
    broker.settle([completed(lease) for lease in take(broker)], worker_id="worker-1")
    # As a settle of a release that did not forget it at once has left it.
    redis_client.zadd(key("expiring"), ended)
    assert [broker.prune(3), broker.prune(3), broker.prune(3)] == [3, 1, 0]
    assert not redis_client.exists(key("expiring"))


# Leftovers -----------------------------------------------------------------------------------------------------------------------------


def test_what_leases_and_jobs_that_are_gone_have_left_behind_goes_too(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    broker.enqueue(new_jobs(2))
    alive, gone = take(broker)
    broker.report([report(lease, progress=None, lines=[log_line("here")]) for lease in (alive, gone)], worker_id="worker-1")
    broker.cancel(alive.job.id)
    token = "s2default 1-1"
    redis_client.sadd(key("cancels"), token, "s9default 1-1")
    redis_client.hset(key("progress"), token, b"x")
    redis_client.delete(key(f"job:{gone.job.id}"))
    total = 0
    while pruned := broker.prune(2):
        assert pruned <= 2
        total += pruned
    assert total == 4
    assert redis_client.smembers(key("cancels")) == {alive.token.encode()}
    assert not redis_client.exists(key("progress"))
    assert redis_client.smembers(key("logged")) == {alive.job.id.encode()}
    assert redis_client.pttl(key(f"logs:{gone.job.id}")) > 0
    assert redis_client.pttl(key(f"logs:{alive.job.id}")) == -1


# Workers and types ---------------------------------------------------------------------------------------------------------------------


def age(client: Redis, zset: str, name: str, by: timedelta) -> None:
    client.zincrby(zset, -by // timedelta(microseconds=1), name)


def test_a_worker_that_is_silent_for_two_heartbeats_is_not_shown_and_after_an_hour_forgotten(
    broker: RedisBroker, redis_client: Redis, key: Key
) -> None:
    broker.beat(worker_info("worker-1"))
    age(redis_client, key("workers:beats"), "worker-1", 9 * _SECOND)
    assert [worker.id for worker in broker.workers()] == ["worker-1"]
    age(redis_client, key("workers:beats"), "worker-1", _SECOND)
    assert broker.workers() == []
    assert broker.prune(10) == 0
    age(redis_client, key("workers:beats"), "worker-1", _HOUR)
    assert broker.prune(10) == 1
    assert not redis_client.exists(key("workers"), key("workers:beats"))


def test_a_type_is_shown_for_a_day_and_then_forgotten(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    broker.beat(worker_info("worker-1", types=(type_info("a", description="A."), type_info("b"))))
    broker.leave("worker-1")
    age(redis_client, key("types:seen"), "a", timedelta(hours=23))
    assert [one.type for one in broker.types()] == ["a", "b"]
    age(redis_client, key("types:seen"), "a", _HOUR)
    assert [one.type for one in broker.types()] == ["b"]
    assert [broker.prune(10), broker.prune(10)] == [1, 0]
    assert redis_client.hkeys(key("types")) == [b"b"]


def test_what_is_known_of_types_is_kept_once_and_not_with_each_worker(broker: RedisBroker, redis_client: Redis, key: Key) -> None:
    kinds = tuple(replace(type_info(f"type-{number}"), payload_schema={"description": "x" * 1_000}) for number in range(30))
    broker.beat(worker_info("worker-1", types=kinds))
    assert redis_client.hstrlen(key("workers"), "worker-1") < 5_000
    assert [one.payload_schema for one in broker.types()] == [{"description": "x" * 1_000}] * 30


def test_a_worker_with_more_types_than_one_script_takes_is_shown_with_all(broker: RedisBroker) -> None:
    broker.beat(worker_info("worker-1", types=tuple(type_info(f"type-{number:04}") for number in range(1_200))))
    (shown,) = broker.workers()
    assert len(shown.types) == len(broker.types()) == 1_200


def test_workers_are_seen_and_forgotten_on_a_full_server(redis_server: RedisServer) -> None:
    with closing(RedisBroker(redis_server.url)) as broker:
        put_expired(broker, 2)
        redis_server.config(maxmemory="100kb")
        with pytest.raises(QueueFull):
            broker.enqueue([new_job()])
        broker.beat(worker_info("worker-1", types=(type_info("a"),)))
        assert [worker.id for worker in broker.workers()] == ["worker-1"]
        assert [broker.prune(10), broker.prune(10)] == [2, 0]
        broker.leave("worker-1")
        assert broker.workers() == []

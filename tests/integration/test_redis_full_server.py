"""A Redis whose memory is full: what it refuses, of which nothing is stored, and what it still does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from redis import Redis
from redis_jobs import BIG, HOUR, begin, contents, get, letters, put, put_soon, take
from servers import RedisServer

from jobqueue_core.errors import QueueFull
from jobqueue_core.job import Idempotency, NewJob, new_job_id
from jobqueue_core.testing.factories import died, new_job, new_jobs
from jobqueue_redis.broker import RedisBroker


@pytest.fixture
def full(redis_server: RedisServer) -> Iterator[tuple[RedisBroker, RedisServer, Redis]]:
    """A broker on a server of the test's own, which can be made full."""
    with closing(RedisBroker(redis_server.url)) as broker, Redis.from_url(redis_server.url) as client:
        yield broker, redis_server, client


_REFUSED: dict[str, Callable[[], list[NewJob]]] = {
    "plain": lambda: new_jobs(3),
    "delayed": lambda: new_jobs(2, delay=HOUR),
    "with-keys": lambda: [new_job(unique_key="free", expires_in=HOUR, idempotency=Idempotency("free", "body"))],
    "of-a-new-queue": lambda: [new_job(queue="new")],
    "duplicate-under-a-new-idempotency-key": lambda: [new_job(unique_key="held", idempotency=Idempotency("free", "body"))],
    "large": lambda: [new_job(payload_json=BIG)],
}


@pytest.mark.parametrize("jobs", _REFUSED.values(), ids=_REFUSED)
def test_a_full_server_refuses_jobs_and_nothing_of_them_is_stored(
    full: tuple[RedisBroker, RedisServer, Redis], jobs: Callable[[], list[NewJob]]
) -> None:
    broker, server, client = full
    put(broker, new_job(unique_key="held"))
    before = contents(client)
    server.config(maxmemory="1")
    with pytest.raises(QueueFull):
        broker.enqueue(jobs())
    assert contents(client) == before
    server.config(maxmemory="0")
    assert {answer.status for answer in broker.enqueue(jobs())} <= {"created", "existing"}


def test_a_full_server_answers_for_jobs_that_are_there(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, _ = full
    (job,) = put(broker, new := new_job(unique_key="one"))
    server.config(maxmemory="1")
    assert [answer.job for answer in broker.enqueue([new, new_job(unique_key="one")])] == [job, job]


def test_a_full_server_refuses_to_revive_a_dead_job_which_stays_dead(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, client = full
    lease = begin(broker, unique_key="one")
    broker.settle([died(lease)], worker_id="worker-1")
    dead = get(broker, lease.job.id)
    before = contents(client)
    server.config(maxmemory="1")
    with pytest.raises(QueueFull):
        broker.requeue(dead)
    assert contents(client) == before


def test_a_full_server_still_does_what_operators_and_upkeep_ask_for(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, client = full
    lease = begin(broker)
    waiting, scheduled, *_ = put(broker, new_job(), new_job(delay=HOUR), *new_jobs(5), *new_jobs(5, delay=HOUR))
    due = put_soon(broker, *new_jobs(3, queue="due"))
    garbage = new_job_id("due")
    client.zadd("delayed:due", {garbage: 1})
    server.config(maxmemory="1")
    assert [broker.cancel(waiting.id), broker.cancel(scheduled.id), broker.cancel(lease.job.id)] == ["cancelled", "cancelled", "requested"]
    assert broker.purge("default", 100) == 10
    broker.pause("due")
    broker.resume("due")
    assert broker.promote(100) == 3
    assert [one.job.id for one in letters(broker)] == [garbage]
    assert [one.job.id for one in take(broker, queues=["due"])] == sorted(job.id for job in due)

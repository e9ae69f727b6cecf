"""How long one script keeps Redis from everybody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from redis import Redis
from redis_jobs import BIG, HOUR, purge, put, put_due, put_soon
from servers import RedisServer

from jobqueue_core.job import Idempotency
from jobqueue_core.testing.factories import new_job, new_jobs
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.times import to_us


@pytest.fixture
def measured(start_redis: Callable[..., RedisServer]) -> Iterator[tuple[RedisBroker, Redis, Callable[[], float]]]:
    """A broker on a server of its own, and how long (ms of its processor's time) its scripts have taken on average since the last time one asked."""
    server = start_redis(appendonly=False)
    with closing(RedisBroker(server.url)) as broker, Redis.from_url(server.url) as client:
        before = [0.0, 0.0]

        def average() -> float:
            cpu, stats = client.info("cpu"), client.info("commandstats")
            now = [
                1000 * (cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
                sum(one["calls"] for name, one in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval")),
            ]
            spent, calls = (one - other for one, other in zip(now, before, strict=True))
            before[:] = now
            return float(spent / calls)

        broker.promote(1)
        average()
        yield broker, client, average


def test_a_script_that_enqueues_takes_less_than_five_milliseconds(measured: tuple[RedisBroker, Redis, Callable[[], float]]) -> None:
    broker, _, average = measured
    payload = b'"' + b"x" * 150 + b'"'
    put(broker, *new_jobs(5000, payload_json=payload))
    assert average() < 5
    keyed = [
        new_job(payload_json=payload, unique_key=f"{number}", expires_in=HOUR, delay=HOUR, idempotency=Idempotency(f"{number}", "f" * 64))
        for number in range(3000)
    ]
    put(broker, *keyed)
    assert average() < 5
    broker.enqueue(keyed)
    assert average() < 5


def test_a_script_that_promotes_takes_less_than_five_milliseconds_whatever_is_due(
    measured: tuple[RedisBroker, Redis, Callable[[], float]],
) -> None:
    broker, client, average = measured
    jobs = put(broker, *new_jobs(20_000, delay=HOUR))
    instant = to_us(broker.now()) - 1
    put_due(client, "", "default", dict.fromkeys((job.id for job in jobs), instant))
    average()
    assert sum(broker.promote(200) for _ in range(101)) == 20_000
    assert average() < 5
    put_soon(broker, *(new_job(queue=f"queue-{number}") for number in range(2_000)))
    average()
    assert sum(broker.promote(200) for _ in range(11)) == 2_000
    assert average() < 5


def test_a_script_that_withdraws_takes_less_than_five_milliseconds(measured: tuple[RedisBroker, Redis, Callable[[], float]]) -> None:
    broker, _, average = measured
    put(broker, *new_jobs(3_000), *new_jobs(1_000, delay=HOUR, unique_key=None))
    average()
    assert purge(broker, limit=1000) == 4_000
    assert average() < 5


def test_a_script_that_handles_large_jobs_takes_little_more_than_one_of_them_needs(
    measured: tuple[RedisBroker, Redis, Callable[[], float]],
) -> None:
    broker, client, average = measured
    jobs = put(broker, *new_jobs(6, payload_json=BIG, delay=HOUR))
    needed = average()
    put_due(client, "", "default", {job.id: 1 for job in jobs})
    assert broker.promote(200) == 6
    assert average() < 3 * needed

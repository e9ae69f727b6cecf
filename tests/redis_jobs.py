"""Jobs on a Redis broker as the tests of its parts put, take and look at them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace
from redis import Redis

from jobqueue_core.attempt import DeadLetter, Lease
from jobqueue_core.job import Job, JobState, NewJob
from jobqueue_core.testing.factories import new_job
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.keys import Shard

__all__ = [
    "BIG",
    "HOUR",
    "MIB",
    "SECOND",
    "begin",
    "contents",
    "count_calls",
    "get",
    "key_prefix",
    "letters",
    "open_broker",
    "purge",
    "put",
    "put_due",
    "put_soon",
    "state",
    "take",
]

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
MIB: Final = 1 << 20
BIG: Final = b'"' + b"x" * MIB + b'"'


def open_broker(redis_url: str, redis_namespace: str) -> Iterator[RedisBroker]:
    """A broker in the test's own namespace; a module makes a fixture of it: ``broker = pytest.fixture(open_broker)``."""
    with closing(RedisBroker(redis_url, namespace=redis_namespace)) as broker:
        yield broker


def key_prefix(redis_namespace: str) -> str:
    """What the keys of that broker begin with: ``prefix = pytest.fixture(key_prefix)``."""
    return f"{redis_namespace}:"


def put(broker: RedisBroker, *jobs: NewJob) -> list[Job]:
    answers = broker.enqueue(jobs)
    assert [answer.status for answer in answers] == ["created"] * len(jobs)
    return [answer.job for answer in answers if answer.job is not None]


def put_soon(broker: RedisBroker, *jobs: NewJob) -> list[Job]:
    """Enqueue *jobs* with a delay that has passed afterwards."""
    stored = put(broker, *(replace(job, delay=timedelta(milliseconds=1)) for job in jobs))
    due = max(job.scheduled_at for job in stored if job.scheduled_at is not None)
    while broker.now() <= due:
        pass
    return stored


def put_due(client: Redis, prefix: str, queue: str, jobs: dict[str, int]) -> None:
    """Let delayed jobs of *queue* be due at the instants given (µs)."""
    client.zadd(f"{prefix}delayed:{queue}", dict(jobs))
    client.zadd(f"{prefix}due", {queue: min(jobs.values())})


def take(broker: RedisBroker, limit: int = 1000, *, queues: Sequence[str] = ("default",)) -> list[Lease]:
    return broker.lease(queues, limit, worker_id="worker-1", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1000)


def begin(broker: RedisBroker, **options: Any) -> Lease:
    put(broker, new_job(**options))
    (lease,) = take(broker)
    return lease


def get(broker: RedisBroker, job_id: str) -> Job:
    (job,) = broker.get([job_id])
    assert job is not None
    return job


def state(broker: RedisBroker, job_id: str) -> JobState:
    return get(broker, job_id).state


def letters(broker: RedisBroker) -> list[DeadLetter]:
    return list(broker.outbox("dead", 1000).dead_letters)


def contents(client: Redis) -> dict[bytes, bytes | None]:
    """Every key and all that is in it."""
    return {key: client.dump(key) for key in client.scan_iter()}


def count_calls(monkeypatch: pytest.MonkeyPatch, broker: RedisBroker, *, fail: Callable[[int], Exception | None] = lambda _: None) -> list[int]:
    """The lengths of the arguments of each script that *broker* sends from now on; *fail* says whether to raise instead of sending."""
    sizes: list[int] = []
    call = broker.link.call

    def counting(name: str, shard: Shard, *args: Any, **options: Any) -> Any:
        error = fail(len(sizes))
        sizes.append(sum(len(one) for one in args if isinstance(one, (bytes, str))))
        if error is not None:
            raise error
        return call(name, shard, *args, **options)

    monkeypatch.setattr(broker.link, "call", counting)
    return sizes


def purge(broker: RedisBroker, queue: str = "default", limit: int = 50) -> int:
    """Purge until there is nothing left; how many."""
    steps = list(itertools.takewhile(bool, (broker.purge(queue, limit) for _ in range(100))))
    assert len(steps) < 100, "it does not come to an end"
    return sum(steps)

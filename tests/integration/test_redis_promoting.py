"""Making delayed jobs ready on Redis: exactly those that are due, in their order, and whatever stands in the way."""

from __future__ import annotations

import pytest
from redis import Redis
from redis_jobs import HOUR, key_prefix, letters, open_broker, put, put_due, put_soon, state, take

from jobqueue_core.job import DeadReason, JobState, Priority, new_job_id
from jobqueue_core.testing.factories import new_job, new_jobs
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.promoting import promote

broker = pytest.fixture(open_broker)
prefix = pytest.fixture(key_prefix)


def test_a_delayed_job_whose_record_is_gone_becomes_one_dead_letter(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put_soon(broker, *new_jobs(3))
    records = (b"garbage", b"\x01f?", b"\x01dd2default \x00\x06cut off", None)
    odd = {new_job_id("default"): record for record in records}
    for job_id, record in odd.items():
        if record is not None:
            redis_client.set(f"{prefix}job:{job_id}", record)
    put_due(redis_client, prefix, "default", {"no id": 1, **dict.fromkeys(odd, 2)})
    redis_client.zadd(f"{prefix}retry:default", {jobs[0].id: 3})
    assert [broker.promote(200), broker.promote(200)] == [3, 0]
    assert {lease.job.id for lease in take(broker)} == {job.id for job in jobs}
    found = {one.job.id: one for one in letters(broker)}
    assert len(found) == len(letters(broker)) == 5
    assert {job_id: found[job_id].raw for job_id in odd} == odd
    assert {one.job.dead_reason for one in found.values()} == {DeadReason.UNDECODABLE}
    assert [state(broker, job_id) for job_id in odd] == [JobState.DEAD] * 4
    stats = broker.queue("default")
    assert stats is not None
    assert (stats.dead, stats.scheduled, stats.retrying, stats.processing) == (5, 0, 0, 3)


def test_promoting_is_exact_however_much_stands_in_the_way(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put_soon(broker, *(new_job(queue=f"queue-{number}") for number in range(150)))
    # Queues whose first job is gone, and things that are no jobs.
    redis_client.zadd(f"{prefix}due", {f"gone-{number}": 1 for number in range(300)})
    put_due(redis_client, prefix, "odd", {f"odd {number}": 1 for number in range(300)})
    assert [broker.promote(100), broker.promote(100), broker.promote(100)] == [100, 50, 0]
    assert {lease.job.id for lease in take(broker, queues=["*"])} == {job.id for job in jobs}
    assert len(letters(broker)) == 300


def test_those_due_first_are_promoted_first_over_any_number_of_queues(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    queues = [f"queue-{number}" for number in range(200)]
    jobs = put(broker, *(new_job(queue=queue, delay=HOUR) for queue in queues for _ in range(5)))
    # Of each queue the first, then of each the second, and so on; but the last queue's are all due before.
    by_queue = {queue: [job.id for job in jobs if job.queue == queue] for queue in queues}
    due = {job_id: 1000 * turn + number for number, queue in enumerate(queues[:-1]) for turn, job_id in enumerate(by_queue[queue], 1)}
    due |= {job_id: turn for turn, job_id in enumerate(by_queue[queues[-1]])}
    for queue in queues:
        put_due(redis_client, prefix, queue, {job_id: due[job_id] for job_id in by_queue[queue]})
    expected = sorted(due, key=due.__getitem__)
    for start in range(0, 1000, 150):
        assert broker.promote(150) == min(150, 1000 - start)
        promoted = {lease.job.id for lease in take(broker, queues=["*"])}
        assert promoted == set(expected[start : start + 150])


def test_what_a_newer_release_delayed_is_left_to_it(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    newer = new_job_id("default")
    redis_client.set(f"{prefix}job:{newer}", b"\x02dd2default newer")
    (job,) = put_soon(broker, new_job())
    put_due(redis_client, prefix, "default", {newer: 1})
    assert [broker.promote(200), broker.promote(200)] == [1, 0]
    assert [lease.job.id for lease in take(broker)] == [job.id]
    assert redis_client.zscore(f"{prefix}delayed:default", newer) == 1
    assert letters(broker) == []


def test_what_stands_in_the_place_of_a_stream_does_not_lose_delayed_jobs(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    medium, high = put_soon(broker, new_job(), new_job(priority=Priority.HIGH))
    redis_client.set(f"{prefix}stream:default:medium", "something else")
    assert broker.promote(200) == 1
    assert [lease.job.id for lease in take(broker)] == [high.id]
    redis_client.delete(f"{prefix}stream:default:medium")
    assert broker.promote(200) == 1
    assert [lease.job.id for lease in take(broker)] == [medium.id]


def test_a_dead_letter_of_promoting_is_kept_as_long_as_it_is_told(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    put_due(redis_client, prefix, "default", {(job_id := new_job_id("default")): 1})
    assert promote(broker.link, 10, ttl_ms=5_000) == 0
    assert 0 < redis_client.pttl(f"{prefix}job:{job_id}") <= 5_000

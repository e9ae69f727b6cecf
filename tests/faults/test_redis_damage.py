"""What operators, and other programs, do to a Redis database: it is full, evicts, is emptied, has lost keys or holds garbage (FAULTS R9 to R16)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis_invariants import check_invariants
from redis_operations import OPERATIONS, put, take, wait_until_due
from redis_scene import Scene
from servers import RedisServer

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.errors import ConfigError, QueueFull
from jobqueue_core.job import DeadReason
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import new_jobs
from jobqueue_redis.broker import RedisBroker

if TYPE_CHECKING:
    from conftest import BuildScene, StartRedis
    from servers import Program

CONCURRENCY = 10
_FULL = "1mb"
"""Less than any server needs that holds what these tests put in."""


# Full ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(redis_program: Program | None) -> Iterator[RedisServer]:
    """A server that tests fill up."""
    with RedisServer(redis_program, appendonly=False) as server:
        server.command("SET", "filler", bytes(3_000_000))
        while server.command("INFO", "server")["uptime_in_seconds"] < 3:
            time.sleep(0.05)
        yield server


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "report_progress_and_logs"])
def test_a_full_server_refuses_new_jobs_and_carries_everything_else_out(small: RedisServer, redis_namespace: str, name: str) -> None:
    with closing(RedisBroker(small.url, namespace=redis_namespace)) as broker, Redis.from_url(small.url) as client:
        act, prove = OPERATIONS[name](broker, client, f"{redis_namespace}:")
        small.config(maxmemory=_FULL)
        try:
            if name in ("enqueue_a_duplicate_of_a_unique_job", "requeue") or name.startswith("enqueue"):
                with pytest.raises(QueueFull):
                    act(broker)
                prove = None
            else:
                answer = act(broker)
        finally:
            small.config(maxmemory="0")
        if prove is not None:
            prove(answer)
        check_invariants(client, broker, prefix=f"{redis_namespace}:", complete=not name.startswith("acknowledge"))


def test_a_full_server_drops_what_running_jobs_report_and_lets_them_end(small: RedisServer, redis_namespace: str) -> None:
    with closing(RedisBroker(small.url, namespace=redis_namespace)) as broker, Redis.from_url(small.url) as client:
        act, _ = OPERATIONS["report_progress_and_logs"](broker, client, f"{redis_namespace}:")
        small.config(maxmemory=_FULL)
        try:
            act(broker)
        finally:
            small.config(maxmemory="0")
        check_invariants(client, broker, prefix=f"{redis_namespace}:")


def test_workers_drain_a_full_server_with_retries_and_dead_letters(scene: Scene) -> None:
    rig, server = scene.rig, scene.server
    filler = "x" * 10_000
    answers = rig.queue.enqueue_many([{"type": "rig.quick", "payload": filler} for _ in range(200)])
    ids = [one.job.id for one in answers if one.job]
    failing = rig.enqueue(20, "rig.fail", seconds=0)
    server.config(maxmemory=_FULL)
    with pytest.raises(QueueFull):
        rig.queue.enqueue("rig.quick", filler)
    process = rig.start("worker", "--set", "retry.base=50ms")
    rig.wait(lambda: scene.states([*ids, *failing]) == {JobState.COMPLETED: 200, JobState.DEAD: 20}, "all jobs end")
    with pytest.raises(QueueFull):
        rig.queue.enqueue("rig.quick", filler)
    server.config(maxmemory="0")
    late = rig.enqueue(5)
    scene.wait_completed(late)
    scene.stop(process)

    assert len(rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters) == 20
    assert Counter(job for job, _, _, _ in rig.runs()) == {**dict.fromkeys([*ids, *late], 1), **dict.fromkeys(failing, 2)}
    scene.check()


def test_a_server_that_may_throw_jobs_away_is_refused(build_scene: BuildScene, start_redis: StartRedis) -> None:
    server = start_redis()
    scene = build_scene(server)
    server.config(maxmemory_policy="allkeys-lru")
    with pytest.raises(ConfigError, match="allkeys-lru"):
        RedisBroker(server.url)
    RedisBroker(server.url, allow_eviction=True).close()
    assert scene.rig.start("worker").wait(20) == 2
    assert "allkeys-lru" in scene.rig.log()
    status, text = scene.doctor()
    assert status != 0
    assert "allkeys-lru" in text


def test_a_server_that_forgets_results_early_is_warned_of(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    redis_server.config(maxmemory_policy="volatile-ttl")
    with caplog.at_level(logging.WARNING):
        RedisBroker(redis_server.url).close()
    assert "volatile-ttl" in caplog.text


# Damaged ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_group_that_is_destroyed_again_and_again_costs_repeats_at_most(scene: Scene) -> None:
    rig = scene.rig
    ids = rig.enqueue(400, seconds=0.02)
    process = rig.start("worker")
    for target in (50, 150, 250):
        rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
        for pattern in ("stream:*", "ready:*", "suspect:*"):
            for key in scene.client.scan_iter(match=pattern):
                scene.client.xgroup_destroy(key, "workers")
    scene.wait_completed(ids)
    scene.stop(process)

    assert len(rig.runs()) - len(ids) <= 3 * 2 * CONCURRENCY
    for job_id in ids:
        states = Counter(one.state for one in rig.queue.operations.job_executions(job_id))
        assert states[ExecutionState.COMPLETED] == 1
    assert "group" in rig.log(), "it is not reported"
    scene.check()


def test_jobs_whose_stream_was_deleted_become_dead_letters_by_doctor(scene: Scene) -> None:
    rig = scene.rig
    ids = rig.enqueue(100)
    process = rig.start("worker", "--set", 'worker.queues=["elsewhere"]')
    rig.wait(lambda: "worker up" in rig.log(), "the worker is up")
    scene.client.delete("stream:default:medium")
    status, text = scene.doctor()
    assert status == 1
    assert "is missing from stream:default:medium" in text
    status, text = scene.doctor("--fix")
    assert status == 0, text
    assert scene.states(ids) == {JobState.DEAD: 100}
    assert {job.dead_reason for job in scene.broker.get(ids) if job} == {DeadReason.UNDECODABLE}
    letters = lambda: rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters  # noqa: E731 - asked again and again
    rig.wait(lambda: len(letters()) >= 100, "the dead letters are recorded")
    assert Counter((one.job.id, one.job.deaths) for one in letters()) == {(job_id, 1): 1 for job_id in ids}
    assert scene.doctor()[0] == 0
    scene.stop(process)
    new = rig.enqueue(10)
    process = rig.start("worker")
    scene.wait_completed(new)
    scene.stop(process)
    scene.check()


def test_workers_stay_up_when_the_database_is_emptied_and_say_so(scene: Scene) -> None:
    rig = scene.rig
    lost = rig.enqueue(50, seconds=0.3)
    position = scene.broker.events(None, limit=10, wait=timedelta(0)).position
    process = rig.start("worker")
    rig.wait(lambda: len(rig.runs()) >= 15, "some jobs run")
    scene.client.flushall()
    new = rig.enqueue(50, seconds=0.01)
    scene.wait_completed(new)
    rig.wait(lambda: "lost all" in rig.log() or "emptied" in rig.log(), "the loss is reported")
    assert scene.broker.events(position, limit=10, wait=timedelta(0)).reset, "who listens is not told that he has missed something"
    scene.stop(process)
    assert len(scene.states(lost)) >= 1
    scene.check()


_GARBAGE = [
    {b"1": b""},
    {b"1": b"short"},
    {b"x": b"y"},
    {b"1": b"\x00" * 9 + b"\x01\xff\xff\xff"},
    {b"1": b"no job" * 100, b"and": b"more"},
]


def test_garbage_in_front_of_a_job_does_not_keep_it_from_running(scene: Scene) -> None:
    rig = scene.rig
    process = rig.start("worker")
    rig.wait(lambda: "worker up" in rig.log(), "the worker is up")
    stream = "stream:default:critical"
    for number in range(100):
        scene.client.xadd(stream, _GARBAGE[number % len(_GARBAGE)])
    began = time.monotonic()
    good = rig.queue.enqueue("rig.quick", priority="critical")
    rig.wait(lambda: [job for job, _, _, _ in rig.runs()] == [good.id], "the good job runs", within=10)
    assert time.monotonic() - began < 1
    rig.wait(lambda: scene.client.xlen(stream) == 0, "the garbage is put away")
    scene.stop(process)

    letters = rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters
    assert [one.job.dead_reason for one in letters] == [DeadReason.UNDECODABLE] * 100
    assert sum(1 for one in letters if one.raw == b"short") == 20
    queue = scene.broker.queue("default")
    assert queue is not None
    assert (queue.dead, queue.completed) == (100, 1)
    scene.check()


def test_jobs_whose_records_were_deleted_or_damaged_run_all_the_same(scene: Scene) -> None:
    rig = scene.rig
    ids = rig.enqueue(100)
    for number, job_id in enumerate(ids):
        if number % 2:
            scene.client.delete(f"job:{job_id}")
        else:
            scene.client.set(f"job:{job_id}", b"\x01w")
    process = rig.start("worker")
    scene.wait_completed(ids)
    scene.stop(process)
    assert Counter(job for job, _, _, _ in rig.runs()) == dict.fromkeys(ids, 1)
    scene.check()


def test_delayed_jobs_whose_records_are_gone_become_dead_letters_and_hold_nobody_up(redis_server: RedisServer) -> None:
    with closing(RedisBroker(redis_server.url)) as broker, Redis.from_url(redis_server.url) as client:
        jobs = put(broker, *new_jobs(30, delay=timedelta(milliseconds=200)))
        for job in jobs[:10]:
            client.delete(f"job:{job.id}")
        for job in jobs[10:20]:
            client.set(f"job:{job.id}", client.get(f"job:{job.id}")[:40])
        wait_until_due(broker, jobs)
        while broker.promote(7):
            pass
        assert sorted(one.job.id for one in take(broker)) == sorted(job.id for job in jobs[20:])
        letters = broker.outbox("dead", 100).dead_letters
        assert sorted(one.job.id for one in letters) == sorted(job.id for job in jobs[:20])
        assert {one.job.dead_reason for one in letters} == {DeadReason.UNDECODABLE}
        check_invariants(client, broker, complete=False)

"""Faults done to workers on Redis, to the network between and to the server, with real processes (FAULTS: F1 to F6, W2 to W4, R1 to R7, R19).

Handlers note each start outside of the queue, so that no crash can hide one.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from redis_scene import Producer, Scene, group_signal, pass_time, repeated

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.storage import DeadLetterFilter

if TYPE_CHECKING:
    from conftest import BuildScene, StartRedis
    from servers import Proxy

CONCURRENCY = 10
LEASE = 2.0
ENQUEUE_TIMEOUT = 5.0
_START = 5.0
"""Seconds that a busy machine may take to start a worker."""


@pytest.mark.parametrize("count", [1_000, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_job_is_lost_when_the_whole_process_group_is_killed_five_times_and_the_server_forgets_its_scripts(scene: Scene, count: int) -> None:
    rig = scene.rig
    ids = rig.enqueue(count)
    dice = random.Random(7)
    with repeated(scene.client.script_flush, every=0.03):
        for _ in range(5):
            target = len(rig.runs()) + dice.randint(40, 150)
            process = rig.start("worker")
            rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
            group_signal(process, signal.SIGKILL)
            process.wait()
        process = rig.start("worker")
        # No new traffic: what the dead workers held comes back by itself (R19).
        scene.wait_completed(ids, within=LEASE + 5 + _START)
    scene.stop(process)

    runs = rig.runs()
    assert len(runs) - len(ids) <= 5 * 2 * CONCURRENCY
    assert max(Counter((job, run) for job, run, _, _ in runs).values()) == 1
    scene.assert_recorded_once(ids[::10])
    queue = rig.queue.operations.queue("default")
    assert (queue.enqueued, queue.completed, queue.dead, queue.processing, queue.waiting) == (count, count, 0, 0, 0)
    scene.check()


@pytest.mark.slow
def test_a_worker_that_was_frozen_past_its_lease_changes_nothing_when_it_wakes(scene: Scene) -> None:
    rig = scene.rig
    ids = rig.enqueue(40, seconds=0.15)
    failing = rig.enqueue(10, "rig.fail", seconds=0.15)
    frozen = rig.start("worker", "--set", "retry.base=100ms")
    rig.wait(lambda: len(rig.runs()) >= 20, "some jobs run")
    group_signal(frozen, signal.SIGSTOP)
    held = scene.broker.queue("default")
    assert held is not None
    assert held.processing > 0
    other = rig.start("worker", "--set", "retry.base=100ms")
    pass_time(1.5 * LEASE)
    scene.rig.wait(lambda: scene.states([*ids, *failing]) == {JobState.COMPLETED: 40, JobState.DEAD: 10}, "the other worker runs everything")
    before = len(rig.runs())
    group_signal(frozen, signal.SIGCONT)
    rig.wait(lambda: "lease lost" in rig.log() or "outcome refused" in rig.log(), "the frozen worker has heard of it")
    scene.stop(frozen, other)

    assert len(rig.runs()) == before, "what was held unstarted was run after all"
    assert scene.states([*ids, *failing]) == {JobState.COMPLETED: 40, JobState.DEAD: 10}
    assert len(rig.runs()) - 40 - 2 * 10 <= 2 * CONCURRENCY
    scene.assert_recorded_once(ids)
    for job_id in failing:
        states = [one.state for one in rig.queue.operations.job_executions(job_id) if one.state is not ExecutionState.LOST]
        assert states == [ExecutionState.FAILED, ExecutionState.DEAD]
    assert len(rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters) == 10
    scene.check()


@pytest.mark.slow
def test_rolling_restarts_repeat_nothing(scene: Scene) -> None:
    rig = scene.rig
    ids = rig.enqueue(250, seconds=0.1)
    process = rig.start("worker")
    for turn in range(1, 4):
        rig.wait(lambda target=turn * 50: len(rig.runs()) >= target, "some jobs run")
        following = rig.start("worker")
        scene.stop(process)
        process = following
    scene.wait_completed(ids)
    scene.stop(process)
    assert Counter(job for job, _, _, _ in rig.runs()) == dict.fromkeys(ids, 1)
    scene.check()


# The server is away ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [6.0, pytest.param(15.0, marks=pytest.mark.slow)])
def test_all_go_on_when_the_server_was_away(scene: Scene, away: float) -> None:
    rig = scene.rig
    process = rig.start("worker")
    with Producer(rig.queue, rate=100) as producer:
        rig.wait(lambda: len(rig.runs()) >= 50, "some jobs run")
        long = rig.enqueue(3, seconds=away / 2)
        rig.wait(lambda: scene.states(long) == {JobState.PROCESSING: 3}, "long jobs run")
        scene.server.kill()
        pass_time(away)
        waiting = len(rig.runs())
        scene.server.start()
        back = time.monotonic()
        rig.wait(lambda: len(rig.runs()) > waiting, "work goes on", within=10)
        resumed_after = time.monotonic() - back
        accepted = len(producer.accepted)
        rig.wait(lambda: len(producer.accepted) > accepted + 50, "producing goes on")
    scene.wait_completed([*producer.accepted, *long])
    scene.stop(process)

    assert resumed_after < 2
    assert producer.refused >= 1, "it was not away for long enough to be noticed"
    assert producer.longest < ENQUEUE_TIMEOUT + 1
    assert len(rig.runs()) - len(producer.accepted) - 3 <= 2 * CONCURRENCY
    _assert_nothing_doubled(scene, len(producer.accepted) + 3)


def test_nothing_that_was_acknowledged_is_lost_when_a_server_that_syncs_always_is_killed(build_scene: BuildScene, start_redis: StartRedis) -> None:
    scene = build_scene(start_redis(appendfsync="always"))
    rig = scene.rig
    process = rig.start("worker")
    with Producer(rig.queue, rate=200) as producer:
        for target in (150, 300, 450):
            rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
            scene.server.kill()
            scene.server.start()
        rig.wait(lambda: len(rig.runs()) >= 600, "more jobs run")
    scene.wait_completed(producer.accepted)
    scene.stop(process)

    assert len(rig.runs()) - len(producer.accepted) <= 3 * 2 * CONCURRENCY
    assert max(Counter((job, run) for job, run, _, _ in rig.runs()).values()) == 1
    _assert_nothing_doubled(scene, len(producer.accepted))


# The network fails -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [700, pytest.param(2_000, marks=pytest.mark.slow)])
def test_connections_that_are_reset_again_and_again_lose_and_double_nothing(remote: Scene, redis_proxy: Proxy, count: int) -> None:
    rig = remote.rig
    process = rig.start("worker")
    rig.wait(lambda: "worker up" in rig.log(), "the worker is up")
    redis_proxy.reset_every(0.5)
    with Producer(rig.queue, rate=150) as producer:
        rig.wait(lambda: len(rig.runs()) >= count, "jobs run")
    remote.wait_completed(producer.accepted)
    redis_proxy.pass_on()
    remote.stop(process)

    assert Counter(job for job, _, _, _ in rig.runs()) == dict.fromkeys(producer.accepted, 1)
    assert {job.crashes for job in remote.broker.get(producer.accepted) if job} == {0}, "a job that was never started counts as crashed"
    assert producer.longest < ENQUEUE_TIMEOUT + 1
    _assert_nothing_doubled(remote, len(producer.accepted))


def test_a_worker_in_a_black_hole_starts_nothing_once_its_leases_may_have_run_out(remote: Scene, redis_proxy: Proxy) -> None:
    rig = remote.rig
    ids = rig.enqueue(150, seconds=0.2)
    cut_off = rig.start("worker")
    rig.wait(lambda: len(rig.runs()) >= 30, "some jobs run")
    redis_proxy.halt()
    pass_time(LEASE)
    mine = {pid for _, _, _, pid in rig.runs()}
    started = len(rig.runs())
    other = rig.start("worker", "--set", f"broker.url={remote.server.url}")
    remote.wait_completed(ids)
    assert sum(1 for _, _, _, pid in rig.runs() if pid in mine) == started
    redis_proxy.pass_on()
    rig.wait(lambda: "lease lost" in rig.log() or "outcome refused" in rig.log(), "the cut off worker has heard of it")
    remote.stop(cut_off, other)

    assert len(rig.runs()) - len(ids) <= 2 * CONCURRENCY
    remote.assert_recorded_once(ids)
    remote.check()


def test_nothing_expires_on_a_slow_network(remote: Scene, redis_proxy: Proxy) -> None:
    rig = remote.rig
    ids = rig.enqueue(40, seconds=0.05)
    process = rig.start("worker")
    rig.wait(lambda: len(rig.runs()) >= 5, "some jobs run")
    redis_proxy.delay(0.2)
    remote.wait_completed(ids)
    redis_proxy.pass_on()
    remote.stop(process)
    assert Counter(job for job, _, _, _ in rig.runs()) == dict.fromkeys(ids, 1)
    remote.check()


def _assert_nothing_doubled(scene: Scene, count: int) -> None:
    queue = scene.rig.queue.operations.queue("default")
    assert (queue.enqueued, queue.completed, queue.dead, queue.processing, queue.waiting) == (count, count, 0, 0, 0)
    scene.check()

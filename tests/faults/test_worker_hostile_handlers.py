"""Handlers that harm their worker: that end it, crash it or block its event loop (FAULTS: W9, W10, W12).

Whatever a handler does befalls its own job only.
"""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

LEASE = 1.0


_CONCURRENCY = 10
"""Of the rig's workers."""


@pytest.fixture
def hostile(rig: Rig) -> Rig:
    """A rig on the embedded default, with hostile handlers."""
    rig.add_handlers("hostile_handlers")
    return rig


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """The same on each broker."""
    rig = build_rig(broker_config)
    rig.add_handlers("hostile_handlers")
    return rig


HOWS = ("SystemExit", "KeyboardInterrupt", "BaseException", "GeneratorExit")


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_handler_that_tries_to_end_the_process_by_an_exception_fails_and_the_worker_lives(hostile: Rig, mode: str) -> None:
    rig, bad = hostile, {}
    good = rig.enqueue(50, f"rig.{mode}", seconds=0.01)
    for how in HOWS:
        bad[how] = rig.queue.enqueue(f"hostile.raise.{mode}", {"how": how}).id
        good += rig.enqueue(50, f"rig.{mode}", seconds=0.01)
    worker = rig.start("worker")
    rig.wait(lambda: rig.all_completed(good) and rig.states([*bad.values()]) == {JobState.DEAD: len(HOWS)}, "all jobs end")
    rig.stop(worker)

    for how, job_id in bad.items():
        job = rig.queue.get(job_id)
        assert job is not None
        assert (job.dead_reason, job.crashes, job.run) == ("retries_exhausted", 0, 1)
        assert how in (job.last_error or "")
        assert rig.history(job_id) == [ExecutionState.DEAD]
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([*good, *bad.values()], 1)
    assert len({pid for *_, pid in rig.runs()}) == 1, "the worker was replaced"


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_handler_that_ends_the_process_is_dead_after_max_crashes_and_a_hundred_others_complete(hostile: Rig, mode: str) -> None:
    rig = hostile
    good = rig.enqueue(50, f"rig.{mode}", seconds=0.02)
    bad = rig.queue.enqueue(f"hostile.raise.{mode}", {"how": "os._exit"}).id
    good += rig.enqueue(50, f"rig.{mode}", seconds=0.02)
    worker = rig.start("worker")
    rig.wait(lambda: rig.all_completed(good) and rig.states([bad]) == {JobState.DEAD: 1}, "all jobs end")
    rig.stop(worker)

    job = rig.queue.get(bad)
    assert job is not None
    assert (job.dead_reason, job.crashes, job.retry_count) == ("worker_lost", 3, 0)
    assert "os._exit" in (job.last_error or "")
    assert rig.starts(bad) == 3
    # What ran, and what had ended and was not settled yet, may run again after each of the three deaths.
    assert len([job for job, *_ in rig.runs() if job != bad]) - len(good) <= 3 * 2 * _CONCURRENCY
    assert all(job.crashes <= 1 for job in rig.queue.broker.get(good) if job)


@MOSTLY_REDIS
def test_a_job_that_takes_its_worker_down_dies_with_the_reason_and_slow_neighbours_beside_it_each_time_complete(any_rig: Rig) -> None:
    rig = any_rig
    killer = rig.queue.enqueue("hostile.segfault").id
    worker = rig.start("worker", "--set", "worker.lease=30s")
    neighbours: list[str] = []
    for run in (1, 2, 3):
        rig.wait(lambda run=run: rig.starts(killer) == run, f"run {run} of the killer")
        # Those it has hit are suspects as it is, and never run beside it again: these have met it only now.
        fresh = [rig.queue.enqueue(job_type).id for job_type in ("hostile.gate", "hostile.gate.async")]
        rig.wait(lambda fresh=fresh: all(rig.starts(one) for one in fresh), "its neighbours run")
        neighbours += fresh
        (rig.folder / f"crash.{run}").touch()
    rig.wait(lambda: rig.states([killer]) == {JobState.DEAD: 1}, "the killer is dead", within=20)
    rig.wait(lambda: rig.all_completed(neighbours), "the neighbours complete", within=20)
    rig.stop(worker)

    job = rig.queue.get(killer)
    assert job is not None
    assert (job.dead_reason, job.crashes, job.retry_count, job.run) == ("worker_lost", 3, 0, 3)
    assert "SIGSEGV" in (job.last_error or "")
    assert rig.history(killer) == [ExecutionState.LOST] * 3
    assert {(one.crashes, one.retry_count, one.run) for one in rig.queue.broker.get(neighbours) if one} == {(1, 0, 2)}
    assert [rig.history(one) for one in neighbours] == [[ExecutionState.LOST, ExecutionState.COMPLETED]] * 6


def test_a_job_whose_worker_the_kernel_kills_dies_with_the_reason(hostile: Rig) -> None:
    # As it does to a process that takes too much memory.
    killer = hostile.queue.enqueue("rig.die", {"signal": int(signal.SIGKILL)}).id
    worker = hostile.start("worker")
    hostile.wait(lambda: hostile.states([killer]) == {JobState.DEAD: 1}, "the killer is dead", within=20)
    hostile.stop(worker)
    job = hostile.queue.get(killer)
    assert job is not None
    assert (job.dead_reason, job.crashes) == ("worker_lost", 3)
    assert "SIGKILL" in (job.last_error or "")


def test_two_jobs_that_take_their_worker_down_run_together_once_at_most(hostile: Rig) -> None:
    rig = hostile
    killers = [rig.queue.enqueue("hostile.abort", {"seconds": 0.2}).id for _ in range(2)]
    good = rig.enqueue(60, seconds=0.05)
    worker = rig.start("worker")
    rig.wait(lambda: rig.states(killers) == {JobState.DEAD: 2} and rig.all_completed(good), "all jobs end", within=40)
    rig.stop(worker)

    met = Counter(pid for job, *_, pid in rig.runs() if job in killers)
    assert sum(1 for count in met.values() if count == 2) <= 1, "two suspects ran in one process"
    assert {job.crashes for job in rig.queue.broker.get(killers) if job} == {3}
    assert {job.dead_reason for job in rig.queue.broker.get(killers) if job} == {"worker_lost"}


@MOSTLY_SQLITE
def test_an_event_loop_blocked_for_two_leases_keeps_its_lease_and_says_who_blocks_it(any_rig: Rig) -> None:
    rig = any_rig
    job = rig.queue.enqueue("hostile.block", {"seconds": 2.2 * LEASE})
    blocked = rig.start("worker", "--set", f"worker.lease={LEASE:.0f}s")
    rig.wait(rig.runs, "the job runs")
    # One that would take it, if it could be had.
    other = rig.start("worker", "--set", f"worker.lease={LEASE:.0f}s")
    rig.wait(lambda: rig.all_completed([job.id]), "the job completes", within=10)
    more = rig.enqueue(20, "rig.async", seconds=0.01)
    rig.wait(lambda: rig.all_completed(more), "others run")
    rig.stop(blocked, other)

    assert rig.starts(job.id) == 1
    assert rig.history(job.id) == [ExecutionState.COMPLETED]
    done = rig.queue.get(job.id)
    assert done is not None
    assert (done.result, done.crashes, done.run) == ("kept", 0, 1)
    warnings = [line for line in rig.log().splitlines() if "event loop blocked" in line]
    assert warnings
    assert all("WARNING" in line and "hostile.block" in line and job.id in line and "seconds=" in line for line in warnings)

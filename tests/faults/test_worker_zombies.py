"""Workers that are killed, frozen, cut off or have a namesake, seen from the others (FAULTS: F2, W1 to W3, W13's suspended host, W14; R6).

What a worker did not hear of it must not undo: a run that was cut off is one execution ``lost``, whatever its handler says in the end.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE
from redis_scene import Scene, pass_time

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.storage import DeadLetterFilter

if TYPE_CHECKING:
    from conftest import BuildRig, Rig
    from servers import Proxy

LEASE = 1.0
SHORT = ("--set", f"worker.lease={LEASE:.0f}s")
LONG = ("--set", "worker.lease=30s")
LOST, COMPLETED, DEAD = ExecutionState.LOST, ExecutionState.COMPLETED, ExecutionState.DEAD
CONCURRENCY = 10


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """A rig on each broker, with hostile handlers."""
    rig = build_rig(broker_config)
    rig.add_handlers("hostile_handlers")
    return rig


def _all_there_is(rig: Rig, ids: list[str]) -> tuple[object, ...]:
    """Everything the broker and the storage say of jobs."""
    letters = rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters
    return rig.queue.broker.get(ids), [rig.queue.operations.job_executions(one) for one in ids], letters


# Killed --------------------------------------------------------------------------------------------------------------------------------


@MOSTLY_REDIS
def test_what_a_killed_tree_held_starts_elsewhere_in_a_lease_without_new_traffic_and_counts_as_a_crash(any_rig: Rig) -> None:
    rig = any_rig
    ids = [rig.queue.enqueue("hostile.hang").id for _ in range(5)]
    killed = rig.start("worker", *SHORT)
    rig.wait(lambda: len(rig.runs()) == 5, "all jobs run")
    other = rig.start("worker", *SHORT)
    rig.wait(lambda: rig.log().count("worker up") == 2, "another is there")
    os.killpg(killed.pid, signal.SIGKILL)
    rig.wait(lambda: rig.all_completed(ids), "all jobs run again", within=LEASE + 5)
    rig.stop(other)

    assert {(job.crashes, job.retry_count, job.run) for job in rig.queue.broker.get(ids) if job} == {(1, 0, 2)}
    assert [rig.history(one) for one in ids] == [[LOST, COMPLETED]] * 5


@MOSTLY_SQLITE
def test_what_a_killed_child_held_starts_again_at_once_and_only_what_had_started_counts_as_crashed(any_rig: Rig) -> None:
    rig = any_rig
    started = rig.queue.enqueue("hostile.single", {"seconds": 1})
    rig.start("worker", *LONG)
    rig.wait(rig.runs, "the first runs")
    held = rig.queue.enqueue("hostile.single", {"seconds": 0})
    rig.wait(lambda: rig.states([held.id]) == {JobState.PROCESSING: 1}, "the second is held")
    os.kill(rig.runs()[0][3], signal.SIGKILL)
    rig.wait(lambda: rig.all_completed([started.id, held.id]), "both complete, long before the lease ends", within=10)

    assert [job.crashes for job in rig.queue.broker.get([started.id, held.id]) if job] == [1, 0]
    assert (rig.starts(started.id), rig.starts(held.id)) == (2, 1)


# Frozen --------------------------------------------------------------------------------------------------------------------------------


def test_what_a_frozen_worker_says_when_it_wakes_changes_nothing(any_rig: Rig) -> None:
    rig = any_rig
    # What the first run, which wakes up late, says against what the second one said.
    late_success = [rig.queue.enqueue("hostile.gate", {"failing_runs": []}) for _ in range(3)]
    late_failure = [rig.queue.enqueue("hostile.gate", {"failing_runs": [1]}, max_retries=retries) for retries in (0, 3)]
    against_death = [rig.queue.enqueue("hostile.gate", {"failing_runs": failing}, max_retries=0) for failing in ([2], [1, 2])]
    ids = [job.id for job in (*late_success, *late_failure, *against_death)]
    frozen = rig.start("worker", *SHORT)
    rig.wait(lambda: len(rig.runs()) == len(ids), "all jobs run")
    rig.freeze(frozen)
    began = time.monotonic()
    other = rig.start("worker", *SHORT)
    rig.wait(lambda: rig.states(ids) == {JobState.COMPLETED: 5, JobState.DEAD: 2}, "the other runs everything")
    rig.wait(lambda: all(len(rig.history(one)) == 2 for one in ids), "all is recorded")
    rig.wait(lambda: time.monotonic() - began >= 1.5 * LEASE, "the leases have long passed")
    before, runs = _all_there_is(rig, ids), rig.runs()

    (rig.folder / "open").touch()
    os.killpg(frozen.pid, signal.SIGCONT)
    rig.wait(lambda: "lease lost" in rig.log() or "outcome refused" in rig.log(), "the frozen one has heard of it")
    rig.stop(frozen, other)

    assert _all_there_is(rig, ids) == before
    assert rig.runs() == runs, "something was started once more"
    assert {job.result for job in rig.queue.broker.get([job.id for job in (*late_success, *late_failure)]) if job} == {"run 2"}
    assert [rig.history(job.id) for job in (*late_success, *late_failure)] == [[LOST, COMPLETED]] * 5
    assert [rig.history(job.id) for job in against_death] == [[LOST, DEAD]] * 2
    letters = rig.queue.operations.dead_letters(DeadLetterFilter(), limit=500).dead_letters
    assert sorted(letter.job.id for letter in letters) == sorted(job.id for job in against_death)


@MOSTLY_REDIS
def test_of_a_worker_frozen_amid_quick_jobs_nothing_runs_that_it_had_not_started(any_rig: Rig) -> None:
    rig = any_rig
    ids = rig.enqueue(600, seconds=0.02)
    frozen = rig.start("worker", *SHORT)
    rig.wait(lambda: len(rig.runs()) >= 50, "some jobs run")
    rig.freeze(frozen)
    its_own = len(rig.runs())
    other = rig.start("worker", *SHORT)
    rig.wait(lambda: rig.all_completed(ids), "the other runs everything")
    runs = len(rig.runs())
    os.killpg(frozen.pid, signal.SIGCONT)
    rig.stop(frozen, other)

    # A handler that had been called when the freeze came notes its start only now.
    assert len(rig.runs()) - runs <= CONCURRENCY
    assert len(rig.runs()) - len(ids) <= 2 * CONCURRENCY
    assert its_own < len(ids)
    for job_id in ids:
        states = rig.history(job_id)
        assert states == [LOST] * (len(states) - 1) + [COMPLETED]


@MOSTLY_REDIS
def test_a_host_that_was_suspended_loses_nothing_and_completes_each_job_once(any_rig: Rig) -> None:
    rig = any_rig
    workers = [rig.start("worker", *SHORT) for _ in range(2)]
    rig.wait(lambda: rig.log().count("worker up") == 2, "both are up")
    ids = rig.enqueue(80, seconds=0.1)
    rig.wait(lambda: len({pid for *_, pid in rig.runs()}) == 2 and len(rig.runs()) >= 25, "both run jobs")
    for worker in workers:
        rig.freeze(worker)
    pass_time(1.5 * LEASE)
    for worker in workers:
        os.killpg(worker.pid, signal.SIGCONT)
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete", within=LEASE + 10)
    rig.stop(*workers)

    assert len(rig.runs()) - len(ids) <= 2 * 2 * CONCURRENCY
    for job_id in ids:
        states = rig.history(job_id)
        assert states == [LOST] * (len(states) - 1) + [COMPLETED]
    queue = rig.queue.operations.queue("default")
    assert (queue.completed, queue.dead, queue.processing, queue.waiting) == (len(ids), 0, 0, 0)


# Cut off -------------------------------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_cut_off_starts_nothing_after_its_lease_although_it_holds_a_job_and_has_a_free_slot(
    remote: Scene, redis_proxy: Proxy
) -> None:
    rig = remote.rig
    rig.add_handlers("hostile_handlers")
    running = rig.queue.enqueue("hostile.single", {"seconds": 2.5 * LEASE})
    cut_off = rig.start("worker", *SHORT)
    rig.wait(lambda: rig.starts(running.id), "the first runs")
    held = rig.queue.enqueue("hostile.single", {"seconds": 0})
    rig.wait(lambda: remote.states([held.id]) == {JobState.PROCESSING: 1}, "the second is held")
    redis_proxy.halt()
    # Nobody else is there: the job remains this worker's, and only its own clock keeps it from starting it.
    pass_time(4 * LEASE)
    assert rig.starts(held.id) == 0
    redis_proxy.pass_on()
    remote.wait_completed([running.id, held.id], within=15)
    remote.stop(cut_off)

    assert (rig.starts(running.id), rig.starts(held.id)) == (1, 1)
    remote.check()


# Namesakes -----------------------------------------------------------------------------------------------------------------------------


@MOSTLY_SQLITE
def test_two_workers_of_one_name_both_work_and_steal_nothing_from_each_other(any_rig: Rig) -> None:
    rig = any_rig
    workers = [rig.start("worker", *SHORT, "--set", "worker.name=same") for _ in range(2)]
    rig.wait(lambda: len(shown := rig.queue.operations.workers()) == 2 and {one.name for one in shown} == {"same"}, "both are shown")
    assert len({one.id for one in rig.queue.operations.workers()}) == 2
    ids = rig.enqueue(60, seconds=0.1)
    long = rig.enqueue(2, "rig.async", seconds=1.5 * LEASE)
    rig.wait(lambda: rig.all_completed([*ids, *long]), "all jobs complete")
    assert len({pid for *_, pid in rig.runs()}) == 2
    # The end of one is not the end of the other.
    more = rig.enqueue(10, "rig.async", seconds=1)
    rig.wait(lambda: rig.states(more) == {JobState.PROCESSING: 10}, "more jobs run")
    rig.stop(workers[0])
    rig.wait(lambda: len(rig.queue.operations.workers()) == 1, "the other is still shown")
    rig.wait(lambda: rig.all_completed(more), "these complete too")
    rig.stop(workers[1])
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([*ids, *long, *more], 1)

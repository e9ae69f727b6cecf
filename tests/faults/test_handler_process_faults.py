"""Handlers in processes of their own that crash, grow, do not end or lose their worker (FAULTS: W7 to W11 and W15 for ``isolation="process"``).

What befalls a handler process befalls its own job: the worker and its neighbours go on; and no process outlives the worker.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE, slowly

from jobqueue_core import Job, JobState
from jobqueue_core.attempt import ExecutionState

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

LOST, COMPLETED, DEAD = ExecutionState.LOST, ExecutionState.COMPLETED, ExecutionState.DEAD
SOON = 5.0
"""Seconds within which what belongs to a dead worker has to be gone."""


@pytest.fixture
def rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """A rig on each broker, with handlers in processes."""
    return _with_handlers(build_rig(broker_config))


@pytest.fixture
def embedded(build_rig: BuildRig) -> Rig:
    """The same on the embedded default only: what is tested has little to do with the broker."""
    return _with_handlers(build_rig(""))


def _with_handlers(rig: Rig) -> Rig:
    rig.add_handlers("hostile_handlers", "process_handlers")
    return rig


def _workers(rig: Rig) -> list[int]:
    """The worker processes there have been."""
    return [int(pid) for pid in re.findall(r"process started role=worker pid=(\d+)", rig.log())]


def _neighbours(rig: Rig) -> list[str]:
    """Jobs of each mode that run until :func:`_let_go`."""
    ids = [rig.queue.enqueue(kind).id for kind in ("hostile.gate", "hostile.gate.async", "process.gate", "process.gate.async")]
    rig.wait(lambda: {job for job, *_ in rig.runs()} >= set(ids), "the neighbours run")
    return ids


def _let_go(rig: Rig, neighbours: list[str]) -> None:
    """Let them end; they must have run on, as if nothing had happened."""
    (rig.folder / "open").touch()
    rig.wait(lambda: rig.all_completed(neighbours), "the neighbours complete")
    assert {(one.crashes, one.run) for one in rig.queue.broker.get(neighbours) if one} == {(0, 1)}
    assert [rig.starts(one) for one in neighbours] == [1] * len(neighbours)
    assert len(_workers(rig)) == 1, "the worker was replaced"


def _job(rig: Rig, job_id: str) -> Job:
    job = rig.queue.get(job_id)
    assert job is not None
    return job


# Crashes -------------------------------------------------------------------------------------------------------------------------------


@MOSTLY_SQLITE
@pytest.mark.parametrize(("job_type", "payload", "reason"), [("process.segfault", None, "SIGSEGV"), ("process.raise", {"how": "os._exit"}, "exit")])
def test_a_handler_process_that_dies_takes_only_its_own_job_along(rig: Rig, job_type: str, payload: object, reason: str) -> None:
    worker = rig.start("worker")
    neighbours = _neighbours(rig)
    killer = rig.queue.enqueue(job_type, payload).id
    rig.wait(lambda: rig.states([killer]) == {JobState.DEAD: 1}, "the killer is dead", within=15)
    _let_go(rig, neighbours)
    rig.stop(worker)

    job = _job(rig, killer)
    assert (job.dead_reason, job.crashes, job.retry_count, job.run) == ("worker_lost", 3, 0, 3)
    assert reason in (job.last_error or "")
    assert rig.history(killer) == [LOST] * 3
    assert len({pid for one, _, _, pid in rig.runs() if one == killer}) == 3
    assert rig.left_behind() == []


@MOSTLY_REDIS
def test_handler_processes_killed_at_random_lose_nothing_and_repeat_what_they_ran(rig: Rig) -> None:
    ids = rig.enqueue(100, "process.sleep", seconds=0.02)
    worker = rig.start("worker", "--set", "worker.concurrency=4")
    dice = random.Random(7)
    for _ in range(5):
        target = len(rig.runs()) + dice.randint(5, 15)
        rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
        os.kill(rig.runs()[-1][3], signal.SIGKILL)
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    rig.stop(worker)

    runs = rig.runs()
    assert len(runs) - len(ids) <= 5
    assert max(Counter((job, run) for job, run, *_ in runs).values()) == 1
    for job_id in ids:
        states = rig.history(job_id)
        assert states == [LOST] * (len(states) - 1) + [COMPLETED]
    assert len(_workers(rig)) == 1


@pytest.mark.parametrize("kind", ["process.raise", slowly("process.raise.async")])
def test_a_handler_that_tries_to_end_its_process_by_an_exception_fails_and_is_no_crash(embedded: Rig, kind: str) -> None:
    rig, hows = embedded, ("SystemExit", "KeyboardInterrupt", "BaseException", "GeneratorExit")
    bad = {how: rig.queue.enqueue(kind, {"how": how}).id for how in hows}
    good = rig.enqueue(100, "process.sleep", seconds=0.001)
    worker = rig.start("worker", "--set", "worker.concurrency=2")
    rig.wait(lambda: rig.all_completed(good) and rig.states([*bad.values()]) == {JobState.DEAD: len(hows)}, "all jobs end")
    rig.stop(worker)

    for how, job_id in bad.items():
        job = _job(rig, job_id)
        assert (job.dead_reason, job.crashes, job.run) == ("retries_exhausted", 0, 1)
        assert how in (job.last_error or "")
    assert Counter(one for one, *_ in rig.runs()) == dict.fromkeys([*good, *bad.values()], 1)


# Memory --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [slowly("process.allocate"), "process.grow"])
def test_a_handler_that_takes_more_memory_than_it_may_fails_and_follows_its_retry_policy(embedded: Rig, kind: str) -> None:
    rig = embedded
    worker = rig.start("worker")
    neighbours = _neighbours(rig)
    greedy = rig.queue.enqueue(kind).id
    rig.wait(lambda: rig.states([greedy]) == {JobState.DEAD: 1}, "it is dead", within=20)
    _let_go(rig, neighbours)
    rig.stop(worker)

    job = _job(rig, greedy)
    assert (job.dead_reason, job.crashes, job.run) == ("retries_exhausted", 0, 2)
    assert "emory" in (job.last_error or "")
    assert rig.history(greedy) == [ExecutionState.FAILED, DEAD]
    assert rig.notes("grown") == []


# Endless -------------------------------------------------------------------------------------------------------------------------------


def _processes_of(rig: Rig, job_id: str) -> set[int]:
    """The handler processes of a job, and what these have started."""
    return {pid for one, _, _, pid in rig.runs() if one == job_id} | {int(line[-1]) for line in rig.notes("children")}


@pytest.mark.parametrize("how", ["gil", slowly("deaf"), slowly("stopped"), "children"])
def test_a_handler_that_does_not_end_in_time_is_killed_with_all_it_has_started(embedded: Rig, how: str) -> None:
    rig = embedded
    worker = rig.start("worker", "--set", "worker.concurrency=5")
    neighbours = _neighbours(rig)
    endless = rig.queue.enqueue("process.timeout", {"how": how}).id
    rig.wait(lambda: rig.states([endless]) == {JobState.DEAD: 1}, "it is dead", within=10)
    rig.wait(lambda: not _processes_of(rig, endless) & set(rig.left_behind()), "its processes are gone", within=SOON)
    more = rig.enqueue(4, "process.sleep", seconds=0.01)
    rig.wait(lambda: rig.all_completed(more), "others run in its place")
    _let_go(rig, neighbours)
    rig.stop(worker)

    job = _job(rig, endless)
    assert (job.dead_reason, job.last_error, job.crashes, job.run) == ("retries_exhausted", "TimeoutError: timed out after 500ms", 0, 1)
    assert rig.history(endless) == [DEAD]
    [execution] = rig.queue.operations.job_executions(endless)
    assert execution.duration_ms / 1000 < 0.5 + 0.3 + 1.5
    assert how != "children" or len(rig.notes("children")) == 1


@pytest.mark.parametrize(("kind", "how"), [slowly("process.hang", "deaf"), ("process.hang", "children"), ("process.hang.async", "deaf")])
def test_a_job_that_is_cancelled_and_does_not_heed_it_is_killed_and_cancelled(embedded: Rig, kind: str, how: str) -> None:
    rig = embedded
    worker = rig.start("worker")
    neighbours = _neighbours(rig)
    job_id = rig.queue.enqueue(kind, {"how": how}).id
    rig.wait(lambda: rig.starts(job_id) and (how != "children" or rig.notes("children")), "it runs")
    rig.queue.cancel(job_id)
    rig.wait(lambda: rig.states([job_id]) == {JobState.CANCELLED: 1}, "it is cancelled", within=SOON)
    rig.wait(lambda: not _processes_of(rig, job_id) & set(rig.left_behind()), "its processes are gone", within=SOON)
    _let_go(rig, neighbours)
    rig.stop(worker)

    assert rig.history(job_id) == [ExecutionState.CANCELLED]
    assert (rig.starts(job_id), _job(rig, job_id).crashes) == (1, 0)


def test_a_job_that_is_cancelled_hears_of_it_and_may_end_by_itself(embedded: Rig) -> None:
    rig = embedded
    job_id = rig.queue.enqueue("process.polite").id
    worker = rig.start("worker")
    rig.wait(rig.runs, "it runs")
    rig.queue.cancel(job_id)
    rig.wait(lambda: rig.states([job_id]) == {JobState.CANCELLED: 1}, "it is cancelled", within=SOON)
    rig.stop(worker)
    assert [line[-1] for line in rig.notes("asked")] == ["True"]


# The worker ends -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whom", "how"), [slowly("the worker", "deaf"), ("the worker", "gil"), slowly("the worker", "stopped"), ("the whole group", "deaf")]
)
def test_handler_processes_do_not_outlive_a_worker_that_is_killed(embedded: Rig, whom: str, how: str) -> None:
    rig = embedded
    ids = [rig.queue.enqueue(kind, {"how": how}).id for kind in ("process.hang", "process.hang.async")]
    command = rig.start("worker")
    rig.wait(lambda: len(rig.runs()) == 2, "both run")
    theirs = {pid for *_, pid in rig.runs()}
    if whom == "the worker":
        os.kill(_workers(rig)[0], signal.SIGKILL)
    else:
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    rig.wait(lambda: not theirs & set(rig.left_behind()), "the handler processes are gone", within=SOON)
    last = command if whom == "the worker" else rig.start("worker")
    rig.wait(lambda: rig.all_completed(ids), "the jobs run again", within=15)
    rig.stop(last)

    assert {(one.crashes, one.retry_count, one.run) for one in rig.queue.broker.get(ids) if one} == {(1, 0, 2)}
    assert [rig.history(one) for one in ids] == [[LOST, COMPLETED]] * 2


def test_when_only_the_supervisor_is_killed_running_jobs_finish_and_no_process_is_left(embedded: Rig) -> None:
    rig = embedded
    ids = rig.enqueue(4, "process.sleep", seconds=1)
    hanging = rig.queue.enqueue("process.hang", {"how": "deaf"}).id
    command = rig.start("worker", "--set", "worker.shutdown_timeout=2s")
    rig.wait(lambda: len(rig.runs()) == 5, "all run")
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    rig.wait(lambda: not rig.left_behind(), "all processes end", within=2 + SOON)

    assert rig.all_completed(ids)
    job = _job(rig, hanging)
    assert (job.state, job.crashes, job.retry_count) == (JobState.QUEUED, 0, 0)


@pytest.mark.slow
def test_a_graceful_stop_lets_jobs_finish_and_leaves_no_process_behind(embedded: Rig) -> None:
    rig = embedded
    ids = rig.enqueue(20, "process.sleep", seconds=0.2)
    worker = rig.start("worker", "--set", "worker.concurrency=4")
    rig.wait(lambda: len(rig.runs()) >= 6, "some jobs run")
    rig.stop(worker)

    assert rig.left_behind() == []
    done = len(rig.runs())
    assert rig.states(ids) == {JobState.COMPLETED: done, JobState.QUEUED: len(ids) - done}
    second = rig.start("worker", "--set", "worker.concurrency=4")
    rig.wait(lambda: rig.all_completed(ids), "the rest completes")
    rig.stop(second)
    assert Counter(one for one, *_ in rig.runs()) == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("how", [slowly("deaf"), "children"])
def test_what_does_not_end_within_the_grace_is_killed_and_given_back_and_the_exit_is_in_order(embedded: Rig, how: str) -> None:
    rig = embedded
    ids = [rig.queue.enqueue("process.hang", {"how": how}).id for _ in range(2)]
    worker = rig.start("worker", "--set", "worker.shutdown_timeout=1s")
    rig.wait(lambda: len(rig.runs()) == 2 and (how != "children" or len(rig.notes("children")) == 2), "both run")
    told = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert time.monotonic() - told < 1 + 0.3 + 2.5
    rig.wait(lambda: not rig.left_behind(), "all processes end", within=SOON)
    assert {(job.state, job.crashes, job.retry_count) for job in rig.queue.broker.get(ids) if job} == {(JobState.QUEUED, 0, 0)}

    second = rig.start("worker")
    rig.wait(lambda: rig.all_completed(ids), "they run elsewhere", within=10)
    rig.stop(second)
    assert {(run, attempt) for _, run, attempt, _ in rig.runs()[2:]} == {(2, 1)}


def test_a_second_signal_ends_handler_processes_at_once(embedded: Rig) -> None:
    rig = embedded
    ids = [rig.queue.enqueue("process.hang", {"how": "deaf"}).id for _ in range(2)]
    worker = rig.start("worker", "--set", "worker.shutdown_timeout=30s")
    rig.wait(lambda: len(rig.runs()) == 2, "both run")
    worker.send_signal(signal.SIGTERM)
    rig.wait(lambda: "stopping" in rig.log(), "it has heard the first signal")
    told = time.monotonic()
    worker.send_signal(signal.SIGINT)
    assert worker.wait(10) == 4
    assert time.monotonic() - told < 4
    rig.wait(lambda: not rig.left_behind(), "all processes end", within=SOON)
    assert {(job.state, job.crashes, job.retry_count) for job in rig.queue.broker.get(ids) if job} == {(JobState.QUEUED, 0, 0)}

"""Handlers that do not end when their time is over (FAULTS: W7, W8, and what W12 comes to when it never ends).

Their leases are kept up to the timeout and the grace after it; then the job fails, its slot is replaced, and what the handler says later is heard by
nobody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE, slowly

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

TIMEOUT = 0.3


@pytest.fixture
def endless(rig: Rig) -> Rig:
    """A rig on the embedded default, with handlers that do not end."""
    rig.add_handlers("hostile_handlers", "endless_handlers")
    return rig


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """The same on each broker."""
    rig = build_rig(broker_config)
    rig.add_handlers("hostile_handlers", "endless_handlers")
    return rig


@pytest.mark.parametrize("kind", ["endless.thread", "endless.blocked", slowly("endless.deaf"), slowly("endless.async")])
def test_a_handler_that_does_not_end_fails_as_a_timeout_and_its_slot_is_there_for_others(endless: Rig, kind: str) -> None:
    rig = endless
    ids = [rig.queue.enqueue(kind).id for _ in range(2)]
    worker = rig.start("worker", "--set", "worker.concurrency=2")
    rig.wait(lambda: len(rig.notes("endless")) >= 2, "both slots are taken")
    others = [*rig.enqueue(10, "rig.thread", seconds=0.01), *rig.enqueue(10, "rig.async", seconds=0.01)]
    rig.wait(lambda: rig.states(ids) == {JobState.DEAD: 2}, "both are dead", within=20)
    rig.wait(lambda: rig.all_completed(others), "others run in the places of these")
    worker.terminate()
    # What cannot be ended is left behind, and said so.
    assert worker.wait(20) == (0 if kind == "endless.thread" else 3)

    for job in rig.queue.broker.get(ids):
        assert job is not None
        assert (job.dead_reason, job.last_error, job.run, job.crashes) == ("retries_exhausted", "TimeoutError: timed out after 300ms", 2, 0)
        assert rig.history(job.id) == [ExecutionState.FAILED, ExecutionState.DEAD]
    begun = defaultdict(list)
    for job_id, *_, at in rig.notes("endless"):
        begun[job_id].append(float(at))
    assert all(second - first >= TIMEOUT for first, second in begun.values()), "both attempts counted as running at once"
    assert len({pid for *_, pid in rig.runs()}) == 1


@MOSTLY_REDIS
def test_an_endless_handler_keeps_its_lease_until_its_timeout_and_not_longer(any_rig: Rig) -> None:
    rig = any_rig
    job = rig.queue.enqueue("endless.long")
    holder = rig.start("worker", "--set", "worker.lease=1s")
    rig.wait(rig.runs, "the job runs")
    other = rig.start("worker", "--set", "worker.lease=1s")
    rig.wait(lambda: rig.states([job.id]) == {JobState.DEAD: 1}, "it is dead", within=10)
    rig.stop(holder, other)

    assert rig.starts(job.id) == 1
    assert rig.history(job.id) == [ExecutionState.DEAD]
    [execution] = rig.queue.operations.job_executions(job.id)
    assert 3.0 <= execution.duration_ms / 1000 < 3.0 + 0.2 + 1.5


@MOSTLY_SQLITE
def test_after_several_handlers_that_cannot_be_ended_the_worker_goes_on_in_a_fresh_process(any_rig: Rig) -> None:
    rig = any_rig
    ids = [rig.queue.enqueue("endless.deaf").id for _ in range(4)]
    worker = rig.start("worker")
    rig.wait(lambda: rig.states(ids) == {JobState.DEAD: 4}, "all are dead", within=20)
    rig.wait(lambda: rig.log().count("worker up") >= 2, "a fresh process is up")
    others = rig.enqueue(50, "rig.thread", seconds=0.01)
    rig.wait(lambda: rig.all_completed(others), "it runs jobs")
    rig.stop(worker)

    assert Counter(job for job, *_ in rig.notes("endless")) == dict.fromkeys(ids, 2)
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(others, 1)
    assert {(job.crashes, job.retry_count) for job in rig.queue.broker.get(ids) if job} == {(0, 1)}
    assert {tuple(rig.history(one)) for one in ids} == {(ExecutionState.FAILED, ExecutionState.DEAD)}


@MOSTLY_SQLITE
@pytest.mark.parametrize("kind", ["endless.late.thread", "endless.late.async"])
def test_what_a_handler_returns_after_it_was_given_up_changes_nothing(any_rig: Rig, kind: str) -> None:
    rig = any_rig
    job_id = rig.queue.enqueue(kind).id
    worker = rig.start("worker")
    rig.wait(lambda: rig.states([job_id]) == {JobState.DEAD: 1}, "it is given up", within=10)
    rig.wait(lambda: rig.history(job_id), "that is recorded")
    before = rig.queue.get(job_id), rig.queue.operations.job_executions(job_id)
    (rig.folder / "open").touch()
    rig.wait(lambda: rig.notes("late"), "it returns at last")
    # Whatever it would have settled is settled before what comes after it.
    others = rig.enqueue(20, "rig.thread", seconds=0.01)
    rig.wait(lambda: rig.all_completed(others), "others run")
    worker.terminate()
    worker.wait(20)

    assert (rig.queue.get(job_id), rig.queue.operations.job_executions(job_id)) == before
    assert rig.starts(job_id) == 1


def test_a_handler_that_never_gives_the_event_loop_back_costs_its_own_job_and_a_fresh_process(endless: Rig) -> None:
    rig = endless
    job = rig.queue.enqueue("hostile.block", {"seconds": 3600}, timeout="300ms", max_retries=0)
    worker = rig.start("worker")
    rig.wait(rig.runs, "the loop is blocked")
    others = rig.enqueue(20, "rig.async", seconds=0.01)
    rig.wait(lambda: rig.states([job.id]) == {JobState.DEAD: 1} and rig.all_completed(others), "it is dead, and others run", within=20)
    rig.stop(worker)

    assert Counter(one for one, *_ in rig.runs()) == dict.fromkeys([job.id, *others], 1)
    assert len({pid for *_, pid in rig.runs()}) == 2
    assert rig.history(job.id) == [ExecutionState.DEAD]
    assert {one.crashes for one in rig.queue.broker.get([job.id, *others]) if one} == {0}

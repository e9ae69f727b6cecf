"""Workers that are stopped and started again while work goes on (FAULTS: F3, W4, W5, W11).

A restart by SIGTERM, a recycling by ``max_jobs`` or ``max_rss``: neither repeats or loses a job.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE
from redis_scene import repeated

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

GRACE = 1.0
CONCURRENCY = 4


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """A rig on each broker, with hostile handlers."""
    rig = build_rig(broker_config)
    rig.add_handlers("hostile_handlers")
    return rig


@MOSTLY_REDIS
def test_four_workers_restarted_one_after_the_other_under_load_run_each_job_once(any_rig: Rig) -> None:
    rig = any_rig
    ids: list[str] = []

    def produce() -> None:
        for job_type in ("rig.thread", "rig.async"):
            ids.extend(rig.enqueue(3, job_type, seconds=0.05))

    def start(count: int) -> list[subprocess.Popen[bytes]]:
        up = rig.log().count("worker up")
        started = [rig.start("worker", "--set", f"worker.concurrency={CONCURRENCY}") for _ in range(count)]
        rig.wait(lambda: rig.log().count("worker up") == up + count, "they are up")
        return started

    with repeated(produce, every=0.05):
        workers = start(4)
        for worker in list(workers):
            before = len(rig.runs())
            rig.wait(lambda before=before: len(rig.runs()) >= before + 20, "jobs run")
            rig.stop(worker)
            workers.remove(worker)
            workers += start(1)
        rig.wait(lambda: len({pid for *_, pid in rig.runs()}) == 8, "the last one works too")
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete", within=20)
    rig.stop(*workers)

    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(ids, 1)
    jobs = [job for at in range(0, len(ids), 500) for job in rig.queue.broker.get(ids[at : at + 500])]
    assert {(job.run, job.crashes, job.retry_count) for job in jobs if job} == {(1, 0, 0)}
    queue = rig.queue.operations.queue("default")
    assert (queue.completed, queue.dead, queue.processing, queue.waiting) == (len(ids), 0, 0, 0)


@MOSTLY_REDIS
def test_what_a_stopping_worker_gives_back_starts_elsewhere_within_two_seconds_in_the_same_attempt(any_rig: Rig) -> None:
    rig = any_rig
    ids = [rig.queue.enqueue("hostile.hang").id for _ in range(5)]
    stopping = rig.start("worker", "--set", f"worker.shutdown_timeout={GRACE:.0f}s")
    rig.wait(lambda: len(rig.runs()) == 5, "all jobs run")
    other = rig.start("worker")
    rig.wait(lambda: rig.log().count("worker up") == 2, "another is there")
    told = time.monotonic()
    stopping.send_signal(signal.SIGTERM)
    rig.wait(lambda: len(rig.runs()) == 10, "they start again", within=GRACE + 2)
    assert time.monotonic() - told >= GRACE
    assert stopping.wait(GRACE + 2) == 0
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    rig.stop(other)

    assert {(run, attempt) for _, run, attempt, _ in rig.runs()[5:]} == {(2, 1)}
    assert [rig.history(one) for one in ids] == [[ExecutionState.RETURNED, ExecutionState.COMPLETED]] * 5
    assert {job.crashes for job in rig.queue.broker.get(ids) if job} == {0}


@MOSTLY_SQLITE
def test_a_stopping_worker_starts_nothing_more_and_ends_soon_after_its_longest_job(any_rig: Rig) -> None:
    rig = any_rig
    ids = rig.enqueue(60, seconds=0.5)
    worker = rig.start("worker")
    rig.wait(lambda: len(rig.runs()) >= 15, "some jobs run")
    worker.send_signal(signal.SIGTERM)
    rig.wait(lambda: "stopping" in rig.log(), "it has heard of it")
    started = len(rig.runs())
    told = time.monotonic()
    assert worker.wait(10) == 0
    # The second that is promised, and one for a busy machine.
    assert time.monotonic() - told < 0.5 + 1 + 1
    # One may have been about to note its start.
    assert len(rig.runs()) - started <= 10
    assert rig.states(ids) == {JobState.COMPLETED: len(rig.runs()), JobState.QUEUED: len(ids) - len(rig.runs())}


# Recycling -----------------------------------------------------------------------------------------------------------------------------


@MOSTLY_SQLITE
def test_handlers_that_leak_files_and_threads_are_bounded_by_max_jobs_and_nothing_is_lost(any_rig: Rig) -> None:
    rig, each = any_rig, 60
    payloads = [{"type": "hostile.leak", "payload": {"kibibytes": 1, "seconds": 0.02}} for _ in range(5 * each)]
    ids = [answer.job.id for answer in rig.queue.enqueue_many(payloads) if answer.job is not None]
    worker = rig.start("worker", "--set", f"worker.max_jobs={each}")
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    rig.stop(worker)

    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(ids, 1)
    # What is running when the number is reached, and what starts before the worker notices, comes on top: of 20 ms handlers less than as many again.
    for column in (4, 5):
        counts = sorted(int(line[column]) for line in rig.notes("sizes"))
        assert counts[-1] - counts[0] <= 3 * each
    assert len({pid for *_, pid in rig.runs()}) >= 3
    assert "max_jobs" in rig.log()
    assert {job.run for job in rig.queue.broker.get(ids[:500]) if job} == {1}


def test_handlers_that_leak_memory_are_bounded_by_max_rss_and_nothing_is_lost(rig: Rig) -> None:
    limit, leak = 120 << 20, 2 << 20
    rig.add_handlers("hostile_handlers")
    payloads = [{"type": "hostile.leak", "payload": {"kibibytes": leak >> 10, "seconds": 0.1}} for _ in range(90)]
    ids = [answer.job.id for answer in rig.queue.enqueue_many(payloads) if answer.job is not None]
    worker = rig.start("worker", "--set", f"worker.max_rss={limit >> 20}MiB", "--set", "worker.concurrency=3")
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    rig.stop(worker)

    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(ids, 1)
    assert len({pid for *_, pid in rig.runs()}) >= 2
    assert "max_rss" in rig.log()
    # The worker looks once a second, in which some 30 jobs leak their part.
    assert max(int(line[6]) for line in rig.notes("sizes")) < limit + 45 * leak

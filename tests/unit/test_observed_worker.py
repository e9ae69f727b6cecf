"""Observers that raise, in a real worker: nothing that they observe ends otherwise, and an operator can see that they do."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobqueue_core import Discard, Job, JobContext, JobState, Snooze, handler
from jobqueue_core.attempt import Outcome
from jobqueue_core.broker import WorkerInfo
from jobqueue_core.job import DeadReason
from jobqueue_core.observers import EVENTS, Observer
from jobqueue_core.service import Exit
from jobqueue_core.testing import Harness


class Raising(Observer):
    """Raises wherever it is told something."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.error = error
        self.told: Counter[str] = Counter()

    def _fail(self, event: str) -> None:
        self.told[event] += 1
        raise self.error()

    def enqueued(self, job: Job) -> None:
        self._fail("enqueued")

    def started(self, job: Job) -> None:
        self._fail("started")

    def finished(self, job: Job, outcome: Outcome, duration: timedelta) -> None:
        self._fail("finished")

    def retried(self, job: Job, delay: timedelta, error: str) -> None:
        self._fail("retried")

    def dead(self, job: Job, reason: str, error: str) -> None:
        self._fail("dead")

    def worker_up(self, worker: WorkerInfo) -> None:
        self._fail("worker_up")

    def worker_down(self, worker: WorkerInfo) -> None:
        self._fail("worker_down")


@handler("double", max_retries=2)
async def double(number: int, ctx: JobContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("once")
    return number * 2


@handler("double.thread", max_retries=2)
def double_in_a_thread(number: int, ctx: JobContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("once")
    return number * 2


@handler("discard")
def discard() -> None:
    raise Discard("no")


@handler("typed")
def typed(number: int) -> None: ...


@handler("later")
def later(ctx: JobContext) -> None:
    if ctx.run == 1:
        raise Snooze("1ms")


HANDLERS = [double, double_in_a_thread, discard, typed, later]


def error_of_a_library() -> BaseException:
    return LookupError("observer")


# In the main thread of a program of the user's own a KeyboardInterrupt is let through (test_observers.py), so enqueue here is done in another.
@pytest.mark.parametrize("error", [error_of_a_library, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration])
def test_what_is_observed_ends_as_it_would_have(error: Callable[[], BaseException], caplog: pytest.LogCaptureFixture) -> None:
    observer = Raising(error)
    harness = Harness(HANDLERS, observers=[observer])
    with harness:
        jobs = asyncio.run(enqueue_all(harness))
        harness.drain()
        ended = [harness.queue.get(job.id) for job in jobs]
    assert [(job.state, job.result, job.dead_reason) for job in ended if job is not None] == [
        (JobState.COMPLETED, 42, None),
        (JobState.COMPLETED, 42, None),
        (JobState.DEAD, None, DeadReason.DISCARDED),
        (JobState.DEAD, None, DeadReason.INVALID_PAYLOAD),
        (JobState.COMPLETED, None, None),
    ]
    assert harness._exit is Exit.OK
    assert observer.told == {"enqueued": 5, "started": 7, "finished": 8, "retried": 2, "dead": 2, "worker_up": 1, "worker_down": 1}
    assert harness._observers.errors == observer.told.total()
    reported = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "observer raised"]
    assert sorted(one["observer"] for one in reported) == sorted(f"Raising.{event}" for event in EVENTS)
    assert {record.levelno for record in caplog.records if record.name == "jobqueue.observers"} == {logging.ERROR}


async def enqueue_all(harness: Harness) -> list[Job]:
    given: list[tuple[str, Any]] = [("double", 21), ("double.thread", 21), ("discard", None), ("typed", "three"), ("later", None)]
    return [await harness.queue.aenqueue(job_type, payload) for job_type, payload in given]


def test_one_that_raises_at_a_jobs_start_leaves_the_next_in_line_told() -> None:
    seen: list[str] = []

    class Listener(Observer):
        def started(self, job: Job) -> None:
            seen.append(f"started {job.type}")

        def finished(self, job: Job, outcome: Outcome, duration: timedelta) -> None:
            seen.append(f"finished {job.type}")

    with Harness(HANDLERS, observers=[Raising(SystemExit), Listener()]) as harness:
        harness.run("later")
    assert seen == ["started later", "finished later"] * 2

"""The harness: handlers through the real worker, in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from jobqueue_core import InvalidJob, Job, JobContext, JobState, Retry, RetryPolicy, WaitTimeout, handler, lifespan
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.observers import Observer
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing import Harness

if TYPE_CHECKING:
    from jobqueue_core.middleware import Next


@handler("echo", queue="some.queue")
def echo(payload: Any) -> Any:
    return payload


@handler("echo.async")
async def echo_async(payload: Any) -> Any:
    return payload


@handler("fail")
def fail(payload: object) -> None:
    raise ValueError("no")


@handler("later")
def later(payload: object) -> None:
    raise Retry(delay="1h")


def test_a_job_is_run_and_returned_however_it_ends() -> None:
    with Harness([echo, echo_async, fail]) as harness:
        assert harness.run("echo", {"a": 1}).result == {"a": 1}
        assert harness.run(echo_async, 2).result == 2
        dead = harness.run("fail")
        assert (dead.state, dead.run, dead.last_error) == (JobState.DEAD, 4, "ValueError: no")
        assert harness.run("fail", max_retries=0).run == 1


def test_history_is_up_to_date_for_whoever_asks() -> None:
    with Harness([fail]) as harness:
        job = harness.run("fail", max_retries=1)
        assert [one.state for one in harness.operations.job_executions(job.id)] == [ExecutionState.FAILED, ExecutionState.DEAD]
        assert len(harness.operations.dead_letters(DeadLetterFilter()).dead_letters) == 1


def test_it_can_be_drained() -> None:
    with Harness([echo, fail]) as harness:
        jobs = [harness.enqueue("echo", number, queue=f"q{number % 3}") for number in range(20)] + [harness.enqueue("fail")]
        harness.drain()
        states = [found.state for job in jobs if (found := harness.queue.get(job.id))]
    assert states == [JobState.COMPLETED] * 20 + [JobState.DEAD]


def test_what_does_not_finish_in_time_is_named() -> None:
    with Harness([later]) as harness:
        job = harness.enqueue("later")
        with pytest.raises(WaitTimeout, match=rf"later {job.id}"):
            harness.drain(within="100ms")
        with pytest.raises(WaitTimeout):
            harness.run("later", within="50ms")


def test_only_the_handlers_that_were_given_are_known() -> None:
    with Harness([echo]) as harness:
        assert [spec.type for spec in harness.registry] == ["echo"]
        with pytest.raises(InvalidJob):
            harness.enqueue(lambda payload: payload)


def test_middleware_and_observers_take_part() -> None:
    heard: list[str] = []

    class Ear(Observer):
        def enqueued(self, job: Job) -> None:
            heard.append("enqueued")

        def started(self, job: Job) -> None:
            heard.append("started")

        def finished(self, job: Job, *_: object) -> None:
            heard.append("finished")

    async def shout(ctx: JobContext, call_next: Next) -> object:
        return f"{await call_next(ctx)}!"

    with Harness([echo], middleware=[shout], observers=[Ear()]) as harness:
        assert harness.run("echo", "hey").result == "hey!"
    assert heard == ["enqueued", "started", "finished"]


def test_a_lifespan_that_breaks_is_raised_in_the_test() -> None:
    @lifespan
    async def resources() -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    module = ModuleType("broken")
    vars(module).update(resources=resources, echo=echo)
    with pytest.raises(LookupError, match="no database"), Harness([module]):
        pass


def test_retries_do_not_wait_unless_the_handlers_own_policy_says_so() -> None:
    @handler("slow.retry", max_retries=1, retry=RetryPolicy(base="1h", jitter="none"))
    def slow_retry(payload: object) -> None:
        raise ValueError

    with Harness([fail, slow_retry]) as harness:
        assert harness.run("fail", within="5s").run == 4
        with pytest.raises(WaitTimeout):
            harness.run("slow.retry", within="100ms")


def test_two_harnesses_know_nothing_of_each_other() -> None:
    with Harness([echo]) as one, Harness([echo]) as other:
        job = one.run("echo", 1)
        assert other.queue.get(job.id) is None

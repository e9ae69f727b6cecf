"""How runs end: completed, failed, timed out, cancelled, snoozed, discarded; and what becomes of their jobs."""

from __future__ import annotations

import asyncio
import threading

import pytest
from worker_shop import BOTH, Gate, Shop, open_shop, quick, quick_async, until

from jobqueue_core import Discard, JobContext, JobState, Snooze, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.job import DeadReason

shop = pytest.fixture(open_shop)


@pytest.mark.parametrize("kind", ["quick", "quick.async"])
def test_a_job_runs_and_its_result_is_kept(shop: Shop, kind: str) -> None:
    shop.start(quick, quick_async)
    job = shop.wait(shop.queue.enqueue(kind, {"a": [1]}))
    assert (job.state, job.result, job.run, job.attempt) == (JobState.COMPLETED, {"a": [1]}, 1, 1)
    assert shop.history(job) == [ExecutionState.COMPLETED]


def test_a_failing_job_is_tried_again_until_it_is_dead_with_one_dead_letter(shop: Shop) -> None:
    @handler("fail", max_retries=2)
    def fail(payload: object, ctx: JobContext) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    shop.start(fail)
    job = shop.wait(shop.queue.enqueue("fail"))
    assert (job.state, job.dead_reason, job.last_error, job.run, job.deaths) == (
        JobState.DEAD,
        DeadReason.RETRIES_EXHAUSTED,
        "ValueError: attempt 3",
        3,
        1,
    )
    assert shop.history(job) == [ExecutionState.FAILED, ExecutionState.FAILED, ExecutionState.DEAD]
    assert shop.storage.dead_letter(job.id) is not None


@BOTH
def test_a_run_that_takes_too_long_fails_as_a_timeout(shop: Shop, kind: str) -> None:
    shop.start(*Gate(timeout="150ms", max_retries=1).handlers)
    job = shop.wait(shop.queue.enqueue(kind))
    assert (job.state, job.last_error, job.run) == (JobState.DEAD, "TimeoutError: timed out after 150ms", 2)


def test_the_jobs_own_timeout_counts_before_the_handlers(shop: Shop) -> None:
    shop.start(*Gate(timeout="1h").handlers)
    job = shop.wait(shop.queue.enqueue("gate.async", timeout="100ms", max_retries=0))
    assert job.last_error == "TimeoutError: timed out after 100ms"


@BOTH
def test_a_running_job_that_is_cancelled_stops_and_never_runs_again(shop: Shop, kind: str) -> None:
    gate = Gate()
    shop.start(*gate.handlers)
    job = shop.queue.enqueue(kind)
    until(lambda: gate.inside.now)
    assert shop.queue.cancel(job.id).state is JobState.PROCESSING
    assert shop.wait(job).state is JobState.CANCELLED
    assert shop.history(job) == [ExecutionState.CANCELLED]
    assert gate.inside.entered == 1


def test_a_running_job_that_completes_although_it_was_cancelled_stays_completed(shop: Shop) -> None:
    entered = threading.Event()

    @handler("stubborn")
    async def stubborn(payload: object) -> str:
        entered.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "done nevertheless"
        return "slept"

    shop.start(stubborn)
    job = shop.queue.enqueue("stubborn")
    until(entered.is_set)
    shop.queue.cancel(job.id)
    assert (shop.wait(job).state, shop.job(job).result) == (JobState.COMPLETED, "done nevertheless")


def test_a_snooze_spends_a_run_and_no_attempt(shop: Shop) -> None:
    @handler("snooze", max_retries=0)
    async def snooze(payload: object, ctx: JobContext) -> list[int]:
        if ctx.run < 4:
            raise Snooze("5ms")
        return [ctx.run, ctx.attempt]

    shop.start(snooze)
    job = shop.wait(shop.queue.enqueue("snooze"))
    assert (job.state, job.result) == (JobState.COMPLETED, [4, 1])
    assert shop.history(job) == [ExecutionState.SNOOZED] * 3 + [ExecutionState.COMPLETED]


def test_a_discarded_job_is_dead_at_once(shop: Shop) -> None:
    @handler("discard")
    def discard(payload: object) -> None:
        raise Discard("not worth it")

    shop.start(discard)
    job = shop.wait(shop.queue.enqueue("discard"))
    assert (job.state, job.dead_reason, job.run, job.last_error) == (JobState.DEAD, DeadReason.DISCARDED, 1, "Discard: not worth it")


def test_a_payload_that_does_not_fit_is_dead_at_once(shop: Shop) -> None:
    @handler("typed")
    def typed(payload: dict[str, int]) -> None: ...

    shop.start(typed)
    job = shop.wait(shop.queue.enqueue("typed", {"a": "b"}))
    assert (job.state, job.dead_reason, job.run) == (JobState.DEAD, DeadReason.INVALID_PAYLOAD, 1)
    assert (job.last_error or "").startswith("payload")


def test_a_dead_letter_retry_runs_once_more(shop: Shop) -> None:
    broken = [True]

    @handler("mend", max_retries=0)
    def mend(payload: object, ctx: JobContext) -> int:
        if broken:
            raise ValueError("broken")
        return ctx.run

    shop.start(mend)
    job = shop.wait(shop.queue.enqueue("mend"))
    shop.recorder.record_waiting()
    broken.clear()
    shop.queue.operations.retry_dead_letter(job.id)
    assert shop.wait(job).result == 2
    assert shop.history(job) == [ExecutionState.DEAD, ExecutionState.COMPLETED]

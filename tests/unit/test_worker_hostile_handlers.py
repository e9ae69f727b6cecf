"""Handlers that harm what they share with others: the thread, the event loop, the process. The worker goes on, and so do other jobs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from contextvars import ContextVar
from datetime import timedelta

import pytest
from worker_shop import SECOND, Shop, open_shop, quick, quick_async, until

from jobqueue_core import JobContext, JobState, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.service import Exit

shop = pytest.fixture(open_shop)


# What they raise and leave behind ------------------------------------------------------------------------------------------------------


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("x"),
        asyncio.CancelledError(),
        Deadly(),
        ValueError("half \ud800"),
        StopIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_handler_raises_the_worker_goes_on(shop: Shop, error: BaseException) -> None:
    @handler("evil", max_retries=0)
    def evil(payload: object) -> None:
        raise error

    @handler("evil.async", max_retries=0)
    async def evil_async(payload: object) -> None:
        raise error

    shop.start(evil, evil_async, quick, quick_async, concurrency=1)
    for name in ("evil", "evil.async"):
        job = shop.wait(shop.queue.enqueue(name))
        assert job.state is JobState.DEAD
        assert "TimeoutError" not in (job.last_error or "")
    for name in ("quick", "quick.async"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED
    assert shop.end() is Exit.OK


def test_a_task_of_a_handler_that_exits_does_not_take_the_event_loop_along(shop: Shop) -> None:
    @handler("careless")
    async def careless(payload: object) -> str:
        async def leave() -> None:
            sys.exit(3)

        task = asyncio.create_task(leave())
        await asyncio.wait([task])
        return type(task.exception()).__name__

    shop.start(careless, quick_async)
    assert shop.wait(shop.queue.enqueue("careless")).result == "SystemExit"
    assert shop.wait(shop.queue.enqueue("quick.async")).state is JobState.COMPLETED


def test_the_next_job_knows_nothing_of_a_cancel_that_the_last_one_swallowed(shop: Shop) -> None:
    @handler("swallow", timeout="50ms")
    async def swallow(payload: object) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return "swallowed"

    @handler("grouped")
    async def grouped(payload: object) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await asyncio.sleep(5)
        except ExceptionGroup:
            return "as it should be"
        return "?"

    shop.start(swallow, grouped, concurrency=1)
    assert shop.wait(shop.queue.enqueue("swallow")).result == "swallowed"
    assert shop.wait(shop.queue.enqueue("grouped")).result == "as it should be"


async def _fail() -> None:
    raise LookupError


def test_context_variables_that_a_handler_leaves_behind_are_not_found_by_the_next(shop: Shop) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @handler("ctx.thread")
    def in_thread(payload: str) -> str:
        before = tenant.get()
        tenant.set(payload)
        return before

    @handler("ctx.async")
    async def in_loop(payload: str) -> str:
        before = tenant.get()
        tenant.set(payload)
        return before

    shop.start(in_thread, in_loop, concurrency=1)
    for kind in ("ctx.thread", "ctx.async"):
        assert [shop.wait(shop.queue.enqueue(kind, name)).result for name in ("one", "two", "three")] == ["nobody"] * 3


# Threads that they keep ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["timeout", "cancel"])
def test_a_plain_handler_that_does_not_look_is_interrupted_after_its_grace_and_may_clean_up(shop: Shop, reason: str) -> None:
    cleaned = threading.Event()

    @handler("endless", timeout="100ms" if reason == "timeout" else "1h", grace="50ms", max_retries=0)
    def endless(payload: object) -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned.set()

    worker = shop.start(endless, quick, concurrency=1, lease=SECOND)
    enqueued = shop.queue.enqueue("endless")
    until(lambda: shop.job(enqueued).state is JobState.PROCESSING)
    if reason == "cancel":
        shop.queue.cancel(enqueued.id)
    job = shop.wait(enqueued)
    assert job.state is (JobState.DEAD if reason == "timeout" else JobState.CANCELLED)
    assert cleaned.is_set()
    # The thread has not been lost: it runs the next.
    assert shop.wait(shop.queue.enqueue("quick")).state is JobState.COMPLETED
    assert not worker._holdings.written_off


@pytest.mark.parametrize("kind", ["stuck", "stuck.async"])
def test_a_handler_that_is_stuck_is_written_off_and_its_slot_replaced(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_core.worker.watchdog._FORCE", 0.1)
    let_go = threading.Event()

    @handler("stuck", timeout="50ms", grace="50ms", max_retries=0)
    def stuck(payload: object) -> None:
        let_go.wait(20)

    @handler("stuck.async", timeout="50ms", grace="50ms", max_retries=0)
    async def stuck_async(payload: object) -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)

    worker = shop.start(stuck, stuck_async, quick, quick_async, concurrency=1)
    job = shop.wait(shop.queue.enqueue(kind))
    assert (job.state, job.last_error) == (JobState.DEAD, "TimeoutError: timed out after 50ms")
    for name in ("quick", "quick.async"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED
    let_go.set()
    until(worker._holdings.idle)
    assert shop.history(job) == [ExecutionState.DEAD], "what it returns in the end is dropped"


def test_after_several_stuck_handlers_the_worker_asks_for_a_fresh_process(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_core.worker.watchdog._FORCE", 0.02)
    let_go = threading.Event()

    @handler("stuck", timeout="20ms", grace="20ms", max_retries=0)
    def stuck(payload: object) -> None:
        let_go.wait(20)

    shop.start(stuck, shutdown_timeout=SECOND)
    shop.queue.enqueue_many([{"type": "stuck"}] * 5)
    try:
        assert shop.join() in (Exit.RECYCLE, Exit.ABANDONED)
    finally:
        let_go.set()


# The event loop ------------------------------------------------------------------------------------------------------------------------


def test_a_handler_that_blocks_the_event_loop_is_named_with_its_place(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @handler("blocking")
    async def blocking(payload: object) -> None:
        await asyncio.sleep(0)
        time.sleep(1.6)  # noqa: ASYNC251 - what is warned of

    @handler("waiting")
    async def waiting(payload: object) -> None:
        await asyncio.sleep(2)

    shop.start(blocking, waiting, lease=SECOND)
    others = [shop.queue.enqueue("waiting") for _ in range(2)]
    until(lambda: all(shop.job(one).state is JobState.PROCESSING for one in others))
    job = shop.wait(shop.queue.enqueue("blocking"))
    (record,) = [one for one in caplog.records if one.message.startswith("event loop blocked")]
    assert record.fields["type"] == "blocking"  # type: ignore[attr-defined]  # given by extra
    assert record.fields["job_id"] == job.id  # type: ignore[attr-defined]
    assert "test_worker_hostile_handlers.py" in record.fields["at"]  # type: ignore[attr-defined]
    assert shop.history(job) == [ExecutionState.COMPLETED], "its lease was kept"


def test_a_handler_that_blocks_the_event_loop_for_two_leases_keeps_its_lease(shop: Shop) -> None:
    @handler("block")
    async def block(payload: object, ctx: JobContext) -> int:
        time.sleep(2.1)  # noqa: ASYNC251 - what is tested
        return ctx.run

    shop.start(block, lease=SECOND)
    job = shop.wait(shop.queue.enqueue("block"))
    assert (job.state, job.result, job.crashes, shop.history(job)) == (JobState.COMPLETED, 1, 0, [ExecutionState.COMPLETED])


def test_a_handler_that_keeps_the_event_loop_for_ever_makes_the_worker_ask_for_a_fresh_process(shop: Shop) -> None:
    let_go = threading.Event()

    @handler("greedy", timeout="200ms", max_retries=0)
    async def greedy(payload: object) -> None:
        let_go.wait(60)

    @handler("polite")
    async def polite(payload: object) -> None: ...

    shop.start(greedy, polite, shutdown_timeout=timedelta(milliseconds=100))
    greedy_job = shop.queue.enqueue("greedy")
    until(lambda: shop.job(greedy_job).state is JobState.PROCESSING)
    waiting = [shop.queue.enqueue("polite") for _ in range(10)]
    until(lambda: shop.exits, within=30)
    let_go.set()

    assert shop.exits[0] in (Exit.RECYCLE, Exit.ABANDONED), "the supervisor replaces both"
    assert shop.job(greedy_job).last_error == "TimeoutError: timed out after 200ms"
    assert {shop.job(job).state for job in waiting} == {JobState.QUEUED}


def test_a_handler_that_stops_the_event_loop_stops_nothing_else(shop: Shop) -> None:
    @handler("stopper")
    async def stopper(payload: object) -> None:
        asyncio.get_running_loop().stop()

    @handler("polite")
    async def polite(payload: object) -> None:
        await asyncio.sleep(0.001)

    shop.start(stopper, polite)
    for name in ("stopper", "polite", "stopper", "polite"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED

"""The lifespans of a worker's handlers: entered before the first job, left after the last, heard when they fail."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from worker_shop import Shop, open_shop, quick

from jobqueue_core import JobContext, JobState, handler, lifespan
from jobqueue_core.service import Exit, Stop

shop = pytest.fixture(open_shop)


def module(**members: object) -> ModuleType:
    made = ModuleType("handlers_under_test")
    vars(made).update(members)
    return made


def test_a_lifespan_is_entered_once_before_the_first_job_and_left_after_the_last(shop: Shop) -> None:
    told: list[str] = []

    @lifespan
    async def resources() -> AsyncIterator[dict[str, int]]:
        told.append("entered")
        yield {"pool": 1}
        told.append("left")

    @handler("plain")
    def plain(payload: object, ctx: JobContext) -> Any:
        told.append("ran")
        return ctx.resources

    @handler("async")
    async def waiting(payload: object, ctx: JobContext) -> Any:
        told.append("ran")
        return ctx.resources

    shop.start(module(resources=resources, plain=plain, waiting=waiting), quick)
    for kind in ("plain", "async", "plain"):
        assert shop.wait(shop.queue.enqueue(kind)).result == {"pool": 1}
    shop.end()
    assert told == ["entered", "ran", "ran", "ran", "left"]


def test_a_lifespan_is_left_in_the_task_that_entered_it(shop: Shop) -> None:
    told: list[object] = []
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    @lifespan
    async def resources() -> AsyncIterator[object]:
        token, task = variable.set(1), asyncio.current_task()
        yield None
        variable.reset(token)
        told.append(asyncio.current_task() is task)

    shop.start(module(resources=resources, quick=quick))
    shop.wait(shop.queue.enqueue("quick"))
    assert shop.end() is Exit.OK
    assert told == [True]


def test_a_lifespan_that_breaks_when_it_is_left_is_heard_and_leaves_no_thread_behind(shop: Shop) -> None:
    @lifespan
    async def resources() -> AsyncIterator[object]:
        yield None
        raise LookupError("cannot close")

    worker = shop.worker([module(resources=resources, quick=quick)])
    stop = Stop()
    threading.Timer(0.05, stop.request).start()
    with pytest.raises(LookupError, match="cannot close"):
        worker.run(stop)
    assert not worker._loop._thread.is_alive()


def test_a_lifespan_that_cannot_be_entered_keeps_the_worker_from_starting(shop: Shop) -> None:
    @lifespan
    async def resources() -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    worker = shop.worker([module(resources=resources, quick=quick)])
    job = shop.queue.enqueue("quick")
    with pytest.raises(LookupError, match="no database"):
        worker.run(Stop())
    assert shop.job(job).state is JobState.QUEUED

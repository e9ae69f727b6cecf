"""How many handlers run at once, and how many jobs a worker holds besides."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from worker_shop import Gauge, Shop, open_shop, quick, quick_async, until

from jobqueue_core import JobState, handler

shop = pytest.fixture(open_shop)


def test_never_more_handlers_run_at_once_than_the_concurrency_and_all_slots_are_used(shop: Shop) -> None:
    gauge = Gauge()

    @handler("mixed")
    def plain(payload: object) -> None:
        with gauge:
            time.sleep(0.003)

    @handler("mixed.async")
    async def waiting(payload: object) -> None:
        with gauge:
            await asyncio.sleep(0.003)

    jobs = [{"type": kind, "payload": None} for _ in range(60) for kind in ("mixed", "mixed.async")]
    shop.queue.enqueue_many(jobs)
    shop.start(plain, waiting, concurrency=3)
    until(lambda: shop.broker.queues()[0].completed == 120)
    assert (gauge.most, gauge.entered) == (3, 120)


def test_a_limit_of_one_type_is_kept_and_other_types_go_on(shop: Shop) -> None:
    gauge, let_go = Gauge(), threading.Event()

    @handler("limited", concurrency=1)
    def limited(payload: object) -> None:
        with gauge:
            let_go.wait(10)

    @handler("limited.async", concurrency=2)
    async def limited_async(payload: object) -> None:
        with gauge:
            while not let_go.is_set():
                await asyncio.sleep(0.002)

    shop.queue.enqueue_many([{"type": kind} for kind in ("limited", "limited.async") for _ in range(6)])
    shop.start(limited, limited_async, quick, concurrency=8)
    until(lambda: gauge.now == 3)
    assert shop.wait(shop.queue.enqueue("quick")).state is JobState.COMPLETED
    assert gauge.most == 3
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 13)
    assert (gauge.most, gauge.entered) == (3, 12)


def test_two_suspects_never_run_at_once_and_others_go_on_beside_one(shop: Shop) -> None:
    suspects, others = Gauge(), Gauge()

    @handler("suspect")
    async def suspect(payload: int) -> None:
        with suspects:
            until_others = time.monotonic() + 5
            while others.entered < payload * 5 and time.monotonic() < until_others:
                await asyncio.sleep(0.002)

    @handler("other")
    async def other(payload: object) -> None:
        with others:
            await asyncio.sleep(0.001)

    jobs = shop.make_suspects(2, "suspect")
    shop.queue.enqueue_many([{"type": "other"}] * 20)
    shop.start(suspect, other)
    for job in jobs:
        done = shop.wait(job)
        assert (done.state, done.crashes) == (JobState.COMPLETED, 1)
    assert (suspects.most, suspects.entered) == (1, 2)


@pytest.mark.parametrize("kind", ["work", "work.async"])
def test_at_most_twice_the_concurrency_is_started_and_not_settled(shop: Shop, kind: str) -> None:
    started, let_go = Counter[int](), threading.Event()

    @handler("work")
    def work(payload: int) -> None:
        started[payload] += 1
        time.sleep(0.002)

    @handler("work.async")
    async def work_async(payload: int) -> None:
        started[payload] += 1
        await asyncio.sleep(0.002)

    def slow_settle(settle: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        let_go.wait(10)
        return settle(*arguments, **options)

    shop.wire.hooks["settle"] = slow_settle
    shop.queue.enqueue_many([{"type": kind, "payload": number} for number in range(60)])
    shop.start(work, work_async, concurrency=3)
    quiet_since = [time.monotonic(), 0.0]

    def quiet() -> bool:
        if quiet_since[1] != len(started):
            quiet_since[:] = [time.monotonic(), len(started)]
        return len(started) >= 3 and time.monotonic() - quiet_since[0] > 0.3

    until(quiet)
    assert len(started) <= 6
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 60)
    assert set(started.values()) == {1}


def test_slow_jobs_are_not_held_unstarted_while_other_workers_could_run_them(shop: Shop) -> None:
    unstarted: list[int] = []

    @handler("slow")
    async def slow(payload: object) -> None:
        await asyncio.sleep(0.03)

    def look(lease: Callable[..., Any], queues: Any, limit: int, **options: Any) -> Any:
        leases = lease(queues, limit, **options)
        unstarted.append(limit)
        return leases

    shop.wire.hooks["lease"] = look
    shop.queue.enqueue_many([{"type": "slow"}] * 40)
    worker = shop.start(slow, concurrency=4)
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, sum(1 for run in worker._holdings.snapshot() if not run.started_at))
        return shop.broker.queues()[0].completed == 40

    until(done)
    assert max(unstarted) <= 4, "asks for free slots only"
    assert most <= 4


def test_slow_jobs_behind_many_quick_ones_are_not_held_unstarted_either(shop: Shop) -> None:
    let_go = threading.Event()

    @handler("slow")
    async def slow(payload: object) -> None:
        while not let_go.is_set():
            await asyncio.sleep(0.005)

    shop.queue.enqueue_many([{"type": "quick.async"}] * 3_000 + [{"type": "slow"}] * 300)
    worker = shop.start(quick_async, slow, concurrency=4)
    until(lambda: sum(run.plan.spec.type == "slow" and bool(run.started_at) for run in worker._holdings.snapshot()) == 4)
    until(lambda: len(worker._holdings.snapshot()) <= 8, within=2)
    assert {shop.broker.queues()[0].scheduled, shop.broker.queues()[0].retrying} == {0}, "they are ready for other workers"
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 3_300)

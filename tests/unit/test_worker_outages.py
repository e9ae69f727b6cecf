"""A broker that goes away under a worker and comes back: answers that are lost, leases that pass or are taken meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from worker_shop import SECOND, Ear, Gate, Shop, open_shop, quick, until

from jobqueue_core import JobState, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.service import Exit

shop = pytest.fixture(open_shop)


def test_a_broker_that_goes_away_and_comes_back_costs_nothing_but_time(shop: Shop) -> None:
    ran: Counter[int] = Counter()
    gate = threading.Event()

    @handler("count")
    def count(payload: int) -> None:
        gate.wait(10)
        ran[payload] += 1

    @handler("count.async")
    async def count_async(payload: int) -> None:
        ran[payload] += 1
        await asyncio.sleep(0.001)

    jobs = shop.queue.enqueue_many([{"type": "count" if number % 2 else "count.async", "payload": number} for number in range(40)])
    shop.start(count, count_async, concurrency=4)
    until(lambda: ran)
    shop.wire.cut = True
    gate.set()
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] > calls + 2)  # it goes on trying
    assert not shop.exits
    shop.wire.cut = False
    back = time.monotonic()
    for answer in jobs:
        assert answer.job is not None
        job = shop.wait(answer.job)
        assert (job.state, job.run, job.crashes) == (JobState.COMPLETED, 1, 0)
        assert shop.history(job) == [ExecutionState.COMPLETED]
    assert set(ran.values()) == {1}
    assert time.monotonic() - back < 5
    assert shop.end() is Exit.OK


def test_work_is_taken_up_within_two_seconds_of_the_brokers_return(shop: Shop) -> None:
    shop.start(quick)
    until(lambda: shop.wire.calls["lease"])
    shop.wire.cut = True
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] >= calls + 5)
    job = shop.queue.enqueue("quick")
    shop.wire.cut = False
    back = time.monotonic()
    shop.wait(job)
    assert time.monotonic() - back < 2


def test_a_settle_whose_answer_was_lost_is_sent_again_and_counts_once(shop: Shop) -> None:
    lost = [3]

    def lose_answer(settle: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        answer = settle(*arguments, **options)
        if lost[0]:
            lost[0] -= 1
            raise BrokerUnavailable("no answer")
        return answer

    ear = Ear()
    shop.wire.hooks["settle"] = lose_answer
    shop.start(quick, observers=[ear])
    job = shop.wait(shop.queue.enqueue("quick", 1))
    until(lambda: "finished 1 Completed" in ear.heard)
    assert (shop.history(job), lost, ear.heard.count("finished 1 Completed")) == ([ExecutionState.COMPLETED], [0], 1)


def test_nothing_is_started_under_a_lease_that_may_have_passed(shop: Shop) -> None:
    gate = Gate(concurrency=1)
    jobs = [shop.queue.enqueue("gate.async") for _ in range(2)]
    worker = shop.start(*gate.handlers, concurrency=4, lease=SECOND)
    until(lambda: len(worker._holdings.held) == 2 and gate.inside.now == 1)  # one runs, one waits for it to end
    began = time.monotonic()
    shop.wire.cut = True
    until(lambda: time.monotonic() - began > 1.1)
    gate.open.set()
    until(lambda: gate.inside.now == 0)
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] > calls)
    assert gate.inside.entered == 1
    shop.wire.cut = False
    for job in jobs:
        assert shop.wait(job).state is JobState.COMPLETED


def test_a_worker_whose_lease_was_taken_changes_nothing_any_more(shop: Shop) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers)
    job = shop.queue.enqueue("gate.thread")
    until(lambda: gate.inside.now)
    shop.wire.hooks["renew"] = lambda renew, *arguments, **options: (_ for _ in ()).throw(BrokerUnavailable("frozen"))
    shop.queue.operations.pause_queue("default")
    shop.broker.reclaim_worker(worker.worker_id, started=[job.id], error="taken for dead", max_crashes=3)
    gate.open.set()
    until(lambda: worker._settler.counts["lost"])
    assert (shop.job(job).state, shop.job(job).crashes, shop.job(job).result) == (JobState.QUEUED, 1, None)
    assert shop.history(job) == [ExecutionState.LOST]

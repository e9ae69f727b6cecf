"""Which jobs a worker takes: of which queues, in which order, under which names, and what it does with types that it does not serve."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from worker_shop import Shop, open_shop, quick, until

from jobqueue_core import JobState, handler
from jobqueue_core.job import DeadReason
from jobqueue_core.service import StopLevel
from jobqueue_core.testing import ManualClock

shop = pytest.fixture(open_shop)


def test_a_worker_serves_the_queues_it_is_told_to_and_no_others(shop: Shop) -> None:
    shop.start(quick, queues=("a", "b"))
    here, there = shop.queue.enqueue("quick", queue="b"), shop.queue.enqueue("quick", queue="c")
    shop.wait(here)
    assert shop.job(there).state is JobState.QUEUED


def test_the_workers_queues_are_obeyed_in_their_order_and_priorities_within(shop: Shop) -> None:
    order: list[str] = []

    @handler("note")
    def note(payload: str) -> None:
        order.append(payload)

    for queue in ("low", "high"):
        for priority in ("low", "critical"):
            shop.queue.enqueue("note", f"{queue} {priority}", queue=queue, priority=priority)
    shop.start(note, queues=("high", "low"), concurrency=1)
    until(lambda: len(order) == 4)
    assert order == ["high critical", "high low", "low critical", "low low"]


def test_a_job_under_a_former_name_is_served(shop: Shop) -> None:
    @handler("new.name", aliases=["old.name"])
    def renamed(payload: object) -> str:
        return "served"

    shop.start(renamed)
    assert shop.wait(shop.queue.enqueue("old.name")).result == "served"


def test_a_type_that_nobody_serves_is_put_off_ever_longer_and_is_dead_after_a_day(tmp_path: Path) -> None:
    clock = ManualClock()
    shop = Shop(tmp_path / "jobqueue.db", clock)
    job = shop.queue.enqueue("nobody")
    try:
        shop.start(quick)
        delays = []
        for _ in range(8):
            until(lambda: shop.job(job).state is JobState.SCHEDULED)
            parked = shop.job(job)
            assert (parked.run, parked.attempt, parked.crashes) == (0, 1, 0)
            assert parked.scheduled_at is not None
            delays.append((parked.scheduled_at - clock()).total_seconds())
            clock.advance(parked.scheduled_at - clock())
            until(lambda at=parked.scheduled_at: shop.job(job).scheduled_at != at or shop.job(job).state.finished)
        assert delays == [15, 30, 60, 120, 240, 300, 300, 300]
        until(lambda: shop.job(job).state is JobState.SCHEDULED)
        clock.advance(timedelta(days=1))
        dead = shop.wait(job)
        assert (dead.state, dead.dead_reason, dead.deaths) == (JobState.DEAD, DeadReason.NO_HANDLER, 1)
    finally:
        shop.end(StopLevel.AT_ONCE)
        shop.queue.close()

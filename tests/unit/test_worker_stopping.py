"""How a worker stops, asked to or for a fresh process, and what becomes of the jobs that it has."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from worker_shop import BOTH, SECOND, Gate, Shop, open_shop, quick, until

from jobqueue_core import JobState, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.service import Exit, StopLevel

shop = pytest.fixture(open_shop)


@BOTH
def test_what_runs_may_finish_within_the_grace(shop: Shop, kind: str) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers, shutdown_timeout=20 * SECOND)
    job, later = shop.queue.enqueue(kind), shop.queue.enqueue(kind)
    until(lambda: gate.inside.now == 2)
    shop.stop.request()
    # What was asked for before it has noticed may still be started.
    until(lambda: not worker._holdings._starting)
    waiting = shop.queue.enqueue(kind)
    gate.open.set()
    assert shop.join() is Exit.OK
    assert {shop.job(one).state for one in (job, later)} == {JobState.COMPLETED}
    assert (shop.job(waiting).state, shop.job(waiting).run) == (JobState.QUEUED, 0)


@BOTH
@pytest.mark.parametrize(("level", "exit_status"), [(StopLevel.GRACEFUL, Exit.OK), (StopLevel.AT_ONCE, Exit.AT_ONCE)])
def test_what_does_not_finish_is_given_back_without_an_attempt(shop: Shop, kind: str, level: StopLevel, exit_status: Exit) -> None:
    gate = Gate(concurrency=1, max_retries=0)
    worker = shop.start(*gate.handlers, shutdown_timeout=timedelta(milliseconds=100))
    jobs = [shop.queue.enqueue(kind) for _ in range(2)]
    until(lambda: gate.inside.now and len(worker._holdings.held) == 2)
    assert shop.end(level) is exit_status
    running, held = (shop.job(job) for job in jobs)
    assert (running.state, running.run, running.attempt, running.crashes) == (JobState.QUEUED, 1, 1, 0)
    assert shop.history(running) == [ExecutionState.RETURNED]
    assert (held.state, held.run, held.attempt, shop.history(held)) == (JobState.QUEUED, 0, 1, [])


def test_a_handler_that_does_not_end_is_abandoned_at_last_and_its_job_given_back(shop: Shop) -> None:
    entered, let_go = threading.Event(), threading.Event()

    @handler("stuck")
    def stuck(payload: object) -> None:
        entered.set()
        let_go.wait(20)

    shop.start(stuck, shutdown_timeout=timedelta(milliseconds=50))
    job = shop.queue.enqueue("stuck")
    until(entered.is_set)
    try:
        assert shop.end() is Exit.ABANDONED
        assert (shop.job(job).state, shop.job(job).attempt, shop.history(job)) == (JobState.QUEUED, 1, [ExecutionState.RETURNED])
    finally:
        let_go.set()


def test_a_worker_that_stops_while_the_broker_is_away_ends_all_the_same(shop: Shop) -> None:
    shop.start(quick)
    shop.wait(shop.queue.enqueue("quick"))
    shop.wire.cut = True
    assert shop.end() is Exit.OK


def test_a_worker_that_stops_with_outcomes_that_the_broker_does_not_take_says_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    shop.start(*gate.handlers)
    jobs = [shop.queue.enqueue("gate.thread") for _ in range(3)]
    until(lambda: gate.inside.now == 3)
    shop.wire.cut = True
    shop.stop.request()
    gate.open.set()
    assert shop.join() is Exit.ABANDONED
    (line,) = [record for record in caplog.records if record.getMessage().startswith("jobs left behind")]
    assert line.__dict__["fields"]["jobs"] == 3
    assert not [record for record in caplog.records if "refused" in record.getMessage()]
    assert {shop.job(job).state for job in jobs} == {JobState.PROCESSING}, "until their leases end"


def test_after_max_jobs_the_worker_asks_for_a_fresh_process_and_leaves_nothing_behind(shop: Shop) -> None:
    shop.queue.enqueue_many([{"type": "quick"}] * 20)
    shop.start(quick, max_jobs=10)
    assert shop.join() is Exit.RECYCLE
    stats = shop.broker.queues()[0]
    assert stats.completed >= 10
    assert (stats.completed + stats.waiting, stats.processing) == (20, 0)


def test_too_much_memory_is_a_reason_to_ask_for_a_fresh_process(shop: Shop) -> None:
    shop.start(quick, max_rss=1)
    assert shop.join() is Exit.RECYCLE

"""Keeper and watchdog: leases are kept, deadlines watched, cancels passed on, whatever handlers or the broker do. The test moves their clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest

from jobqueue_core import Job, JobState, Priority, handler
from jobqueue_core.attempt import Completed, Lease, Report, Retrying
from jobqueue_core.broker import Renewal, WorkerInfo
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.job import new_job_id
from jobqueue_core.testing.factories import worker_info
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.holdings import Holdings
from jobqueue_core.worker.keeper import Keeper
from jobqueue_core.worker.plan import JobDefaults, Plan
from jobqueue_core.worker.run import Run
from jobqueue_core.worker.watchdog import Watchdog

LEASE = 30.0


class Broker:
    def __init__(self) -> None:
        self.away = False
        self.lost: frozenset[str] = frozenset()
        self.cancels: frozenset[str] = frozenset()
        self.renewed: list[set[str]] = []
        self.reports: list[Report] = []
        self.beats = 0

    def _reach(self) -> None:
        if self.away:
            raise BrokerUnavailable("away")

    def renew(self, tokens: Sequence[str], *, worker_id: str, lease_for: timedelta) -> Renewal:
        self._reach()
        self.renewed.append(set(tokens))
        return Renewal(lost=self.lost.intersection(tokens), cancel_requested=self.cancels.intersection(tokens))

    def report(self, reports: Sequence[Report], *, worker_id: str) -> None:
        self._reach()
        self.reports += reports

    def beat(self, worker: WorkerInfo) -> None:
        self._reach()
        self.beats += 1


class Runner:
    def __init__(self) -> None:
        self.stopped: list[Run] = []
        self.forced: list[Run] = []
        self.can_force = True
        self.replaced = 0

    def stop(self, run: Run) -> None:
        self.stopped.append(run)

    def force(self, run: Run) -> bool:
        self.forced.append(run)
        return self.can_force

    def replace(self) -> None:
        self.replaced += 1


class Watch:
    """A keeper and a watchdog, and all that they keep."""

    def __init__(self) -> None:
        self.broker, self.runner = Broker(), Runner()
        self.holdings = Holdings(concurrency=4, margin=3, worker_id="worker-1")
        self.ticks: list[float] = []
        self.watchdog = Watchdog(holdings=self.holdings, executor=Executor(), worker_id="worker-1", runner_of=lambda _run: self.runner)
        self.keeper = Keeper(
            broker=self.broker,  # type: ignore[arg-type]  # as much of it as a keeper meets
            holdings=self.holdings,
            watchdog=self.watchdog,
            worker_id="worker-1",
            lease_for=timedelta(seconds=LEASE),
            describe=lambda running: worker_info(running=tuple(running)),
            also=self.ticks.append,
        )
        self.began = monotonic()

    def hold(self, *, timeout: str = "1h", grace: str = "2s", started: bool = True) -> Run:
        def plain(payload: object) -> None: ...

        plan = Plan(inspect_handler(handler("t", timeout=timeout, grace=grace)(plain)), middleware=(), defaults=JobDefaults())
        job = Job(
            id=new_job_id("default"),
            type="t",
            payload_json=b"{}",
            queue="default",
            priority=Priority.MEDIUM,
            state=JobState.PROCESSING,
            created_at=datetime(2030, 1, 1, tzinfo=UTC),
            run=1,
        )
        run = Run(Lease(job=job, token=job.id), plan, sent_at=self.began, valid_until=self.began + LEASE)
        self.holdings.add([run])
        if started:
            assert self.holdings.take("thread") is run
        return run

    def tick(self, after: float) -> None:
        self.watchdog.tick(self.began + after)
        self.keeper.tick(self.began + after)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_running_jobs_are_renewed_every_second_since_the_answer_tells_of_cancels(watch: Watch) -> None:
    run = watch.hold()
    watch.tick(0.5)
    assert watch.broker.renewed == []
    watch.tick(1.1)
    watch.tick(1.5)
    watch.tick(2.3)
    assert watch.broker.renewed == [{run.lease.token}] * 2
    assert run.valid_until == pytest.approx(watch.began + 2.3 + LEASE)


def test_what_has_ended_and_is_not_settled_is_renewed_at_a_third_of_the_lease(watch: Watch) -> None:
    run = watch.hold()
    watch.holdings.finish(run, Completed())
    watch.tick(9.9)
    assert watch.broker.renewed == []
    watch.tick(10.1)
    assert watch.broker.renewed == [{run.lease.token}]


def test_a_lease_counts_from_when_its_renewal_was_sent_and_not_at_all_when_none_came_through(watch: Watch) -> None:
    run = watch.hold()
    watch.broker.away = True
    watch.tick(20)
    assert run.valid_until == watch.began + LEASE
    watch.broker.away = False
    watch.tick(21)
    assert run.valid_until == pytest.approx(watch.began + 21 + LEASE)


def test_what_has_not_started_within_a_third_of_a_lease_is_given_back(watch: Watch) -> None:
    running, waiting = watch.hold(), watch.hold(started=False)
    watch.tick(9.9)
    assert watch.holdings.releases() == []
    watch.tick(10.1)
    assert [release.lease for release in watch.holdings.releases()] == [waiting.lease]
    assert set(watch.holdings.held) == {running.lease.token}


def test_what_slow_handlers_will_not_start_soon_is_given_back_at_the_next_tick(watch: Watch) -> None:
    running = [watch.hold() for _ in range(4)]
    for run in [watch.hold(started=False) for _ in range(6)]:
        run.buffered_at -= 0.06
    watch.holdings._pace._measured_at -= 1  # a second in which nothing has ended
    watch.tick(0.1)
    assert len(watch.holdings.releases()) == 6
    assert set(watch.holdings.held) == {run.lease.token for run in running}


def test_a_run_past_its_deadline_is_asked_to_stop_once(watch: Watch) -> None:
    run = watch.hold(timeout="5s")
    watch.tick(4.9)
    assert watch.runner.stopped == []
    watch.tick(5.2)
    watch.tick(5.3)
    assert watch.runner.stopped == [run]
    assert run.context is not None
    assert run.context.stop_reason == "timeout"


def test_a_run_that_does_not_heed_its_deadline_is_forced_when_its_grace_is_over(watch: Watch) -> None:
    run = watch.hold(timeout="5s", grace="4s")
    watch.tick(5.1)
    watch.tick(9.0)
    assert (watch.runner.stopped, watch.runner.forced) == ([run], [])
    watch.tick(9.2)
    watch.tick(9.3)
    assert (watch.runner.stopped, watch.runner.forced) == ([run], [run])
    assert watch.runner.replaced == 0


def test_what_cannot_be_forced_just_now_is_tried_again(watch: Watch) -> None:
    run = watch.hold(timeout="5s", grace="1s")
    watch.runner.can_force = False
    for tenth in (51, 62, 63):
        watch.tick(tenth / 10)
    watch.runner.can_force = True
    watch.tick(6.4)
    watch.tick(6.5)
    assert watch.runner.forced == [run] * 3


def test_a_run_that_cannot_be_forced_is_settled_without_it_and_its_place_filled(watch: Watch) -> None:
    run = watch.hold(timeout="5s")
    for tenth in range(51, 80):
        watch.tick(tenth / 10)
    assert watch.runner.forced == [run]
    assert watch.runner.replaced == 0
    watch.tick(8.2)
    watch.tick(8.3)
    assert (watch.runner.replaced, len(watch.holdings.written_off)) == (1, 1)
    outcomes = watch.holdings.outcomes(10)
    assert [type(outcome) for _, outcome, _ in outcomes] == [Retrying]
    assert watch.holdings.written_off == {run}
    assert watch.holdings.finish(run, Completed()) is False
    assert not watch.holdings.written_off, "it has ended after all"


def test_a_cancel_is_passed_on_once_and_only_to_what_runs(watch: Watch) -> None:
    run, waiting = watch.hold(), watch.hold(started=False)
    watch.broker.cancels = frozenset({run.lease.token, waiting.lease.token})
    watch.tick(1.1)
    watch.tick(2.2)
    assert watch.runner.stopped == [run]
    assert run.context is not None
    assert run.context.stop_reason == "cancel"


def test_a_cancel_that_is_not_heeded_ends_with_the_deadline(watch: Watch) -> None:
    run = watch.hold(timeout="5s")
    watch.broker.cancels = frozenset({run.lease.token})
    watch.tick(1.5)
    watch.tick(3.6)
    assert watch.runner.forced == [run]
    watch.tick(4.9)
    assert watch.runner.replaced == 0
    watch.tick(5.1)
    assert watch.runner.replaced == 1
    assert [type(outcome).__name__ for _, outcome, _ in watch.holdings.outcomes(10)] == ["Cancelled"]


def test_a_lost_lease_stops_its_run(watch: Watch) -> None:
    run, waiting = watch.hold(), watch.hold(started=False)
    watch.broker.lost = frozenset({run.lease.token, waiting.lease.token})
    watch.tick(9)
    watch.tick(10.1)
    assert watch.runner.stopped == [run]
    assert waiting.lease.token not in watch.holdings.held


def test_deadlines_are_watched_while_the_broker_is_away(watch: Watch) -> None:
    run = watch.hold(timeout="5s")
    watch.broker.away = True
    watch.tick(5.1)
    watch.tick(7.2)
    watch.tick(8.3)
    assert watch.runner.stopped == watch.runner.forced == [run]
    assert len(watch.holdings.written_off) == 1
    assert len(watch.ticks) == 3


def test_what_a_job_has_said_is_kept_while_the_broker_is_away(watch: Watch) -> None:
    run = watch.hold()
    assert run.context is not None
    run.context.logger.error("first")
    run.context.progress(0.5)
    watch.broker.away = True
    watch.tick(0.1)
    run.context.logger.error("second")
    watch.broker.away = False
    watch.tick(0.2)
    (report,) = watch.broker.reports
    assert [line.message for line in report.lines] == ["first", "second"]
    assert report.progress.fraction == 0.5


def test_a_beat_that_was_not_heard_is_repeated_within_a_second(watch: Watch) -> None:
    watch.broker.away = True
    watch.tick(0.1)
    watch.broker.away = False
    watch.tick(1.2)
    assert watch.broker.beats == 1


def test_the_heart_beats_every_five_seconds_and_says_what_runs(watch: Watch) -> None:
    for tenth in range(130):
        watch.tick(tenth / 10)
    assert watch.broker.beats == 3


def test_a_broker_that_is_away_is_complained_of_once(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    watch.hold()
    watch.broker.away = True
    for second in range(1, 6):
        watch.tick(second * 1.1)
    assert sum("broker away" in record.getMessage() for record in caplog.records) == 1


def test_progress_is_passed_on_when_there_is_some(watch: Watch) -> None:
    run = watch.hold()
    assert run.context is not None
    run.context.progress(0.5)
    watch.tick(0.1)
    watch.tick(0.2)
    progress: Any = watch.broker.reports[0].progress
    assert (len(watch.broker.reports), progress.fraction) == (1, 0.5)

"""The metrics tell what broker and storage know, and count what has happened for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from metrics_site import SECOND, MetricsSite

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.storage import Claim
from jobqueue_core.testing.factories import completed, died, execution, failed, schedule, tick, worker_info


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MetricsSite]:
    site = MetricsSite(tmp_path)
    with closing(site.app):
        yield site


# What the broker knows -----------------------------------------------------------------------------------------------------------------


def test_a_queue_is_shown_by_priority_and_state(site: MetricsSite) -> None:
    site.queue.enqueue("t", queue="mail", priority="high")
    site.queue.enqueue("t", queue="mail", priority="low")
    site.clock.advance(7 * SECOND)
    site.queue.enqueue("t", queue="mail", priority="low")
    site.queue.enqueue("t", queue="mail", delay="1h")
    site.queue.enqueue("t", queue="video")
    (taken,) = site.lease("video")
    assert site.broker.settle([failed(taken, delay=60 * SECOND)], worker_id="worker-1") == [True]
    site.queue.enqueue("t", queue="video")
    site.lease("video")
    site.broker.pause("mail")
    metrics = site.scrape()
    depth = {priority: metrics("jobqueue_queue_jobs", queue="mail", priority=priority) for priority in ("critical", "high", "medium", "low")}
    assert depth == {"critical": 0, "high": 1, "medium": 0, "low": 2}
    mail = {what: metrics(f"jobqueue_queue_{what}", queue="mail") for what in ("processing", "scheduled", "retrying", "paused")}
    assert mail == {"processing": 0, "scheduled": 1, "retrying": 0, "paused": 1}
    video = {what: metrics(f"jobqueue_queue_{what}", queue="video") for what in ("processing", "scheduled", "retrying", "paused")}
    assert video == {"processing": 1, "scheduled": 0, "retrying": 1, "paused": 0}
    assert metrics("jobqueue_queue_oldest_age_seconds", queue="mail") == 7
    assert metrics("jobqueue_queue_oldest_age_seconds", queue="video") == 0
    states = {state: metrics("jobqueue_jobs", state=state) for state in ("waiting", "processing", "scheduled", "retrying")}
    assert states == {"waiting": 3, "processing": 1, "scheduled": 1, "retrying": 1}


def test_what_became_of_the_jobs_of_a_queue_is_counted(site: MetricsSite) -> None:
    jobs = [site.queue.enqueue("t") for _ in range(6)]
    first, second, third, fourth, *_ = site.lease(limit=4)
    site.broker.settle([completed(first), completed(second), failed(third), died(fourth)], worker_id="worker-1")
    site.broker.cancel(jobs[5].id)
    metrics = site.scrape()
    totals = {name: metrics(f"jobqueue_queue_{name}_total", queue="default") for name in ("enqueued", "completed", "failed", "dead", "cancelled")}
    assert totals == {"enqueued": 6, "completed": 2, "failed": 1, "dead": 1, "cancelled": 1}


def test_workers_are_counted_and_grouped_by_name_host_and_release(site: MetricsSite) -> None:
    nobody = site.scrape()
    assert (nobody("jobqueue_workers", state="working"), nobody("jobqueue_workers", state="stopping")) == (0, 0)
    site.broker.beat(worker_info("w1", name="mill", host="a", version="1", concurrency=10, started_at=site.clock()))
    site.broker.beat(worker_info("w2", name="mill", host="a", version="1", concurrency=5, started_at=site.clock(), stopping=True))
    site.broker.beat(worker_info("w3", name="mill", host="b", version="2", concurrency=1, started_at=site.clock()))
    metrics = site.scrape()
    assert (metrics("jobqueue_workers", state="working"), metrics("jobqueue_workers", state="stopping")) == (2, 1)
    of_a, of_b = {"name": "mill", "host": "a", "version": "1"}, {"name": "mill", "host": "b", "version": "2"}
    assert (metrics("jobqueue_worker_processes", **of_a), metrics("jobqueue_worker_processes", **of_b)) == (2, 1)
    assert (metrics("jobqueue_worker_concurrency", **of_a), metrics("jobqueue_worker_concurrency", **of_b)) == (15, 1)
    assert metrics("jobqueue_worker_running", **of_a) == 0


def test_a_restarted_worker_without_a_name_makes_no_new_series(site: MetricsSite) -> None:
    site.broker.beat(worker_info("w1", name="a:77", host="a", pid=77, started_at=site.clock()))
    before = site.scrape().labels("jobqueue_worker_processes")
    site.broker.leave("w1")
    site.broker.beat(worker_info("w2", name="a:78", host="a", pid=78, started_at=site.clock()))
    assert site.scrape().labels("jobqueue_worker_processes") == before == [{"name": "", "host": "a", "version": "1.0"}]


def test_what_waits_to_be_recorded_is_shown_with_its_age_and_what_was_dropped(site: MetricsSite) -> None:
    for _ in range(7):
        site.queue.enqueue("t")
    site.queue.enqueue("t")
    *done, dead = site.lease()
    site.broker.settle([*(completed(lease) for lease in done), died(dead)], worker_id="worker-1")
    site.clock.advance(90 * SECOND)
    metrics = site.scrape()
    assert (metrics("jobqueue_outbox_entries", kind="history"), metrics("jobqueue_outbox_entries", kind="dead")) == (5, 1)
    assert (metrics("jobqueue_outbox_oldest_age_seconds"), metrics("jobqueue_outbox_dropped_total")) == (90, 3)
    site.record()
    metrics = site.scrape()
    assert (metrics("jobqueue_outbox_entries", kind="history"), metrics("jobqueue_outbox_entries", kind="dead")) == (0, 0)
    assert (metrics("jobqueue_outbox_oldest_age_seconds"), metrics("jobqueue_outbox_dropped_total")) == (0, 3)


# What storage knows --------------------------------------------------------------------------------------------------------------------


def test_executions_are_counted_by_type_and_state_for_good(site: MetricsSite) -> None:
    rows = [execution(type=kind, state=state) for kind in ("a", "a", "b") for state in ExecutionState]
    site.storage.record_executions(rows, record="failures")
    before = site.scrape()
    assert {(state, before("jobqueue_executions_total", type="a", state=state)) for state in ExecutionState} == {
        (state, 2) for state in ExecutionState
    }
    assert before("jobqueue_executions_total", type="b", state="snoozed") == 1
    assert site.storage.prune_executions(rows[0].finished_at + timedelta(days=400), 1000) > 0
    assert site.scrape().samples.items() >= {key: value for key, value in before.samples.items() if key[0].startswith("jobqueue_execution")}.items()


def test_durations_are_a_cumulative_histogram_in_seconds(site: MetricsSite) -> None:
    spent = [0.0, 2.0, 2.0, 700.0, 20_000.0, 7_200_000.0]
    rows = [execution(type="a", duration_ms=duration_ms) for duration_ms in spent]
    site.storage.record_executions(rows, record="all")
    metrics = site.scrape()
    name = "jobqueue_execution_duration_seconds"
    buckets = {labels["le"]: metrics(f"{name}_bucket", **labels) for labels in metrics.labels(f"{name}_bucket")}
    assert [buckets[le] for le in ("0.001", "0.005", "0.5", "1.0", "10.0", "30.0", "3600.0", "+Inf")] == [1, 3, 3, 4, 4, 5, 5, 6]
    assert list(buckets.values()) == sorted(buckets.values())
    assert metrics(f"{name}_count", type="a") == 6
    assert metrics(f"{name}_sum", type="a") == pytest.approx(sum(spent) / 1000)


def test_the_bounds_of_the_histogram_are_those_that_queries_and_dashboards_were_written_for(site: MetricsSite) -> None:
    site.storage.record_executions([execution(type="a")], record="all")
    found = [labels["le"] for labels in site.scrape().labels("jobqueue_execution_duration_seconds_bucket")]
    assert " ".join(found) == "0.001 0.005 0.01 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 60.0 300.0 900.0 3600.0 +Inf"


def test_open_dead_letters_are_counted(site: MetricsSite) -> None:
    assert site.scrape()("jobqueue_dead_letters_open") == 0
    jobs = [site.queue.enqueue("t") for _ in range(3)]
    site.broker.settle([died(lease) for lease in site.lease()], worker_id="worker-1")
    site.record()
    assert site.scrape()("jobqueue_dead_letters_open") == 3
    site.queue.operations.discard_dead_letter(jobs[0].id)
    assert site.scrape()("jobqueue_dead_letters_open") == 2


def test_schedules_are_counted_and_the_latest_is_said_to_be_late(site: MetricsSite) -> None:
    now = site.clock()
    for name, fields in {
        "late": {"next_run": now - 30 * SECOND},
        "later": {"next_run": now - 40 * SECOND},
        "paused": {"next_run": now - 600 * SECOND, "paused": True},
        "disabled": {"next_run": now - 600 * SECOND, "enabled": False},
        "ahead": {"next_run": now + 600 * SECOND},
        "ended": {"next_run": None},
    }.items():
        assert site.storage.put_schedule(schedule(name, **fields), expected_version=None)
    metrics = site.scrape()
    assert {state: metrics("jobqueue_schedules", state=state) for state in ("firing", "paused", "disabled")} == {
        "firing": 4,
        "paused": 1,
        "disabled": 1,
    }
    assert metrics("jobqueue_schedule_lag_seconds") == pytest.approx(40)
    for name in ("late", "later"):
        assert site.storage.delete_schedule(name)
    assert site.scrape()("jobqueue_schedule_lag_seconds") == 0


def test_a_tick_that_was_never_sent_has_an_age(site: MetricsSite) -> None:
    due = site.clock()
    assert site.storage.put_schedule(schedule(next_run=due), expected_version=None)
    (seen,) = site.storage.schedules()
    assert site.scrape()("jobqueue_schedule_unsent_age_seconds") == 0
    claimed = tick(seen, due=due, claimed_at=site.clock())
    assert site.storage.claim_ticks([Claim(schedule=seen, tick=claimed, next_run=due + timedelta(hours=1))]) == [True]
    site.clock.advance(25 * SECOND)
    assert site.scrape()("jobqueue_schedule_unsent_age_seconds") == 25
    site.storage.mark_sent([(seen.name, due)])
    assert site.scrape()("jobqueue_schedule_unsent_age_seconds") == 0

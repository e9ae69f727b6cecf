"""What workers say of themselves and of the jobs they run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from jobqueue_core.broker import WORKER_SHOWN, Broker, RunningJob, TypeInfo
from jobqueue_core.job import Priority, Progress, new_job_id
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import completed, failed, log_line, report, type_info, worker_info

if TYPE_CHECKING:
    from jobqueue_core.testing.clock import Clock

_AT = datetime(2030, 1, 1, tzinfo=UTC)


class WorkerContract(BrokerArrangement):
    """``beat``, ``leave``, ``workers`` and ``types``."""

    def names(self, broker: Broker) -> list[str]:
        """The types that are known."""
        return [one.type for one in broker.types()]

    def test_a_worker_that_beats_is_shown_as_it_said(self, broker: Broker, other: Broker) -> None:
        worker = worker_info(
            types=(type_info("a.b", payload_schema={"type": "object", "properties": {"n": {"type": "integer"}}}, aliases=("old.b",)),),
            running=(RunningJob(job_id=new_job_id("default"), type="a.b", started_at=_AT),),
        )
        before = broker.now()
        broker.beat(worker)
        (shown,) = other.workers()
        assert shown.last_beat is not None
        assert before <= shown.last_beat <= broker.now()
        assert replace(shown, last_beat=None, types=worker.types) == worker
        assert [one.type for one in shown.types] == ["a.b"]

    def test_a_beat_replaces_the_one_before(self, broker: Broker, clock: Clock) -> None:
        broker.beat(worker_info())
        first = broker.workers()[0].last_beat
        clock.advance(SECOND)
        broker.beat(worker_info(stopping=True, concurrency=3))
        (shown,) = broker.workers()
        assert (shown.stopping, shown.concurrency) == (True, 3)
        assert first is not None
        assert shown.last_beat is not None
        assert shown.last_beat >= first + SECOND

    def test_workers_are_shown_oldest_first_and_may_share_a_name(self, broker: Broker) -> None:
        for number in (2, 1, 3):
            broker.beat(worker_info(f"worker-{number}", started_at=_AT + number * SECOND))
        assert [(one.id, one.name) for one in broker.workers()] == [(f"worker-{number}", "mill") for number in (1, 2, 3)]

    def test_a_worker_that_has_left_is_not_shown(self, broker: Broker, other: Broker) -> None:
        broker.beat(worker_info("worker-1"))
        broker.beat(worker_info("worker-2"))
        other.leave("worker-1")
        other.leave("worker-1")
        other.leave("never-seen")
        assert [one.id for one in broker.workers()] == ["worker-2"]

    def test_a_worker_that_has_fallen_silent_is_not_shown(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, 2 * WORKER_SHOWN)
        broker.beat(worker_info("worker-1"))
        clock.advance(WORKER_SHOWN - SECOND)
        assert len(broker.workers()) == 1
        broker.beat(worker_info("worker-2"))
        clock.advance(SECOND)
        assert [one.id for one in broker.workers()] == ["worker-2"]
        broker.beat(worker_info("worker-1"))
        assert sorted(one.id for one in broker.workers()) == ["worker-1", "worker-2"]

    def test_a_worker_that_is_known_to_be_dead_is_not_shown_from_that_moment(self, broker: Broker, other: Broker) -> None:
        for name in ("worker-1", "worker-2"):
            broker.beat(worker_info(name))
        broker.beat(worker_info("idle", types=(type_info("a"),)))
        lease = self.begin(broker, worker_id="worker-1")
        other.reclaim_worker("worker-1", started=[lease.job.id], error="worker lost: killed by SIGKILL", max_crashes=3)
        assert [one.id for one in broker.workers()] == ["idle", "worker-2"]
        other.reclaim_worker("idle", started=[], error="worker lost: killed by SIGKILL", max_crashes=3)
        assert [one.id for one in broker.workers()] == ["worker-2"]
        assert self.names(broker) == ["a"]

    def test_forgetting_a_silent_worker_loses_none_of_its_jobs(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, timedelta(days=3))
        broker.beat(worker_info("worker-1"))
        lease = self.begin(broker, lease_for=SECOND)
        clock.advance(timedelta(days=2))
        broker.prune(100)
        assert self.lapse(broker, clock).requeued == 1
        assert self.take_one(broker).job.id == lease.job.id

    def test_the_types_of_all_workers_are_listed_by_name(self, broker: Broker) -> None:
        broker.beat(worker_info("worker-1", types=(type_info("b"), type_info("a", queue="mail", priority=Priority.HIGH, description="A."))))
        broker.beat(worker_info("worker-2", types=(type_info("c"), type_info("b"))))
        listed = broker.types()
        assert [one.type for one in listed] == ["a", "b", "c"]
        assert all(one.last_seen is not None for one in listed)
        assert replace(listed[0], last_seen=None) == TypeInfo(type="a", queue="mail", priority=Priority.HIGH, description="A.")

    def test_a_type_is_remembered_for_a_day_after_its_worker(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, timedelta(hours=25))
        broker.beat(worker_info("worker-1", types=(type_info("a"),)))
        broker.leave("worker-1")
        assert self.names(broker) == ["a"]
        clock.advance(timedelta(hours=23))
        broker.prune(100)
        assert self.names(broker) == ["a"]
        clock.advance(timedelta(hours=2))
        assert self.names(broker) == []

    def test_a_newer_beat_changes_what_is_known_of_a_type(self, broker: Broker) -> None:
        broker.beat(worker_info("worker-1", types=(type_info("a"),)))
        broker.beat(worker_info("worker-1", types=(type_info("a", queue="mail"),)))
        assert [(one.type, one.queue) for one in broker.types()] == [("a", "mail")]


class ReportContract(BrokerArrangement):
    """``report`` and ``logs``."""

    def test_progress_is_shown_and_the_latest_counts(self, broker: Broker, other: Broker) -> None:
        lease = self.begin(broker)
        broker.report([report(lease, progress=Progress(fraction=0.25, message="a quarter"))], worker_id="worker-1")
        assert self.job(other, lease.job.id).progress == Progress(fraction=0.25, message="a quarter")
        broker.report([report(lease, progress=Progress(fraction=0.5))], worker_id="worker-1")
        broker.report([report(lease, lines=[log_line("no news")])], worker_id="worker-1")
        assert self.job(other, lease.job.id).progress == Progress(fraction=0.5)

    def test_progress_begins_anew_with_each_run(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        broker.report([report(lease, progress=Progress(fraction=0.5))], worker_id="worker-1")
        self.end(broker, failed(lease))
        self.promote(broker, clock, SECOND)
        self.take_one(broker)
        assert self.job(broker, lease.job.id).progress is None

    def test_log_lines_come_back_as_they_were_oldest_first(self, broker: Broker, other: Broker) -> None:
        lease = self.begin(broker)
        lines = [
            log_line(text, level=level, at=_AT)
            for text, level in [("one", "info"), ("", "debug"), ("\u0000\n'\"\\😀", "error"), ("x" * 5000, "warning")]
        ]
        broker.report([report(lease, lines=lines[:1])], worker_id="worker-1")
        broker.report([report(lease, lines=lines[1:])], worker_id="worker-1")
        assert other.logs(lease.job.id) == lines

    def test_log_lines_of_all_runs_are_kept_also_after_the_end(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        broker.report([report(lease, lines=[log_line("first", run=1)])], worker_id="worker-1")
        self.end(broker, failed(lease))
        self.promote(broker, clock, SECOND)
        again = self.take_one(broker)
        broker.report([report(again, lines=[log_line("second", run=2)])], worker_id="worker-1")
        self.end(broker, completed(again))
        assert [(line.run, line.message) for line in broker.logs(lease.job.id)] == [(1, "first"), (2, "second")]

    def test_a_job_keeps_its_latest_thousand_lines(self, broker: Broker) -> None:
        lease, bystander = self.begin(broker), self.begin(broker)
        broker.report([report(bystander, lines=[log_line("kept")])], worker_id="worker-1")
        messages = [str(number) for number in range(1010)]
        for start in (0, 505):
            broker.report([report(lease, lines=[log_line(message) for message in messages[start : start + 505]])], worker_id="worker-1")
        assert [line.message for line in broker.logs(lease.job.id)] == messages[-1000:]
        assert [line.message for line in broker.logs(bystander.job.id)] == ["kept"]

    def test_many_jobs_report_in_one_call(self, broker: Broker) -> None:
        leases = [self.begin(broker) for _ in range(3)]
        reports = [report(lease, progress=Progress(fraction=number / 4), lines=[log_line(str(number))]) for number, lease in enumerate(leases)]
        broker.report(reports, worker_id="worker-1")
        broker.report([], worker_id="worker-1")
        assert [self.job(broker, lease.job.id).progress for lease in leases] == [Progress(fraction=number / 4) for number in range(3)]
        assert [[line.message for line in broker.logs(lease.job.id)] for lease in leases] == [["0"], ["1"], ["2"]]

    def test_a_settled_run_reports_nothing_more(self, broker: Broker) -> None:
        lease = self.begin(broker)
        self.end(broker, completed(lease))
        before = self.everything(broker, [lease.job.id])
        broker.report([report(lease, progress=Progress(fraction=0.1), lines=[log_line("late")])], worker_id="worker-1")
        assert self.everything(broker, [lease.job.id]) == before

    def test_a_job_that_said_nothing_has_no_log(self, broker: Broker) -> None:
        assert broker.logs(self.put(broker).id) == []
        assert broker.logs(new_job_id("default")) == []

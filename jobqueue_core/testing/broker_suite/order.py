"""The order in which jobs are handed out."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from jobqueue_core.job import Job, JobState, Priority
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import completed, failed, new_job, new_jobs, release, returned

if TYPE_CHECKING:
    from jobqueue_core.attempt import Lease
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.clock import Clock


class OrderContract(BrokerArrangement):
    """Queues as listed, then priority, then given back or reclaimed, then as they became ready."""

    def ids(self, leases: list[Lease]) -> list[str]:
        """The ids of leased jobs, in order."""
        return [lease.job.id for lease in leases]

    def singly(self, broker: Broker, queues: tuple[str, ...] = ("default",)) -> list[str]:
        """The ids of all jobs, leased one by one."""
        taken = []
        while leases := self.take(broker, 1, queues=queues):
            taken += self.ids(leases)
        return taken

    def test_jobs_come_first_in_first_out(self, broker: Broker, other: Broker) -> None:
        jobs = [job for batch in range(5) for job in self.put_all((broker, other)[batch % 2], new_jobs(10))]
        assert self.ids(self.take(broker, 30)) + self.singly(other) == [job.id for job in jobs]

    def test_the_more_urgent_priority_comes_first(self, broker: Broker) -> None:
        mixed = [Priority.LOW, Priority.MEDIUM, Priority.CRITICAL, Priority.HIGH] * 3
        jobs = self.put_all(broker, [new_job(priority=one) for one in mixed])
        expected = [job.id for job in sorted(jobs, key=lambda job: job.priority.rank)]
        assert self.ids(self.take(broker, 5)) + self.singly(broker) == expected

    def test_queues_come_as_listed_whatever_the_priority(self, broker: Broker) -> None:
        low = self.put(broker, queue="b", priority=Priority.LOW)
        critical = self.put(broker, queue="a", priority=Priority.CRITICAL)
        assert self.ids(self.take(broker, queues=["b", "a"])) == [low.id, critical.id]

    def test_the_order_of_queues_is_that_of_each_lease(self, broker: Broker) -> None:
        jobs = {queue: self.put_all(broker, new_jobs(2, queue=queue)) for queue in ("a", "b")}
        first = self.take_one(broker, queues=["a", "b"]).job
        second = self.take_one(broker, queues=["b", "a"]).job
        assert (first, second) == (self.job(broker, jobs["a"][0].id), self.job(broker, jobs["b"][0].id))

    def test_queues_that_are_not_listed_give_nothing(self, broker: Broker) -> None:
        self.put(broker, queue="another")
        assert self.take(broker, queues=["default", "third"]) == []

    def test_a_star_means_all_other_queues_after_those_named(self, broker: Broker) -> None:
        critical = self.put(broker, queue="unnamed", priority=Priority.CRITICAL)
        named = self.put(broker, queue="named", priority=Priority.LOW)
        assert self.ids(self.take(broker, queues=["named", "*"])) == [named.id, critical.id]

    def test_a_star_finds_queues_that_came_later(self, broker: Broker, other: Broker) -> None:
        assert self.take(broker, queues=["*"]) == []
        jobs = [self.put(other, queue=f"new-{number}") for number in range(5)]
        assert sorted(self.singly(broker, ("*",))) == sorted(job.id for job in jobs)

    def test_a_lease_fills_up_from_less_urgent_jobs(self, broker: Broker) -> None:
        wanted = [("a", Priority.HIGH), ("a", Priority.LOW), ("b", Priority.CRITICAL), ("b", Priority.LOW)]
        jobs = self.put_all(broker, [new_job(queue=queue, priority=priority) for queue, priority in wanted])
        assert self.ids(self.take(broker, 3, queues=["a", "b"])) == [job.id for job in jobs[:3]]

    def test_a_job_given_back_comes_before_those_never_started(self, broker: Broker) -> None:
        jobs = self.put_all(broker, new_jobs(4))
        leases = self.take(broker, 2)
        assert broker.release([release(lease) for lease in leases], worker_id="worker-1") == [True, True]
        assert self.singly(broker) == [job.id for job in jobs]

    def test_a_job_returned_by_a_stopping_worker_comes_before_those_never_started(self, broker: Broker) -> None:
        jobs = self.put_all(broker, new_jobs(3))
        self.end(broker, returned(self.take_one(broker)))
        assert self.singly(broker) == [job.id for job in jobs]

    def test_a_reclaimed_job_comes_before_those_never_started(self, broker: Broker, clock: Clock) -> None:
        jobs = self.put_all(broker, new_jobs(3))
        self.take_one(broker, lease_for=SECOND)
        assert self.lapse(broker, clock).requeued == 1
        assert self.singly(broker) == [job.id for job in jobs]

    def test_a_given_back_job_does_not_overtake_a_more_urgent_one(self, broker: Broker) -> None:
        low = self.put(broker, priority=Priority.LOW)
        lease = self.take_one(broker)
        urgent = self.put(broker, priority=Priority.MEDIUM)
        waiting = self.put(broker, priority=Priority.LOW)
        assert broker.release([release(lease)], worker_id="worker-1") == [True]
        assert self.singly(broker) == [urgent.id, low.id, waiting.id]

    def test_a_delayed_job_stands_where_it_became_ready(self, broker: Broker, clock: Clock) -> None:
        delayed = self.put(broker, delay=SECOND)
        before = self.put(broker)
        assert self.promote(broker, clock, SECOND) == 1
        after = self.put(broker)
        assert self.singly(broker) == [before.id, delayed.id, after.id]

    def test_a_retried_job_stands_where_it_became_ready(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        self.end(broker, failed(lease, delay=SECOND))
        before = self.put(broker)
        assert self.promote(broker, clock, SECOND) == 1
        after = self.put(broker)
        assert self.singly(broker) == [before.id, lease.job.id, after.id]

    def test_delayed_jobs_become_ready_in_the_order_of_their_times(self, broker: Broker, clock: Clock) -> None:
        delays = [3, 1, 2]
        jobs = self.put_all(broker, [new_job(delay=timedelta(milliseconds=100 * delay)) for delay in delays])
        assert self.promote(broker, clock, SECOND) == 3
        assert self.singly(broker) == [jobs[1].id, jobs[2].id, jobs[0].id]

    def test_a_lease_is_in_order_also_while_jobs_arrive(self, broker: Broker, other: Broker) -> None:
        batches = [[new_job(priority=priority) for priority in Priority for _ in range(3)] for _ in range(10)]
        expected = sum(len(batch) for batch in batches)

        def drain() -> list[list[Lease]]:
            taken: list[list[Lease]] = []
            while sum(len(one) for one in taken) < expected:
                leases = self.take(broker, 20, wait=5 * SECOND)
                assert leases, "jobs that were enqueued were not handed out"
                taken.append(leases)
            return taken

        with self.thread() as pool:
            draining: Future[list[list[Lease]]] = pool.submit(drain)
            for batch in batches:
                self.put_all(other, batch)
            taken = self.result(draining)
        for leases in taken:
            ranks = [lease.job.priority.rank for lease in leases]
            assert ranks == sorted(ranks)
        for priority in Priority:
            came = [lease.job.id for leases in taken for lease in leases if lease.job.priority is priority]
            assert came == [job.id for batch in batches for job in batch if job.priority is priority]


class DelayContract(BrokerArrangement):
    """Delayed and retrying jobs: never early, and made available by ``promote``."""

    def assert_not_early(self, broker: Broker, job: Job) -> None:
        """Neither promoting nor leasing gives *job* before its time."""
        broker.promote(100)
        leases = self.take(broker)
        if job.scheduled_at is not None and broker.now() < job.scheduled_at:
            assert leases == []

    def test_a_delayed_job_is_never_handed_out_early(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker, delay=2 * SECOND)
        self.assert_not_early(broker, job)
        clock.advance(SECOND)
        self.assert_not_early(broker, job)

    def test_a_job_for_a_named_instant_is_never_handed_out_early(self, broker: Broker) -> None:
        job = self.put(broker, scheduled_at=broker.now().replace(microsecond=0) + timedelta(minutes=1))
        self.assert_not_early(broker, job)
        assert self.state(broker, job.id) is JobState.SCHEDULED

    def test_a_delayed_job_is_promoted_when_due(self, broker: Broker, other: Broker, clock: Clock) -> None:
        job = self.put(broker, delay=SECOND)
        assert self.promote(other, clock, SECOND) == 1
        promoted = self.job(broker, job.id)
        assert (promoted.state, promoted.scheduled_at) == (JobState.QUEUED, job.scheduled_at)
        assert self.take_one(broker).job.id == job.id

    def test_a_retry_is_promoted_when_due_and_not_before(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        self.end(broker, failed(lease, delay=SECOND))
        self.assert_not_early(broker, self.job(broker, lease.job.id))
        assert self.promote(broker, clock, SECOND) == 1
        again = self.take_one(broker)
        assert (again.job.id, again.job.run, again.job.attempt, again.job.retry_count) == (lease.job.id, 2, 2, 1)

    def test_promoting_is_bounded_and_takes_those_due_first(self, broker: Broker, clock: Clock) -> None:
        jobs = self.put_all(broker, [new_job(delay=timedelta(milliseconds=100 * number)) for number in (5, 4, 3, 2, 1)])
        clock.advance(SECOND)
        assert broker.promote(2) == 2
        assert [lease.job.id for lease in self.take(broker, 2)] == [jobs[4].id, jobs[3].id]
        assert [broker.promote(2), broker.promote(2), broker.promote(2)] == [2, 1, 0]
        assert [lease.job.id for lease in self.take(broker)] == [jobs[2].id, jobs[1].id, jobs[0].id]

    def test_promoting_takes_all_queues_and_priorities(self, broker: Broker, clock: Clock) -> None:
        self.put_all(broker, [new_job(queue=queue, priority=priority, delay=SECOND) for queue in ("a", "b", "c") for priority in Priority])
        assert self.promote(broker, clock, SECOND) == 12
        assert len(self.take(broker, queues=["*"])) == 12

    def test_there_is_nothing_to_promote_when_nothing_is_due(self, broker: Broker) -> None:
        self.put(broker, delay=timedelta(hours=1))
        self.put(broker)
        assert broker.promote(10) == 0

    def test_two_promoting_at_once_hand_a_job_out_once(self, broker: Broker, other: Broker, clock: Clock) -> None:
        jobs = self.put_all(broker, new_jobs(50, delay=SECOND))
        clock.advance(SECOND)
        with self.thread() as pool:
            calls = [pool.submit(one.promote, 100) for one in (broker, other, broker, other)]
            assert sum(self.result(call) for call in calls) == 50
        assert sorted(lease.job.id for lease in self.take(broker)) == sorted(job.id for job in jobs)

    def test_retry_delays_add_up_over_a_life(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker)
        for retries in range(3):
            lease = self.take_one(broker)
            assert (lease.job.id, lease.job.retry_count, lease.job.run) == (job.id, retries, retries + 1)
            self.end(broker, failed(lease, delay=SECOND))
            assert self.job(broker, job.id).retry_delay == SECOND
            assert self.promote(broker, clock, SECOND) == 1
        self.end(broker, completed(self.take_one(broker)))
        runs = [one.run for one in self.history(broker)]
        assert all(later == earlier + 1 for earlier, later in pairwise(runs))

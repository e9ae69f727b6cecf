"""Leases: who holds what, for how long, and who waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for
from datetime import timedelta

import pytest

from jobqueue_core.attempt import Lease
from jobqueue_core.broker import Broker
from jobqueue_core.job import JobState
from jobqueue_core.lifecycle import begin
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.clock import Clock
from jobqueue_core.testing.factories import completed, died, failed, new_jobs, release, returned

Suite = BrokerArrangement
Wake = Callable[[Suite, Broker, Clock, Lease], object]
"""Makes work available, given a lease of the one job."""


def _enqueue(suite: Suite, broker: Broker, _clock: Clock, _lease: Lease) -> None:
    suite.put(broker)


def _release(_suite: Suite, broker: Broker, _clock: Clock, lease: Lease) -> None:
    broker.release([release(lease)], worker_id="worker-1")


def _return(suite: Suite, broker: Broker, _clock: Clock, lease: Lease) -> None:
    suite.end(broker, returned(lease))


def _reclaim(_suite: Suite, broker: Broker, _clock: Clock, lease: Lease) -> None:
    broker.reclaim_worker("worker-1", started=[lease.job.id], error="killed", max_crashes=3)


def _promote(suite: Suite, broker: Broker, clock: Clock, lease: Lease) -> None:
    suite.end(broker, failed(lease, delay=SECOND))
    suite.promote(broker, clock, SECOND)


def _resume(suite: Suite, broker: Broker, _clock: Clock, _lease: Lease) -> None:
    broker.pause("default")
    suite.put(broker)
    broker.resume("default")


def _requeue(suite: Suite, broker: Broker, _clock: Clock, lease: Lease) -> None:
    suite.end(broker, died(lease))
    assert broker.requeue(suite.job(broker, lease.job.id)) == "requeued"


class LeaseContract(BrokerArrangement):
    """``Consumer.lease`` and ``interrupt``."""

    def test_a_leased_job_is_what_the_life_cycle_makes_of_it(self, broker: Broker, other: Broker) -> None:
        job = self.put(broker)
        before = broker.now()
        (lease,) = self.take(broker, worker_id="worker-7")
        assert lease.job.started_at is not None
        assert before <= lease.job.started_at <= broker.now()
        assert lease.job == begin(job, "worker-7", lease.job.started_at)
        assert (lease.job.state, lease.job.run, lease.job.worker_id) == (JobState.PROCESSING, 1, "worker-7")
        assert other.get([job.id]) == [lease.job]

    def test_no_job_is_handed_out_twice(self, broker: Broker, other: Broker) -> None:
        self.put_all(broker, new_jobs(5))
        leases = self.take(broker, 3) + self.take(other, 5, worker_id="worker-2")
        assert len({lease.job.id for lease in leases}) == len(leases) == 5
        assert len({lease.token for lease in leases}) == 5
        assert self.take(broker) == []

    def test_no_job_is_handed_out_twice_to_many_at_once(self, broker: Broker, other: Broker) -> None:
        jobs = self.put_all(broker, new_jobs(200))

        def drain(worker: int) -> list[str]:
            taken: list[str] = []
            while leases := self.take((broker, other)[worker % 2], 7, worker_id=f"worker-{worker}"):
                taken += [lease.job.id for lease in leases]
            return taken

        with self.thread() as pool:
            taken = [job_id for call in [pool.submit(drain, worker) for worker in range(4)] for job_id in self.result(call)]
        assert sorted(taken) == sorted(job.id for job in jobs)

    @pytest.mark.parametrize("limit", [1, 3, 10])
    def test_a_lease_takes_no_more_than_its_limit(self, broker: Broker, limit: int) -> None:
        self.put_all(broker, new_jobs(5))
        assert len(self.take(broker, limit)) == min(limit, 5)

    def test_each_run_has_the_next_number_and_another_token(self, broker: Broker) -> None:
        first = self.begin(broker)
        self.end(broker, returned(first))
        second = self.take_one(broker)
        assert (second.job.id, second.job.run) == (first.job.id, 2)
        assert second.token != first.token

    def test_a_paused_queue_gives_nothing_until_it_is_resumed(self, broker: Broker, other: Broker) -> None:
        paused, running = self.put(broker, queue="paused"), self.put(broker, queue="running")
        other.pause("paused")
        assert [lease.job.id for lease in self.take(broker, queues=["paused", "running"])] == [running.id]
        assert self.take(broker, queues=["*"]) == []
        other.resume("paused")
        assert self.take_one(broker, queues=["*"]).job.id == paused.id

    def test_an_expired_job_is_cancelled_instead(self, broker: Broker, clock: Clock) -> None:
        job, other = self.put(broker, expires_in=SECOND), self.put(broker)
        clock.advance(2 * SECOND)
        assert [lease.job.id for lease in self.take(broker)] == [other.id]
        ended = self.job(broker, job.id)
        assert (ended.state, ended.last_error, ended.run) == (JobState.CANCELLED, "expired", 0)
        assert ended.completed_at is not None
        assert self.history(broker) == []
        assert self.numbers(self.stats(broker)) == {"processing": 1, "cancelled": 1, "enqueued": 2}

    def test_a_run_that_began_in_time_may_outlast_the_expiry(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, expires_in=SECOND)
        clock.advance(2 * SECOND)
        broker.prune(100)
        self.end(broker, completed(lease))
        assert self.state(broker, lease.job.id) is JobState.COMPLETED

    def test_a_retry_that_did_not_begin_in_time_is_cancelled(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, expires_in=2 * SECOND)
        self.end(broker, failed(lease, delay=SECOND))
        self.promote(broker, clock, 3 * SECOND)
        assert self.take(broker) == []
        assert (self.state(broker, lease.job.id), self.job(broker, lease.job.id).last_error) == (JobState.CANCELLED, "expired")

    def test_many_expired_jobs_do_not_hide_those_behind_them(self, broker: Broker, clock: Clock) -> None:
        self.put_all(broker, new_jobs(120, expires_in=SECOND))
        job = self.put(broker)
        clock.advance(2 * SECOND)
        assert self.take_one(broker, wait=5 * SECOND).job.id == job.id


class SuspectContract(BrokerArrangement):
    """Jobs that have crashed are handed out a few at a time (DESIGN R5)."""

    def test_no_more_suspects_are_handed_out_than_asked_for(self, broker: Broker) -> None:
        if not self.chooses_suspects:
            pytest.skip("this broker cannot choose")
        suspects = self.crashed(broker, 3)
        innocent = [job.id for job in self.put_all(broker, new_jobs(3))]
        leases = self.take(broker, suspects=1)
        assert [lease.job.id for lease in leases if lease.job.crashes] == suspects[:1]
        assert [lease.job.id for lease in leases if not lease.job.crashes] == innocent

    def test_suspects_are_counted_over_all_queues_of_a_lease(self, broker: Broker) -> None:
        if not self.chooses_suspects:
            pytest.skip("this broker cannot choose")
        first, second = self.crashed(broker, 1, queue="a") + self.crashed(broker, 1, queue="b")
        assert [lease.job.id for lease in self.take(broker, queues=["a", "b"], suspects=1)] == [first]
        assert [lease.job.id for lease in self.take(broker, queues=["a", "*"], suspects=1)] == [second]

    def test_without_room_for_suspects_the_others_are_handed_out(self, broker: Broker) -> None:
        if not self.chooses_suspects:
            pytest.skip("this broker cannot choose")
        suspects = self.crashed(broker, 2)
        innocent = self.put(broker)
        assert [lease.job.id for lease in self.take(broker, 1, suspects=0)] == [innocent.id]
        assert self.take(broker, suspects=0) == []
        assert [lease.job.id for lease in self.take(broker, suspects=2)] == suspects

    def test_a_suspect_given_back_with_a_delay_comes_later(self, broker: Broker, clock: Clock) -> None:
        (suspect,) = self.crashed(broker, 1)
        lease = self.take_one(broker, suspects=1)
        assert broker.release([release(lease, delay=SECOND)], worker_id="worker-1") == [True]
        assert self.take(broker) == []
        self.promote(broker, clock, SECOND)
        assert [(one.job.id, one.job.crashes) for one in self.take(broker, suspects=1)] == [(suspect, 1)]


class WaitContract(BrokerArrangement):
    """Waiting for work."""

    def test_a_lease_that_does_not_wait_returns_at_once(self, broker: Broker) -> None:
        began = time.monotonic()
        assert self.take(broker) == []
        assert time.monotonic() - began < 1

    def test_a_lease_waits_no_longer_than_asked(self, broker: Broker) -> None:
        began = time.monotonic()
        assert self.take(broker, wait=timedelta(milliseconds=200)) == []
        assert 0.19 <= time.monotonic() - began < 2

    def test_jobs_of_other_queues_and_delayed_jobs_do_not_end_the_wait(self, broker: Broker, other: Broker) -> None:
        with self.thread() as pool:
            waiting = pool.submit(self.take, broker, wait=timedelta(milliseconds=300))
            self.put(other, queue="another")
            self.put(other, delay=timedelta(hours=1))
            assert self.result(waiting) == []

    def test_work_from_another_process_ends_the_wait(self, broker: Broker, other: Broker) -> None:
        delays = []
        with self.thread() as pool:
            for _ in range(5):
                waiting = pool.submit(self.take, broker, wait=8 * SECOND)
                job = self.put(other)
                began = time.monotonic()
                assert [lease.job.id for lease in self.result(waiting)] == [job.id]
                delays.append(time.monotonic() - began)
        assert sorted(delays)[2] < 0.5, "new work should end the wait within 20 ms"

    @pytest.mark.parametrize("wake", [_enqueue, _release, _return, _reclaim, _promote, _resume, _requeue], ids=lambda one: one.__name__)
    @pytest.mark.parametrize("queues", [("default",), ("*",)], ids=["named", "star"])
    def test_whatever_makes_work_available_ends_the_wait(
        self, broker: Broker, other: Broker, clock: Clock, wake: Wake, queues: tuple[str, ...]
    ) -> None:
        lease = self.begin(broker)
        began = time.monotonic()
        with self.thread() as pool:
            waiting = pool.submit(self.take, broker, queues=queues, wait=8 * SECOND, worker_id="worker-2")
            wake(self, other, clock, lease)
            assert len(self.result(waiting)) == 1
        assert time.monotonic() - began < 5

    def test_one_job_ends_one_wait_of_many(self, broker: Broker, other: Broker) -> None:
        with self.thread() as pool:
            waiting = [pool.submit(self.take, one, wait=timedelta(milliseconds=500)) for one in (broker, other, broker)]
            job = self.put(other)
            taken = [lease.job.id for call in waiting for lease in self.result(call)]
        assert taken == [job.id]

    def test_an_interrupt_ends_every_wait(self, broker: Broker) -> None:
        began = time.monotonic()
        with self.thread() as pool:
            pending = {pool.submit(self.take, broker, wait=8 * SECOND) for _ in range(3)}
            while pending and time.monotonic() - began < 5:
                broker.interrupt()
                done, pending = wait_for(pending, timeout=0.05, return_when=FIRST_COMPLETED)
                assert all(call.result() == [] for call in done)
        assert not pending
        assert time.monotonic() - began < 5

    def test_an_interrupt_before_the_wait_ends_the_next_one(self, broker: Broker) -> None:
        broker.interrupt()
        began = time.monotonic()
        assert self.take(broker, wait=8 * SECOND) == []
        assert time.monotonic() - began < 2

    def test_an_interrupt_ends_one_wait_and_not_the_one_after(self, broker: Broker) -> None:
        broker.interrupt()
        self.take(broker, wait=8 * SECOND)
        began = time.monotonic()
        assert self.take(broker, wait=timedelta(milliseconds=200)) == []
        assert time.monotonic() - began >= 0.19

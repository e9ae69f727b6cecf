"""Leases that are renewed, run out, and are taken from workers that are lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.attempt import ExecutionState, Lease
from jobqueue_core.broker import Broker, Reclaimed, Renewal
from jobqueue_core.job import DeadReason, JobState, Progress
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import completed, died, failed, log_line, new_job, new_jobs, release, report, returned

if TYPE_CHECKING:
    from jobqueue_core.testing.clock import Clock

Suite = BrokerArrangement
Afterwards = Callable[[Suite, Broker], object]
"""What becomes of a job after it was reclaimed."""
_NOTHING = frozenset[str]()


class RenewContract(BrokerArrangement):
    """``Consumer.renew``."""

    def test_a_renewed_lease_is_not_reclaimed(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=2 * SECOND)
        clock.advance(1.5 * SECOND)
        assert broker.renew([lease.token], worker_id="worker-1", lease_for=60 * SECOND) == Renewal(lost=_NOTHING, cancel_requested=_NOTHING)
        clock.advance(SECOND)
        assert broker.reclaim(10, max_crashes=3) == Reclaimed()
        clock.advance(SECOND)
        assert broker.reclaim(10, max_crashes=3) == Reclaimed()
        self.end(broker, completed(lease))

    def test_a_renewal_names_the_leases_that_hold_nothing_any_more(self, broker: Broker, other: Broker) -> None:
        jobs = self.put_all(broker, new_jobs(4))
        held, settled, given_back, foreign = self.take(broker)
        assert len(jobs) == 4
        self.end(broker, completed(settled))
        broker.release([release(given_back, delay=timedelta(hours=1))], worker_id="worker-1")
        tokens = [held.token, settled.token, given_back.token]
        renewal = other.renew(tokens, worker_id="worker-1", lease_for=30 * SECOND)
        assert renewal == Renewal(lost=frozenset(tokens[1:]), cancel_requested=_NOTHING)
        self.end(broker, completed(held), completed(foreign))

    def test_a_renewal_tells_which_jobs_are_to_stop(self, broker: Broker, other: Broker) -> None:
        self.put_all(broker, new_jobs(2))
        one, two = self.take(broker)
        other.cancel(two.job.id)
        for _ in range(2):
            renewal = broker.renew([one.token, two.token], worker_id="worker-1", lease_for=30 * SECOND)
            assert renewal == Renewal(lost=_NOTHING, cancel_requested=frozenset({two.token}))

    def test_renewing_nothing_answers_nothing(self, broker: Broker) -> None:
        assert broker.renew([], worker_id="worker-1", lease_for=30 * SECOND) == Renewal(lost=_NOTHING, cancel_requested=_NOTHING)

    def test_a_lease_that_ran_out_can_be_renewed_until_it_is_reclaimed(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=SECOND)
        clock.advance(2 * SECOND)
        assert broker.renew([lease.token], worker_id="worker-1", lease_for=60 * SECOND).lost == _NOTHING
        clock.advance(SECOND)
        assert broker.reclaim(10, max_crashes=3) == Reclaimed()
        self.end(broker, completed(lease))

    def test_a_lease_that_ran_out_can_be_settled_until_it_is_reclaimed(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=SECOND)
        clock.advance(3 * SECOND)
        self.end(broker, completed(lease, b"1"))
        assert self.job(broker, lease.job.id).result_json == b"1"
        assert self.lapse(broker, clock) == Reclaimed()

    def test_a_lease_that_ran_out_is_not_handed_out_before_it_is_reclaimed(self, broker: Broker, clock: Clock) -> None:
        self.begin(broker, lease_for=SECOND)
        clock.advance(3 * SECOND)
        assert self.take(broker) == []


class ReclaimContract(BrokerArrangement):
    """``Upkeep.reclaim``: what a lost worker held goes on elsewhere."""

    def test_a_job_whose_lease_ran_out_is_due_again_with_a_crash_counted(self, broker: Broker, other: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=SECOND, worker_id="lost-one")
        assert self.lapse(other, clock) == Reclaimed(requeued=1)
        job = self.job(broker, lease.job.id)
        assert (job.state, job.crashes, job.retry_count, job.run, job.deaths) == (JobState.QUEUED, 1, 0, 1, 0)
        assert job.last_error
        again = self.take_one(broker, worker_id="worker-2")
        assert (again.job.id, again.job.run, again.job.crashes, again.job.attempt) == (job.id, 2, 1, 1)

    def test_a_lost_run_is_recorded_once(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=SECOND, worker_id="lost-one")
        self.lapse(broker, clock)
        broker.reclaim(10, max_crashes=3)
        (lost,) = self.history(broker)
        assert (lost.state, lost.job_id, lost.run, lost.worker_id) == (ExecutionState.LOST, lease.job.id, 1, "lost-one")
        assert lost.error
        assert self.letters(broker) == []

    def test_a_lease_that_has_not_run_out_is_left_alone(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=30 * SECOND)
        clock.advance(SECOND)
        assert broker.reclaim(10, max_crashes=3) == Reclaimed()
        self.end(broker, completed(lease))

    def test_each_lease_is_judged_by_its_own_length(self, broker: Broker, clock: Clock) -> None:
        self.put_all(broker, new_jobs(2))
        long = self.take_one(broker, worker_id="worker-long", lease_for=60 * SECOND)
        short = self.take_one(broker, worker_id="worker-short", lease_for=SECOND)
        assert self.lapse(broker, clock).requeued == 1
        assert self.state(broker, short.job.id) is JobState.QUEUED
        self.end(broker, completed(long))

    def test_reclaiming_is_bounded(self, broker: Broker, clock: Clock) -> None:
        self.put_all(broker, new_jobs(5))
        self.take(broker, lease_for=SECOND)
        first = self.lapse(broker, clock, limit=2)
        rest = [broker.reclaim(2, max_crashes=3) for _ in range(3)]
        assert [one.requeued for one in (first, *rest)] == [2, 2, 1, 0]
        assert len(self.take(broker)) == 5

    def test_all_queues_are_reclaimed(self, broker: Broker, clock: Clock) -> None:
        self.put_all(broker, [new_job(queue=queue) for queue in ("a", "b", "c")])
        self.take(broker, queues=["*"], lease_for=SECOND)
        assert self.lapse(broker, clock).requeued == 3

    def test_two_reclaiming_at_once_count_each_crash_once(self, broker: Broker, other: Broker, clock: Clock) -> None:
        jobs = self.put_all(broker, new_jobs(30))
        self.take(broker, lease_for=SECOND)
        assert self.lapse(broker, clock, limit=1).requeued == 1
        with self.thread() as pool:
            calls = [pool.submit(one.reclaim, 100, max_crashes=3) for one in (broker, other, broker, other)]
            assert sum(self.result(call).requeued for call in calls) == 29
        assert {job.crashes for job in broker.get([job.id for job in jobs]) if job is not None} == {1}
        assert len(self.history(broker)) == 30

    def test_a_job_that_crashes_too_often_is_dead(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker)
        outcomes = []
        for _ in range(3):
            self.take_one(broker, lease_for=SECOND)
            outcomes.append(self.lapse(broker, clock, max_crashes=3))
        assert [(one.requeued, one.dead) for one in outcomes] == [(1, 0), (1, 0), (0, 1)]
        dead = self.job(broker, job.id)
        assert (dead.state, dead.dead_reason, dead.crashes, dead.deaths) == (JobState.DEAD, DeadReason.WORKER_LOST, 3, 1)
        (letter,) = self.letters(broker)
        assert letter.job == dead
        assert [one.job.id for one in outcomes[2].dead_letters] == [job.id]
        assert [(one.state, one.run) for one in self.history(broker)] == [(ExecutionState.LOST, run) for run in (1, 2, 3)]
        assert self.numbers(self.stats(broker)) == {"dead": 1, "enqueued": 1}

    def test_a_job_that_was_to_stop_is_cancelled(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, lease_for=SECOND)
        broker.cancel(lease.job.id)
        assert self.lapse(broker, clock, max_crashes=1) == Reclaimed(cancelled=1)
        assert self.state(broker, lease.job.id) is JobState.CANCELLED
        assert [one.state for one in self.history(broker)] == [ExecutionState.LOST]
        assert self.letters(broker) == []
        assert self.take(broker) == []


def _left(_suite: Suite, _broker: Broker) -> None:
    """Still waiting."""


def _leased_again(suite: Suite, broker: Broker) -> None:
    suite.take_one(broker, worker_id="worker-2")


def _completed(suite: Suite, broker: Broker) -> None:
    suite.end(broker, completed(suite.take_one(broker, worker_id="worker-2"), b'"by worker-2"'))


def _retrying(suite: Suite, broker: Broker) -> None:
    suite.end(broker, failed(suite.take_one(broker, worker_id="worker-2"), delay=timedelta(hours=1)))


def _dead(suite: Suite, broker: Broker) -> None:
    suite.end(broker, died(suite.take_one(broker, worker_id="worker-2")))


def _cancelled(_suite: Suite, broker: Broker) -> None:
    broker.purge("default", 10)


class ZombieContract(BrokerArrangement):
    """A worker whose lease was taken can change nothing any more."""

    @pytest.mark.parametrize("afterwards", [_left, _leased_again, _completed, _retrying, _dead, _cancelled], ids=lambda one: one.__name__)
    def test_a_token_that_was_reclaimed_changes_nothing(self, broker: Broker, other: Broker, clock: Clock, afterwards: Afterwards) -> None:
        lease = self.begin(broker, lease_for=SECOND)
        self.lapse(other, clock)
        afterwards(self, other)
        before = self.everything(other, [lease.job.id])
        for late in (completed(lease, b"0"), failed(lease), died(lease), returned(lease)):
            assert broker.settle([late], worker_id="worker-1") == [False]
        assert broker.release([release(lease)], worker_id="worker-1") == [False]
        assert broker.release([release(lease, delay=SECOND, unknown_type=True)], worker_id="worker-1") == [False]
        assert broker.renew([lease.token], worker_id="worker-1", lease_for=30 * SECOND).lost == {lease.token}
        broker.report([report(lease, progress=Progress(fraction=0.5), lines=[log_line("late")])], worker_id="worker-1")
        assert self.everything(other, [lease.job.id]) == before

    def test_a_late_worker_does_not_disturb_the_next_one(self, broker: Broker, other: Broker, clock: Clock) -> None:
        late = self.begin(broker, lease_for=SECOND)
        self.lapse(other, clock)
        again = self.take_one(other, worker_id="worker-2")
        broker.settle([completed(late, b"1")], worker_id="worker-1")
        assert other.settle([completed(again, b"2")], worker_id="worker-2") == [True]
        assert self.job(broker, again.job.id).result_json == b"2"
        assert [(one.run, one.state) for one in self.history(broker)] == [(1, ExecutionState.LOST), (2, ExecutionState.COMPLETED)]

    def test_good_and_lost_outcomes_of_one_call_are_told_apart(self, broker: Broker, clock: Clock) -> None:
        self.put(broker)
        lost = self.take_one(broker, lease_for=SECOND)
        self.lapse(broker, clock)
        self.put_all(broker, new_jobs(2))
        _again, one, two = self.take(broker, worker_id="worker-2")
        assert broker.settle([completed(one), completed(lost), failed(two)], worker_id="worker-2") == [True, False, True]
        assert self.numbers(self.stats(broker)) == {"processing": 1, "retrying": 1, "completed": 1, "failed": 1, "enqueued": 3}

    def test_given_back_and_lost_leases_of_one_call_are_told_apart(self, broker: Broker, clock: Clock) -> None:
        lost = self.begin(broker, lease_for=SECOND)
        self.lapse(broker, clock)
        self.put(broker)
        again, fresh = self.take(broker, worker_id="worker-2")
        assert broker.release([release(lost), release(fresh), release(again)], worker_id="worker-2") == [False, True, True]


class ReclaimWorkerContract(BrokerArrangement):
    """``Upkeep.reclaim_worker``: a supervisor knows that a worker is dead, and what it was running."""

    def leases(self, broker: Broker, count: int, worker_id: str = "doomed") -> list[Lease]:
        """Leases of *count* new jobs."""
        self.put_all(broker, new_jobs(count))
        return self.take(broker, count, worker_id=worker_id)

    def test_what_had_started_is_crashed_and_the_rest_is_returned_uncounted(self, broker: Broker, other: Broker) -> None:
        started, buffered = self.leases(broker, 2)
        reclaimed = other.reclaim_worker("doomed", started=[started.job.id], error="killed by signal 9", max_crashes=3)
        assert reclaimed == Reclaimed(requeued=2)
        crashed, returned_job = self.job(broker, started.job.id), self.job(broker, buffered.job.id)
        assert (crashed.state, crashed.crashes, crashed.last_error) == (JobState.QUEUED, 1, "killed by signal 9")
        assert (returned_job.state, returned_job.crashes, returned_job.last_error) == (JobState.QUEUED, 0, None)
        assert [(one.job_id, one.state) for one in self.history(broker)] == [(started.job.id, ExecutionState.LOST)]
        assert broker.settle([completed(started), completed(buffered)], worker_id="doomed") == [False, False]

    def test_no_run_number_is_given_twice(self, broker: Broker) -> None:
        lease = self.leases(broker, 1)[0]
        broker.reclaim_worker("doomed", started=[], error="killed", max_crashes=3)
        again = self.take_one(broker)
        assert again.job.id == lease.job.id
        assert again.job.run > lease.job.run

    def test_other_workers_keep_what_they_hold(self, broker: Broker) -> None:
        mine = self.leases(broker, 1, worker_id="worker-1")[0]
        theirs = self.leases(broker, 1)[0]
        broker.reclaim_worker("doomed", started=[theirs.job.id, mine.job.id, "not-a-job"], error="killed", max_crashes=3)
        assert self.job(broker, mine.job.id) == mine.job
        self.end(broker, completed(mine))

    def test_repeating_it_changes_nothing(self, broker: Broker) -> None:
        lease = self.leases(broker, 1)[0]
        broker.reclaim_worker("doomed", started=[lease.job.id], error="killed", max_crashes=3)
        before = self.everything(broker, [lease.job.id])
        assert broker.reclaim_worker("doomed", started=[lease.job.id], error="killed", max_crashes=3) == Reclaimed()
        assert broker.reclaim_worker("never-seen", started=[], error="killed", max_crashes=3) == Reclaimed()
        assert self.everything(broker, [lease.job.id]) == before

    def test_at_the_last_crash_the_job_is_dead_with_one_dead_letter(self, broker: Broker) -> None:
        started, buffered = self.leases(broker, 2)
        reclaimed = broker.reclaim_worker("doomed", started=[started.job.id], error="killed", max_crashes=1)
        assert (reclaimed.requeued, reclaimed.dead, reclaimed.cancelled) == (1, 1, 0)
        (letter,) = self.letters(broker)
        assert letter.job == self.job(broker, started.job.id)
        assert reclaimed.dead_letters == (letter,)
        assert (letter.job.dead_reason, letter.job.deaths, letter.error) == (DeadReason.WORKER_LOST, 1, "killed")
        assert self.state(broker, buffered.job.id) is JobState.QUEUED

    def test_what_was_to_stop_is_cancelled(self, broker: Broker) -> None:
        started, buffered = self.leases(broker, 2)
        broker.cancel(started.job.id)
        broker.cancel(buffered.job.id)
        assert broker.reclaim_worker("doomed", started=[started.job.id], error="killed", max_crashes=1) == Reclaimed(cancelled=2)
        assert self.numbers(self.stats(broker)) == {"cancelled": 2, "enqueued": 2}

    def test_everything_is_taken_however_much_it_held(self, broker: Broker) -> None:
        leases = self.leases(broker, 150)
        assert broker.reclaim_worker("doomed", started=[], error="killed", max_crashes=3).requeued == 150
        assert {lease.job.id for lease in self.take(broker, 200)} == {lease.job.id for lease in leases}

    def test_a_lease_that_was_settled_before_is_not_touched(self, broker: Broker) -> None:
        lease = self.leases(broker, 1)[0]
        assert broker.settle([completed(lease)], worker_id="doomed") == [True]
        assert broker.reclaim_worker("doomed", started=[lease.job.id], error="killed", max_crashes=1) == Reclaimed()
        assert self.state(broker, lease.job.id) is JobState.COMPLETED

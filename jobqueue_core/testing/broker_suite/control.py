"""Cancel, pause, purge and the retry of dead jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from jobqueue_core.attempt import ExecutionState, Lease, Settlement
from jobqueue_core.job import Job, JobState, new_job_id
from jobqueue_core.lifecycle import requeue
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement, OpenBroker
from jobqueue_core.testing.factories import cancelled, completed, dead_job, died, failed, new_job, new_jobs, release, returned, snoozed

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.clock import Clock

Ending = Callable[[Lease], Settlement]
_HOUR = timedelta(hours=1)


class CancelContract(BrokerArrangement):
    """``Control.cancel``."""

    def assert_cancelled(self, broker: Broker, job_id: str) -> None:
        """The job has ended as cancelled and is not handed out."""
        job = self.job(broker, job_id)
        assert (job.state, job.last_error, job.cancel_requested) == (JobState.CANCELLED, "cancelled", False)
        assert job.completed_at is not None
        broker.promote(100)
        assert self.take(broker) == []
        assert self.numbers(self.stats(broker)).get("cancelled") == 1

    def test_a_waiting_job_is_cancelled_at_once(self, broker: Broker, other: Broker) -> None:
        job = self.put(broker)
        assert other.cancel(job.id) == "cancelled"
        self.assert_cancelled(broker, job.id)
        assert self.history(broker) == []

    def test_a_scheduled_job_is_cancelled_at_once(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker, delay=SECOND)
        assert broker.cancel(job.id) == "cancelled"
        clock.advance(SECOND)
        self.assert_cancelled(broker, job.id)

    def test_a_promoted_job_is_cancelled_at_once(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker, delay=SECOND)
        self.promote(broker, clock, SECOND)
        assert broker.cancel(job.id) == "cancelled"
        self.assert_cancelled(broker, job.id)

    def test_a_retrying_job_is_cancelled_at_once(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        self.end(broker, failed(lease, delay=SECOND))
        assert broker.cancel(lease.job.id) == "cancelled"
        clock.advance(SECOND)
        self.assert_cancelled(broker, lease.job.id)

    def test_a_job_given_back_is_cancelled_at_once(self, broker: Broker) -> None:
        lease = self.begin(broker)
        broker.release([release(lease)], worker_id="worker-1")
        assert broker.cancel(lease.job.id) == "cancelled"
        self.assert_cancelled(broker, lease.job.id)

    def test_a_reclaimed_job_is_cancelled_at_once(self, broker: Broker) -> None:
        (job_id,) = self.crashed(broker, 1)
        assert broker.cancel(job_id) == "cancelled"
        self.assert_cancelled(broker, job_id)

    def test_a_running_job_is_asked_to_stop(self, broker: Broker, other: Broker) -> None:
        lease = self.begin(broker)
        assert [other.cancel(lease.job.id), other.cancel(lease.job.id)] == ["requested", "requested"]
        job = self.job(broker, lease.job.id)
        assert (job.state, job.cancel_requested) == (JobState.PROCESSING, True)

    def test_a_completion_wins_over_a_request_to_stop(self, broker: Broker) -> None:
        lease = self.begin(broker)
        broker.cancel(lease.job.id)
        self.end(broker, completed(lease, b"1"))
        job = self.job(broker, lease.job.id)
        assert (job.state, job.result_json, job.cancel_requested) == (JobState.COMPLETED, b"1", False)
        assert self.numbers(self.stats(broker)) == {"completed": 1, "enqueued": 1}

    @pytest.mark.parametrize("ending", [failed, died, snoozed, returned, cancelled], ids=lambda one: one.__name__)
    def test_any_other_end_of_a_job_that_was_to_stop_cancels_it(self, broker: Broker, clock: Clock, ending: Ending) -> None:
        lease = self.begin(broker)
        broker.cancel(lease.job.id)
        self.end(broker, ending(lease))
        clock.advance(SECOND)
        self.assert_cancelled(broker, lease.job.id)
        assert [one.state for one in self.history(broker)] == [ExecutionState.CANCELLED]
        assert self.letters(broker) == []
        assert self.numbers(self.stats(broker)) == {"cancelled": 1, "enqueued": 1}

    @pytest.mark.parametrize("unknown_type", [False, True])
    @pytest.mark.parametrize("delay", [timedelta(0), SECOND], ids=["at-once", "delayed"])
    def test_giving_back_a_job_that_was_to_stop_cancels_it(self, broker: Broker, clock: Clock, *, delay: timedelta, unknown_type: bool) -> None:
        lease = self.begin(broker)
        broker.cancel(lease.job.id)
        assert broker.release([release(lease, delay=delay, unknown_type=unknown_type)], worker_id="worker-1") == [True]
        clock.advance(SECOND)
        self.assert_cancelled(broker, lease.job.id)

    @pytest.mark.parametrize("ending", [completed, died, cancelled], ids=lambda one: one.__name__)
    def test_what_has_ended_cannot_be_cancelled(self, broker: Broker, ending: Ending) -> None:
        lease = self.begin(broker)
        self.end(broker, ending(lease))
        before = self.everything(broker, [lease.job.id])
        assert broker.cancel(lease.job.id) == "finished"
        assert self.everything(broker, [lease.job.id]) == before

    def test_what_is_cancelled_stays_cancelled(self, broker: Broker) -> None:
        job = self.put(broker)
        assert [broker.cancel(job.id), broker.cancel(job.id)] == ["cancelled", "finished"]

    def test_an_unknown_job_cannot_be_cancelled(self, broker: Broker) -> None:
        assert broker.cancel(new_job_id("default")) == "unknown"


class PauseContract(BrokerArrangement):
    """``pause``, ``resume`` and ``purge``."""

    def test_a_paused_queue_takes_jobs_in_and_lets_running_ones_end(self, broker: Broker, other: Broker) -> None:
        lease = self.begin(broker)
        other.pause("default")
        waiting = self.put(broker)
        assert self.take(broker, wait=timedelta(milliseconds=50)) == []
        self.end(broker, completed(lease))
        assert self.stats(broker).paused
        broker.resume("default")
        assert not self.stats(other).paused
        assert self.take_one(other).job.id == waiting.id

    def test_pausing_and_resuming_may_be_repeated(self, broker: Broker) -> None:
        self.put(broker)
        broker.pause("default")
        broker.pause("default")
        broker.resume("default")
        broker.resume("default")
        assert len(self.take(broker)) == 1

    def test_a_queue_can_be_paused_before_it_has_a_job(self, broker: Broker) -> None:
        broker.pause("future")
        assert [(one.name, one.paused) for one in broker.queues()] == [("future", True)]
        self.put(broker, queue="future")
        assert self.take(broker, queues=["future"]) == []

    def test_purging_cancels_what_waits_in_bounded_steps(self, broker: Broker) -> None:
        running, retrying = self.begin(broker), self.begin(broker)
        self.end(broker, failed(retrying, delay=_HOUR))
        jobs = self.put_all(broker, [new_job(unique_key="one"), *new_jobs(3), new_job(delay=_HOUR), new_job(delay=_HOUR)])
        elsewhere = self.put(broker, queue="another")
        steps = [broker.purge("default", 3) for _ in range(4)]
        assert steps == [3, 3, 1, 0]
        assert [self.state(broker, job.id) for job in [*jobs, retrying.job]] == [JobState.CANCELLED] * 7
        assert self.state(broker, running.job.id) is JobState.PROCESSING
        assert self.state(broker, elsewhere.id) is JobState.QUEUED
        assert self.numbers(self.stats(broker)) == {"processing": 1, "failed": 1, "cancelled": 7, "enqueued": 8}
        assert self.take(broker) == []
        self.put(broker, unique_key="one")

    def test_purging_an_unknown_queue_does_nothing(self, broker: Broker) -> None:
        assert broker.purge("never-seen", 10) == 0


class RequeueContract(BrokerArrangement):
    """``Producer.requeue``: the retry of a dead letter (DESIGN R13)."""

    def dead(self, broker: Broker, **options: Any) -> Job:
        """A job that has run, failed once and died."""
        lease = self.begin(broker, **options)
        self.end(broker, died(lease))
        return self.job(broker, lease.job.id)

    def test_a_dead_job_lives_again_and_goes_on_counting_runs_and_deaths(self, broker: Broker, other: Broker) -> None:
        dead = self.dead(broker, payload_json=b'{"n":12345678901234567890123,"nul":"\\u0000"}', metadata={"a": "b"})
        assert other.requeue(dead) == "requeued"
        job = self.job(broker, dead.id)
        assert job == requeue(dead, broker.now())
        assert (job.state, job.retry_count, job.crashes, job.deaths, job.dead_reason) == (JobState.QUEUED, 0, 0, 1, None)
        lease = self.take_one(broker)
        assert (lease.job.id, lease.job.run, lease.job.attempt, lease.job.payload_json) == (dead.id, 2, 1, dead.payload_json)
        self.end(broker, died(lease, error="again"))
        assert [(one.job.id, one.job.deaths) for one in self.letters(broker)] == [(dead.id, 1), (dead.id, 2)]

    def test_it_may_carry_another_payload(self, broker: Broker) -> None:
        dead = self.dead(broker, payload_json=b"1")
        assert broker.requeue(replace(dead, payload_json=b"2")) == "requeued"
        assert self.take_one(broker).job.payload_json == b"2"

    def test_it_waits_in_its_queue_and_is_counted(self, broker: Broker) -> None:
        broker.requeue(self.dead(broker))
        numbers = self.numbers(self.stats(broker))
        assert (numbers["waiting"], numbers["dead"], numbers.get("processing", 0)) == (1, 1, 0)

    def test_repeating_it_makes_no_second_run(self, broker: Broker) -> None:
        dead = self.dead(broker)
        assert [broker.requeue(dead), broker.requeue(dead)] == ["requeued", "already"]
        (lease,) = self.take(broker)
        assert broker.requeue(dead) == "already"
        self.end(broker, completed(lease))
        assert broker.requeue(dead) == "completed"
        assert self.take(broker) == []

    def test_a_former_death_cannot_be_retried(self, broker: Broker) -> None:
        dead = self.dead(broker)
        broker.requeue(dead)
        self.end(broker, died(self.take_one(broker)))
        assert broker.requeue(dead) == "already"
        assert self.take(broker) == []
        assert broker.requeue(self.job(broker, dead.id)) == "requeued"

    def test_a_job_whose_record_is_gone_is_made_anew(self, broker: Broker) -> None:
        dead = dead_job(queue="old", payload_json=b'{"a": 1}', deaths=2, run=9, crashes=3)
        assert broker.requeue(dead) == "requeued"
        assert broker.requeue(dead) == "already"
        job = self.job(broker, dead.id)
        assert (job.state, job.deaths, job.run, job.crashes, job.retry_count) == (JobState.QUEUED, 2, 9, 0, 0)
        lease = self.take_one(broker, queues=["old"])
        assert (lease.job.id, lease.job.run, lease.job.payload_json) == (dead.id, 10, b'{"a": 1}')

    def test_a_dead_job_that_was_forgotten_lives_again(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        dead = self.dead(broker)
        clock.advance(2 * SECOND)
        broker.prune(100)
        assert broker.get([dead.id]) == [None]
        assert broker.requeue(dead) == "requeued"
        clock.advance(2 * SECOND)
        broker.prune(100)
        assert self.take_one(broker).job.id == dead.id

    def test_what_comes_too_late_is_refused(self, broker: Broker) -> None:
        dead = self.dead(broker)
        assert broker.requeue(dead, not_after=broker.now() - SECOND) == "late"
        assert self.job(broker, dead.id) == dead
        assert broker.requeue(dead, not_after=broker.now() + _HOUR) == "requeued"

    def test_it_takes_its_unique_key_again(self, broker: Broker) -> None:
        dead = self.dead(broker, unique_key="one")
        assert broker.requeue(dead) == "requeued"
        assert broker.requeue(dead) == "already", "its own key does not stand in its way"
        (answer,) = broker.enqueue([new_job(unique_key="one")])
        assert (answer.status, answer.job) == ("existing", self.job(broker, dead.id))

    def test_its_own_key_that_is_still_held_by_unique_for_does_not_stand_in_its_way(self, broker: Broker) -> None:
        dead = self.dead(broker, unique_key="one", unique_for=_HOUR)
        assert broker.requeue(dead) == "requeued"

    def test_it_is_refused_while_another_job_holds_its_key(self, broker: Broker) -> None:
        dead = self.dead(broker, unique_key="one")
        holder = self.put(broker, unique_key="one")
        assert broker.requeue(dead) == "key_taken"
        assert self.job(broker, dead.id) == dead
        broker.cancel(holder.id)
        assert broker.requeue(dead) == "requeued"

    def test_many_at_once_revive_a_job_once(self, broker: Broker, other: Broker) -> None:
        dead = self.dead(broker)
        with self.thread() as pool:
            calls = [pool.submit((broker, other)[number % 2].requeue, dead) for number in range(8)]
            answers = sorted(self.result(call) for call in calls)
        assert answers == ["already"] * 7 + ["requeued"]
        assert len(self.take(broker)) == 1

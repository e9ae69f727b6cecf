"""Settling and giving back: one atomic step, once, fenced by the lease."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from jobqueue_core.attempt import Cancelled, Completed, Crashed, Dead, ExecutionState, Outcome, Retrying, Returned, Settlement, Snoozed
from jobqueue_core.job import DeadReason, JobState
from jobqueue_core.lifecycle import conclude, give_back
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import cancelled, completed, died, failed, new_jobs, release, returned, settlement, snoozed

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.clock import Clock

_HOUR = timedelta(hours=1)
_ODD_ERROR = "ValueError: \u0000 '\"\\ \n😀\ud7ff"
_OUTCOMES: dict[str, tuple[Outcome, JobState, ExecutionState, dict[str, int]]] = {
    "completed": (Completed(result_json=b'{"b": 1,"a":"\\u0000"}'), JobState.COMPLETED, ExecutionState.COMPLETED, {"completed": 1}),
    "completed-without-result": (Completed(), JobState.COMPLETED, ExecutionState.COMPLETED, {"completed": 1}),
    "retrying": (Retrying(delay=_HOUR, error=_ODD_ERROR, traceback="..."), JobState.RETRYING, ExecutionState.FAILED, {"retrying": 1, "failed": 1}),
    "snoozed": (Snoozed(delay=_HOUR), JobState.SCHEDULED, ExecutionState.SNOOZED, {"scheduled": 1}),
    "dead": (
        Dead(reason=DeadReason.DISCARDED, error=_ODD_ERROR, traceback="Traceback\n" + "x\n" * 8000),
        JobState.DEAD,
        ExecutionState.DEAD,
        {"dead": 1},
    ),
    "cancelled": (Cancelled(), JobState.CANCELLED, ExecutionState.CANCELLED, {"cancelled": 1}),
    "returned": (Returned(), JobState.QUEUED, ExecutionState.RETURNED, {"waiting": 1}),
    "crashed": (Crashed(error=_ODD_ERROR, max_crashes=2), JobState.QUEUED, ExecutionState.LOST, {"waiting": 1}),
    "crashed-for-good": (Crashed(error=_ODD_ERROR, max_crashes=1), JobState.DEAD, ExecutionState.LOST, {"dead": 1}),
}
_outcomes = pytest.mark.parametrize("name", list(_OUTCOMES))


class SettleContract(BrokerArrangement):
    """``Consumer.settle``."""

    @_outcomes
    def test_an_outcome_makes_of_the_job_what_the_life_cycle_says(self, broker: Broker, other: Broker, name: str) -> None:
        outcome, state, execution_state, numbers = _OUTCOMES[name]
        lease = self.begin(broker, unique_key="one", metadata={"a": "b"}, payload_json=b'{"n":12345678901234567890123}')
        duration = timedelta(milliseconds=1234)
        before = broker.now()
        self.end(broker, settlement(lease, outcome, max_retries=5, duration=duration))
        (execution,) = self.history(other)
        assert before <= execution.finished_at <= broker.now()
        expected = conclude(lease.job, outcome, now=execution.finished_at, duration=duration, cancel_requested=False, max_retries=5)
        assert expected.execution is not None
        assert execution == replace(expected.execution, id=execution.id)
        assert (execution.state, self.job(other, lease.job.id).state) == (execution_state, state)
        assert self.job(other, lease.job.id) == expected.job
        assert self.letters(other) == ([] if expected.dead_letter is None else [expected.dead_letter])
        assert self.numbers(self.stats(other)) == {"enqueued": 1, **numbers}

    @_outcomes
    def test_an_outcome_that_is_sent_again_is_accepted_and_written_once(self, broker: Broker, other: Broker, name: str) -> None:
        outcome, *_ = _OUTCOMES[name]
        lease = self.begin(broker)
        again = settlement(lease, outcome)
        self.end(broker, again)
        before = self.everything(broker, [lease.job.id])
        self.end(broker, again)
        self.end(other, again)
        assert self.everything(broker, [lease.job.id]) == before

    @_outcomes
    def test_another_outcome_of_a_settled_lease_writes_nothing(self, broker: Broker, name: str) -> None:
        outcome, *_ = _OUTCOMES[name]
        lease = self.begin(broker)
        self.end(broker, settlement(lease, outcome))
        before = self.everything(broker, [lease.job.id])
        broker.settle([completed(lease, b'"late"')], worker_id="worker-1")
        broker.settle([died(lease)], worker_id="worker-1")
        broker.release([release(lease)], worker_id="worker-1")
        assert self.everything(broker, [lease.job.id]) == before

    def test_outcomes_are_answered_in_order_and_each_gets_its_own(self, broker: Broker) -> None:
        self.put_all(broker, new_jobs(6))
        one, two, three, four, five, six = self.take(broker)
        batch = [completed(one), failed(two), died(three), snoozed(four), returned(five), cancelled(six)]
        assert broker.settle(batch, worker_id="worker-1") == [True] * 6
        assert [self.state(broker, lease.job.id) for lease in (one, two, three, four, five, six)] == [
            JobState.COMPLETED,
            JobState.RETRYING,
            JobState.DEAD,
            JobState.SCHEDULED,
            JobState.QUEUED,
            JobState.CANCELLED,
        ]

    def test_hundreds_of_outcomes_go_in_one_call(self, broker: Broker) -> None:
        self.put_all(broker, new_jobs(400))
        leases = self.take(broker, 400)
        self.end(broker, *(completed(lease, str(number).encode()) for number, lease in enumerate(leases)))
        assert [job.result_json for job in broker.get([lease.job.id for lease in leases]) if job is not None] == [b"%d" % one for one in range(400)]
        executions = self.history(broker)
        assert [one.job_id for one in executions] == [lease.job.id for lease in leases]
        assert len({one.id for one in executions}) == 400

    def test_settling_nothing_answers_nothing(self, broker: Broker) -> None:
        assert broker.settle([], worker_id="worker-1") == []

    def test_of_two_workers_with_one_lease_exactly_one_is_written(self, broker: Broker, other: Broker) -> None:
        for _ in range(10):
            lease = self.begin(broker)
            barrier = threading.Barrier(2)

            def settle(one: Broker, what: Settlement, barrier: threading.Barrier = barrier) -> list[bool]:
                barrier.wait(timeout=5)
                return one.settle([what], worker_id="worker-1")

            with self.thread() as pool:
                calls = [pool.submit(settle, broker, completed(lease)), pool.submit(settle, other, died(lease))]
                answers = [self.result(call)[0] for call in calls]
            assert any(answers)
            (execution,) = [one for one in self.history(broker) if one.job_id == lease.job.id]
            assert execution.state.value == self.state(broker, lease.job.id).value
        assert len(self.letters(broker)) == self.numbers(self.stats(broker)).get("dead", 0)

    def test_a_result_of_a_mebibyte_comes_back_byte_for_byte(self, broker: Broker) -> None:
        result = b'"' + "ö".encode() * ((1 << 19) - 1) + b'"'
        lease = self.begin(broker)
        self.end(broker, completed(lease, result))
        assert self.job(broker, lease.job.id).result_json == result

    def test_a_job_in_a_paused_queue_can_be_settled(self, broker: Broker) -> None:
        lease = self.begin(broker)
        broker.pause("default")
        self.end(broker, completed(lease))
        assert self.state(broker, lease.job.id) is JobState.COMPLETED

    def test_a_snoozed_job_runs_again_in_the_same_attempt(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        self.end(broker, snoozed(lease, delay=SECOND))
        assert self.promote(broker, clock, SECOND) == 1
        again = self.take_one(broker)
        assert (again.job.id, again.job.attempt, again.job.run) == (lease.job.id, 1, 2)

    def test_a_dead_job_is_not_handed_out(self, broker: Broker, clock: Clock) -> None:
        self.end(broker, died(self.begin(broker)))
        assert self.promote(broker, clock, SECOND) == 0
        assert self.take(broker) == []


class ReleaseContract(BrokerArrangement):
    """``Consumer.release``."""

    def test_a_job_given_back_is_as_if_it_had_not_been_taken(self, broker: Broker, other: Broker) -> None:
        lease = self.begin(broker)
        assert broker.release([release(lease)], worker_id="worker-1") == [True]
        job = self.job(other, lease.job.id)
        assert job == give_back(lease.job, now=broker.now(), delay=timedelta(0), cancel_requested=False)
        assert (job.state, job.run, job.crashes) == (JobState.QUEUED, 0, 0)
        assert self.history(broker) == []
        assert self.numbers(self.stats(broker)) == {"waiting": 1, "enqueued": 1}
        again = self.take_one(other)
        assert (again.job.id, again.job.run) == (job.id, 1)
        assert again.token != lease.token

    def test_a_job_given_back_with_a_delay_waits_for_it(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        before = broker.now()
        assert broker.release([release(lease, delay=2 * SECOND)], worker_id="worker-1") == [True]
        job = self.job(broker, lease.job.id)
        assert job.scheduled_at is not None
        assert before + 2 * SECOND <= job.scheduled_at <= broker.now() + 2 * SECOND
        assert (job.state, job.run) == (JobState.SCHEDULED, 0)
        assert self.numbers(self.stats(broker)) == {"scheduled": 1, "enqueued": 1}
        assert self.take(broker) == []
        assert self.promote(broker, clock, 2 * SECOND) == 1
        assert self.take_one(broker).job.run == 1

    def test_since_when_a_type_is_unknown_is_remembered_until_a_handler_has_run(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker)
        before = broker.now()
        assert broker.release([release(lease, delay=SECOND, unknown_type=True)], worker_id="worker-1") == [True]
        since = self.job(broker, lease.job.id).unknown_since
        assert since is not None
        assert before <= since <= broker.now()
        assert self.promote(broker, clock, SECOND) == 1
        again = self.take_one(broker)
        assert again.job.unknown_since == since
        assert broker.release([release(again, delay=SECOND, unknown_type=True)], worker_id="worker-1") == [True]
        assert self.job(broker, lease.job.id).unknown_since == since
        assert self.promote(broker, clock, SECOND) == 1
        self.end(broker, failed(self.take_one(broker)))
        assert self.job(broker, lease.job.id).unknown_since is None

    @pytest.mark.parametrize("delay", [timedelta(0), _HOUR], ids=["at-once", "delayed"])
    def test_giving_back_again_is_accepted_and_written_once(self, broker: Broker, delay: timedelta) -> None:
        lease = self.begin(broker)
        assert broker.release([release(lease, delay=delay)], worker_id="worker-1") == [True]
        before = self.everything(broker, [lease.job.id])
        assert broker.release([release(lease, delay=delay)], worker_id="worker-1") == [True]
        assert self.everything(broker, [lease.job.id]) == before

    def test_a_lease_given_back_settles_nothing(self, broker: Broker) -> None:
        lease = self.begin(broker)
        broker.release([release(lease)], worker_id="worker-1")
        again = self.take_one(broker, worker_id="worker-2")
        before = self.everything(broker, [lease.job.id])
        broker.settle([completed(lease)], worker_id="worker-1")
        assert self.everything(broker, [lease.job.id]) == before
        assert broker.settle([completed(again)], worker_id="worker-2") == [True]

    def test_giving_back_nothing_answers_nothing(self, broker: Broker) -> None:
        assert broker.release([], worker_id="worker-1") == []

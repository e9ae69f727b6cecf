"""Unique keys: at most one unfinished job per queue and key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.broker import Broker, Enqueued
from jobqueue_core.job import JobState
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import cancelled, completed, died, failed, new_job, release, returned, snoozed

if TYPE_CHECKING:
    from jobqueue_core.testing.clock import Clock

Suite = BrokerArrangement
LifeSituation = Callable[[Suite, Broker], str]
"""Brings a job with the key ``one`` into a situation; its id."""

_HOUR = timedelta(hours=1)


def _waiting(suite: Suite, broker: Broker) -> str:
    return suite.put(broker, unique_key="one").id


def _scheduled(suite: Suite, broker: Broker) -> str:
    return suite.put(broker, unique_key="one", delay=_HOUR).id


def _processing(suite: Suite, broker: Broker) -> str:
    return suite.begin(broker, unique_key="one").job.id


def _retrying(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, failed(lease, delay=_HOUR))
    return lease.job.id


def _snoozed(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, snoozed(lease, delay=_HOUR))
    return lease.job.id


def _returned(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, returned(lease))
    return lease.job.id


def _given_back(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    assert broker.release([release(lease)], worker_id="worker-1") == [True]
    return lease.job.id


def _reclaimed(suite: Suite, broker: Broker) -> str:
    return suite.crashed(broker, 1, unique_key="one")[0]


def _asked_to_stop(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    assert broker.cancel(lease.job.id) == "requested"
    return lease.job.id


def _completed(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, completed(lease))
    return lease.job.id


def _dead(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, died(lease))
    return lease.job.id


def _cancelled_waiting(suite: Suite, broker: Broker) -> str:
    job = suite.put(broker, unique_key="one")
    assert broker.cancel(job.id) == "cancelled"
    return job.id


def _cancelled_scheduled(suite: Suite, broker: Broker) -> str:
    job = suite.put(broker, unique_key="one", delay=_HOUR)
    assert broker.cancel(job.id) == "cancelled"
    return job.id


def _cancelled_running(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    suite.end(broker, cancelled(lease))
    return lease.job.id


def _cancelled_in_release(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one")
    broker.cancel(lease.job.id)
    assert broker.release([release(lease)], worker_id="worker-1") == [True]
    return lease.job.id


def _purged(suite: Suite, broker: Broker) -> str:
    job = suite.put(broker, unique_key="one")
    assert broker.purge("default", 10) == 1
    return job.id


def _worker_lost(suite: Suite, broker: Broker) -> str:
    lease = suite.begin(broker, unique_key="one", worker_id="doomed")
    assert broker.reclaim_worker("doomed", started=[lease.job.id], error="killed", max_crashes=1).dead == 1
    return lease.job.id


_ALIVE = (_waiting, _scheduled, _processing, _retrying, _snoozed, _returned, _given_back, _reclaimed, _asked_to_stop)
_ENDED = (_completed, _dead, _cancelled_waiting, _cancelled_scheduled, _cancelled_running, _cancelled_in_release, _purged, _worker_lost)


class UniqueKeyContract(BrokerArrangement):
    """``unique_key`` and ``unique_for``."""

    def ask(self, broker: Broker, **options: object) -> Enqueued:
        """Enqueue another job with the key ``one``."""
        (answer,) = broker.enqueue([new_job(**{"unique_key": "one", **options})])
        return answer

    @pytest.mark.parametrize("situation", _ALIVE, ids=lambda one: one.__name__)
    def test_a_living_job_holds_its_key_and_a_duplicate_answers_with_it(self, broker: Broker, other: Broker, situation: LifeSituation) -> None:
        holder = situation(self, broker)
        duplicate = new_job(unique_key="one")
        (answer,) = other.enqueue([duplicate])
        assert (answer.status, answer.job) == ("existing", self.job(broker, holder))
        assert broker.get([duplicate.id]) == [None]

    @pytest.mark.parametrize("situation", _ENDED, ids=lambda one: one.__name__)
    def test_the_end_of_a_job_releases_its_key(self, broker: Broker, situation: LifeSituation) -> None:
        holder = situation(self, broker)
        assert self.job(broker, holder).state.finished
        assert self.ask(broker).status == "created"
        assert self.ask(broker).status == "existing"

    def test_a_job_that_expired_releases_its_key(self, broker: Broker, clock: Clock) -> None:
        job = self.put(broker, unique_key="one", expires_in=SECOND)
        clock.advance(2 * SECOND)
        assert self.take(broker) == []
        assert self.state(broker, job.id) is JobState.CANCELLED
        assert self.ask(broker).status == "created"

    def test_a_second_end_does_not_release_the_key_of_the_next_holder(self, broker: Broker) -> None:
        lease = self.begin(broker, unique_key="one")
        self.end(broker, completed(lease))
        holder = self.ask(broker).job
        broker.settle([completed(lease)], worker_id="worker-1")
        broker.cancel(lease.job.id)
        again = self.ask(broker)
        assert holder is not None
        assert (again.status, again.job) == ("existing", holder)

    def test_earlier_jobs_of_a_call_hold_keys_against_later_ones(self, broker: Broker) -> None:
        jobs = [new_job(unique_key="one"), new_job(unique_key="two"), new_job(unique_key="one"), new_job()]
        answers = broker.enqueue(jobs)
        assert [one.status for one in answers] == ["created", "created", "existing", "created"]
        assert answers[2].job == answers[0].job
        assert len(self.take(broker)) == 3

    def test_the_same_key_in_another_queue_is_another_key(self, broker: Broker) -> None:
        self.put(broker, unique_key="one")
        self.put(broker, unique_key="one", queue="another")

    def test_a_key_may_be_any_text(self, broker: Broker) -> None:
        keys = ["one", "One", "one ", "ö😀", "a:b", "a/b", "{a}", "%00", "'; --", "x" * 200]
        for key in keys:
            self.put(broker, unique_key=key)
        assert [self.ask(broker, unique_key=key).status for key in keys] == ["existing"] * len(keys)

    def test_unique_for_holds_the_key_after_the_end(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, unique_key="one", unique_for=3 * SECOND)
        self.end(broker, completed(lease))
        answer = self.ask(broker)
        assert (answer.status, answer.job) == ("existing", self.job(broker, lease.job.id))
        clock.advance(3 * SECOND)
        assert self.ask(broker).status == "created"

    def test_unique_for_counts_from_enqueue(self, broker: Broker, clock: Clock) -> None:
        lease = self.begin(broker, unique_key="one", unique_for=2 * SECOND)
        clock.advance(2 * SECOND)
        assert self.ask(broker).status == "existing", "a living job holds its key, however short unique_for"
        self.end(broker, completed(lease))
        assert self.ask(broker).status == "created"

    def test_fifty_callers_with_one_key_make_one_job(self, broker: Broker, other: Broker) -> None:
        with self.thread() as pool:
            calls = [pool.submit(self.ask, (broker, other)[number % 2]) for number in range(50)]
            answers = [self.result(call) for call in calls]
        assert sorted(one.status for one in answers) == ["created"] + ["existing"] * 49
        assert len({one.job.id for one in answers if one.job is not None}) == 1

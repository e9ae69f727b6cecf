"""Forgetting: finished jobs past their retention, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.job import JobState
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement, OpenBroker
from jobqueue_core.testing.factories import cancelled, completed, died, failed, log_line, new_job, new_jobs, report

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.broker_suite.control import Ending
    from jobqueue_core.testing.clock import Clock

_HOUR = timedelta(hours=1)


class RetentionContract(BrokerArrangement):
    """``Upkeep.prune`` and ``result_ttl``."""

    def prune(self, broker: Broker) -> int:
        """Prune until nothing is left to do; how many."""
        total = 0
        for _ in range(100):
            pruned = broker.prune(10)
            assert pruned <= 10
            total += pruned
            if not pruned:
                return total
        pytest.fail("pruning did not come to an end")

    @pytest.mark.parametrize("ending", [completed, died, cancelled], ids=lambda one: one.__name__)
    def test_a_finished_job_is_forgotten_after_its_retention(self, connect: OpenBroker, clock: Clock, ending: Ending) -> None:
        broker = connect(result_ttl=2 * SECOND)
        lease = self.begin(broker)
        broker.report([report(lease, lines=[log_line("one")])], worker_id="worker-1")
        self.end(broker, ending(lease))
        self.prune(broker)
        assert self.job(broker, lease.job.id).state.finished
        clock.advance(3 * SECOND)
        self.prune(broker)
        assert broker.get([lease.job.id]) == [None]
        assert self.walk(broker) == []
        assert broker.logs(lease.job.id) == []
        assert broker.cancel(lease.job.id) == "unknown"

    def test_unfinished_jobs_are_never_forgotten(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        processing, retrying = self.begin(broker), self.begin(broker)
        self.end(broker, failed(retrying, delay=_HOUR))
        scheduled, queued = self.put(broker, delay=_HOUR), self.put(broker)
        clock.advance(3 * SECOND)
        self.prune(broker)
        jobs = [processing.job.id, retrying.job.id, scheduled.id, queued.id]
        assert [self.state(broker, one) for one in jobs] == [JobState.PROCESSING, JobState.RETRYING, JobState.SCHEDULED, JobState.QUEUED]
        self.end(broker, completed(processing))

    def test_pruning_is_bounded_and_comes_to_an_end(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        jobs = self.put_all(broker, new_jobs(35))
        self.end(broker, *(completed(lease) for lease in self.take(broker)))
        clock.advance(2 * SECOND)
        self.prune(broker)
        assert broker.get([job.id for job in jobs]) == [None] * 35

    def test_a_forgotten_id_may_be_used_again(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        new = new_job()
        self.put(broker, new)
        self.end(broker, completed(self.take_one(broker)))
        clock.advance(2 * SECOND)
        self.prune(broker)
        self.put(broker, new)
        assert self.take_one(broker).job.run == 1

    def test_totals_outlast_the_jobs_they_count(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        self.end(broker, completed(self.begin(broker)))
        clock.advance(2 * SECOND)
        self.prune(broker)
        assert self.numbers(self.stats(broker)) == {"completed": 1, "enqueued": 1}

    def test_pruning_cancels_waiting_jobs_that_have_expired(self, broker: Broker, clock: Clock) -> None:
        expired = self.put(broker, expires_in=SECOND, unique_key="one")
        valid = self.put(broker, expires_in=_HOUR)
        clock.advance(2 * SECOND)
        self.prune(broker)
        job = self.job(broker, expired.id)
        assert (job.state, job.last_error) == (JobState.CANCELLED, "expired")
        assert self.numbers(self.stats(broker)) == {"waiting": 1, "cancelled": 1, "enqueued": 2}
        self.put(broker, unique_key="one")
        assert [lease.job.id for lease in self.take(broker, 1)] == [valid.id]

    def test_pruning_an_empty_broker_does_nothing(self, broker: Broker) -> None:
        assert broker.prune(10) == 0

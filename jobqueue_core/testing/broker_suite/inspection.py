"""Questions: jobs by id and in lists, queues in numbers."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.broker import Broker, JobFilter
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import JobState, Priority, new_job_id
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement
from jobqueue_core.testing.factories import cancelled, completed, died, failed, new_job, new_jobs, release, returned, snoozed, tampered

if TYPE_CHECKING:
    from jobqueue_core.testing.clock import Clock

_HOUR = timedelta(hours=1)


class InspectionContract(BrokerArrangement):
    """``Inspection.get`` and ``jobs``."""

    def one_in_each_state(self, broker: Broker, queue: str = "default") -> dict[JobState, str]:
        """The id of a job in each state."""
        jobs = self.put_all(broker, new_jobs(5, queue=queue, type="test.taken"))
        one, two, three, four, five = self.take(broker, queues=[queue])
        assert len(jobs) == 5
        self.end(broker, completed(one), failed(two, delay=_HOUR), died(three), cancelled(four))
        return {
            JobState.COMPLETED: one.job.id,
            JobState.RETRYING: two.job.id,
            JobState.DEAD: three.job.id,
            JobState.CANCELLED: four.job.id,
            JobState.PROCESSING: five.job.id,
            JobState.QUEUED: self.put(broker, queue=queue).id,
            JobState.SCHEDULED: self.put(broker, queue=queue, delay=_HOUR).id,
        }

    def test_jobs_are_found_by_id_in_the_order_asked_for(self, broker: Broker) -> None:
        one, two = self.put(broker, queue="a"), self.put(broker, queue="b")
        unknown = new_job_id("a")
        assert broker.get([two.id, unknown, one.id]) == [two, None, one]
        assert broker.get([]) == []

    def test_a_job_is_found_in_every_state(self, broker: Broker) -> None:
        by_state = self.one_in_each_state(broker)
        found = broker.get(list(by_state.values()))
        assert [job.state for job in found if job is not None] == list(by_state)

    def test_a_listing_goes_from_the_newest_id_to_the_oldest(self, broker: Broker) -> None:
        jobs = self.put_all(broker, [new_job(queue=f"queue-{number % 3}") for number in range(25)])
        expected = sorted((job.id for job in jobs), reverse=True)
        assert [job.id for job in self.walk(broker, limit=4)] == expected
        assert [job.id for job in self.walk(broker, limit=100)] == expected

    def test_a_listed_job_is_the_job_as_it_is_now(self, broker: Broker) -> None:
        by_state = self.one_in_each_state(broker)
        listed = self.walk(broker)
        assert {job.id for job in listed} == set(by_state.values())
        assert listed == broker.get([job.id for job in listed])

    @pytest.mark.parametrize("state", list(JobState))
    def test_a_listing_can_be_of_one_state(self, broker: Broker, state: JobState) -> None:
        by_state = self.one_in_each_state(broker)
        assert [job.id for job in self.walk(broker, JobFilter(state=state))] == [by_state[state]]

    def test_a_listing_can_be_of_one_queue_or_type_or_both(self, broker: Broker) -> None:
        jobs = {(queue, kind): self.put(broker, queue=queue, type=kind).id for queue in ("a", "b") for kind in ("x", "y")}

        def listed(**wanted: str) -> set[str]:
            return {job.id for job in self.walk(broker, JobFilter(**wanted), limit=1)}  # type: ignore[arg-type]  # names of text fields only

        assert listed(queue="a") == {jobs["a", "x"], jobs["a", "y"]}
        assert listed(type="y") == {jobs["a", "y"], jobs["b", "y"]}
        assert listed(queue="b", type="x") == {jobs["b", "x"]}
        assert listed(queue="nowhere") == listed(type="nothing") == set()

    def test_a_listing_can_be_of_one_state_in_one_queue(self, broker: Broker) -> None:
        wanted, _other = self.one_in_each_state(broker, "a"), self.one_in_each_state(broker, "b")
        for state in JobState:
            assert [job.id for job in self.walk(broker, JobFilter(state=state, queue="a", type=None))] == [wanted[state]]
        assert self.walk(broker, JobFilter(state=JobState.QUEUED, queue="a", type="test.taken")) == []

    def test_a_listing_finds_what_was_there_and_nothing_twice_while_jobs_are_added_and_run(self, broker: Broker, other: Broker) -> None:
        before = {job.id for job in self.put_all(broker, new_jobs(30))}
        seen: list[str] = []
        cursor = None
        while True:
            page = broker.jobs(JobFilter(), cursor=cursor, limit=4)
            seen += [job.id for job in page.jobs]
            if (cursor := page.next) is None:
                break
            if len(seen) < 40:
                self.put_all(other, new_jobs(2))
                self.end(other, completed(self.take_one(other)))
        assert len(seen) == len(set(seen))
        assert before <= set(seen)

    def test_an_empty_listing_ends_at_once(self, broker: Broker) -> None:
        page = broker.jobs(JobFilter(), cursor=None, limit=10)
        assert (page.jobs, page.next) == ((), None)

    def test_a_cursor_that_was_tampered_with_is_refused_or_read_and_breaks_nothing(self, broker: Broker) -> None:
        self.put_all(broker, [new_job(queue=f"queue-{number % 2}") for number in range(6)])
        for wanted in (JobFilter(), JobFilter(state=JobState.QUEUED), JobFilter(queue="queue-1")):
            cursor = broker.jobs(wanted, cursor=None, limit=2).next
            assert cursor is not None
            for forged in tampered(cursor):
                with suppress(InvalidJob):
                    broker.jobs(wanted, cursor=forged, limit=2)

    @pytest.mark.parametrize("cursor", ["nonsense", "~", "a~b", "~~~~~~", "0", "\u0000", "../..", "ö"])
    @pytest.mark.parametrize("wanted", [JobFilter(), JobFilter(state=JobState.QUEUED, queue="default")], ids=["all", "filtered"])
    def test_a_cursor_that_no_page_gave_is_refused(self, broker: Broker, wanted: JobFilter, cursor: str) -> None:
        self.put(broker)
        with pytest.raises(InvalidJob) as caught:
            broker.jobs(wanted, cursor=cursor, limit=10)
        assert caught.value.field == "cursor"


class QueueContract(BrokerArrangement):
    """``queues`` and ``queue``."""

    def test_an_unknown_queue_has_no_numbers(self, broker: Broker) -> None:
        self.put(broker, queue="known")
        assert broker.queue("unknown") is None

    def test_queues_are_listed_by_name(self, broker: Broker) -> None:
        for name in ("b", "a", "c", "a"):
            self.put(broker, queue=name)
        listed = broker.queues()
        assert [one.name for one in listed] == ["a", "b", "c"]
        assert [self.numbers(one) for one in listed] == [self.numbers(self.stats(broker, name)) for name in ("a", "b", "c")]

    def test_there_are_no_queues_before_the_first_job(self, broker: Broker) -> None:
        assert broker.queues() == []

    def test_a_queue_that_has_run_empty_is_still_known(self, broker: Broker) -> None:
        self.end(broker, completed(self.begin(broker)))
        assert [one.name for one in broker.queues()] == ["default"]

    def test_the_depth_is_by_priority(self, broker: Broker) -> None:
        self.put_all(broker, [new_job(priority=priority) for priority in Priority for _ in range(priority.rank + 1)])
        depth = self.stats(broker).depth
        assert [depth.get(priority, 0) for priority in Priority] == [1, 2, 3, 4]
        self.take(broker, 2)
        depth = self.stats(broker).depth
        assert (depth.get(Priority.CRITICAL, 0), depth.get(Priority.HIGH, 0), self.stats(broker).waiting) == (0, 1, 8)

    def test_every_transition_moves_the_numbers(self, broker: Broker, clock: Clock) -> None:
        def numbers() -> dict[str, int]:
            return self.numbers(self.stats(broker))

        self.put(broker)
        assert numbers() == {"waiting": 1, "enqueued": 1}
        lease = self.take_one(broker)
        assert numbers() == {"processing": 1, "enqueued": 1}
        broker.release([release(lease)], worker_id="worker-1")
        assert numbers() == {"waiting": 1, "enqueued": 1}
        self.end(broker, failed(self.take_one(broker)))
        assert numbers() == {"retrying": 1, "failed": 1, "enqueued": 1}
        self.promote(broker, clock, SECOND)
        assert numbers() == {"waiting": 1, "failed": 1, "enqueued": 1}
        self.end(broker, snoozed(self.take_one(broker)))
        assert numbers() == {"scheduled": 1, "failed": 1, "enqueued": 1}
        self.promote(broker, clock, SECOND)
        self.end(broker, returned(self.take_one(broker)))
        assert numbers() == {"waiting": 1, "failed": 1, "enqueued": 1}
        self.end(broker, died(self.take_one(broker)))
        assert numbers() == {"dead": 1, "failed": 1, "enqueued": 1}
        self.put(broker, delay=_HOUR)
        assert numbers() == {"scheduled": 1, "dead": 1, "failed": 1, "enqueued": 2}
        self.end(broker, completed(self.begin(broker)))
        assert numbers() == {"scheduled": 1, "completed": 1, "dead": 1, "failed": 1, "enqueued": 3}
        self.crashed(broker, 1)
        assert numbers() == {"waiting": 1, "scheduled": 1, "completed": 1, "dead": 1, "failed": 1, "enqueued": 4}

    def test_a_refused_or_existing_job_is_not_counted(self, broker: Broker) -> None:
        new = new_job(unique_key="one")
        broker.enqueue([new, new, new_job(unique_key="one")])
        broker.enqueue([new_job()], not_after=broker.now() - SECOND)
        assert self.numbers(self.stats(broker)) == {"waiting": 1, "enqueued": 1}

    def test_the_oldest_age_is_that_of_the_job_ready_longest(self, broker: Broker, clock: Clock) -> None:
        self.put(broker, priority=Priority.LOW)
        clock.advance(SECOND)
        self.put(broker, priority=Priority.HIGH)
        age = self.stats(broker).oldest_age
        assert age is not None
        assert SECOND <= age < 60 * SECOND
        self.take(broker)
        assert self.stats(broker).oldest_age is None

    def test_a_delayed_job_has_not_waited_before_it_is_ready(self, broker: Broker, clock: Clock) -> None:
        self.put(broker, delay=_HOUR)
        clock.advance(SECOND)
        assert self.stats(broker).oldest_age is None

    def test_rates_are_per_second_over_five_minutes(self, broker: Broker) -> None:
        assert self.put_all(broker, new_jobs(30))
        one, two, *rest = self.take(broker)
        self.end(broker, failed(one, delay=_HOUR), died(two), *(completed(lease) for lease in rest))
        rates = self.stats(broker).rates
        assert set(rates) == {"enqueued", "completed", "failed", "dead"}
        assert rates["enqueued"] > rates["completed"] > rates["failed"] == rates["dead"] > 0
        assert rates["enqueued"] == pytest.approx(30 / 300, rel=0.25)

    def test_rates_fall_to_zero_when_nothing_happens(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, timedelta(minutes=7))
        self.end(broker, completed(self.begin(broker)))
        clock.advance(timedelta(minutes=4))
        assert self.stats(broker).rates["completed"] > 0
        clock.advance(timedelta(minutes=3))
        nothing = {"enqueued": 0, "completed": 0, "failed": 0, "dead": 0}
        assert [self.stats(broker).rates, *(one.rates for one in broker.queues())] == [nothing, nothing]
        assert self.stats(broker).completed == 1

"""What goes out: the outbox on its way to storage, and the event log."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.testing.broker_suite.arrangement import SECOND, BrokerArrangement, OpenBroker
from jobqueue_core.testing.factories import completed, died, new_jobs

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker, Event, EventPage, OutboxKind
    from jobqueue_core.testing.clock import Clock


class OutboxContract(BrokerArrangement):
    """``outbox``, ``acknowledge`` and ``outbox_lag``."""

    def run(self, broker: Broker, count: int, *, dead: bool = False) -> list[str]:
        """Run *count* jobs to their end, one by one; their ids."""
        ids = []
        for _ in range(count):
            lease = self.begin(broker)
            self.end(broker, died(lease) if dead else completed(lease))
            ids.append(lease.job.id)
        return ids

    def test_rows_are_read_oldest_first_and_stay_until_acknowledged(self, broker: Broker, other: Broker) -> None:
        ids = self.run(broker, 5)
        first, again = broker.outbox("history", 3), other.outbox("history", 3)
        assert [one.job_id for one in first.executions] == ids[:3]
        assert (again.executions, again.kind, again.malformed) == (first.executions, "history", 0)
        assert len(first.receipt) >= 1
        broker.acknowledge(first)
        assert [one.job_id for one in other.outbox("history", 10).executions] == ids[3:]

    def test_an_acknowledgement_removes_exactly_what_was_read(self, broker: Broker) -> None:
        ids = self.run(broker, 2)
        batch = broker.outbox("history", 10)
        ids += self.run(broker, 2)
        broker.acknowledge(batch)
        assert [one.job_id for one in self.history(broker)] == ids[2:]

    def test_an_acknowledgement_may_be_repeated(self, broker: Broker, other: Broker) -> None:
        self.run(broker, 2)
        batch, same = broker.outbox("history", 10), other.outbox("history", 10)
        ids = self.run(broker, 1)
        broker.acknowledge(batch)
        broker.acknowledge(batch)
        other.acknowledge(same)
        assert [one.job_id for one in self.history(broker)] == ids

    def test_two_readers_with_batches_that_overlap_lose_nothing(self, broker: Broker, other: Broker) -> None:
        ids = self.run(broker, 6)
        short, long = broker.outbox("history", 2), other.outbox("history", 4)
        other.acknowledge(long)
        broker.acknowledge(short)
        assert [one.job_id for one in self.history(broker)] == ids[4:]

    def test_an_empty_outbox_gives_an_empty_batch_that_can_be_acknowledged(self, broker: Broker) -> None:
        kinds: tuple[OutboxKind, ...] = ("history", "dead")
        for kind in kinds:
            batch = broker.outbox(kind, 10)
            assert (batch.kind, batch.executions, batch.dead_letters, batch.receipt, batch.malformed) == (kind, (), (), (), 0)
            broker.acknowledge(batch)

    def test_history_and_dead_letters_are_apart(self, broker: Broker) -> None:
        ids = self.run(broker, 2, dead=True)
        dead = broker.outbox("dead", 10)
        assert ([one.job.id for one in dead.dead_letters], dead.executions) == (ids, ())
        broker.acknowledge(dead)
        assert self.letters(broker) == []
        history = broker.outbox("history", 10)
        assert ([one.job_id for one in history.executions], history.dead_letters) == (ids, ())

    def test_each_run_has_an_execution_with_an_id_of_its_own(self, broker: Broker) -> None:
        self.run(broker, 20)
        assert len({one.id for one in self.history(broker)}) == 20

    def test_a_dead_letter_holds_the_job_as_it_died(self, broker: Broker) -> None:
        lease = self.begin(broker, payload_json=b'{"n":12345678901234567890123,"nul":"\\u0000"}')
        self.end(broker, died(lease, error="ValueError: 7", traceback="Traceback ...\u0000"))
        (letter,) = self.letters(broker)
        assert (letter.job.payload_json, letter.error, letter.traceback) == (lease.job.payload_json, "ValueError: 7", "Traceback ...\u0000")
        assert letter.fingerprint
        assert letter.died_at == letter.job.completed_at

    def test_the_lag_counts_what_waits(self, broker: Broker, clock: Clock) -> None:
        lag = broker.outbox_lag()
        assert (lag.history, lag.dead, lag.oldest_age, lag.dropped) == (0, 0, timedelta(0), 0)
        self.run(broker, 3)
        clock.advance(SECOND)
        self.run(broker, 2, dead=True)
        lag = broker.outbox_lag()
        assert (lag.history, lag.dead, lag.dropped) == (5, 2, 0)
        assert SECOND <= lag.oldest_age < 60 * SECOND
        broker.acknowledge(broker.outbox("history", 10))
        assert (broker.outbox_lag().history, broker.outbox_lag().dead) == (0, 2)

    def test_beyond_max_pending_the_oldest_history_is_dropped_and_counted(self, connect: OpenBroker) -> None:
        broker = connect(max_pending=10)
        ids = self.run(broker, 25)
        broker.prune(100)
        lag = broker.outbox_lag()
        assert (lag.history, lag.dropped) == (10, 15)
        assert [one.job_id for one in self.history(broker)] == ids[15:]

    def test_a_single_batch_beyond_max_pending_is_dropped_and_counted_too(self, connect: OpenBroker) -> None:
        broker = connect(max_pending=10)
        self.put_all(broker, new_jobs(40))
        self.end(broker, *(completed(lease) for lease in self.take(broker)))
        broker.prune(100)
        lag = broker.outbox_lag()
        assert (lag.history, lag.dropped) == (10, 30)

    def test_dead_letters_are_never_dropped(self, connect: OpenBroker) -> None:
        broker = connect(max_pending=5)
        ids = self.run(broker, 20, dead=True)
        broker.prune(100)
        assert [one.job.id for one in self.letters(broker)] == ids
        assert (broker.outbox_lag().history, broker.outbox_lag().dead) == (5, 20)

    def test_a_finished_job_may_be_forgotten_before_its_rows_are_stored(self, connect: OpenBroker, clock: Clock) -> None:
        broker = connect(result_ttl=SECOND)
        (job_id,) = self.run(broker, 1, dead=True)
        clock.advance(2 * SECOND)
        broker.prune(100)
        assert broker.get([job_id]) == [None]
        assert [one.state for one in self.history(broker)] == [ExecutionState.DEAD]
        assert [one.job.id for one in self.letters(broker)] == [job_id]


class EventContract(BrokerArrangement):
    """``Inspection.events``: a log that is written while someone listens (DESIGN R15)."""

    def listen(self, broker: Broker) -> str:
        """Begin to listen; the position from which to read on."""
        page = broker.events(None, limit=100, wait=timedelta(0))
        assert (page.events, page.reset) == ((), False)
        return page.position

    def after(self, broker: Broker, position: str, wait: timedelta = timedelta(0)) -> EventPage:
        """The events after *position*."""
        return broker.events(position, limit=100, wait=wait)

    def tells_of(self, page: EventPage, name: str) -> bool:
        """Whether an event mentions *name*."""
        return any(name in repr(event.data) for event in page.events)

    def test_what_happened_before_anyone_listened_is_not_told(self, broker: Broker) -> None:
        self.end(broker, completed(self.begin(broker)))
        position = self.listen(broker)
        assert self.after(broker, position).events == ()

    def test_a_listener_is_told_of_outcomes_once(self, broker: Broker, other: Broker) -> None:
        position = self.listen(broker)
        lease = self.begin(other)
        before = broker.now()
        self.end(other, completed(lease))
        page = self.after(broker, position)
        assert self.tells_of(page, lease.job.id)
        assert not page.reset
        assert all(event.kind and before - 60 * SECOND <= event.at <= broker.now() for event in page.events)
        assert self.after(broker, page.position).events == ()
        assert self.tells_of(self.after(other, position), lease.job.id), "another reader at the former position is told as well"

    def test_a_listener_is_told_of_control_actions(self, broker: Broker, other: Broker) -> None:
        position = self.listen(broker)
        other.pause("letters")
        assert self.tells_of(self.after(broker, position), "letters")

    @pytest.mark.parametrize("by", ["lease", "prune"])
    def test_a_listener_is_told_of_jobs_that_expire_without_a_run_once(self, broker: Broker, other: Broker, clock: Clock, by: str) -> None:
        self.needs(clock, 2 * SECOND)
        position = self.listen(broker)
        job_ids = [job.id for job in self.put_all(other, new_jobs(3, expires_in=SECOND))]
        clock.advance(2 * SECOND)
        if by == "lease":
            assert self.take(other, 10) == []
        else:
            other.prune(100)
        other.prune(100)
        told = [(job["id"], job["state"]) for event in self.after(broker, position).events for job in event.data["jobs"]]
        assert sorted(told) == sorted((job_id, "cancelled") for job_id in job_ids)

    def test_events_are_read_in_order_and_a_page_at_a_time(self, broker: Broker) -> None:
        position = self.listen(broker)
        ids = []
        for _ in range(5):
            lease = self.begin(broker)
            self.end(broker, completed(lease))
            ids.append(lease.job.id)
        all_events = self.after(broker, position).events
        assert [one for event in all_events for one in ids if one in repr(event.data)] == ids
        paged: list[Event] = []
        while (page := broker.events(position, limit=2, wait=timedelta(0))).events:
            assert len(page.events) <= 2
            paged += page.events
            position = page.position
        assert tuple(paged) == all_events
        assert len({event.id for event in paged}) == len(paged)

    def test_the_id_of_an_event_is_a_position_too(self, broker: Broker) -> None:
        position = self.listen(broker)
        first, second = self.begin(broker), self.begin(broker)
        self.end(broker, completed(first))
        events = self.after(broker, position).events
        self.end(broker, completed(second))
        page = self.after(broker, events[-1].id)
        assert self.tells_of(page, second.job.id)
        assert not self.tells_of(page, first.job.id)

    def test_an_event_ends_the_wait(self, broker: Broker, other: Broker) -> None:
        position = self.listen(broker)
        lease = self.begin(other)
        began = time.monotonic()
        with self.thread() as pool:
            waiting = pool.submit(self.after, broker, position, 8 * SECOND)
            self.end(other, completed(lease))
            assert self.tells_of(self.result(waiting), lease.job.id)
        assert time.monotonic() - began < 5

    def test_without_events_the_wait_ends_in_time_and_the_position_holds(self, broker: Broker) -> None:
        position = self.listen(broker)
        began = time.monotonic()
        page = self.after(broker, position, timedelta(milliseconds=200))
        assert 0.19 <= time.monotonic() - began < 3
        assert (page.events, page.reset) == ((), False)
        lease = self.begin(broker)
        self.end(broker, completed(lease))
        assert self.tells_of(self.after(broker, page.position), lease.job.id)

    def test_a_reader_that_was_away_is_told_that_it_has_missed_some(self, broker: Broker, clock: Clock) -> None:
        self.needs(clock, timedelta(minutes=5))
        position = self.listen(broker)
        heard = self.begin(broker)
        self.end(broker, completed(heard))
        position = self.after(broker, position).position
        clock.advance(timedelta(minutes=5))
        missed = self.begin(broker)
        self.end(broker, completed(missed))
        page = self.after(broker, position)
        assert page.reset or self.tells_of(page, missed.job.id)
        after = self.begin(broker)
        self.end(broker, completed(after))
        page = self.after(broker, page.position)
        assert self.tells_of(page, after.job.id)
        assert not page.reset

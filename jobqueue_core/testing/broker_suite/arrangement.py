"""What every part of the suite stands on: the fixtures that a third party overrides, and the steps that tests are written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

import pytest

from jobqueue_core.broker import Broker, JobFilter, QueueStats, Reclaimed
from jobqueue_core.testing.clock import Clock, WaitingClock
from jobqueue_core.testing.factories import new_job

if TYPE_CHECKING:
    from jobqueue_core.attempt import DeadLetter, Execution, Lease, Settlement
    from jobqueue_core.job import Job, JobState, NewJob

__all__ = ["SECOND", "BrokerArrangement", "OpenBroker"]

T = TypeVar("T")

SECOND: Final = timedelta(seconds=1)
_PATIENCE: Final = 10.0
"""Seconds after which a thread of a test is given up."""


class OpenBroker(Protocol):
    """Opens one more broker object on the data of the running test."""

    def __call__(self, *, result_ttl: timedelta = ..., max_pending: int = ...) -> Broker:
        """Open it; the suite closes it. *result_ttl* is as in ``[job]``, *max_pending* as in ``[history]``, and so are their defaults."""


class BrokerArrangement:
    """The fixtures. Override ``open_broker``, and ``clock`` if the broker's clock can be injected."""

    chooses_suspects: ClassVar[bool] = True
    """False for a broker that cannot keep to ``lease(suspects=...)``."""

    one_id_space: ClassVar[bool] = True
    """False for a broker in which an id is known within its queue only."""

    @pytest.fixture
    def clock(self) -> Clock:
        """How time passes for the broker."""
        return WaitingClock()

    @pytest.fixture
    def open_broker(self) -> OpenBroker:
        """Override it: a callable that opens a broker object. All it opens in one test work on the same data, which no other test sees."""
        pytest.fail(f"{type(self).__name__} must override the fixture 'open_broker' to say what is tested")

    @pytest.fixture
    def connect(self, open_broker: OpenBroker) -> Iterator[OpenBroker]:
        """``open_broker``, closing at the end of the test what it opened."""
        opened: list[Broker] = []

        def connect(**options: Any) -> Broker:
            opened.append(open_broker(**options))
            return opened[-1]

        yield connect
        for one in reversed(opened):
            one.close()

    @pytest.fixture
    def broker(self, connect: OpenBroker) -> Broker:
        """The broker under test."""
        return connect()

    @pytest.fixture
    def other(self, connect: OpenBroker, broker: Broker) -> Broker:  # noqa: ARG002 - the first is opened first
        """Another object on the same data: what another process would see."""
        return connect()

    # Steps -----------------------------------------------------------------------------------------------------------------------------

    def put(self, broker: Broker, new: NewJob | None = None, **options: Any) -> Job:
        """Enqueue one job, which must be new."""
        (answer,) = broker.enqueue([new or new_job(**options)])
        assert answer.status == "created", answer
        assert answer.job is not None
        return answer.job

    def put_all(self, broker: Broker, jobs: Sequence[NewJob]) -> list[Job]:
        """Enqueue jobs in one call; all must be new."""
        answers = broker.enqueue(jobs)
        assert [one.status for one in answers] == ["created"] * len(jobs)
        return [one.job for one in answers if one.job is not None]

    def take(
        self,
        broker: Broker,
        limit: int = 100,
        *,
        queues: Sequence[str] = ("default",),
        worker_id: str = "worker-1",
        lease_for: timedelta = 30 * SECOND,
        wait: timedelta = timedelta(0),
        suspects: int = 100,
    ) -> list[Lease]:
        """Lease jobs."""
        return broker.lease(queues, limit, worker_id=worker_id, lease_for=lease_for, wait=wait, suspects=suspects)

    def take_one(self, broker: Broker, **options: Any) -> Lease:
        """Lease one job, which must be there."""
        (lease,) = self.take(broker, 1, **options)
        return lease

    def begin(self, broker: Broker, *, worker_id: str = "worker-1", lease_for: timedelta = 30 * SECOND, **options: Any) -> Lease:
        """Enqueue a job and lease it."""
        new = new_job(**options)
        job = self.put(broker, new)
        lease = self.take_one(broker, queues=[new.queue], worker_id=worker_id, lease_for=lease_for)
        assert lease.job.id == job.id
        return lease

    def end(self, broker: Broker, *settlements: Settlement) -> None:
        """Settle; all must be accepted."""
        assert broker.settle(settlements, worker_id="worker-1") == [True] * len(settlements)

    def job(self, broker: Broker, job_id: str) -> Job:
        """The job as the broker knows it."""
        (job,) = broker.get([job_id])
        assert job is not None, f"the broker has forgotten {job_id}"
        return job

    def state(self, broker: Broker, job_id: str) -> JobState:
        """The state of a job."""
        return self.job(broker, job_id).state

    def stats(self, broker: Broker, queue: str = "default") -> QueueStats:
        """One queue in numbers."""
        stats = broker.queue(queue)
        assert stats is not None
        return stats

    def promote(self, broker: Broker, clock: Clock, after: timedelta) -> int:
        """Let time pass, then make all due jobs available."""
        clock.advance(after)
        return broker.promote(1000)

    def lapse(self, broker: Broker, clock: Clock, lease_for: timedelta = SECOND, *, max_crashes: int = 3, limit: int = 100) -> Reclaimed:
        """Let leases of *lease_for* run out and reclaim.

        Time passes in steps, for a broker that takes a step for a jump of its clock reclaims nothing for one lease length.
        """
        for _ in range(3):
            clock.advance(lease_for)
            reclaimed = broker.reclaim(limit, max_crashes=max_crashes)
            if reclaimed != Reclaimed():
                return reclaimed
        return Reclaimed()

    def crashed(self, broker: Broker, count: int, **options: Any) -> list[str]:
        """Enqueue jobs, and have each crash once; their ids."""
        ids = [job.id for job in self.put_all(broker, [new_job(**options) for _ in range(count)])]
        taken = self.take(broker, count, queues=[options.get("queue", "default")], worker_id="doomed")
        assert len(taken) == count
        broker.reclaim_worker("doomed", started=ids, error="killed", max_crashes=10)
        return ids

    def history(self, broker: Broker) -> list[Execution]:
        """The executions in the outbox, oldest first."""
        return list(broker.outbox("history", 10_000).executions)

    def letters(self, broker: Broker) -> list[DeadLetter]:
        """The dead letters in the outbox, oldest first."""
        return list(broker.outbox("dead", 10_000).dead_letters)

    def walk(self, broker: Broker, wanted: JobFilter | None = None, *, limit: int = 50) -> list[Job]:
        """All pages of a listing."""
        found: list[Job] = []
        cursor = None
        while True:
            page = broker.jobs(wanted or JobFilter(), cursor=cursor, limit=limit)
            assert len(page.jobs) <= limit
            found += page.jobs
            if page.next is None:
                return found
            assert page.next != cursor
            cursor = page.next

    def numbers(self, stats: QueueStats) -> dict[str, int]:
        """A queue's counts that are not zero, by name; those of *depth* as ``waiting``."""
        names = ("waiting", "processing", "scheduled", "retrying", "completed", "failed", "dead", "cancelled", "enqueued")
        return {name: getattr(stats, name) for name in names if getattr(stats, name)}

    def everything(self, broker: Broker, ids: Iterable[str]) -> object:
        """All that can be seen of these jobs and all queues, to be compared with what is seen later."""
        ids = list(ids)
        return (
            broker.get(ids),
            [broker.logs(one) for one in ids],
            [(one.name, one.paused, dict(one.depth), self.numbers(one)) for one in broker.queues()],
            self.history(broker),
            self.letters(broker),
        )

    @contextmanager
    def thread(self) -> Iterator[ThreadPoolExecutor]:
        """Threads for calls that wait."""
        with ThreadPoolExecutor(8) as pool:
            yield pool

    def result(self, future: Future[T]) -> T:
        """What a thread's call returned, which must not take for ever."""
        return future.result(timeout=_PATIENCE)

    def needs(self, clock: Clock, duration: timedelta) -> None:
        """Skip the test where so much time cannot pass."""
        if clock.longest is not None and duration > clock.longest:
            pytest.skip(f"needs a clock that can advance by {duration}")

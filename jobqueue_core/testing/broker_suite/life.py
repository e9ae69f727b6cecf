"""Random lives: long walks of every action, in which the broker and a model in memory must agree after each step."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from msgspec.structs import replace

from jobqueue_core.attempt import Cancelled, Completed, Crashed, Dead, ExecutionState, Lease, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.job import DeadReason, Job, JobState, NewJob, Priority
from jobqueue_core.lifecycle import TRANSITIONS, Conclusion, accept, begin, cancel, conclude, crash, give_back, requeue
from jobqueue_core.testing.broker_suite.arrangement import BrokerArrangement
from jobqueue_core.testing.factories import new_job, release, settlement

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.clock import Clock

_QUEUES = ("a", "b")
_MAX_CRASHES = 2
_STEP = timedelta(hours=1)
_DURATION = timedelta(milliseconds=25)
_FRONT = -1
"""The turn of jobs that were given back or reclaimed: before those never started, in no order that the walk relies on."""


class Model:
    """What a broker must know, in memory; the rules are those of the life cycle."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.turns: dict[str, int] = {}
        """Waiting jobs -> when they became ready."""
        self.leases: dict[str, Lease] = {}
        self.paused: set[str] = set()
        self.runs: Counter[ExecutionState] = Counter()
        self.totals: Counter[tuple[str, str]] = Counter()
        self.letters: list[tuple[str, int]] = []
        self._turn = 0

    def put(self, job: Job, *, front: bool = False) -> None:
        """Store the next state of a job."""
        before = self.jobs.get(job.id)
        if before is not None and before.state is not job.state:
            assert job.state in TRANSITIONS[before.state]
        self.jobs[job.id] = job
        self.turns.pop(job.id, None)
        if job.state is JobState.QUEUED:
            self._turn += 1
            self.turns[job.id] = _FRONT if front else self._turn
        if job.state is not JobState.PROCESSING:
            self.leases.pop(job.id, None)
        if job.state.finished:
            self.totals[job.queue, job.state.value] += 1

    def end(self, ended: Conclusion) -> None:
        """Store the end of a run; a job that waits again was given back or reclaimed."""
        self.put(ended.job, front=True)
        if ended.execution is not None:
            self.runs[ended.execution.state] += 1
            if ended.execution.state is ExecutionState.FAILED:
                self.totals[ended.job.queue, "failed"] += 1
        if ended.dead_letter is not None:
            self.letters.append((ended.job.id, ended.job.deaths))

    def holder(self, queue: str, key: str | None) -> Job | None:
        """The unfinished job that holds a unique key."""
        alive = [job for job in self.jobs.values() if job.queue == queue and job.unique_key == key and not job.state.finished]
        return alive[0] if key is not None and alive else None

    def rank(self, job_id: str, queues: tuple[str, ...]) -> tuple[int, int, int]:
        """A waiting job's place in the order of a lease."""
        job = self.jobs[job_id]
        return queues.index(job.queue), job.priority.rank, self.turns[job_id]

    def numbers(self, queue: str) -> dict[str, int]:
        """A queue's counts that are not zero."""
        names = {JobState.QUEUED: "waiting", JobState.PROCESSING: "processing", JobState.SCHEDULED: "scheduled", JobState.RETRYING: "retrying"}
        counts = Counter(names[job.state] for job in self.jobs.values() if job.queue == queue and job.state in names)
        counts.update({name: count for (where, name), count in self.totals.items() if where == queue})
        return dict(counts)


class Walk:
    """One random walk. Each method is one kind of step, taken by the broker and by the model."""

    def __init__(self, suite: BrokerArrangement, brokers: tuple[Broker, ...], clock: Clock, seed: int) -> None:
        self.suite = suite
        self.brokers = brokers
        self.clock = clock
        self.random = random.Random(seed)  # noqa: S311 - a test must be repeatable
        self.model = Model()
        self.count = 0

    @property
    def broker(self) -> Broker:
        """Any of the broker objects."""
        return self.random.choice(self.brokers)

    def delay(self) -> timedelta:
        """A delay that ends within a step of time, and at another instant than all others."""
        self.count += 1
        return timedelta(minutes=20, milliseconds=10 * self.count)

    def pick(self, jobs: list[str], most: int = 3) -> list[str]:
        """Some of *jobs*."""
        return self.random.sample(jobs, min(len(jobs), self.random.randint(1, most)))

    def enqueue(self) -> None:
        """Enqueue a few jobs, some delayed, some unique."""
        chance = self.random.random
        jobs: list[NewJob] = []
        for _ in range(self.random.randint(1, 4)):
            key = self.random.choice(("k1", "k2")) if chance() < 0.2 else None
            delay = self.delay() if chance() < 0.2 else None
            jobs.append(new_job(queue=self.random.choice(_QUEUES), priority=self.random.choice(list(Priority)), delay=delay, unique_key=key))
        broker = self.broker
        for new, answer in zip(jobs, broker.enqueue(jobs), strict=True):
            holder = self.model.holder(new.queue, new.unique_key)
            assert answer.job is not None
            assert (answer.status, answer.job.id) == (("created", new.id) if holder is None else ("existing", holder.id))
            if holder is None:
                self.model.put(accept(new, answer.job.created_at))
                self.model.totals[new.queue, "enqueued"] += 1

    def lease(self) -> None:
        """Lease a few jobs, which must be the most urgent."""
        queues = self.random.choice((("a", "b"), ("b", "a"), ("b", "*")))
        order = ("b", "a") if "*" in queues else queues
        limit, worker = self.random.randint(1, 4), self.random.choice(("worker-1", "worker-2"))
        waiting = [one for one in self.model.turns if self.model.jobs[one].queue not in self.model.paused]
        expected = sorted(self.model.rank(one, order) for one in waiting)[:limit]
        leases = self.suite.take(self.broker, limit, queues=queues, worker_id=worker, lease_for=1000 * _STEP)
        assert [self.model.rank(lease.job.id, order) for lease in leases] == expected
        for lease in leases:
            assert lease.job.started_at is not None
            self.model.put(begin(self.model.jobs[lease.job.id], worker, lease.job.started_at))
            self.model.leases[lease.job.id] = lease

    def outcome(self) -> Outcome:
        """How a run ends."""
        return self.random.choice(
            (
                Completed(result_json=b"1"),
                Completed(),
                Retrying(delay=self.delay(), error="ValueError: no"),
                Snoozed(delay=self.delay()),
                Dead(reason=DeadReason.DISCARDED, error="Discard: no"),
                Cancelled(),
                Returned(),
                Crashed(error="handler process killed by SIGSEGV", max_crashes=2),
            )
        )

    def settle(self) -> None:
        """Settle a few jobs, sometimes twice."""
        broker = self.broker
        settlements = [settlement(self.model.leases[one], self.outcome()) for one in self.pick(list(self.model.leases))]
        for _ in range(self.random.choice((1, 1, 2))):
            assert broker.settle(settlements, worker_id="worker-1") == [True] * len(settlements)
        for one in settlements:
            job = self.model.jobs[one.lease.job.id]
            requested = job.cancel_requested
            self.model.end(conclude(job, one.outcome, now=broker.now(), duration=_DURATION, cancel_requested=requested, max_retries=3))

    def release(self) -> None:
        """Give back a few jobs."""
        broker = self.broker
        delay = self.delay() if self.random.random() < 0.3 else timedelta(0)
        for one in self.pick(list(self.model.leases), 2):
            job = self.model.jobs[one]
            assert broker.release([release(self.model.leases[one], delay=delay)], worker_id="worker-1") == [True]
            self.model.put(give_back(job, now=broker.now(), delay=delay, cancel_requested=job.cancel_requested), front=True)
            delay = delay and self.delay()

    def cancel(self) -> None:
        """Cancel any job."""
        for one in self.pick(list(self.model.jobs), 1):
            job, broker = self.model.jobs[one], self.broker
            answer = broker.cancel(one)
            if job.state.finished:
                assert answer == "finished"
            elif job.state is JobState.PROCESSING:
                assert answer == "requested"
                self.model.jobs[one] = replace(job, cancel_requested=True)
            else:
                assert answer == "cancelled"
                self.model.put(cancel(job, broker.now()))

    def wait(self) -> None:
        """Let all delays end, and promote; then everything delayed is ready in the order of its time."""
        if self.clock.longest is not None and self.clock.longest < _STEP:
            return
        delayed = [job for job in self.model.jobs.values() if job.state in {JobState.SCHEDULED, JobState.RETRYING} and job.scheduled_at is not None]
        self.clock.advance(_STEP)
        assert self.broker.promote(1000) == len(delayed)
        for job in sorted(delayed, key=lambda one: one.scheduled_at or one.created_at):
            self.model.put(replace(job, state=JobState.QUEUED))

    def lose(self) -> None:
        """Lose a worker, which was running some of what it held."""
        broker, worker = self.broker, self.random.choice(("worker-1", "worker-2"))
        held = [one for one in self.model.leases if self.model.jobs[one].worker_id == worker]
        started = self.pick(held) if held else []
        broker.reclaim_worker(worker, started=started, error="killed", max_crashes=_MAX_CRASHES)
        for one in held:
            job = self.model.jobs[one]
            requested = job.cancel_requested
            counted = one in started
            ended = crash(job, now=broker.now(), error="killed", counted=counted, cancel_requested=requested, max_crashes=_MAX_CRASHES)
            self.model.end(ended)

    def pause(self) -> None:
        """Pause or resume a queue that is known."""
        queue = self.random.choice(_QUEUES)
        if queue in self.model.paused:
            self.broker.resume(queue)
            self.model.paused.discard(queue)
        else:
            self.broker.pause(queue)
            self.model.paused.add(queue)

    def requeue(self) -> None:
        """Retry a dead job."""
        for one in self.pick([job.id for job in self.model.jobs.values() if job.state is JobState.DEAD], 1):
            job, broker = self.model.jobs[one], self.broker
            taken = self.model.holder(job.queue, job.unique_key) is not None
            assert broker.requeue(self.suite.job(broker, one)) == ("key_taken" if taken else "requeued")
            if not taken:
                self.model.put(requeue(job, broker.now()))

    def check(self) -> None:
        """The broker knows exactly what the model knows."""
        broker = self.broker
        ids = list(self.model.jobs)
        assert [self.timeless(job) for job in broker.get(ids)] == [self.timeless(self.model.jobs[one]) for one in ids]
        for stats in broker.queues():
            assert self.suite.numbers(stats) == self.model.numbers(stats.name), stats.name
            assert stats.paused == (stats.name in self.model.paused)

    def check_outbox(self) -> None:
        """Each run and each death was recorded once."""
        executions = self.suite.history(self.brokers[0])
        assert Counter(one.state for one in executions) == self.model.runs
        assert len({(one.job_id, one.run) for one in executions}) == len(executions)
        # Of the deaths of one reclaim the broker chooses the order.
        assert sorted((one.job.id, one.job.deaths) for one in self.suite.letters(self.brokers[0])) == sorted(self.model.letters)

    def timeless(self, job: Job | None) -> Job | None:
        """*job* without the instants, which a real server's clock makes its own."""
        return job and replace(
            job, created_at=datetime.min.replace(tzinfo=UTC), started_at=None, completed_at=None, scheduled_at=None, expires_at=None
        )


class LifeContract(BrokerArrangement):
    """The state machine as a whole."""

    steps: ClassVar[int] = 120

    @pytest.mark.parametrize("seed", range(4))
    def test_a_random_life_goes_as_the_model_says(self, broker: Broker, other: Broker, clock: Clock, seed: int) -> None:
        walk = Walk(self, (broker, other), clock, seed)
        often: tuple[Callable[[], None], ...] = (walk.enqueue, walk.lease, walk.lease, walk.settle, walk.settle)
        seldom: tuple[Callable[[], None], ...] = (walk.release, walk.cancel, walk.wait, walk.lose, walk.pause, walk.requeue)
        for _ in range(self.steps):
            step = walk.random.choice(often + seldom)
            step()
            walk.check()
        walk.check_outbox()

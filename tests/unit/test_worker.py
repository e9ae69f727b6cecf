"""The worker as a whole: real broker, real threads; what goes wrong is put in between."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobqueue_core import Discard, Job, JobContext, JobQueue, JobState, Registry, RetryPolicy, Snooze, Worker, handler, lifespan
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.job import DeadReason
from jobqueue_core.observers import Observer, Observers
from jobqueue_core.recorder import Recorder
from jobqueue_core.service import Exit, Stop, StopLevel
from jobqueue_core.testing import ManualClock
from jobqueue_core.worker import WorkerOptions
from jobqueue_core.worker.plan import JobDefaults
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

SECOND = timedelta(seconds=1)


def until(true: Callable[[], object], *, within: float = 10) -> None:
    """Return once *true* answers true; fail after *within* seconds."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.002)


class Wire:
    """A broker behind a wire that can be cut; a hook may stand before any of its methods."""

    def __init__(self, broker: SqliteBroker) -> None:
        self.broker = broker
        self.cut = False
        self.hooks: dict[str, Callable[..., Any]] = {}
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        target = getattr(self.broker, name)
        if name in ("now", "interrupt", "close", "describe"):
            return target

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if self.cut:
                raise BrokerUnavailable("the wire is cut")
            hook = self.hooks.get(name)
            return target(*arguments, **options) if hook is None else hook(target, *arguments, **options)

        return call


class Shop:
    """A queue, and a worker that may be started on it, in this process."""

    def __init__(self, path: Path, clock: ManualClock | None = None) -> None:
        self.broker = SqliteBroker(path, clock=clock)
        self.wire = Wire(self.broker)
        self.storage = SqliteStorage(path)
        self.queue = JobQueue(self.broker, self.storage)
        self.recorder = Recorder(broker=self.broker, storage=self.storage)
        self.stop = Stop()
        self.exits: list[Exit] = []
        self._thread: threading.Thread | None = None

    def worker(
        self, handlers: Iterable[Any] = (), *, observers: Iterable[Observer] = (), defaults: JobDefaults | None = None, **options: Any
    ) -> Worker:
        behind = JobQueue(self.wire, self.storage)  # type: ignore[arg-type]  # by delegation
        settings: dict[str, Any] = {
            "queues": ("*",),
            "concurrency": 4,
            "poll_interval": timedelta(milliseconds=100),
            "upkeep_interval": timedelta(milliseconds=20),
            "shutdown_timeout": 5 * SECOND,
            **options,
        }
        return Worker(
            behind,
            registry=Registry.of(*handlers),
            options=WorkerOptions(**settings),
            observers=Observers(list(observers)),
            defaults=defaults or JobDefaults(retry=RetryPolicy(base="10ms", jitter="none")),
        )

    def start(self, *handlers: Any, **options: Any) -> Worker:
        worker = self.worker(handlers, **options)
        self._thread = threading.Thread(target=lambda: self.exits.append(worker.run(self.stop)), name="worker under test")
        self._thread.start()
        return worker

    def end(self, level: StopLevel = StopLevel.GRACEFUL) -> Exit | None:
        self.stop.request(level)
        return self.join()

    def join(self) -> Exit | None:
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "the worker does not end"
        return self.exits[0] if self.exits else None

    def job(self, job: Job) -> Job:
        found = self.queue.get(job.id)
        assert found is not None
        return found

    def wait(self, job: Job, timeout: str = "10s") -> Job:
        return self.queue.wait(job.id, timeout=timeout)

    def history(self, job: Job) -> list[ExecutionState]:
        self.recorder.record_waiting()
        return [one.state for one in self.storage.job_executions(job.id)]

    def make_suspects(self, count: int, job_type: str) -> list[Job]:
        """Jobs that a worker has crashed with."""
        jobs = [self.queue.enqueue(job_type, number) for number in range(count)]
        leases = self.broker.lease(["default"], count, worker_id="dead", lease_for=30 * SECOND, wait=timedelta(0), suspects=count)
        self.broker.reclaim_worker("dead", started=[lease.job.id for lease in leases], error="SIGKILL", max_crashes=3)
        assert {self.job(job).crashes for job in jobs} == {1}
        return jobs


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "jobqueue.db")
    yield shop
    shop.wire.cut = False
    shop.wire.hooks.clear()
    shop.end(StopLevel.AT_ONCE)
    shop.queue.close()


class Gauge:
    """Counts who is inside, and remembers the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0
        self.most = 0
        self.entered = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.entered += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Gate:
    """Handlers that stay inside until they are let go, of both kinds."""

    def __init__(self, **options: Any) -> None:
        self.open = threading.Event()
        self.inside = Gauge()

        @handler("gate.async", **options)
        async def waiting(payload: Any) -> str:
            with self.inside:
                while not self.open.is_set():
                    await asyncio.sleep(0.005)
            return "through"

        @handler("gate.thread", **options)
        def plain(payload: Any, ctx: JobContext) -> str:
            with self.inside:
                while not self.open.wait(0.005):
                    if ctx.cancelled:
                        raise InterruptedError(ctx.stop_reason)
            return "through"

        self.handlers = (waiting, plain)


@handler("quick")
def quick(payload: Any) -> Any:
    return payload


@handler("quick.async")
async def quick_async(payload: Any) -> Any:
    return payload


BOTH = pytest.mark.parametrize("kind", ["gate.async", "gate.thread"])

# How runs end --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quick", "quick.async"])
def test_a_job_runs_and_its_result_is_kept(shop: Shop, kind: str) -> None:
    shop.start(quick, quick_async)
    job = shop.wait(shop.queue.enqueue(kind, {"a": [1]}))
    assert (job.state, job.result, job.run, job.attempt) == (JobState.COMPLETED, {"a": [1]}, 1, 1)
    assert shop.history(job) == [ExecutionState.COMPLETED]


def test_a_failing_job_is_tried_again_until_it_is_dead_with_one_dead_letter(shop: Shop) -> None:
    @handler("fail", max_retries=2)
    def fail(payload: object, ctx: JobContext) -> None:
        raise ValueError(f"attempt {ctx.attempt}")

    shop.start(fail)
    job = shop.wait(shop.queue.enqueue("fail"))
    assert (job.state, job.dead_reason, job.last_error, job.run, job.deaths) == (
        JobState.DEAD,
        DeadReason.RETRIES_EXHAUSTED,
        "ValueError: attempt 3",
        3,
        1,
    )
    assert shop.history(job) == [ExecutionState.FAILED, ExecutionState.FAILED, ExecutionState.DEAD]
    assert shop.storage.dead_letter(job.id) is not None


@BOTH
def test_a_run_that_takes_too_long_fails_as_a_timeout(shop: Shop, kind: str) -> None:
    shop.start(*Gate(timeout="150ms", max_retries=1).handlers)
    job = shop.wait(shop.queue.enqueue(kind))
    assert (job.state, job.last_error, job.run) == (JobState.DEAD, "TimeoutError: timed out after 150ms", 2)


def test_the_jobs_own_timeout_counts_before_the_handlers(shop: Shop) -> None:
    shop.start(*Gate(timeout="1h").handlers)
    job = shop.wait(shop.queue.enqueue("gate.async", timeout="100ms", max_retries=0))
    assert job.last_error == "TimeoutError: timed out after 100ms"


@BOTH
def test_a_running_job_that_is_cancelled_stops_and_never_runs_again(shop: Shop, kind: str) -> None:
    gate = Gate()
    shop.start(*gate.handlers)
    job = shop.queue.enqueue(kind)
    until(lambda: gate.inside.now)
    assert shop.queue.cancel(job.id).state is JobState.PROCESSING
    assert shop.wait(job).state is JobState.CANCELLED
    assert shop.history(job) == [ExecutionState.CANCELLED]
    assert gate.inside.entered == 1


def test_a_running_job_that_completes_although_it_was_cancelled_stays_completed(shop: Shop) -> None:
    entered = threading.Event()

    @handler("stubborn")
    async def stubborn(payload: object) -> str:
        entered.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "done nevertheless"
        return "slept"

    shop.start(stubborn)
    job = shop.queue.enqueue("stubborn")
    until(entered.is_set)
    shop.queue.cancel(job.id)
    assert (shop.wait(job).state, shop.job(job).result) == (JobState.COMPLETED, "done nevertheless")


def test_a_snooze_spends_a_run_and_no_attempt(shop: Shop) -> None:
    @handler("snooze", max_retries=0)
    async def snooze(payload: object, ctx: JobContext) -> list[int]:
        if ctx.run < 4:
            raise Snooze("5ms")
        return [ctx.run, ctx.attempt]

    shop.start(snooze)
    job = shop.wait(shop.queue.enqueue("snooze"))
    assert (job.state, job.result) == (JobState.COMPLETED, [4, 1])
    assert shop.history(job) == [ExecutionState.SNOOZED] * 3 + [ExecutionState.COMPLETED]


def test_a_discarded_job_is_dead_at_once(shop: Shop) -> None:
    @handler("discard")
    def discard(payload: object) -> None:
        raise Discard("not worth it")

    shop.start(discard)
    job = shop.wait(shop.queue.enqueue("discard"))
    assert (job.state, job.dead_reason, job.run, job.last_error) == (JobState.DEAD, DeadReason.DISCARDED, 1, "Discard: not worth it")


def test_a_payload_that_does_not_fit_is_dead_at_once(shop: Shop) -> None:
    @handler("typed")
    def typed(payload: dict[str, int]) -> None: ...

    shop.start(typed)
    job = shop.wait(shop.queue.enqueue("typed", {"a": "b"}))
    assert (job.state, job.dead_reason, job.run) == (JobState.DEAD, DeadReason.INVALID_PAYLOAD, 1)
    assert (job.last_error or "").startswith("payload")


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException("x"),
        asyncio.CancelledError(),
        Deadly(),
        ValueError("half \ud800"),
        StopIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_handler_raises_the_worker_goes_on(shop: Shop, error: BaseException) -> None:
    @handler("evil", max_retries=0)
    def evil(payload: object) -> None:
        raise error

    @handler("evil.async", max_retries=0)
    async def evil_async(payload: object) -> None:
        raise error

    shop.start(evil, evil_async, quick, quick_async, concurrency=1)
    for name in ("evil", "evil.async"):
        job = shop.wait(shop.queue.enqueue(name))
        assert job.state is JobState.DEAD
        assert "TimeoutError" not in (job.last_error or "")
    for name in ("quick", "quick.async"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED
    assert shop.end() is Exit.OK


def test_a_task_of_a_handler_that_exits_does_not_take_the_event_loop_along(shop: Shop) -> None:
    @handler("careless")
    async def careless(payload: object) -> str:
        async def leave() -> None:
            sys.exit(3)

        task = asyncio.create_task(leave())
        await asyncio.wait([task])
        return type(task.exception()).__name__

    shop.start(careless, quick_async)
    assert shop.wait(shop.queue.enqueue("careless")).result == "SystemExit"
    assert shop.wait(shop.queue.enqueue("quick.async")).state is JobState.COMPLETED


def test_the_next_job_knows_nothing_of_a_cancel_that_the_last_one_swallowed(shop: Shop) -> None:
    @handler("swallow", timeout="50ms")
    async def swallow(payload: object) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return "swallowed"

    @handler("grouped")
    async def grouped(payload: object) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await asyncio.sleep(5)
        except ExceptionGroup:
            return "as it should be"
        return "?"

    shop.start(swallow, grouped, concurrency=1)
    assert shop.wait(shop.queue.enqueue("swallow")).result == "swallowed"
    assert shop.wait(shop.queue.enqueue("grouped")).result == "as it should be"


async def _fail() -> None:
    raise LookupError


def test_a_job_under_a_former_name_is_served(shop: Shop) -> None:
    @handler("new.name", aliases=["old.name"])
    def renamed(payload: object) -> str:
        return "served"

    shop.start(renamed)
    assert shop.wait(shop.queue.enqueue("old.name")).result == "served"


def test_a_dead_letter_retry_runs_once_more(shop: Shop) -> None:
    broken = [True]

    @handler("mend", max_retries=0)
    def mend(payload: object, ctx: JobContext) -> int:
        if broken:
            raise ValueError("broken")
        return ctx.run

    shop.start(mend)
    job = shop.wait(shop.queue.enqueue("mend"))
    shop.recorder.record_waiting()
    broken.clear()
    shop.queue.operations.retry_dead_letter(job.id)
    assert shop.wait(job).result == 2
    assert shop.history(job) == [ExecutionState.DEAD, ExecutionState.COMPLETED]


# What it says while it runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.5, float("nan")])
def test_progress_and_log_lines_are_visible_while_a_job_runs_and_afterwards(shop: Shop, fraction: float, caplog: pytest.LogCaptureFixture) -> None:
    let_go = threading.Event()

    @handler("talk")
    def talk(payload: object, ctx: JobContext) -> None:
        ctx.progress(fraction, "half \ud800")
        ctx.logger.warning("first %s", "\ud800")
        let_go.wait(10)
        ctx.logger.warning("last")

    with caplog.at_level(logging.WARNING, logger="jobqueue.job"):
        shop.start(talk)
        job = shop.queue.enqueue("talk")
        until(lambda: shop.job(job).progress)
        until(lambda: shop.queue.operations.job_logs(job.id))
        assert shop.job(job).state is JobState.PROCESSING
        progress = shop.job(job).progress
        assert progress is not None
        assert (progress.fraction, progress.message) == (0.5 if fraction == 0.5 else 0.0, "half \\ud800")
        let_go.set()
        shop.wait(job)
    assert [(line.run, line.message) for line in shop.queue.operations.job_logs(job.id)] == [(1, "first \\ud800"), (1, "last")]


class Ear(Observer):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def started(self, job: Job) -> None:
        self.heard.append(f"started {job.run}")

    def finished(self, job: Job, outcome: Any, duration: timedelta) -> None:
        self.heard.append(f"finished {job.run} {type(outcome).__name__}")

    def retried(self, job: Job, delay: timedelta, error: str) -> None:
        self.heard.append(f"retried {job.run} {error}")

    def dead(self, job: Job, reason: str, error: str) -> None:
        self.heard.append(f"dead {job.run} {reason}")

    def worker_up(self, worker: Any) -> None:
        self.heard.append("up")

    def worker_down(self, worker: Any) -> None:
        self.heard.append("down")


class Grumbler(Observer):
    def started(self, job: Job) -> None:
        raise LookupError

    finished = retried = dead = worker_up = worker_down = started  # type: ignore[assignment]  # whatever the arguments, it raises


@pytest.mark.parametrize("kind", ["fail", "fail.async"])
def test_observers_hear_of_each_step_and_one_that_raises_changes_nothing(shop: Shop, kind: str) -> None:
    ear = Ear()

    @handler("fail", max_retries=1)
    def fail(payload: object) -> None:
        raise ValueError("no")

    @handler("fail.async", max_retries=1)
    async def fail_async(payload: object) -> None:
        raise ValueError("no")

    shop.start(fail, fail_async, observers=[Grumbler(), ear])
    shop.wait(shop.queue.enqueue(kind))
    assert shop.end() is Exit.OK
    assert ear.heard == [
        "up",
        "started 1",
        "finished 1 Retrying",
        "retried 1 ValueError: no",
        "started 2",
        "finished 2 Dead",
        "dead 2 retries_exhausted",
        "down",
    ]


def test_a_worker_is_listed_with_what_it_serves_and_runs_and_forgotten_when_it_has_stopped(shop: Shop) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers, name="mill")
    until(shop.broker.workers)
    info = shop.broker.workers()[0]
    assert (info.id, info.name, info.concurrency, [one.type for one in info.types]) == (worker.worker_id, "mill", 4, ["gate.async", "gate.thread"])
    shop.end()
    assert shop.broker.workers() == []
    assert {one.type for one in shop.broker.types()} == {"gate.async", "gate.thread"}


def test_retries_and_deaths_are_logged_without_the_payload(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @handler("fail", max_retries=1)
    def fail(payload: object) -> None:
        raise ValueError("no")

    with caplog.at_level(logging.INFO, logger="jobqueue.worker"):
        shop.start(fail)
        job = shop.wait(shop.queue.enqueue("fail", {"password": "secret"}))
        shop.end()
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.__dict__.get("fields", {}).get("job_id") == job.id]
    assert told == [("INFO", "retried"), ("WARNING", "dead")]
    assert not any("secret" in str(record.__dict__) for record in caplog.records)


# How many at once ----------------------------------------------------------------------------------------------------------------------


def test_never_more_handlers_run_at_once_than_the_concurrency_and_all_slots_are_used(shop: Shop) -> None:
    gauge = Gauge()

    @handler("mixed")
    def plain(payload: object) -> None:
        with gauge:
            time.sleep(0.003)

    @handler("mixed.async")
    async def waiting(payload: object) -> None:
        with gauge:
            await asyncio.sleep(0.003)

    jobs = [{"type": kind, "payload": None} for _ in range(60) for kind in ("mixed", "mixed.async")]
    shop.queue.enqueue_many(jobs)
    shop.start(plain, waiting, concurrency=3)
    until(lambda: shop.broker.queues()[0].completed == 120)
    assert (gauge.most, gauge.entered) == (3, 120)


def test_a_limit_of_one_type_is_kept_and_other_types_go_on(shop: Shop) -> None:
    gauge, let_go = Gauge(), threading.Event()

    @handler("limited", concurrency=1)
    def limited(payload: object) -> None:
        with gauge:
            let_go.wait(10)

    @handler("limited.async", concurrency=2)
    async def limited_async(payload: object) -> None:
        with gauge:
            while not let_go.is_set():
                await asyncio.sleep(0.002)

    shop.queue.enqueue_many([{"type": kind} for kind in ("limited", "limited.async") for _ in range(6)])
    shop.start(limited, limited_async, quick, concurrency=8)
    until(lambda: gauge.now == 3)
    assert shop.wait(shop.queue.enqueue("quick")).state is JobState.COMPLETED
    assert gauge.most == 3
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 13)
    assert (gauge.most, gauge.entered) == (3, 12)


def test_two_suspects_never_run_at_once_and_others_go_on_beside_one(shop: Shop) -> None:
    suspects, others = Gauge(), Gauge()

    @handler("suspect")
    async def suspect(payload: int) -> None:
        with suspects:
            until_others = time.monotonic() + 5
            while others.entered < payload * 5 and time.monotonic() < until_others:
                await asyncio.sleep(0.002)

    @handler("other")
    async def other(payload: object) -> None:
        with others:
            await asyncio.sleep(0.001)

    jobs = shop.make_suspects(2, "suspect")
    shop.queue.enqueue_many([{"type": "other"}] * 20)
    shop.start(suspect, other)
    for job in jobs:
        done = shop.wait(job)
        assert (done.state, done.crashes) == (JobState.COMPLETED, 1)
    assert (suspects.most, suspects.entered) == (1, 2)


@pytest.mark.parametrize("kind", ["work", "work.async"])
def test_at_most_twice_the_concurrency_is_started_and_not_settled(shop: Shop, kind: str) -> None:
    started, let_go = Counter[int](), threading.Event()

    @handler("work")
    def work(payload: int) -> None:
        started[payload] += 1
        time.sleep(0.002)

    @handler("work.async")
    async def work_async(payload: int) -> None:
        started[payload] += 1
        await asyncio.sleep(0.002)

    def slow_settle(settle: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        let_go.wait(10)
        return settle(*arguments, **options)

    shop.wire.hooks["settle"] = slow_settle
    shop.queue.enqueue_many([{"type": kind, "payload": number} for number in range(60)])
    shop.start(work, work_async, concurrency=3)
    quiet_since = [time.monotonic(), 0.0]

    def quiet() -> bool:
        if quiet_since[1] != len(started):
            quiet_since[:] = [time.monotonic(), len(started)]
        return len(started) >= 3 and time.monotonic() - quiet_since[0] > 0.3

    until(quiet)
    assert len(started) <= 6
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 60)
    assert set(started.values()) == {1}


def test_slow_jobs_are_not_held_unstarted_while_other_workers_could_run_them(shop: Shop) -> None:
    unstarted: list[int] = []

    @handler("slow")
    async def slow(payload: object) -> None:
        await asyncio.sleep(0.03)

    def look(lease: Callable[..., Any], queues: Any, limit: int, **options: Any) -> Any:
        leases = lease(queues, limit, **options)
        unstarted.append(limit)
        return leases

    shop.wire.hooks["lease"] = look
    shop.queue.enqueue_many([{"type": "slow"}] * 40)
    worker = shop.start(slow, concurrency=4)
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, sum(1 for run in worker._holdings.snapshot() if not run.started_at))
        return shop.broker.queues()[0].completed == 40

    until(done)
    assert max(unstarted) <= 4, "asks for free slots only"
    assert most <= 4


def test_slow_jobs_behind_many_quick_ones_are_not_held_unstarted_either(shop: Shop) -> None:
    let_go = threading.Event()

    @handler("slow")
    async def slow(payload: object) -> None:
        while not let_go.is_set():
            await asyncio.sleep(0.005)

    shop.queue.enqueue_many([{"type": "quick.async"}] * 3_000 + [{"type": "slow"}] * 300)
    worker = shop.start(quick_async, slow, concurrency=4)
    until(lambda: sum(run.plan.spec.type == "slow" and bool(run.started_at) for run in worker._holdings.snapshot()) == 4)
    until(lambda: len(worker._holdings.snapshot()) <= 8, within=2)
    assert {shop.broker.queues()[0].scheduled, shop.broker.queues()[0].retrying} == {0}, "they are ready for other workers"
    let_go.set()
    until(lambda: shop.broker.queues()[0].completed == 3_300)


# A broker that goes away ---------------------------------------------------------------------------------------------------------------


def test_a_broker_that_goes_away_and_comes_back_costs_nothing_but_time(shop: Shop) -> None:
    ran: Counter[int] = Counter()
    gate = threading.Event()

    @handler("count")
    def count(payload: int) -> None:
        gate.wait(10)
        ran[payload] += 1

    @handler("count.async")
    async def count_async(payload: int) -> None:
        ran[payload] += 1
        await asyncio.sleep(0.001)

    jobs = shop.queue.enqueue_many([{"type": "count" if number % 2 else "count.async", "payload": number} for number in range(40)])
    shop.start(count, count_async, concurrency=4)
    until(lambda: ran)
    shop.wire.cut = True
    gate.set()
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] > calls + 2)  # it goes on trying
    assert not shop.exits
    shop.wire.cut = False
    back = time.monotonic()
    for answer in jobs:
        assert answer.job is not None
        job = shop.wait(answer.job)
        assert (job.state, job.run, job.crashes) == (JobState.COMPLETED, 1, 0)
        assert shop.history(job) == [ExecutionState.COMPLETED]
    assert set(ran.values()) == {1}
    assert time.monotonic() - back < 5
    assert shop.end() is Exit.OK


def test_work_is_taken_up_within_two_seconds_of_the_brokers_return(shop: Shop) -> None:
    shop.start(quick)
    until(lambda: shop.wire.calls["lease"])
    shop.wire.cut = True
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] >= calls + 5)
    job = shop.queue.enqueue("quick")
    shop.wire.cut = False
    back = time.monotonic()
    shop.wait(job)
    assert time.monotonic() - back < 2


def test_a_settle_whose_answer_was_lost_is_sent_again_and_counts_once(shop: Shop) -> None:
    lost = [3]

    def lose_answer(settle: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        answer = settle(*arguments, **options)
        if lost[0]:
            lost[0] -= 1
            raise BrokerUnavailable("no answer")
        return answer

    ear = Ear()
    shop.wire.hooks["settle"] = lose_answer
    shop.start(quick, observers=[ear])
    job = shop.wait(shop.queue.enqueue("quick", 1))
    until(lambda: "finished 1 Completed" in ear.heard)
    assert (shop.history(job), lost, ear.heard.count("finished 1 Completed")) == ([ExecutionState.COMPLETED], [0], 1)


def test_nothing_is_started_under_a_lease_that_may_have_passed(shop: Shop) -> None:
    gate = Gate(concurrency=1)
    jobs = [shop.queue.enqueue("gate.async") for _ in range(2)]
    worker = shop.start(*gate.handlers, concurrency=4, lease=SECOND)
    until(lambda: len(worker._holdings.held) == 2 and gate.inside.now == 1)  # one runs, one waits for it to end
    began = time.monotonic()
    shop.wire.cut = True
    until(lambda: time.monotonic() - began > 1.1)
    gate.open.set()
    until(lambda: gate.inside.now == 0)
    calls = shop.wire.calls["lease"]
    until(lambda: shop.wire.calls["lease"] > calls)
    assert gate.inside.entered == 1
    shop.wire.cut = False
    for job in jobs:
        assert shop.wait(job).state is JobState.COMPLETED


def test_a_handler_that_blocks_the_event_loop_for_two_leases_keeps_its_lease(shop: Shop) -> None:
    @handler("block")
    async def block(payload: object, ctx: JobContext) -> int:
        time.sleep(2.1)  # noqa: ASYNC251 - what is tested
        return ctx.run

    shop.start(block, lease=SECOND)
    job = shop.wait(shop.queue.enqueue("block"))
    assert (job.state, job.result, job.crashes, shop.history(job)) == (JobState.COMPLETED, 1, 0, [ExecutionState.COMPLETED])


def test_a_worker_whose_lease_was_taken_changes_nothing_any_more(shop: Shop) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers)
    job = shop.queue.enqueue("gate.thread")
    until(lambda: gate.inside.now)
    shop.wire.hooks["renew"] = lambda renew, *arguments, **options: (_ for _ in ()).throw(BrokerUnavailable("frozen"))
    shop.queue.operations.pause_queue("default")
    shop.broker.reclaim_worker(worker.worker_id, started=[job.id], error="taken for dead", max_crashes=3)
    gate.open.set()
    until(lambda: worker._settler.counts["lost"])
    assert (shop.job(job).state, shop.job(job).crashes, shop.job(job).result) == (JobState.QUEUED, 1, None)
    assert shop.history(job) == [ExecutionState.LOST]


# Types that nobody serves --------------------------------------------------------------------------------------------------------------


def test_a_type_that_nobody_serves_is_put_off_ever_longer_and_is_dead_after_a_day(tmp_path: Path) -> None:
    clock = ManualClock()
    shop = Shop(tmp_path / "jobqueue.db", clock)
    job = shop.queue.enqueue("nobody")
    try:
        shop.start(quick)
        delays = []
        for _ in range(8):
            until(lambda: shop.job(job).state is JobState.SCHEDULED)
            parked = shop.job(job)
            assert (parked.run, parked.attempt, parked.crashes) == (0, 1, 0)
            assert parked.scheduled_at is not None
            delays.append((parked.scheduled_at - clock()).total_seconds())
            clock.advance(parked.scheduled_at - clock())
            until(lambda at=parked.scheduled_at: shop.job(job).scheduled_at != at or shop.job(job).state.finished)
        assert delays == [15, 30, 60, 120, 240, 300, 300, 300]
        until(lambda: shop.job(job).state is JobState.SCHEDULED)
        clock.advance(timedelta(days=1))
        dead = shop.wait(job)
        assert (dead.state, dead.dead_reason, dead.deaths) == (JobState.DEAD, DeadReason.NO_HANDLER, 1)
    finally:
        shop.end(StopLevel.AT_ONCE)
        shop.queue.close()


# Stopping ------------------------------------------------------------------------------------------------------------------------------


@BOTH
def test_what_runs_may_finish_within_the_grace(shop: Shop, kind: str) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers, shutdown_timeout=20 * SECOND)
    job, later = shop.queue.enqueue(kind), shop.queue.enqueue(kind)
    until(lambda: gate.inside.now == 2)
    shop.stop.request()
    # What was asked for before it has noticed may still be started.
    until(lambda: not worker._holdings._starting)
    waiting = shop.queue.enqueue(kind)
    gate.open.set()
    assert shop.join() is Exit.OK
    assert {shop.job(one).state for one in (job, later)} == {JobState.COMPLETED}
    assert (shop.job(waiting).state, shop.job(waiting).run) == (JobState.QUEUED, 0)


@BOTH
@pytest.mark.parametrize(("level", "exit_status"), [(StopLevel.GRACEFUL, Exit.OK), (StopLevel.AT_ONCE, Exit.AT_ONCE)])
def test_what_does_not_finish_is_given_back_without_an_attempt(shop: Shop, kind: str, level: StopLevel, exit_status: Exit) -> None:
    gate = Gate(concurrency=1, max_retries=0)
    worker = shop.start(*gate.handlers, shutdown_timeout=timedelta(milliseconds=100))
    jobs = [shop.queue.enqueue(kind) for _ in range(2)]
    until(lambda: gate.inside.now and len(worker._holdings.held) == 2)
    assert shop.end(level) is exit_status
    running, held = (shop.job(job) for job in jobs)
    assert (running.state, running.run, running.attempt, running.crashes) == (JobState.QUEUED, 1, 1, 0)
    assert shop.history(running) == [ExecutionState.RETURNED]
    assert (held.state, held.run, held.attempt, shop.history(held)) == (JobState.QUEUED, 0, 1, [])


def test_a_handler_that_does_not_end_is_abandoned_at_last_and_its_job_given_back(shop: Shop) -> None:
    entered, let_go = threading.Event(), threading.Event()

    @handler("stuck")
    def stuck(payload: object) -> None:
        entered.set()
        let_go.wait(20)

    shop.start(stuck, shutdown_timeout=timedelta(milliseconds=50))
    job = shop.queue.enqueue("stuck")
    until(entered.is_set)
    try:
        assert shop.end() is Exit.ABANDONED
        assert (shop.job(job).state, shop.job(job).attempt, shop.history(job)) == (JobState.QUEUED, 1, [ExecutionState.RETURNED])
    finally:
        let_go.set()


def test_a_worker_that_stops_while_the_broker_is_away_ends_all_the_same(shop: Shop) -> None:
    shop.start(quick)
    shop.wait(shop.queue.enqueue("quick"))
    shop.wire.cut = True
    assert shop.end() is Exit.OK


def test_a_worker_that_stops_with_outcomes_that_the_broker_does_not_take_says_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    shop.start(*gate.handlers)
    jobs = [shop.queue.enqueue("gate.thread") for _ in range(3)]
    until(lambda: gate.inside.now == 3)
    shop.wire.cut = True
    shop.stop.request()
    gate.open.set()
    assert shop.join() is Exit.ABANDONED
    (line,) = [record for record in caplog.records if record.getMessage().startswith("jobs left behind")]
    assert line.__dict__["fields"]["jobs"] == 3
    assert not [record for record in caplog.records if "refused" in record.getMessage()]
    assert {shop.job(job).state for job in jobs} == {JobState.PROCESSING}, "until their leases end"


@pytest.mark.parametrize("kind", ["stuck", "stuck.async"])
def test_a_handler_that_is_stuck_is_written_off_and_its_slot_replaced(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_core.worker.watchdog._FORCE", 0.1)
    let_go = threading.Event()

    @handler("stuck", timeout="50ms", grace="50ms", max_retries=0)
    def stuck(payload: object) -> None:
        let_go.wait(20)

    @handler("stuck.async", timeout="50ms", grace="50ms", max_retries=0)
    async def stuck_async(payload: object) -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)

    worker = shop.start(stuck, stuck_async, quick, quick_async, concurrency=1)
    job = shop.wait(shop.queue.enqueue(kind))
    assert (job.state, job.last_error) == (JobState.DEAD, "TimeoutError: timed out after 50ms")
    for name in ("quick", "quick.async"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED
    let_go.set()
    until(worker._holdings.idle)
    assert shop.history(job) == [ExecutionState.DEAD], "what it returns in the end is dropped"


def test_after_several_stuck_handlers_the_worker_asks_for_a_fresh_process(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue_core.worker.watchdog._FORCE", 0.02)
    let_go = threading.Event()

    @handler("stuck", timeout="20ms", grace="20ms", max_retries=0)
    def stuck(payload: object) -> None:
        let_go.wait(20)

    shop.start(stuck, shutdown_timeout=SECOND)
    shop.queue.enqueue_many([{"type": "stuck"}] * 5)
    try:
        assert shop.join() in (Exit.RECYCLE, Exit.ABANDONED)
    finally:
        let_go.set()


def test_after_max_jobs_the_worker_asks_for_a_fresh_process_and_leaves_nothing_behind(shop: Shop) -> None:
    shop.queue.enqueue_many([{"type": "quick"}] * 20)
    shop.start(quick, max_jobs=10)
    assert shop.join() is Exit.RECYCLE
    stats = shop.broker.queues()[0]
    assert stats.completed >= 10
    assert (stats.completed + stats.waiting, stats.processing) == (20, 0)


def test_too_much_memory_is_a_reason_to_ask_for_a_fresh_process(shop: Shop) -> None:
    shop.start(quick, max_rss=1)
    assert shop.join() is Exit.RECYCLE


# Lifespans -----------------------------------------------------------------------------------------------------------------------------


def module(**members: object) -> ModuleType:
    made = ModuleType("handlers_under_test")
    vars(made).update(members)
    return made


def test_a_lifespan_is_entered_once_before_the_first_job_and_left_after_the_last(shop: Shop) -> None:
    told: list[str] = []

    @lifespan
    async def resources() -> AsyncIterator[dict[str, int]]:
        told.append("entered")
        yield {"pool": 1}
        told.append("left")

    @handler("plain")
    def plain(payload: object, ctx: JobContext) -> Any:
        told.append("ran")
        return ctx.resources

    @handler("async")
    async def waiting(payload: object, ctx: JobContext) -> Any:
        told.append("ran")
        return ctx.resources

    shop.start(module(resources=resources, plain=plain, waiting=waiting), quick)
    for kind in ("plain", "async", "plain"):
        assert shop.wait(shop.queue.enqueue(kind)).result == {"pool": 1}
    shop.end()
    assert told == ["entered", "ran", "ran", "ran", "left"]


def test_a_lifespan_is_left_in_the_task_that_entered_it(shop: Shop) -> None:
    told: list[object] = []
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    @lifespan
    async def resources() -> AsyncIterator[object]:
        token, task = variable.set(1), asyncio.current_task()
        yield None
        variable.reset(token)
        told.append(asyncio.current_task() is task)

    shop.start(module(resources=resources, quick=quick))
    shop.wait(shop.queue.enqueue("quick"))
    assert shop.end() is Exit.OK
    assert told == [True]


def test_a_lifespan_that_breaks_when_it_is_left_is_heard_and_leaves_no_thread_behind(shop: Shop) -> None:
    @lifespan
    async def resources() -> AsyncIterator[object]:
        yield None
        raise LookupError("cannot close")

    worker = shop.worker([module(resources=resources, quick=quick)])
    stop = Stop()
    threading.Timer(0.05, stop.request).start()
    with pytest.raises(LookupError, match="cannot close"):
        worker.run(stop)
    assert not worker._loop._thread.is_alive()


def test_a_lifespan_that_cannot_be_entered_keeps_the_worker_from_starting(shop: Shop) -> None:
    @lifespan
    async def resources() -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    worker = shop.worker([module(resources=resources, quick=quick)])
    job = shop.queue.enqueue("quick")
    with pytest.raises(LookupError, match="no database"):
        worker.run(Stop())
    assert shop.job(job).state is JobState.QUEUED


# How it is made ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["timeout", "cancel"])
def test_a_plain_handler_that_does_not_look_is_interrupted_after_its_grace_and_may_clean_up(shop: Shop, reason: str) -> None:
    cleaned = threading.Event()

    @handler("endless", timeout="100ms" if reason == "timeout" else "1h", grace="50ms", max_retries=0)
    def endless(payload: object) -> None:
        try:
            while True:
                time.sleep(0.001)
        finally:
            cleaned.set()

    worker = shop.start(endless, quick, concurrency=1, lease=SECOND)
    enqueued = shop.queue.enqueue("endless")
    until(lambda: shop.job(enqueued).state is JobState.PROCESSING)
    if reason == "cancel":
        shop.queue.cancel(enqueued.id)
    job = shop.wait(enqueued)
    assert job.state is (JobState.DEAD if reason == "timeout" else JobState.CANCELLED)
    assert cleaned.is_set()
    # The thread has not been lost: it runs the next.
    assert shop.wait(shop.queue.enqueue("quick")).state is JobState.COMPLETED
    assert not worker._holdings.written_off


def test_a_handler_that_blocks_the_event_loop_is_named_with_its_place(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @handler("blocking")
    async def blocking(payload: object) -> None:
        await asyncio.sleep(0)
        time.sleep(1.6)  # noqa: ASYNC251 - what is warned of

    @handler("waiting")
    async def waiting(payload: object) -> None:
        await asyncio.sleep(2)

    shop.start(blocking, waiting, lease=SECOND)
    others = [shop.queue.enqueue("waiting") for _ in range(2)]
    until(lambda: all(shop.job(one).state is JobState.PROCESSING for one in others))
    job = shop.wait(shop.queue.enqueue("blocking"))
    (record,) = [one for one in caplog.records if one.message.startswith("event loop blocked")]
    assert record.fields["type"] == "blocking"  # type: ignore[attr-defined]  # given by extra
    assert record.fields["job_id"] == job.id  # type: ignore[attr-defined]
    assert "test_worker.py" in record.fields["at"]  # type: ignore[attr-defined]
    assert shop.history(job) == [ExecutionState.COMPLETED], "its lease was kept"


def test_context_variables_that_a_handler_leaves_behind_are_not_found_by_the_next(shop: Shop) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @handler("ctx.thread")
    def in_thread(payload: str) -> str:
        before = tenant.get()
        tenant.set(payload)
        return before

    @handler("ctx.async")
    async def in_loop(payload: str) -> str:
        before = tenant.get()
        tenant.set(payload)
        return before

    shop.start(in_thread, in_loop, concurrency=1)
    for kind in ("ctx.thread", "ctx.async"):
        assert [shop.wait(shop.queue.enqueue(kind, name)).result for name in ("one", "two", "three")] == ["nobody"] * 3


@pytest.mark.parametrize(("call", "thread"), [("lease", "jobqueue-lease"), ("promote", "jobqueue-upkeep"), ("settle", "jobqueue-settle")])
def test_a_worker_breaks_when_one_of_its_threads_does_instead_of_seeming_to_work(shop: Shop, call: str, thread: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a mistake in a broker")

    shop.wire.hooks[call] = broken
    shop.queue.enqueue("quick")
    with pytest.raises(LookupError, match="a mistake in a broker") as raised:
        shop.worker([quick]).run(shop.stop)
    assert raised.value.__notes__ == [f"raised in the thread {thread}"]


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": -1}, {"queues": []}, {"lease": "500ms"}, {"lease": "soon"}, {"shutdown_timeout": "-1s"}],
    ids=str,
)
def test_a_worker_cannot_be_made_in_a_way_in_which_it_would_do_nothing(shop: Shop, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Worker(shop.queue, registry=Registry.of(quick), **options)


def test_a_worker_serves_the_queues_it_is_told_to_and_no_others(shop: Shop) -> None:
    shop.start(quick, queues=("a", "b"))
    here, there = shop.queue.enqueue("quick", queue="b"), shop.queue.enqueue("quick", queue="c")
    shop.wait(here)
    assert shop.job(there).state is JobState.QUEUED


def test_the_workers_queues_are_obeyed_in_their_order_and_priorities_within(shop: Shop) -> None:
    order: list[str] = []

    @handler("note")
    def note(payload: str) -> None:
        order.append(payload)

    for queue in ("low", "high"):
        for priority in ("low", "critical"):
            shop.queue.enqueue("note", f"{queue} {priority}", queue=queue, priority=priority)
    shop.start(note, queues=("high", "low"), concurrency=1)
    until(lambda: len(order) == 4)
    assert order == ["high critical", "high low", "low critical", "low low"]


def test_a_handler_that_keeps_the_event_loop_for_ever_makes_the_worker_ask_for_a_fresh_process(shop: Shop) -> None:
    let_go = threading.Event()

    @handler("greedy", timeout="200ms", max_retries=0)
    async def greedy(payload: object) -> None:
        let_go.wait(60)

    @handler("polite")
    async def polite(payload: object) -> None: ...

    shop.start(greedy, polite, shutdown_timeout=timedelta(milliseconds=100))
    greedy_job = shop.queue.enqueue("greedy")
    until(lambda: shop.job(greedy_job).state is JobState.PROCESSING)
    waiting = [shop.queue.enqueue("polite") for _ in range(10)]
    until(lambda: shop.exits, within=30)
    let_go.set()

    assert shop.exits[0] in (Exit.RECYCLE, Exit.ABANDONED), "the supervisor replaces both"
    assert shop.job(greedy_job).last_error == "TimeoutError: timed out after 200ms"
    assert {shop.job(job).state for job in waiting} == {JobState.QUEUED}


def test_a_handler_that_stops_the_event_loop_stops_nothing_else(shop: Shop) -> None:
    @handler("stopper")
    async def stopper(payload: object) -> None:
        asyncio.get_running_loop().stop()

    @handler("polite")
    async def polite(payload: object) -> None:
        await asyncio.sleep(0.001)

    shop.start(stopper, polite)
    for name in ("stopper", "polite", "stopper", "polite"):
        assert shop.wait(shop.queue.enqueue(name)).state is JobState.COMPLETED

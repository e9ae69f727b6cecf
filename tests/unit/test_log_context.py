"""Which run a log line belongs to: told by any logger used in a handler, by every kind of handler, and by nothing outside of runs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobqueue_core import Job, JobContext, RetryPolicy, Snooze, handler
from jobqueue_core.logs import JsonFormatter
from jobqueue_core.middleware import Next
from jobqueue_core.testing import Harness

LIBRARY = logging.getLogger("acme.client")
FACTS = ("job_id", "type", "queue", "attempt", "run")


class Log:
    """What the library logger's handler has written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonFormatter())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def facts(self, event: str) -> list[tuple[Any, ...]]:
        """The facts in each line of that event, None for those that are missing."""
        return [tuple(line.get(name) for name in FACTS) for line in self.lines if line["event"] == event]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    log = Log()
    monkeypatch.setattr(LIBRARY, "propagate", False)
    monkeypatch.setattr(LIBRARY, "level", logging.DEBUG)
    monkeypatch.setattr(LIBRARY, "handlers", [log.handler])
    LIBRARY.manager._clear_cache()  # type: ignore[attr-defined]  # what was asked of the logger before
    yield log
    LIBRARY.manager._clear_cache()  # type: ignore[attr-defined]  # as above


def facts_of(job: Job, attempt: int = 1, run: int = 1) -> tuple[Any, ...]:
    return job.id, job.type, job.queue, attempt, run


@handler("lines.async", queue="mail")
async def waiting(number: int) -> None:
    LIBRARY.info("begun")
    await asyncio.sleep(0.01)
    LIBRARY.info("line %d", number)


@handler("lines.thread", queue="mail")
def plain(number: int) -> None:
    LIBRARY.info("line %d", number)


@pytest.mark.parametrize("job_type", ["lines.async", "lines.thread"])
def test_a_line_of_any_logger_used_in_a_handler_carries_the_facts_of_its_run(job_type: str, log: Log) -> None:
    with Harness([waiting, plain]) as harness:
        job = harness.run(job_type, 7)
    assert log.facts("line 7") == [facts_of(job)]


@pytest.mark.parametrize("job_type", ["lines.async", "lines.thread"])
def test_handlers_that_run_at_once_do_not_mix_their_lines(job_type: str, log: Log) -> None:
    with Harness([waiting, plain], concurrency=4) as harness:
        jobs = [harness.enqueue(job_type, number) for number in range(20)]
        harness.drain()
    assert [log.facts(f"line {number}") for number in range(20)] == [[facts_of(job)] for job in jobs]


def test_attempt_and_run_are_those_of_each_run(log: Log) -> None:
    @handler("lines.again", max_retries=1, retry=RetryPolicy(base="1ms", jitter="none"))
    def again(ctx: JobContext) -> None:
        LIBRARY.info("tried")
        if ctx.run == 1:
            raise Snooze("1ms")
        raise ValueError("no")

    with Harness([again]) as harness:
        job = harness.run("lines.again")
    assert log.facts("tried") == [facts_of(job, 1, 1), facts_of(job, 1, 2), facts_of(job, 2, 3)]


def test_tasks_and_threads_that_a_handler_starts_by_asyncio_inherit_it(log: Log) -> None:
    @handler("lines.child")
    async def parent() -> None:
        async def child(name: str) -> None:
            LIBRARY.info(name)

        await asyncio.gather(child("child"), asyncio.to_thread(LIBRARY.info, "in a thread"))

    with Harness([parent]) as harness:
        job = harness.run("lines.child")
    assert log.facts("child") == log.facts("in a thread") == [facts_of(job)]


def test_the_payloads_own_code_and_middleware_are_part_of_the_run(log: Log) -> None:
    @handler("lines.around")
    def around() -> None: ...

    async def layer(ctx: JobContext, call_next: Next) -> object:
        LIBRARY.info("before")
        result = await call_next(ctx)
        LIBRARY.info("after")
        return result

    with Harness([around], middleware=[layer]) as harness:
        job = harness.run("lines.around")
    assert log.facts("before") == log.facts("after") == [facts_of(job)]


@pytest.mark.parametrize("payload", [1, "none"])
def test_between_two_runs_of_one_runner_no_line_carries_anything(payload: object, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends well, and one whose payload does not fit and which no handler sees."""
    with Harness([waiting, plain], concurrency=1) as harness:
        books = harness.worker._holdings
        for name in ("take", "swap", "finish"):
            method = getattr(books, name)

            def between(*arguments: Any, method: Any = method) -> Any:
                LIBRARY.info("between")
                return method(*arguments)

            monkeypatch.setattr(books, name, between)
        for job_type in ("lines.async", "lines.thread"):
            harness.run(job_type, payload)
            harness.run(job_type, payload)
    assert set(log.facts("between")) == {(None,) * len(FACTS)}


def test_a_task_that_outlives_its_run_no_longer_speaks_for_it(log: Log) -> None:
    """Such as that of a connection pool, which the first handler to use it has made: its lines would carry that job's id for ever."""
    go_on, done = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[None]] = []

    @handler("lines.pool")
    async def first_user() -> None:
        async def maintain() -> None:
            await asyncio.to_thread(go_on.wait, 10)
            LIBRARY.info("maintained")
            done.set()

        tasks.append(asyncio.create_task(maintain()))
        await asyncio.sleep(0)

    with Harness([first_user]) as harness:
        harness.run("lines.pool")
        go_on.set()
        assert done.wait(10)
    assert log.facts("maintained") == [(None,) * len(FACTS)]


def test_a_thread_of_the_handlers_own_knows_by_the_contexts_logger_only(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    @handler("lines.pool.thread")
    def starts_a_thread(ctx: JobContext) -> None:
        def work() -> None:
            LIBRARY.info("unknown")
            ctx.logger.warning("known")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()

    with Harness([starts_a_thread]) as harness:
        job = harness.run("lines.pool.thread")
    assert log.facts("unknown") == [(None,) * len(FACTS)]
    (record,) = [record for record in caplog.records if record.getMessage() == "known"]
    assert record.__dict__["fields"]["job_id"] == job.id

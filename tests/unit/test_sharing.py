"""Threads that enqueue at once share round trips."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue_core.broker import Enqueued
from jobqueue_core.errors import BrokerUnavailable, InvalidJob, QueueFull
from jobqueue_core.job import Job, JobState, NewJob, Priority, new_job_id
from jobqueue_core.sharing import SharedSend

SECONDS = 10.0


def a_job(type: str = "t", payload: bytes = b"null") -> NewJob:
    return NewJob(id=new_job_id("q"), type=type, payload_json=payload, queue="q", priority=Priority.MEDIUM)


def created(new: NewJob) -> Enqueued:
    job = Job(
        id=new.id,
        type=new.type,
        payload_json=new.payload_json,
        queue=new.queue,
        priority=new.priority,
        state=JobState.QUEUED,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Enqueued(status="created", job=job)


class Line:
    """A way to the broker on which batches can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[NewJob]] = []
        self.free = threading.Event()
        self.free.set()
        self.fail: Callable[[list[NewJob]], Exception | None] = lambda _batch: None
        self.shared = SharedSend(self.send)

    def send(self, batch: list[NewJob]) -> list[Enqueued]:
        self.batches.append(batch)
        assert self.free.wait(SECONDS)
        if (error := self.fail(batch)) is not None:
            raise error
        return [created(one) for one in batch]

    @contextmanager
    def held_up(self) -> Iterator[None]:
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def begun(line: Line, threads: ThreadPoolExecutor, first: NewJob, others: list[NewJob]) -> list[Future[Enqueued]]:
    """*first* under way on a line that is held up, and *others* waiting behind it."""
    futures = [threads.submit(line.shared.submit, first)]
    until(lambda: len(line.batches) == 1)
    for count, job in enumerate(others, 1):
        futures.append(threads.submit(line.shared.submit, job))
        until(lambda count=count: len(line.shared._waiting) == count)
    return futures


def test_who_comes_alone_is_sent_at_once(line: Line) -> None:
    job = a_job()
    assert line.shared.submit(job).job.id == job.id
    assert line.batches == [[job]]


def test_those_who_come_meanwhile_go_together_in_the_order_in_which_they_came(line: Line, threads: ThreadPoolExecutor) -> None:
    first, others = a_job(), [a_job() for _ in range(5)]
    with line.held_up():
        futures = begun(line, threads, first, others)
    assert [future.result(SECONDS).job.id for future in futures] == [job.id for job in (first, *others)]
    assert line.batches == [[first], others]


def test_a_batch_has_a_bound_in_jobs_and_in_bytes(line: Line, threads: ThreadPoolExecutor) -> None:
    first, large = a_job(), [a_job(payload=b'"' + b"x" * 400_000 + b'"') for _ in range(5)]
    with line.held_up():
        futures = begun(line, threads, first, large)
    assert {future.result(SECONDS).status for future in futures} == {"created"}
    assert [len(batch) for batch in line.batches] == [1, 2, 2, 1]


@pytest.mark.parametrize("error", [BrokerUnavailable("away", maybe_accepted=False), BrokerUnavailable("away"), QueueFull("full")])
def test_what_the_broker_fails_with_each_of_a_batch_is_told_in_an_error_of_its_own(line: Line, threads: ThreadPoolExecutor, error: Exception) -> None:
    with line.held_up():
        futures = begun(line, threads, a_job(), [a_job() for _ in range(3)])
        line.fail = lambda _batch: error
    told = [future.exception(SECONDS) for future in futures]
    assert [(type(one), str(one)) for one in told] == [(type(error), str(error))] * 4
    assert [getattr(one, "maybe_accepted", None) for one in told] == [getattr(error, "maybe_accepted", None)] * 4
    assert len({id(one) for one in told}) == 4


def test_a_job_that_cannot_be_sent_does_not_harm_its_neighbours(line: Line, threads: ThreadPoolExecutor) -> None:
    line.fail = lambda batch: InvalidJob("type", "is bad") if any(job.type == "bad" for job in batch) else None
    with line.held_up():
        futures = begun(line, threads, a_job(), [a_job(), a_job("bad"), a_job()])
    assert [type(future.exception(SECONDS)) for future in futures] == [type(None), type(None), InvalidJob, type(None)]


def test_after_a_failure_the_next_is_sent_as_if_nothing_had_been(line: Line) -> None:
    line.fail = lambda _batch: BrokerUnavailable("away")
    with pytest.raises(BrokerUnavailable):
        line.shared.submit(a_job())
    line.fail = lambda _batch: None
    assert line.shared.submit(a_job()).status == "created"


def test_a_slow_broker_delays_nobody_by_the_batch_before(line: Line, threads: ThreadPoolExecutor) -> None:
    with line.held_up():
        futures = [threads.submit(line.shared.submit, a_job())]
        until(lambda: len(line.batches) == 1)
        futures.append(threads.submit(line.shared.submit, a_job()))
        # The first batch never comes back while it is held up: the second job goes alone.
        until(lambda: len(line.batches) == 2)
    assert {future.result(SECONDS).status for future in futures} == {"created"}
    assert [len(batch) for batch in line.batches] == [1, 1]


def test_each_is_sent_exactly_once_however_many_threads_there_are(line: Line, threads: ThreadPoolExecutor) -> None:
    jobs = [a_job() for _ in range(2_000)]
    answers = list(threads.map(line.shared.submit, jobs, timeout=60))
    assert [answer.job.id for answer in answers if answer.job] == [job.id for job in jobs]
    assert sorted(job.id for batch in line.batches for job in batch) == sorted(job.id for job in jobs)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_amid_a_batch_sends_its_own(line: Line, threads: ThreadPoolExecutor) -> None:
    with line.held_up():
        future = threads.submit(line.shared.submit, a_job())
        until(lambda: len(line.batches) == 1)
        pid = os.fork()
        if pid == 0:
            line.free.set()
            began = time.monotonic()
            ok = line.shared.submit(a_job()).status == "created" and time.monotonic() - began < 0.2
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert future.result(SECONDS).status == "created"


class Interrupted(BaseException):
    """What a signal's handler raises."""


def test_a_thread_that_is_interrupted_while_it_waits_is_missed_by_nobody(
    line: Line, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, interrupted, other = a_job(), a_job(), a_job()
    wait = SharedSend._wait

    def interrupting(shared: SharedSend, entry: Any) -> bool:
        if entry.job is interrupted:
            raise Interrupted
        return wait(shared, entry)

    monkeypatch.setattr(SharedSend, "_wait", interrupting)
    with line.held_up():
        futures = [threads.submit(line.shared.submit, first)]
        until(lambda: len(line.batches) == 1)
        with pytest.raises(Interrupted):
            line.shared.submit(interrupted)
        futures.append(threads.submit(line.shared.submit, other))
        until(lambda: len(line.shared._waiting) == 1)
    assert [future.result(SECONDS).status for future in futures] == ["created"] * 2
    assert line.batches == [[first], [other]]
    assert line.shared.submit(a_job()).status == "created"


def test_a_thread_that_is_interrupted_when_it_is_to_send_leaves_the_others_to_themselves(
    line: Line, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = a_job(), a_job()
    lead = SharedSend._lead

    def interrupting(shared: SharedSend, batch: Any) -> None:
        if batch[0].job is leader:
            raise Interrupted
        lead(shared, batch)

    monkeypatch.setattr(SharedSend, "_lead", interrupting)
    with line.held_up():
        futures = begun(line, threads, a_job(), [leader, follower])
    assert isinstance(futures[1].exception(SECONDS), Interrupted)
    assert [futures[index].result(SECONDS).status for index in (0, 2)] == ["created"] * 2
    began = time.monotonic()
    assert line.shared.submit(a_job()).status == "created"
    assert time.monotonic() - began < 0.2


def test_a_thread_that_is_interrupted_amid_sending_leaves_the_others_to_themselves(line: Line, threads: ThreadPoolExecutor) -> None:
    leader, follower = a_job(), a_job()

    def fail(batch: list[NewJob]) -> Exception | None:
        if len(batch) == 2:
            raise Interrupted
        return None

    line.fail = fail
    with line.held_up():
        futures = begun(line, threads, a_job(), [leader, follower])
    assert isinstance(futures[1].exception(SECONDS), Interrupted)
    assert [futures[index].result(SECONDS).status for index in (0, 2)] == ["created"] * 2
    assert line.shared.submit(a_job()).status == "created"

"""Observers are told of what has happened and can change nothing."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue_core import Job, JobQueue, JobState, Priority
from jobqueue_core.observers import Observer, Observers

JOB = Job(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    type="t",
    payload_json=b"{}",
    queue="default",
    priority=Priority.MEDIUM,
    state=JobState.QUEUED,
    created_at=datetime(2030, 1, 1, tzinfo=UTC),
)
NAMES = ("enqueued", "started", "finished", "retried", "dead", "worker_up", "worker_down")


class Deaf(Observer):
    """Overrides nothing."""


class Listener(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def enqueued(self, job: Job) -> None:
        self.heard.append(("enqueued", job.id))

    def dead(self, job: Job, reason: str, error: str) -> None:
        self.heard.append(("dead", job.id, reason, error))


class Broken(Observer):
    def enqueued(self, job: Job) -> None:
        raise LookupError("observer")


@pytest.mark.parametrize("observers", [[], [Deaf()], [Observer(), Deaf()]])
def test_what_nobody_listens_to_costs_nothing(observers: list[Observer]) -> None:
    assert [getattr(Observers(observers), name) for name in NAMES] == [None] * len(NAMES)


def test_only_methods_that_are_overridden_are_called() -> None:
    listener = Listener()
    observers = Observers([Deaf(), listener])
    assert observers.finished is None
    assert observers.dead is not None
    observers.dead(JOB, "discarded", "no")
    assert listener.heard == [("dead", JOB.id, "discarded", "no")]


def test_one_that_raises_keeps_the_others_from_nothing_and_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    first, last = Listener(), Listener()
    observers = Observers([first, Broken(), last])
    assert observers.enqueued is not None
    with caplog.at_level(logging.ERROR, logger="jobqueue.observers"):
        for _ in range(3):
            observers.enqueued(JOB)
    assert (len(first.heard), len(last.heard), observers.errors) == (3, 3, 3)
    assert len(caplog.records) == 1
    assert "Broken.enqueued" in caplog.text


def test_an_observer_that_raises_does_not_change_an_enqueue() -> None:
    queue = JobQueue(JobQueue.recording().broker, observers=Observers([Broken()]))
    assert queue.enqueue("t").state is JobState.QUEUED


@pytest.mark.parametrize("error", [SystemExit("observer"), GeneratorExit(), KeyboardInterrupt()])
def test_one_that_tries_to_end_the_process_ends_nothing(error: BaseException) -> None:
    class Quitter(Observer):
        def started(self, job: Job) -> None:
            raise error

    observers = Observers([Quitter()])
    escaped: list[BaseException] = []

    def tell() -> None:
        try:
            assert observers.started is not None
            observers.started(JOB)
        except BaseException as one:  # noqa: BLE001 - it is what is looked for
            escaped.append(one)

    # As in a worker, whose observers are told in threads.
    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()
    assert escaped == []
    assert observers.errors == 1

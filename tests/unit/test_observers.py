"""Observers are told of what has happened and can change nothing."""

from __future__ import annotations

import functools
import signal
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from jobqueue_core import Job, JobQueue, JobState, Priority
from jobqueue_core import observers as observers_module
from jobqueue_core.observers import Observer, Observers, misfit

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


def reports(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    """Which observers the log has named, and how many errors of theirs."""
    fields = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "observer raised"]
    return [(one["observer"], one["errors"]) for one in fields]


def test_one_that_raises_keeps_the_others_from_nothing_and_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(observers_module, "time", SimpleNamespace(monotonic=lambda: now))
    first, last = Listener(), Listener()
    observers = Observers([first, Broken(), last])
    assert observers.enqueued is not None
    for _ in range(3):
        observers.enqueued(JOB)
    assert (len(first.heard), len(last.heard), observers.errors) == (3, 3, 3)
    assert reports(caplog) == [("Broken.enqueued", 1)]
    assert "LookupError: observer" in caplog.text
    now += 59
    observers.enqueued(JOB)
    now += 1
    observers.enqueued(JOB)
    assert reports(caplog) == [("Broken.enqueued", 1), ("Broken.enqueued", 4)]


def test_one_that_raises_all_the_time_does_not_hide_another(caplog: pytest.LogCaptureFixture) -> None:
    class AlsoBroken(Observer):
        def dead(self, job: Job, reason: str, error: str) -> None:
            raise LookupError("another")

    observers = Observers([Broken(), AlsoBroken()])
    assert observers.enqueued is not None
    assert observers.dead is not None
    observers.enqueued(JOB)
    observers.enqueued(JOB)
    observers.dead(JOB, "discarded", "no")
    assert [(name.split(".")[-2:], errors) for name, errors in reports(caplog)] == [(["Broken", "enqueued"], 1), (["AlsoBroken", "dead"], 1)]


def test_one_whose_method_has_no_name_is_reported_too(caplog: pytest.LogCaptureFixture) -> None:
    class Strange(Observer):
        enqueued = functools.partial(int, "x")  # type: ignore[assignment]  # as a clever library might

    observers = Observers([Strange()])
    assert observers.enqueued is not None
    observers.enqueued(JOB)
    assert len(reports(caplog)) == observers.errors == 1


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


def test_control_c_at_a_terminal_is_nobodys_error_and_goes_through() -> None:
    class Interrupted(Observer):
        def enqueued(self, job: Job) -> None:
            signal.raise_signal(signal.SIGINT)

    observers = Observers([Interrupted()])
    assert observers.enqueued is not None
    with pytest.raises(KeyboardInterrupt):
        observers.enqueued(JOB)
    assert observers.errors == 0


def test_where_control_c_is_handled_otherwise_a_keyboard_interrupt_is_the_observers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker, whose main thread tells of its coming and going."""

    class Interrupted(Observer):
        def enqueued(self, job: Job) -> None:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        observers = Observers([Interrupted()])
        assert observers.enqueued is not None
        observers.enqueued(JOB)
    finally:
        signal.signal(signal.SIGINT, before)
    assert observers.errors == 1


class Asynchronous(Observer):
    async def dead(self, job: Job, reason: str, error: str) -> None: ...  # type: ignore[override]  # the mistake


class Forgetful(Observer):
    def finished(self, job: Job, outcome: Any) -> None: ...  # type: ignore[override]  # the mistake


class Right(Observer):
    def finished(self, *facts: object, **more: object) -> None: ...

    @staticmethod
    def started(job: Job) -> None: ...

    def worker_up(self, worker: object, more: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("observer", "cause"),
    [
        (Asynchronous(), "Asynchronous.dead is asynchronous, and observers are called, not awaited: make it a plain 'def'"),
        (Forgetful(), "Forgetful.finished takes (job: 'Job', outcome: 'Any') -> 'None', and is called with (job, outcome, duration)"),
        (Right(), None),
        (Deaf(), None),
    ],
)
def test_a_method_that_cannot_be_told_things_is_known_before(observer: Observer, cause: str | None) -> None:
    assert misfit(observer) == cause

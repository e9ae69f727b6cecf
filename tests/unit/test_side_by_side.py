"""Services that share a process: each ends when the other does, and what one broke of is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobqueue_core.errors import StorageUnavailable
from jobqueue_core.plugins import Plugins
from jobqueue_core.service import Exit, Service, ServicePlugin, Stop, StopLevel
from jobqueue_core.supervision.child import open_service
from jobqueue_core.supervision.sidebyside import Companion, run_with

SOON = 5.0
"""Seconds within which everything here has long happened."""


class Beside:
    """A service that notes what happens to it; *then* is done while it runs."""

    def __init__(self, then: Callable[[Stop], object] = lambda stop: stop.wait(SOON)) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None
        self.told = StopLevel.RUN
        self._then = then

    def run(self, stop: Stop) -> Exit:
        self.thread = threading.current_thread()
        self.started.set()
        try:
            self._then(stop)
        finally:
            self.told = stop.level
            self.ended.set()
        return Exit.OK


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: object) -> None:
        raise error

    return fail


def until_told(stop: Stop, status: Exit = Exit.OK) -> Callable[[], Exit]:
    """A main service that runs until it is told to stop."""

    def main() -> Exit:
        assert stop.wait(SOON), "nobody told it to stop"
        return status

    return main


def beside(service: Service, stop: Stop, name: str = "cron") -> Companion:
    return Companion(name, lambda: service, stop)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Any:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) - before == set()


# In order ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Exit))
def test_the_status_is_that_of_the_main_service(status: Exit) -> None:
    stop = Stop()
    assert run_with([], lambda: status, stop) is status
    stop = Stop()
    assert run_with([beside(Beside(), stop)], lambda: status, stop) is status


def test_a_companion_runs_beside_the_main_service_in_a_thread_that_bears_its_name() -> None:
    stop, one, other = Stop(), Beside(), Beside()
    here = threading.current_thread()
    ran_in: list[threading.Thread] = []

    def main() -> Exit:
        assert one.started.wait(SOON)
        assert other.started.wait(SOON)
        ran_in.append(threading.current_thread())
        return Exit.OK

    run_with([beside(one, stop, "cron"), beside(other, stop, "other")], main, stop)
    assert ran_in == [here]
    assert one.thread is not None
    assert other.thread is not None
    assert [one.thread.name, other.thread.name] == ["jobqueue-cron", "jobqueue-other"]


@pytest.mark.parametrize("level", [StopLevel.GRACEFUL, StopLevel.AT_ONCE])
def test_both_are_told_to_stop_and_waited_for(level: StopLevel) -> None:
    stop, service = Stop(), Beside()
    timer = threading.Thread(target=lambda: (service.started.wait(SOON), stop.request(level)))
    timer.start()
    assert run_with([beside(service, stop)], until_told(stop), stop) == Exit.OK
    timer.join()
    assert service.ended.is_set()
    assert service.told == level


def test_when_the_main_service_ends_by_itself_its_companions_are_told_and_waited_for() -> None:
    stop, one, other = Stop(), Beside(), Beside()
    assert run_with([beside(one, stop), beside(other, stop)], lambda: Exit.RECYCLE, stop) == Exit.RECYCLE
    assert (one.ended.is_set(), other.ended.is_set()) == (True, True)
    assert stop.level == StopLevel.GRACEFUL


# What breaks ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("broke"), SystemExit(3), KeyboardInterrupt(), MemoryError(), StorageUnavailable("away")], ids=repr)
def test_a_companion_that_breaks_stops_the_main_service_and_its_error_is_raised(error: BaseException) -> None:
    stop, other = Stop(), Beside()
    with pytest.raises(type(error)) as caught:
        run_with([beside(other, stop), beside(Beside(raising(error)), stop)], until_told(stop), stop)
    assert caught.value is error
    assert other.ended.is_set()


def test_one_that_cannot_even_be_opened_does_the_same() -> None:
    stop, error = Stop(), RuntimeError("no such")
    with pytest.raises(RuntimeError) as caught:
        run_with([Companion("cron", raising(error), stop)], until_told(stop), stop)
    assert caught.value is error


def test_what_the_main_service_raises_is_raised_when_its_companions_have_ended() -> None:
    stop, service, error = Stop(), Beside(), RuntimeError("main")

    def main() -> Exit:
        assert service.started.wait(SOON)
        raise error

    with pytest.raises(RuntimeError) as caught:
        run_with([beside(service, stop)], main, stop)
    assert caught.value is error
    assert service.ended.is_set()


def test_of_two_errors_the_main_services_is_raised() -> None:
    stop, error = Stop(), RuntimeError("main")

    def main() -> Exit:
        assert stop.wait(SOON)
        raise error

    with pytest.raises(RuntimeError, match="main"):
        run_with([beside(Beside(raising(ValueError("beside"))), stop)], main, stop)


def test_a_companion_that_breaks_while_it_stops_is_told_of_too() -> None:
    stop, error = Stop(), ValueError("late")

    def breaks(stop: Stop) -> None:
        stop.wait(SOON)
        raise error

    with pytest.raises(ValueError, match="late"):
        run_with([beside(Beside(breaks), stop)], lambda: Exit.OK, stop)


def test_of_two_companions_that_break_the_first_is_told_of() -> None:
    stop = Stop()
    companions = [beside(Beside(raising(ValueError(which))), stop) for which in ("first", "second")]
    with pytest.raises(ValueError, match="first"):
        run_with(companions, until_told(stop), stop)


def test_a_thread_that_cannot_be_started_ends_those_that_were() -> None:
    stop, service = Stop(), Beside()
    started = beside(service, stop)
    with pytest.raises(RuntimeError, match="thread"):
        # The same again: as little as a thread too many can it be started.
        run_with([started, started], until_told(stop), stop)
    ended = service.ended.wait(SOON / 5)
    stop.request()  # so that the test ends
    started.join()
    assert ended, "what was started is told to stop"


def test_a_companion_that_ends_by_itself_ends_the_main_service() -> None:
    stop = Stop()
    assert run_with([beside(Beside(lambda _stop: None), stop)], until_told(stop), stop) == Exit.OK


# What is waited for --------------------------------------------------------------------------------------------------------------------


def waiting_for(answers: threading.Event, service: Service) -> ServicePlugin:
    """A role whose storage is away until *answers* is set."""

    def open_it(_app: object) -> Service:
        if not answers.is_set():
            raise StorageUnavailable("away")
        return service

    return ServicePlugin(name="cron", summary="", open=open_it, internal=True, within="scheduler")


def test_a_companion_that_waits_for_storage_does_not_hold_up_the_main_service() -> None:
    stop, answers, service = Stop(), threading.Event(), Beside()
    plugin = waiting_for(answers, service)
    ran: list[bool] = []

    def main() -> Exit:
        ran.append(service.started.is_set())
        answers.set()
        assert service.started.wait(SOON)
        return Exit.OK

    nobody: Any = None
    run_with([Companion("cron", lambda: open_service(nobody, plugin, stop), stop)], main, stop)
    assert ran == [False]
    assert service.ended.is_set()


def test_one_that_waits_for_storage_ends_when_it_is_told() -> None:
    stop, service = Stop(), Beside()
    plugin = waiting_for(threading.Event(), service)
    nobody: Any = None
    began = time.monotonic()
    assert run_with([Companion("cron", lambda: open_service(nobody, plugin, stop), stop)], lambda: Exit.OK, stop) == Exit.OK
    assert time.monotonic() - began < SOON
    assert not service.started.is_set()


# In a scheduler ------------------------------------------------------------------------------------------------------------------------


def test_the_ticks_of_schedules_fire_within_the_scheduler() -> None:
    within = {name: one.within for name, one in Plugins.load().services().items() if one.within is not None}
    assert within == {"cron": "scheduler"}
    assert Plugins.load().services()["cron"].internal


@pytest.mark.parametrize("breaks", [True, False])
def test_a_companion_that_hangs_does_not_keep_the_process_from_ending(caplog: pytest.LogCaptureFixture, breaks: bool) -> None:
    let_go = threading.Event()
    stop, service = Stop(), Beside(lambda _stop: let_go.wait(SOON))
    companion = beside(service, stop)
    try:
        if breaks:
            with pytest.raises(ValueError, match="broken"):
                run_with([companion], raising(ValueError("broken")), stop, patience=timedelta(milliseconds=50))
        else:
            assert run_with([companion], lambda: Exit.OK, stop, patience=timedelta(milliseconds=50)) is Exit.OK
        assert not service.ended.is_set()
        assert "does not end" in caplog.text
    finally:
        let_go.set()
        companion.join(SOON)

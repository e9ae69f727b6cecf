"""Ending plain Python code in another thread: it ends there, and nowhere else."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from jobqueue_core import Interrupted, JobContext
from jobqueue_core.testing.factories import dead_job
from jobqueue_core.worker.interrupting import interrupt, interruptible
from jobqueue_core.worker.tuning import tuned


class Thread(threading.Thread):
    """Runs *call* interruptibly, and remembers what became of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.context = JobContext(dead_job())
        self.began = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None
        self.after = 0
        self._call = call

    def run(self) -> None:
        try:
            self.result = interruptible(self.context, self._inner, None)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error
        # Whatever is still to come up would come up here.
        for _ in range(1000):
            self.after += 1

    def _inner(self, _payload: object, _context: JobContext) -> object:
        self.began.set()
        return self._call()


def for_ever() -> None:
    while True:
        pass


def test_an_endless_loop_ends() -> None:
    thread = Thread(for_ever)
    thread.start()
    thread.began.wait(5)
    assert interrupt(thread.context)
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(thread.error, Interrupted)


def test_what_the_code_has_to_clean_up_is_cleaned_up() -> None:
    cleaned = threading.Event()

    def careful() -> None:
        try:
            for_ever()
        finally:
            cleaned.set()

    thread = Thread(careful)
    thread.start()
    thread.began.wait(5)
    interrupt(thread.context)
    thread.join(5)
    assert cleaned.is_set()


def test_code_that_waits_in_c_ends_when_that_returns() -> None:
    gate = threading.Lock()
    gate.acquire()

    def waiting() -> None:
        gate.acquire()
        for_ever()

    thread = Thread(waiting)
    thread.start()
    thread.began.wait(5)
    assert interrupt(thread.context)
    gate.release()
    thread.join(5)
    assert isinstance(thread.error, Interrupted)


def test_a_thread_that_is_in_no_handler_is_left_alone() -> None:
    thread = Thread(lambda: 1)
    interrupt(thread.context)
    thread.start()
    thread.join(5)
    interrupt(thread.context)
    assert (thread.result, thread.error) == (1, None)


def test_it_comes_up_once_however_often_it_is_asked_for() -> None:
    caught = []

    def stubborn() -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not caught:
            try:
                for_ever()
            except Interrupted as error:
                caught.append(error)

    thread = Thread(stubborn)
    thread.start()
    thread.began.wait(5)
    for _ in range(3):
        assert interrupt(thread.context)
    thread.join(5)
    assert len(caught) == 1
    assert thread.error is None


def test_only_the_thread_meant_is_interrupted() -> None:
    stop = threading.Event()

    def until_told() -> str:
        while not stop.is_set():
            pass
        return "untouched"

    meant, other = Thread(for_ever), Thread(until_told)
    meant.start()
    other.start()
    meant.began.wait(5)
    other.began.wait(5)
    interrupt(meant.context)
    meant.join(5)
    stop.set()
    other.join(5)
    assert (other.result, other.error) == ("untouched", None)


@pytest.mark.usefixtures("switching_as_in_a_worker")
def test_a_handler_that_logs_all_the_time_never_takes_the_locks_of_the_log_along() -> None:
    """``logging`` takes its locks by ``acquire()``: cut off right after that, it would never release them, and the worker never log again."""
    log = logging.getLogger("test_interrupting")
    log.propagate = False
    handler = logging.StreamHandler(io.StringIO())
    log.addHandler(handler)

    def talkative() -> None:
        while True:
            log.warning("again")
            for _ in range(200):
                pass

    for _ in range(20):
        thread = Thread(talkative)
        thread.start()
        thread.began.wait(5)
        until = time.monotonic() + 5
        while not interrupt(thread.context):
            assert time.monotonic() < until
        thread.join(5)
        assert isinstance(thread.error, Interrupted)
        assert handler.lock is not None
        assert handler.lock.acquire(timeout=1)
        handler.lock.release()


@pytest.fixture
def switching_as_in_a_worker() -> object:
    with tuned():
        yield


@pytest.fixture
def often_switching() -> object:
    """Threads that switch as often as they can: every moment is hit at some time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switching")
def test_whenever_it_comes_the_code_after_the_handler_is_never_hit() -> None:
    """The handler returns at about the moment at which it is interrupted: it has then returned, or was interrupted, and nothing comes later."""
    ends = set()
    deadline = time.monotonic() + 60
    for turn in count():
        # How long a handler must be to be hit is the machine's affair.
        spins = turn * 197 % (10_000 * (1 + turn // 400))
        if turn >= 400 and (len(ends) == 2 or time.monotonic() > deadline):
            break

        def short(spins: int = spins) -> str:
            for _ in range(spins):
                pass
            return "returned"

        thread = Thread(short)
        thread.start()
        thread.began.wait(5)
        interrupt(thread.context)
        thread.join(5)
        assert thread.after == 1000
        assert (thread.result == "returned") != isinstance(thread.error, Interrupted)
        ends.add(type(thread.error))
    assert ends == {Interrupted, type(None)}

"""A broker or storage that is away is said to be so at once, and found again soon after it is back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobqueue_api.circuit import Circuit, Guarded
from jobqueue_core.errors import BrokerUnavailable, Conflict, StorageUnavailable

SECONDS = 10.0


class Dependency:
    """A broker that can be away, and slow to be found away."""

    PROTOCOL = 1

    def __init__(self) -> None:
        self.now = 0.0
        self.error: Exception | None = None
        self.asked = 0
        self.pinged = 0
        self.began = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.circuit = Circuit(self.ping, monotonic=lambda: self.now)

    def ping(self) -> None:
        self.pinged += 1
        self.began.set()
        assert self.free.wait(SECONDS)
        if self.error is not None:
            raise self.error

    def ask(self, question: str = "?") -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return f"{question}!"

    def answer(self) -> str:
        return self.circuit.call(self.ask, question="now")

    def goes_away(self, error: Exception | None = None) -> None:
        self.error = error or BrokerUnavailable("gone")
        for _ in range(3):
            with pytest.raises(type(self.error)):
                self.answer()


@pytest.fixture
def dependency() -> Dependency:
    return Dependency()


def test_while_it_answers_everybody_asks_it(dependency: Dependency) -> None:
    assert [dependency.answer() for _ in range(3)] == ["now!"] * 3
    assert (dependency.asked, dependency.pinged) == (3, 0)


@pytest.mark.parametrize("error", [BrokerUnavailable("gone"), StorageUnavailable("gone")])
def test_after_three_failures_nobody_asks_for_a_while_and_all_are_told_the_same(dependency: Dependency, error: Exception) -> None:
    dependency.goes_away(error)
    for _ in range(5):
        with pytest.raises(type(error), match="gone"):
            dependency.answer()
    assert (dependency.asked, dependency.pinged) == (3, 0)


def test_a_request_that_fails_now_and_then_while_others_are_answered_harms_nobody(dependency: Dependency) -> None:
    for _ in range(5):
        for error in (BrokerUnavailable("slow"), BrokerUnavailable("slow"), None):
            dependency.error = error
            if error is None:
                assert dependency.answer() == "now!"
            else:
                with pytest.raises(BrokerUnavailable, match="slow"):
                    dependency.answer()
    assert (dependency.asked, dependency.pinged) == (15, 0)


def test_who_was_told_at_once_knows_that_nothing_was_sent(dependency: Dependency) -> None:
    dependency.goes_away(BrokerUnavailable("no answer came", maybe_accepted=True))
    with pytest.raises(BrokerUnavailable) as caught:
        dependency.answer()
    assert not caught.value.maybe_accepted


def test_a_moment_later_one_finds_out_and_the_others_do_not_wait_for_it(dependency: Dependency) -> None:
    dependency.goes_away()
    dependency.now += 1.1
    dependency.free.clear()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(dependency.answer)
        assert dependency.began.wait(SECONDS)
        with pytest.raises(BrokerUnavailable):
            dependency.answer()
        dependency.error = None
        dependency.free.set()
        assert first.result(SECONDS) == "now!"
    assert (dependency.answer(), dependency.asked, dependency.pinged) == ("now!", 5, 1)


def test_one_that_is_asked_in_vain_is_left_alone_for_another_while(dependency: Dependency) -> None:
    dependency.goes_away()
    for _ in range(3):
        dependency.now += 1.1
        for _again in range(2):
            with pytest.raises(BrokerUnavailable):
                dependency.answer()
    assert (dependency.asked, dependency.pinged) == (3, 3)


def test_an_answer_that_is_an_error_of_another_kind_is_an_answer(dependency: Dependency) -> None:
    dependency.goes_away()
    dependency.now += 1.1
    dependency.error = None
    dependency.circuit.call(lambda: None)
    for error, kind in ((BrokerUnavailable("gone"), BrokerUnavailable), (Conflict("finished", code="finished"), Conflict)) * 3:
        dependency.error = error
        with pytest.raises(kind):
            dependency.answer()
    assert dependency.pinged == 1


def test_what_is_guarded_is_opened_by_the_first_who_asks_and_by_later_ones_while_it_cannot_be(dependency: Dependency) -> None:
    opened: list[Dependency] = []

    def opening() -> Dependency:
        opened.append(dependency)
        if dependency.error is not None:
            raise dependency.error
        return dependency

    guarded = Guarded(opening, lambda part: part.ping())
    assert opened == []
    dependency.error = BrokerUnavailable("gone")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            guarded.ask()
    dependency.error = None
    assert (guarded.ask("a"), guarded.ask(question="b"), guarded.PROTOCOL, hasattr(guarded, "nothing")) == ("a!", "b!", 1, False)
    assert len(opened) == 3


def test_who_waited_for_a_broker_that_could_not_be_opened_knows_that_nothing_was_sent() -> None:
    assert not BrokerUnavailable("away", maybe_accepted=True).again().maybe_accepted
    assert str(StorageUnavailable("away").again()) == "away"

"""The budget of threads that may be held."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobqueue_api.http import held
from jobqueue_api.http.held import Held
from jobqueue_api.http.problems import Refusal


def test_beyond_the_budget_one_is_refused_until_one_is_given_back() -> None:
    budget = Held(2)
    with budget.held(429, "busy", "waits"), budget.held(429, "busy", "waits"):
        with pytest.raises(Refusal) as caught:
            budget.take(429, "busy", "waits")
        assert (caught.value.status, caught.value.code, "Retry-After" in caught.value.headers) == (429, "busy", True)
    budget.take(429, "busy", "waits")


def test_who_comes_a_moment_before_one_is_given_back_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_LEAVING", 30)
    budget = Held(1)
    budget.take(503, "busy", "streams")
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(budget.take, 503, "busy", "streams")
        deadline = time.monotonic() + 10
        while not budget._is_hoped_for:
            assert time.monotonic() < deadline
        budget.give_back()
        assert coming.result(10) is None


def test_only_one_at_a_time_waits_for_that_and_the_others_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_LEAVING", 30)
    budget = Held(1)
    budget.take(503, "busy", "streams")
    first = threading.Thread(target=budget.take, args=(503, "busy", "streams"))
    first.start()
    deadline = time.monotonic() + 10
    while not budget._is_hoped_for:
        assert time.monotonic() < deadline
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(Refusal):
            budget.take(503, "busy", "streams")
    assert time.monotonic() - began < 5
    budget.give_back()
    first.join(10)
    assert not first.is_alive()

"""The one line that a worker says of itself every ten seconds (CONTRACT 11)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from jobqueue_core import Job, RetryPolicy, handler
from jobqueue_core.histogram import Histogram
from jobqueue_core.observers import Observer
from jobqueue_core.testing import Harness


@handler("good")
def good() -> None: ...


@handler("bad", max_retries=1, retry=RetryPolicy(base="1ms", jitter="none"))
async def bad() -> None:
    raise ValueError("no")


@handler("slow")
def slow() -> None:
    time.sleep(0.1)


class Raising(Observer):
    def started(self, job: Job) -> None:
        raise LookupError("observer")


Say = Callable[[Harness, float], list[dict[str, Any]]]


@pytest.fixture
def say(caplog: pytest.LogCaptureFixture) -> Say:
    """Let some seconds pass for the worker's summary; the fields of the lines it has said then."""
    passed = 0.0

    def say(harness: Harness, seconds: float) -> list[dict[str, Any]]:
        nonlocal passed
        passed += seconds
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="jobqueue.worker"):
            harness.worker._summary.log(monotonic() + passed)
        lines = [record for record in caplog.records if record.getMessage() == "summary"]
        assert all(record.levelno == logging.INFO for record in lines)
        return [record.__dict__["fields"] for record in lines]

    return say


def settled(harness: Harness, runs: int) -> None:
    """Wait until so many runs are settled, and counted: a job is seen as finished a moment before."""
    deadline = monotonic() + 10
    while harness.worker._settler.counts.total() < runs:
        assert monotonic() < deadline, "they were not settled in time"
        threading.Event().wait(0.002)


def test_it_counts_what_has_happened_since_the_last_one(say: Say) -> None:
    with Harness([good, bad]) as harness:
        for job_type in ("good", "good", "bad"):
            harness.run(job_type)
        settled(harness, 4)
        (line,) = say(harness, 10)
        assert {name: line[name] for name in ("started", "completed", "failed", "dead")} == {"started": 4, "completed": 2, "failed": 1, "dead": 1}
        assert line["worker"] == harness.worker.worker_id
        assert line["rate"] == pytest.approx(0.4, abs=0.1)
        harness.run("good")
        settled(harness, 5)
        (line,) = say(harness, 10)
        assert {name: line[name] for name in ("started", "completed", "failed", "dead")} == {"started": 1, "completed": 1, "failed": 0, "dead": 0}


def test_it_is_said_once_in_ten_seconds_and_not_at_all_when_nothing_ran(say: Say) -> None:
    with Harness([good]) as harness:
        assert say(harness, 10) == []
        harness.run("good")
        assert say(harness, 9) == []
        assert len(say(harness, 1)) == 1
        assert say(harness, 10) == []


def test_its_p95_is_that_of_all_runs_since_the_last_one(say: Say) -> None:
    with Harness([good, slow]) as harness:
        harness.run("slow")
        (line,) = say(harness, 10)
        assert line["p95_ms"] == pytest.approx(100, rel=0.5)
        for _ in range(30):
            harness.enqueue("good")
        harness.run("slow")
        harness.drain()
        (line,) = say(harness, 10)
        assert line["p95_ms"] < 50


def test_it_is_said_while_handlers_of_new_types_are_measured_for_the_first_time(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the keeper that says it: an error there would end the renewal of leases."""
    with Harness([good]) as harness:
        harness.run("good")
        durations = harness.worker.metrics.durations
        add = Histogram.percentile

        def percentile(self: Histogram, share: float) -> float | None:
            durations[f"type {len(durations)}"] = Histogram({1: 1})
            return add(self, share)

        monkeypatch.setattr(Histogram, "percentile", percentile)
        for number in range(5):
            durations[f"first {number}"] = Histogram({1: 1})
        assert len(say(harness, 10)) == 1


def test_it_tells_how_often_observers_have_raised(say: Say) -> None:
    with Harness([good], observers=[Raising()]) as harness:
        harness.run("good")
        harness.run("good")
        (line,) = say(harness, 10)
        assert line["observer_errors"] == 2
    with Harness([good]) as harness:
        harness.run("good")
        (line,) = say(harness, 10)
        assert "observer_errors" not in line

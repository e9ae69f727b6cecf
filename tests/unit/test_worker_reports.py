"""What a worker reports of its runs: progress and log lines, to observers, and in its own log."""

from __future__ import annotations

import logging
import threading

import pytest
from worker_shop import Ear, Shop, open_shop, until

from jobqueue_core import Job, JobContext, JobState, handler
from jobqueue_core.observers import Observer
from jobqueue_core.service import Exit

shop = pytest.fixture(open_shop)


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

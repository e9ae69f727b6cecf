"""What a worker started by ``jobqueue-run`` writes to its log: the events of jobs, and which run any line of a handler belongs to."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobqueue_core import Job, JobQueue

Start = Callable[..., Any]

HANDLERS = """
import asyncio
import logging

from jobqueue_core import RetryPolicy, handler

library = logging.getLogger("acme.client")


@handler("lines.async")
async def lines_async(payload: dict) -> None:
    await asyncio.sleep(0)
    library.info("a line")


@handler("lines.thread")
def lines_thread(payload: dict) -> None:
    library.info("a line")


@handler("lines.process", isolation="process")
def lines_process(payload: dict) -> None:
    library.info("a line")


@handler("lines.process.async", isolation="process")
async def lines_process_async(payload: dict) -> None:
    await asyncio.sleep(0)
    library.info("a line")


@handler("flaky", max_retries=1, retry=RetryPolicy(base="10ms", jitter="none"))
def flaky(payload: dict) -> None:
    raise ValueError("no")


@handler("unstorable", max_retries=0)
def unstorable(payload: dict) -> object:
    return object()
"""
OBSERVERS = """
from jobqueue_core import hookimpl
from jobqueue_core.observers import Observer


class Interrupting(Observer):
    def worker_up(self, worker):
        raise KeyboardInterrupt

    def finished(self, job, outcome, duration):
        raise SystemExit(9)

    def worker_down(self, worker):
        raise KeyboardInterrupt


@hookimpl
def jobqueue_observers():
    return [Interrupting()]
"""
MIDDLEWARE = """
from jobqueue_core import hookimpl


def tenant(ctx, call_next):
    return call_next(ctx)


@hookimpl
def jobqueue_middleware():
    return [tenant]
"""
CONFIG = """
[broker]
url = "sqlite:///jobs.db"
[worker]
concurrency = 2
"""
SECRET = {"password": "hunter2"}
OF_A_START = {"job_id", "type", "queue", "attempt", "run", "worker"}
OF_AN_END = {*OF_A_START, "duration_ms"}


def install(home: Path, name: str, source: str, group: str = "jobqueue.plugins") -> None:
    """Install a distribution with one module that an entry point names."""
    (home / "site" / f"{name}_module.py").write_text(source)
    info = home / "site" / f"acme_{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}_module\n")


@pytest.fixture
def shop(home: Path) -> Path:
    """A home with handlers and the embedded broker."""
    install(home, "shop", HANDLERS, "jobqueue.handlers")
    (home / "jobqueue.toml").write_text(CONFIG)
    return home


def enqueue(home: Path, *types: str) -> list[Job]:
    with JobQueue.from_config(home / "jobqueue.toml") as queue:
        return [queue.enqueue(one, SECRET) for one in types]


def finish(home: Path, jobs: list[Job]) -> None:
    with JobQueue.from_config(home / "jobqueue.toml") as queue:
        for job in jobs:
            queue.wait(job.id, timeout="20s")


def identity(job: Job, attempt: int = 1, run: int = 1) -> dict[str, Any]:
    return {"job_id": job.id, "type": job.type, "queue": job.queue, "attempt": attempt, "run": run}


def test_each_event_has_its_level_and_its_facts_and_no_line_has_the_payload(shop: Path, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="jobqueue"):
        jobs = enqueue(shop, "lines.async", "lines.thread", "flaky", "unstorable")
    enqueued = [record for record in caplog.records if record.getMessage() == "enqueued"]
    assert [(record.levelno, record.__dict__["fields"]["job_id"]) for record in enqueued] == [(logging.DEBUG, job.id) for job in jobs]
    assert all({"job_id", "type", "queue"} <= record.__dict__["fields"].keys() for record in enqueued)

    command = start("worker", "--set", "log.level=debug")
    finish(shop, jobs)
    expected = {"started": ("debug", 5), "completed": ("debug", 2), "retried": ("info", 1), "dead": ("warning", 2)}
    for event, (level, count) in expected.items():
        lines = command.wait_for(lambda event=event, count=count: len(found := command.events(event)) >= count and found, event)
        assert (event, len(lines), {line["level"] for line in lines}) == (event, count, {level})
        for line in lines:
            assert (OF_A_START if event == "started" else OF_AN_END) <= line.keys()
            assert line["worker"]
    completed, flaky, unstorable = jobs[:2], jobs[2], jobs[3]
    assert all(command.events("completed", **identity(job)) for job in completed)
    assert command.events("retried", **identity(flaky), delay="10ms", error="ValueError: no")
    assert command.events("dead", **identity(flaky, 2, 2), reason="retries_exhausted", error="ValueError: no")
    assert not command.events("completed", **identity(unstorable))
    assert command.events("dead", **identity(unstorable))
    assert "hunter2" not in command.errors
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_any_logger_in_any_kind_of_handler_shows_its_run(shop: Path, start: Start, form: str) -> None:
    command = start("worker", "--set", f"log.format={form}")
    jobs = enqueue(shop, *["lines.async", "lines.thread", "lines.process", "lines.process.async"] * 2)
    finish(shop, jobs)
    lines = command.wait_for(
        lambda: len(found := [line for line in command.errors.splitlines() if "a line" in line]) >= len(jobs) and found, "the handlers' lines"
    )
    facts = [" ".join(f"{name}={value}" for name, value in identity(job).items()) for job in jobs]
    if form == "json":
        shown = [" ".join(f"{name}={json.loads(line)[name]}" for name in identity(jobs[0])) for line in lines]
    else:
        shown = [line.partition("a line ")[2] for line in lines]
    assert sorted(shown) == sorted(facts)


def test_at_the_default_level_jobs_that_end_well_leave_no_line(shop: Path, start: Start) -> None:
    command = start("worker")
    finish(shop, enqueue(shop, "lines.async", "flaky"))
    command.wait_for(lambda: command.events("dead"), "the last event")
    assert not command.events("started")
    assert not command.events("completed")
    assert command.events("retried")


def test_observers_that_try_to_end_a_worker_are_reported_and_it_works_on(shop: Path, start: Start) -> None:
    """Its main thread tells of its coming and going, where a KeyboardInterrupt would end it."""
    install(shop, "watch", OBSERVERS)
    command = start("worker")
    finish(shop, enqueue(shop, "lines.async", "lines.thread"))
    command.process.terminate()
    assert command.exit_status() == 0
    assert {line["observer"] for line in command.events("observer raised", level="error", logger="jobqueue.observers")} == {
        "Interrupting.worker_up",
        "Interrupting.finished",
        "Interrupting.worker_down",
    }
    assert not command.events("process died")


def test_a_worker_does_not_start_with_middleware_that_cannot_be_called_and_says_whose_it_is(shop: Path, start: Start) -> None:
    install(shop, "tenancy", MIDDLEWARE)
    command = start("worker")
    assert command.exit_status() == 2
    assert "jobqueue-run: plugin 'tenancy' (from acme-tenancy 1.2): middleware 'tenant' is not asynchronous: write 'async def" in command.errors


def test_it_starts_without_the_middleware_once_that_is_disabled(shop: Path, start: Start) -> None:
    install(shop, "tenancy", MIDDLEWARE)
    command = start("worker", "--set", 'plugins.disable=["tenancy.tenant"]')
    finish(shop, enqueue(shop, "lines.thread"))
    assert command.process.poll() is None

"""The worker under its supervisor, on each broker."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cgroups import small_cgroup

from jobqueue_core import JobQueue

Start = Callable[..., Any]
TERM, INT = signal.SIGTERM, signal.SIGINT

HANDLERS = """
import asyncio, os, time
from pathlib import Path
from jobqueue_core import handler

HOME = Path(os.environ["DUMMY_HOME"])

def mark(name, job):
    with (HOME / name).open("a") as file:
        file.write(job.id + "\\n")

@handler("crash")
def crash(payload, ctx: "JobContext"):
    mark("crash.started", ctx.job)
    os._exit(0)

@handler("hungry")
def hungry(payload, ctx: "JobContext"):
    bytearray(payload)

@handler("quick")
def quick(payload, ctx: "JobContext"):
    mark("quick.done", ctx.job)

@handler("slow")
async def slow(payload, ctx: "JobContext"):
    mark("slow.started", ctx.job)
    await asyncio.sleep(payload)
    mark("slow.done", ctx.job)
""".replace('"JobContext"', "JobContext").replace("import handler", "import JobContext, handler")

WORKER = """
[worker]
lease = "60s"
shutdown_timeout = "{grace}"
"""


@pytest.fixture
def shop(home: Path, broker_config: str) -> Path:
    """The folder, with a broker and a package of handlers."""
    (home / "site" / "shop_handlers.py").write_text(HANDLERS)
    with (home / "site" / "dummy-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("[jobqueue.handlers]\nshop = shop_handlers\n")
    (home / "jobqueue.toml").write_text(broker_config + WORKER.format(grace="20s"))
    return home


@pytest.fixture
def queue(shop: Path) -> Iterator[JobQueue]:
    with JobQueue.from_config(shop / "jobqueue.toml") as queue:
        yield queue


def marks(home: Path, name: str) -> list[str]:
    return (home / name).read_text().split() if (home / name).exists() else []


def test_a_job_that_kills_its_worker_dies_after_max_crashes_and_its_neighbours_are_done(start: Start, shop: Path, queue: JobQueue) -> None:
    bad = queue.enqueue("crash", None)
    good = [queue.enqueue("quick", None).id for _ in range(20)]
    command = start("worker")

    dead = command.wait_for(lambda: job if (job := queue.get(bad.id)).state == "dead" else None, f"its death: {command.errors}")
    command.wait_for(lambda: set(good) <= set(marks(shop, "quick.done")), "the others")

    assert (dead.dead_reason, dead.crashes, dead.retry_count) == ("worker_lost", 3, 0)
    assert marks(shop, "crash.started") == [bad.id] * 3
    assert [line["job_id"] for line in command.wait_for(lambda: command.events("worker_lost"), "the line")] == [bad.id]
    command.process.send_signal(TERM)
    assert command.exit_status() == 0


CONFINED = """
import os, runpy, sys
open({procs!r}, "w").write(str(os.getpid()))
sys.argv = ["jobqueue-run", "-c", "jobqueue.toml", *sys.argv[1:]]
runpy.run_module("jobqueue_core.run", run_name="__main__")
"""


def test_a_job_that_takes_more_memory_than_there_is_says_so_in_the_end(start: Start, shop: Path, queue: JobQueue) -> None:
    with small_cgroup(400 << 20) as cgroup:
        job = queue.enqueue("hungry", 1 << 30)
        command = start("worker", command=("-c", CONFINED.format(procs=str(cgroup / "cgroup.procs"))))

        dead = command.wait_for(lambda: found if (found := queue.get(job.id)).state == "dead" else None, "its death")
        command.process.send_signal(TERM)
        assert command.exit_status() == 0

    assert (dead.dead_reason, dead.crashes, dead.last_error) == ("worker_lost", 3, "worker lost: killed by SIGKILL: out of memory")
    assert {line["reason"] for line in command.events("process died")} == {"killed by SIGKILL: out of memory"}


def test_what_runs_is_finished_within_the_grace(start: Start, shop: Path, queue: JobQueue) -> None:
    job = queue.enqueue("slow", 1)
    command = start("worker")
    command.wait_for(lambda: marks(shop, "slow.started"), "the start")

    command.process.send_signal(TERM)

    assert command.exit_status() == 0
    assert marks(shop, "slow.done") == [job.id]
    assert queue.get(job.id).state == "completed"


@pytest.mark.parametrize(("grace", "numbers", "status"), [("100ms", (TERM,), 0), ("20s", (INT, TERM), 4)])
def test_what_does_not_finish_is_given_back_without_an_attempt(
    start: Start, shop: Path, queue: JobQueue, *, grace: str, numbers: tuple[signal.Signals, ...], status: int
) -> None:
    job = queue.enqueue("slow", 60)
    command = start("worker", "--set", f"worker.shutdown_timeout={grace}")
    command.wait_for(lambda: marks(shop, "slow.started"), "the start")

    command.process.send_signal(numbers[0])
    for number in numbers[1:]:
        command.wait_for(lambda: [line for line in command.events("stopping") if line["logger"] == "jobqueue.worker"], "the worker's stop")
        command.process.send_signal(number)

    assert command.exit_status() == status
    now = queue.get(job.id)
    assert (now.state, now.retry_count, now.crashes) == ("queued", 0, 0)

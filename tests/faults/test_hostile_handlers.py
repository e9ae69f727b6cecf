"""Handlers that damage the process they run in: its descriptors, its event loop, its threads; and handler modules that cannot be entered or left.

The worker lives on or is replaced with a reason, one SIGTERM ends it in time with a status that tells what happened, and no job is lost or stuck.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import slowly

from jobqueue_core import Job, JobState

if TYPE_CHECKING:
    from conftest import Rig

_HANDLERS = '''
import asyncio, os, sys, threading, time
from pathlib import Path
from rig_handlers import note
from jobqueue_core import JobContext, handler

HOME = Path(os.environ["RIG_RUNS"]).parent

@handler("close.standard")
def close_standard(payload, ctx: JobContext):
    note(ctx)
    for number in payload["numbers"]:
        os.close(number)

@handler("say")
def say(payload, ctx: JobContext):
    note(ctx)
    print("it is heard", file=sys.stderr, flush=True)

@handler("close.all")
def close_all(payload, ctx: JobContext):
    note(ctx)
    if ctx.run == 1 or payload["always"]:
        os.closerange(payload["from"], 4096)
        time.sleep(2)

@handler("close.control")
def close_control(payload, ctx: JobContext):
    """Close one descriptor: that by which the supervisor is heard."""
    note(ctx)
    if ctx.run == 1:
        arguments = Path("/proc/self/cmdline").read_bytes().split(b"\\0")
        os.close(int(arguments[arguments.index(b"--control") + 1]))

@handler("close.loop")
async def close_loop(payload, ctx: JobContext):
    note(ctx)
    if ctx.run == 1:
        os.close(asyncio.get_running_loop()._selector.fileno())
        await asyncio.sleep(60)

@handler("cancel.all")
async def cancel_all(payload, ctx: JobContext):
    note(ctx)
    for task in asyncio.all_tasks():
        if payload["itself"] or task is not asyncio.current_task():
            task.cancel()

@handler("stop.loop")
async def stop_loop(payload, ctx: JobContext):
    note(ctx)
    asyncio.get_running_loop().stop()

@handler("stuck.executor")
async def stuck_executor(payload, ctx: JobContext):
    note(ctx)
    await asyncio.to_thread(time.sleep, 60)

@handler("fork.async")
async def fork_async(payload, ctx: JobContext):
    note(ctx)
    os.fork()

@handler("wait", timeout="60s")
def wait(payload, ctx: JobContext):
    note(ctx)
    while not (HOME / "go").exists():
        time.sleep(0.01)
'''

_LIFESPAN = """
import asyncio, os, time
from pathlib import Path
from jobqueue_core import JobContext, handler, lifespan

HOME = Path(os.environ["RIG_RUNS"]).parent

def behave(how):
    match how:
        case "raises":
            raise LookupError("no database at 'db1'")
        case "exits":
            raise SystemExit("no database")
        case "blocks":
            time.sleep(60)

@lifespan
async def database():
    entering = (HOME / "entering").read_text() if (HOME / "entering").exists() else ""
    behave(entering)
    if entering == "hangs":
        await asyncio.sleep(60)
    yield "it"
    leaving = (HOME / "leaving").read_text() if (HOME / "leaving").exists() else ""
    behave(leaving)
    while leaving == "hangs":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@handler("resources")
async def resources(payload, ctx: JobContext):
    return ctx.resources
"""


@pytest.fixture
def hostile(rig: Rig) -> Rig:
    """A rig with hostile handlers, and a handler module with a lifespan that does as the files ``entering`` and ``leaving`` say."""
    site = rig.folder / "site"
    (site / "hostile.py").write_text(_HANDLERS)
    (site / "lifespan_handlers.py").write_text(_LIFESPAN)
    with (site / "rig_handlers-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("hostile = hostile\nlifespan = lifespan_handlers\n")
    return rig


def finished(rig: Rig, *jobs: Job) -> list[Job]:
    """Wait until the jobs have finished; how they did."""
    rig.wait(lambda: all(job and job.state.finished for job in rig.queue.broker.get([one.id for one in jobs])), "the jobs finish", within=20)
    return [job for job in rig.queue.broker.get([one.id for one in jobs]) if job]


def ends(rig: Rig, process: subprocess.Popen[bytes], *, within: float = 10.0) -> int:
    """Send SIGTERM; the exit status."""
    assert process.poll() is None, rig.log()
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it does not stop within {within} s\n{rig.log()[-4000:]}")


def workers(rig: Rig) -> set[int]:
    """The processes in which handlers have run."""
    return {pid for _, _, _, pid in rig.runs()}


# Descriptors ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [slowly([2]), slowly([1]), [0, 1, 2]])
def test_a_handler_that_closes_standard_descriptors_does_no_harm_and_they_are_opened_again(hostile: Rig, numbers: list[int]) -> None:
    process = hostile.start("worker")
    bad = hostile.queue.enqueue("close.standard", {"numbers": numbers})
    finished(hostile, bad)
    hostile.wait(lambda: "had been closed" in hostile.log(), "it is noticed", within=5)
    (good,) = finished(hostile, hostile.queue.enqueue("say"))

    assert good.state is JobState.COMPLETED
    assert "it is heard" in hostile.log()
    assert len(workers(hostile)) == 1
    assert ends(hostile, process) == 0
    assert "worker down" in hostile.log()


@pytest.mark.parametrize("first", [0, 3])
def test_a_worker_whose_descriptors_are_all_closed_is_replaced_and_loses_nothing(hostile: Rig, first: int) -> None:
    ids = hostile.enqueue(40, seconds=0.02)
    bad = hostile.queue.enqueue("close.all", {"from": first, "always": False})
    process = hostile.start("worker")
    (job,) = finished(hostile, bad)
    hostile.wait(lambda: hostile.all_completed(ids), "its neighbours complete", within=20)

    assert (job.state, job.run, job.crashes) == (JobState.COMPLETED, 2, 1)
    assert "its file descriptors were closed" in hostile.log()
    assert ends(hostile, process) == 0
    with contextlib.closing(sqlite3.connect(hostile.folder / "jobqueue.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_job_that_always_closes_all_descriptors_is_dead_after_max_crashes_and_says_why(hostile: Rig) -> None:
    process = hostile.start("worker")
    (job,) = finished(hostile, hostile.queue.enqueue("close.all", {"from": 3, "always": True}))

    assert (job.state, job.dead_reason, job.crashes) == (JobState.DEAD, "worker_lost", 3)
    assert "its file descriptors were closed" in (job.last_error or "")
    assert ends(hostile, process) == 0


def test_a_worker_that_can_hear_its_supervisor_no_more_is_replaced(hostile: Rig) -> None:
    process = hostile.start("worker")
    finished(hostile, hostile.queue.enqueue("close.control"))
    hostile.wait(lambda: hostile.log().count("worker up") == 2, "another worker", within=10)
    (good,) = finished(hostile, hostile.queue.enqueue("say"))

    assert good.state is JobState.COMPLETED
    assert "its file descriptors were closed" in hostile.log()
    assert ends(hostile, process) == 0


# The event loop ------------------------------------------------------------------------------------------------------------------------


def test_a_worker_whose_event_loop_broke_is_replaced_with_the_reason(hostile: Rig) -> None:
    process = hostile.start("worker")
    (job,) = finished(hostile, hostile.queue.enqueue("close.loop"))

    assert (job.state, job.run, job.crashes) == (JobState.COMPLETED, 2, 1)
    assert "the event loop broke" in hostile.log()
    assert ends(hostile, process) == 0


@pytest.mark.parametrize("itself", [True, False])
def test_a_handler_that_cancels_all_tasks_takes_no_slot_and_no_lifespan_along(hostile: Rig, itself: bool) -> None:
    process = hostile.start("worker")
    for _ in range(12):  # more than there are slots
        finished(hostile, hostile.queue.enqueue("cancel.all", {"itself": itself}, max_retries=0))
    began = time.monotonic()
    ids = hostile.enqueue(10, "rig.async", seconds=0.5)
    hostile.wait(lambda: hostile.all_completed(ids), "the others", within=10)
    (job,) = finished(hostile, hostile.queue.enqueue("resources"))

    assert time.monotonic() - began < 3, "all slots are there"
    assert (job.state, job.result) == (JobState.COMPLETED, "it")
    assert len(workers(hostile)) == 1
    assert ends(hostile, process) == 0


def test_a_handler_that_cancels_itself_and_returns_does_not_hit_the_next_one(hostile: Rig) -> None:
    bad = [hostile.queue.enqueue("cancel.all", {"itself": True}, max_retries=0) for _ in range(20)]
    good = hostile.enqueue(20, "rig.async", seconds=0.0)
    process = hostile.start("worker", "--set", "worker.concurrency=1")
    finished(hostile, *bad)
    hostile.wait(lambda: hostile.all_completed(good), "the others complete", within=10)

    assert {job.retry_count for job in hostile.queue.broker.get(good) if job} == {0}
    assert ends(hostile, process) == 0


def test_a_handler_that_stops_the_event_loop_stops_nothing_else(hostile: Rig) -> None:
    process = hostile.start("worker")
    stopped = finished(hostile, *(hostile.queue.enqueue("stop.loop") for _ in range(5)))
    ids = hostile.enqueue(10, "rig.async", seconds=0.1)
    hostile.wait(lambda: hostile.all_completed(ids), "the others", within=10)

    assert {job.state for job in stopped} == {JobState.COMPLETED}
    assert ends(hostile, process) == 0


def test_a_thread_that_a_cancel_does_not_reach_keeps_no_worker_from_ending(hostile: Rig) -> None:
    process = hostile.start("worker", "--set", "worker.shutdown_timeout=500ms")
    job = hostile.queue.enqueue("stuck.executor")
    hostile.wait(hostile.runs, "it runs")

    assert ends(hostile, process, within=6) == 3
    assert hostile.states([job.id]) == {JobState.QUEUED: 1}
    assert "threads do not end" in hostile.log()


def test_a_copy_of_the_worker_that_a_handler_has_forked_runs_nothing_and_does_not_stay(hostile: Rig) -> None:
    forking = [hostile.queue.enqueue("fork.async").id for _ in range(5)]
    ids = hostile.enqueue(100, "rig.async", seconds=0.005)
    process = hostile.start("worker")
    hostile.wait(lambda: hostile.all_completed([*forking, *ids]), "all jobs complete", within=20)

    assert Counter(job for job, _, _, _ in hostile.runs()) == dict.fromkeys([*forking, *ids], 1)
    assert len(workers(hostile)) == 1
    assert ends(hostile, process) == 0
    assert hostile.left_behind() == []


# Outcomes that cannot be settled -------------------------------------------------------------------------------------------------------


def test_outcomes_that_a_locked_database_does_not_take_are_told_by_status_3_and_run_again(hostile: Rig) -> None:
    process = hostile.start("worker", "--set", "worker.shutdown_timeout=1s")
    job = hostile.queue.enqueue("wait")
    hostile.wait(hostile.runs, "it runs")
    with contextlib.closing(sqlite3.connect(hostile.folder / "jobqueue.db", isolation_level=None, timeout=10)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        (hostile.folder / "go").touch()

        process.send_signal(signal.SIGTERM)
        hostile.wait(lambda: "jobs left behind" in hostile.log(), "it gives up", within=15)
        lock.execute("ROLLBACK")
    assert process.wait(10) == 3
    assert "outcome refused" not in hostile.log()

    second = hostile.start("worker")
    hostile.wait(lambda: hostile.log().count("worker up") == 2, "another worker")
    assert finished(hostile, job)[0].state is JobState.COMPLETED
    assert ends(hostile, second) == 0


# Lifespans -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "error"), [("raises", "LookupError: no database at 'db1'"), slowly("exits", "SystemExit: no database")])
def test_a_lifespan_that_raises_is_told_in_a_line_each_time_and_with_a_traceback_once_until_it_is_mended(hostile: Rig, how: str, error: str) -> None:
    (hostile.folder / "entering").write_text(how)
    job = hostile.queue.enqueue("resources")
    process = hostile.start("worker")
    hostile.wait(lambda: hostile.log().count("process died") >= 4, "it is tried again", within=20)
    log = hostile.log()
    (hostile.folder / "entering").unlink()

    assert finished(hostile, job)[0].result == "it"
    assert log.count("Traceback") == 1
    assert "jobqueue_core" not in log.partition("Traceback")[2].partition("process died")[0]
    for line in [line for line in log.splitlines() if "process died" in line]:
        assert error in line
        assert "lifespan lifespan_handlers.database when it was entered" in line
    assert ends(hostile, process) == 0


@pytest.mark.parametrize("how", [slowly("hangs"), "blocks"])
def test_a_lifespan_that_hangs_is_named_and_keeps_no_worker_from_stopping(hostile: Rig, how: str) -> None:
    (hostile.folder / "entering").write_text(how)
    job = hostile.queue.enqueue("resources")
    process = hostile.start("worker")
    hostile.wait(lambda: "a lifespan is not entered yet" in hostile.log(), "the warning", within=10)

    assert "lifespan=lifespan_handlers.database" in hostile.log()
    assert ends(hostile, process, within=6) in (0, 3)
    assert hostile.states([job.id]) == {JobState.QUEUED: 1}


@pytest.mark.parametrize(("how", "status"), [("raises", 1), ("hangs", 3)])
def test_a_lifespan_that_cannot_be_left_is_named_and_told_by_the_status_when_all_jobs_are_settled(hostile: Rig, how: str, status: int) -> None:
    (hostile.folder / "leaving").write_text(how)
    process = hostile.start("worker")
    jobs = finished(hostile, *(hostile.queue.enqueue("resources") for _ in range(5)))
    waiting = hostile.queue.enqueue("wait")
    hostile.wait(hostile.runs, "one runs")
    process.send_signal(signal.SIGTERM)
    hostile.wait(lambda: "stopping" in hostile.log(), "it stops")
    (hostile.folder / "go").touch()

    assert process.wait(15) == status
    assert {job.state for job in jobs} == {JobState.COMPLETED}
    assert hostile.states([waiting.id]) == {JobState.COMPLETED: 1}
    assert "lifespan_handlers.database" in hostile.log()


# Queues --------------------------------------------------------------------------------------------------------------------------------


def test_a_handler_whose_own_queue_no_worker_serves_is_warned_of(hostile: Rig) -> None:
    handlers = hostile.folder / "site" / "hostile.py"
    handlers.write_text(handlers.read_text() + '\n@handler("mail.send", queue="mail")\ndef send(payload): ...\n')
    first = hostile.start("worker", "--queues", "default")
    hostile.wait(lambda: "worker up" in hostile.log() and "[worker] queues" in hostile.log(), "the warning", within=10)
    assert hostile.log().count("[worker] queues") == 1
    assert "mail.send" in hostile.log()

    second = hostile.start("worker", "--queues", "default,mail")
    third = hostile.start("worker", "--queues", "*")
    hostile.wait(lambda: hostile.log().count("worker up") == 3, "the others", within=10)
    for process in (first, second, third):
        assert ends(hostile, process) == 0
    assert hostile.log().count("[worker] queues") == 1

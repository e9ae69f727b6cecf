"""What an operator sees of workers and does to what they run, by the command line: real workers on each broker, in each mode."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from brokers import MOSTLY_REDIS, WORKING_MOSTLY_REDIS, WORKING_MOSTLY_SQLITE
from cli_site import Site, eventually, make_site, worker, write_distribution
from servers import RedisServer

from jobqueue_core import JobQueue, __version__

HANDLERS = """
import asyncio, time
from jobqueue_core import JobContext, handler

def look(ctx):
    ctx.logger.info("begun")
    ctx.progress(0.25, "a quarter")
    until = time.monotonic() + 60
    while time.monotonic() < until and not ctx.cancelled:
        time.sleep(0.01)

@handler("patient.async")
async def patient(payload, ctx: JobContext):
    ctx.logger.info("begun")
    ctx.progress(0.25, "a quarter")
    try:
        await asyncio.sleep(60)
    finally:
        ctx.logger.warning("cleaning up")
        ctx.progress(0.5)

@handler("patient.thread")
def patient_in_a_thread(payload, ctx: JobContext):
    look(ctx)
    ctx.logger.warning("cleaning up")
    ctx.progress(0.5)
    raise RuntimeError("stopped half way")

@handler("patient.process", isolation="process")
def patient_in_a_process(payload, ctx: JobContext):
    patient_in_a_thread(payload, ctx)

@handler("stubborn.async")
async def stubborn(payload, ctx: JobContext):
    ctx.logger.info("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return {"asked": ctx.cancelled}

@handler("stubborn.thread")
def stubborn_in_a_thread(payload, ctx: JobContext):
    look(ctx)
    return {"asked": ctx.cancelled}

@handler("stubborn.process", isolation="process")
def stubborn_in_a_process(payload, ctx: JobContext):
    return stubborn_in_a_thread(payload, ctx)
"""
MODES = ["async", "thread", "process"]


def with_handlers(site: Site) -> Site:
    entry = "patient = patient_handlers"
    path = write_distribution(site.folder / "path", "acme-patient", "jobqueue.handlers", entry, {"patient_handlers": HANDLERS})
    return attrs.evolve(site, path=(path,))


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, module_broker_config: str) -> Iterator[Site]:
    """A site with a running worker, on each broker."""
    site = with_handlers(make_site(tmp_path_factory.mktemp("working"), module_broker_config))
    with worker(site):
        yield site


@pytest.fixture
def embedded(tmp_path: Path) -> Site:
    """A site of the test's own on the embedded broker."""
    return with_handlers(make_site(tmp_path))


def begun(site: Site, job_type: str, *options: str) -> str:
    """Enqueue a job and wait until its handler has said something; its id."""
    job_id = site.call("enqueue", job_type, *options).stdout.strip()
    with JobQueue.from_config(site.folder / "jobqueue.toml") as queue:
        eventually(lambda: queue.operations.job_logs(job_id))
    return job_id


def messages(site: Site, job_id: str) -> list[tuple[str, str]]:
    return [(line["level"], line["message"]) for line in site.json("job", "logs", job_id)]


# Cancelling what runs ------------------------------------------------------------------------------------------------------------------


@WORKING_MOSTLY_REDIS
@pytest.mark.parametrize("mode", MODES)
def test_a_running_job_is_cancelled_and_can_be_read_before_and_after(working: Site, mode: str) -> None:
    job_id = begun(working, f"patient.{mode}")
    running = working.json("job", "show", job_id)
    assert (running["state"], running["progress"]) == ("processing", {"fraction": 0.25, "message": "a quarter"})
    assert messages(working, job_id) == [("info", "begun")]
    asked = working.call("job", "cancel", job_id)
    assert (asked.returncode, asked.stdout) == (0, f"job {job_id} is running and was asked to stop\n")
    ended = working.json("job", "wait", job_id, "--timeout", "10s", status=1)
    assert (ended["state"], ended["result"], ended["progress"]) == ("cancelled", None, {"fraction": 0.5, "message": None})
    assert messages(working, job_id) == [("info", "begun"), ("warning", "cleaning up")]
    assert working.json("job", "show", job_id) == ended
    eventually(lambda: working.json("executions", "--job", job_id))
    assert [(one["run"], one["state"]) for one in working.json("executions", "--job", job_id)] == [(1, "cancelled")]


@WORKING_MOSTLY_SQLITE
@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_completes_all_the_same_stays_completed_with_its_result(working: Site, mode: str) -> None:
    job_id = begun(working, f"stubborn.{mode}")
    assert working.call("job", "cancel", job_id).returncode == 0
    ended = working.json("job", "wait", job_id, "--timeout", "10s")
    assert (ended["state"], ended["result"]) == ("completed", {"asked": True})
    again = working.call("job", "cancel", job_id, "--json")
    assert (again.returncode, json.loads(again.stderr.splitlines()[-1])["code"]) == (1, "finished")


def test_a_client_cancels_a_running_job_and_sees_it_cancelled(working: Site) -> None:
    job_id = begun(working, "patient.async")
    with JobQueue.from_config(working.folder / "jobqueue.toml") as queue:
        queue.cancel(job_id)
        ended = queue.wait(job_id, timeout=timedelta(seconds=10))
    assert (ended.state, ended.last_error) == ("cancelled", "cancelled")


def test_a_request_to_cancel_is_shown_until_it_is_followed(working: Site) -> None:
    job_id = begun(working, "patient.thread", "--timeout", "60s")
    with JobQueue.from_config(working.folder / "jobqueue.toml") as queue:
        queue.cancel(job_id)
        seen = queue.get(job_id)
        assert seen is not None
        assert seen.cancel_requested is (seen.state == "processing")
        assert queue.wait(job_id, timeout=timedelta(seconds=10)).cancel_requested is False


# What workers run ----------------------------------------------------------------------------------------------------------------------


@WORKING_MOSTLY_REDIS
def test_workers_are_listed_with_what_each_runs_since_when_where_and_of_which_version(working: Site) -> None:
    before = datetime.now(UTC)
    ids = {begun(working, "patient.async"), begun(working, "patient.thread")}
    eventually(lambda: ids <= {row["job_id"] for row in working.json("workers", "--running")})
    rows = [row for row in working.json("workers", "--running") if row["job_id"] in ids]
    (shown,) = working.json("workers")
    assert [row["type"] for row in rows] == ["patient.async", "patient.thread"]
    for row in rows:
        assert before <= datetime.fromisoformat(row["started_at"]) <= datetime.now(UTC)
        assert (row["host"], row["version"], row["worker"], row["worker_id"]) == (socket.gethostname(), __version__, shown["name"], shown["id"])
        assert {name: row[name] for name in ("job_id", "type", "started_at")} in shown["running"]
    line = working.call("workers").stdout.splitlines()[0].split("\t")
    assert "patient.async, patient.thread" in line
    assert f"{len(shown['running'])}/10" in line
    status, table = working.at_a_terminal("-c", "jobqueue.toml", "workers", "--running")
    assert (status, table.splitlines()[0].split()[:3]) == (0, ["STARTED", "JOB", "TYPE"])
    for job_id in ids:
        working.call("job", "cancel", job_id)


@MOSTLY_REDIS
def test_a_worker_that_is_killed_is_gone_at_once_and_so_is_what_it_ran(tmp_path: Path, broker_config: str) -> None:
    site = with_handlers(make_site(tmp_path, broker_config))
    with worker(site) as process, JobQueue.from_config(site.folder / "jobqueue.toml") as queue:
        job_id = begun(site, "patient.async")
        (victim,) = queue.operations.workers()
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: victim.id not in [one.id for one in queue.operations.workers()])
        # Long before its silence would show.
        assert time.monotonic() - killed < 4
        eventually(lambda: [one.id for one in queue.operations.workers()] not in ([], [victim.id]))
        assert process.poll() is None
        queue.cancel(job_id)


# The health of a container -------------------------------------------------------------------------------------------------------------


def probe(site: Site, *words: str) -> tuple[int, str]:
    done = site.call("doctor", "--worker", *words)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_frozen_worker_is_neither_ready_nor_alive_until_it_goes_on(embedded: Site) -> None:
    with worker(embedded, "--set", "worker.processes=2", processes=2):
        (embedded.folder / "jobqueue.toml").write_text("[worker]\nprocesses = 2\n")
        assert (probe(embedded)[0], probe(embedded, "--live")[0]) == (0, 0)
        frozen = embedded.json("workers")[0]["pid"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            eventually(lambda: len(embedded.json("workers")) == 1)
            status, said = probe(embedded)
            assert (status, probe(embedded, "--live")[0]) == (1, 1)
            assert "only 1 of the 2 workers of host" in said
        finally:
            os.kill(frozen, signal.SIGCONT)
        eventually(lambda: probe(embedded)[0] == 0)


def test_a_worker_that_is_stopping_is_alive_but_not_ready(embedded: Site) -> None:
    with worker(embedded) as process:
        begun(embedded, "patient.async")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: probe(embedded)[0] == 1)
        assert "is stopping" in probe(embedded)[1]
        assert probe(embedded, "--live")[0] == 0
        process.send_signal(signal.SIGTERM)


def test_workers_whose_broker_is_away_are_not_ready_but_alive(tmp_path: Path, redis_server: RedisServer) -> None:
    site = with_handlers(make_site(tmp_path, f'[broker]\nplugin = "redis"\nurl = "{redis_server.url}"\n'))
    with worker(site):
        assert (probe(site)[0], probe(site, "--live")[0]) == (0, 0)
        redis_server.kill()
        # Each takes five seconds to give the broker up.
        with ThreadPoolExecutor() as threads:
            ready, live = threads.map(lambda words: probe(site, *words), [(), ("--live",)])
        assert ready[0] == 1
        assert (live[0], live[1].split("\t")[0]) == (0, "warning")
        redis_server.start()
        eventually(lambda: probe(site)[0] == 0)


def test_a_probe_of_a_wrong_configuration_exits_with_2(embedded: Site) -> None:
    (embedded.folder / "jobqueue.toml").write_text("[worker]\nprocesses = 0\n")
    assert (probe(embedded)[0], probe(embedded, "--live")[0]) == (2, 2)


@pytest.mark.parametrize("words", [(), ("--live",)], ids=["ready", "live"])
def test_a_probe_costs_less_than_half_a_second_and_imports_no_handler(working: Site, tmp_path: Path, words: tuple[str, ...]) -> None:
    environ = {name: value for name, value in working.environ.items() if not name.startswith("COVERAGE")}
    loud = {"loud_handlers": "raise SystemExit('imported')\n"}
    path = write_distribution(tmp_path, "acme-loud", "jobqueue.handlers", "loud = loud_handlers", loud)
    environ["PYTHONPATH"] = f"{path}{os.pathsep}{environ['PYTHONPATH']}"
    command = working.command("doctor", "--worker", *words)
    costs = [cost(command, working.folder, environ) for _ in range(3)]
    assert min(costs) < 0.5


def cost(command: list[str], folder: Path, environ: dict[str, str]) -> float:
    """Seconds of CPU that a command takes, which must succeed."""
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime

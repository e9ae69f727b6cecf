"""Several processes on one file: they open it at once, share its jobs, are killed while they write, and fork."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from jobqueue_core.attempt import ExecutionState
from jobqueue_core.broker import JobFilter
from jobqueue_core.job import JobState
from jobqueue_core.testing.factories import completed, new_job
from jobqueue_sqlite import SqliteBroker, SqliteStorage, audit

SECOND = timedelta(seconds=1)

PROLOGUE = """
    import os, sys
    from datetime import timedelta
    from jobqueue_core.testing.factories import completed, failed, new_job, new_jobs
    from jobqueue_sqlite import SqliteBroker, SqliteStorage
    SECOND = timedelta(seconds=1)
    path, name = sys.argv[1:]
    broker = SqliteBroker(path)
    def say(*words): os.write(1, (" ".join(words) + "\\n").encode())
"""

PRODUCER = """
    while True:
        jobs = new_jobs(7) + new_jobs(1, delay=timedelta(milliseconds=30)) + new_jobs(1, unique_key=name)
        for answer in broker.enqueue(jobs):
            if answer.status == "created":
                say("accepted", answer.job.id)
"""

WORKER = """
    while True:
        broker.promote(100)
        leases = broker.lease(["default"], 20, worker_id=name, lease_for=SECOND, wait=timedelta(milliseconds=50), suspects=5)
        def end(lease):
            first = lease.job.retry_count == 0 and lease.job.id[-1] in "012"
            return failed(lease, delay=timedelta(milliseconds=5)) if first else completed(lease)
        broker.settle([end(one) for one in leases], worker_id=name)
        say("settled", str(len(leases)))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobqueue.db"


class Process:
    """A child that runs a script until it is killed, and what it has said."""

    def __init__(self, script: str, path: Path, name: str) -> None:
        text = textwrap.dedent(PROLOGUE) + textwrap.dedent(script)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.child = subprocess.Popen([sys.executable, "-c", text, str(path), name], stdout=subprocess.PIPE, text=True, env=environment)
        self.said: list[list[str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        self.said.extend(line.split() for line in iter(self.child.stdout.readline, "") if line.endswith("\n"))

    def wait(self) -> int:
        status = self.child.wait(30)
        self._reader.join(30)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return status

    def kill(self) -> None:
        self.child.kill()
        self.wait()


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process.child.returncode is None:
                process.kill()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def check(broker: SqliteBroker) -> None:
    """The file is sound and every counter is right."""
    with broker.database.write() as connection:
        assert audit.integrity(connection) == []
        assert audit.drift(connection) == []
        assert audit.astray(connection) == []


def drain(broker: SqliteBroker) -> None:
    """Do what is left to do, as a last worker."""

    def waiting() -> bool:
        broker.promote(1000)
        broker.reclaim(1000, max_crashes=10)
        leases = broker.lease(["default"], 500, worker_id="last", lease_for=30 * SECOND, wait=timedelta(0), suspects=500)
        broker.settle([completed(one) for one in leases], worker_id="last")
        stats = broker.queue("default")
        return stats is not None and not (stats.waiting or stats.processing or stats.scheduled or stats.retrying)

    until(waiting)


def test_processes_that_open_a_new_file_at_once_all_find_it_ready(path: Path) -> None:
    script = 'say(*(answer.status for answer in broker.enqueue(new_jobs(1)))); SqliteStorage(path).schedules(); say("ok")'
    processes = [Process(script, path, str(number)) for number in range(5)]
    with running(*processes):
        assert [process.wait() for process in processes] == [0] * 5
    assert [process.said for process in processes] == [[["created"], ["ok"]]] * 5


def test_no_acknowledged_job_is_lost_or_settled_twice_when_processes_are_killed(path: Path) -> None:
    chance = random.Random(7)
    scripts = {"producer": PRODUCER, "worker-1": WORKER, "worker-2": WORKER}
    processes = {name: Process(script, path, name) for name, script in scripts.items()}
    everyone = list(processes.values())
    accepted: set[str] = set()
    with closing(SqliteBroker(path)) as broker:
        for number in range(9):
            name = chance.choice(sorted(processes))
            victim = processes[name]
            try:
                until(lambda victim=victim: len(victim.said) > 3)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.02))  # anywhere in a transaction
            finally:
                victim.kill()
            processes[name] = Process(scripts[name], path, f"{name}-{number}")
            everyone.append(processes[name])
        with running(*everyone):
            pass
        for process in everyone:
            accepted |= {line[1] for line in process.said if line[0] == "accepted"}
        drain(broker)
        check(broker)
        assert accepted
        ids = sorted(accepted)
        assert {job.state for job in broker.get(ids) if job} == {JobState.COMPLETED}
        assert None not in broker.get(ids)
        stats = broker.queue("default")
        assert stats is not None
        ends = [one.job_id for one in broker.outbox("history", 1_000_000).executions if one.state is ExecutionState.COMPLETED]
        assert len(ends) == len(set(ends)) == stats.completed == stats.enqueued


def test_what_was_acknowledged_before_a_kill_is_there_and_the_file_is_sound(path: Path) -> None:
    process = Process('while True: say(*(one.job.id for one in broker.enqueue(new_jobs(50, payload_json=b"[" + b"1," * 2000 + b"1]"))))', path, "x")
    with running(process):
        until(lambda: len(process.said) > 5)
    with closing(SqliteBroker(path)) as broker:
        ids = [job_id for line in process.said for job_id in line]
        assert None not in broker.get(ids)
        stats = broker.queue("default")
        assert stats is not None
        assert stats.waiting % 50 == 0, "half of a call was stored"
        check(broker)


def test_a_job_of_another_process_ends_a_wait_soon(path: Path) -> None:
    with closing(SqliteBroker(path)) as broker:
        process = Process("broker.enqueue(new_jobs(1))", path, "x")
        with running(process):
            assert len(broker.lease(["default"], 1, worker_id="w", lease_for=SECOND, wait=30 * SECOND, suspects=1)) == 1


def test_a_forked_child_opens_its_own_connections_and_leaves_the_parents_alone(path: Path) -> None:
    script = """
    broker.enqueue(new_jobs(1))
    broker.queues()
    pid = os.fork()
    if pid == 0:
        with broker.database.write() as connection:
            mine = id(connection)
        broker.enqueue(new_jobs(1))
        broker.close()
        os._exit(0 if broker.database._abandoned else 1)
    assert os.waitpid(pid, 0)[1] == 0
    broker.enqueue(new_jobs(1))
    say(str(broker.queue("default").waiting))
    """
    process = Process(script, path, "x")
    with running(process):
        assert process.wait() == 0
    assert process.said == [["3"]]
    with closing(SqliteBroker(path)) as broker:
        check(broker)


def test_broker_and_storage_may_use_one_file_or_two(path: Path) -> None:
    with closing(SqliteBroker(path)) as broker, closing(SqliteStorage(path)) as same, closing(SqliteStorage(path.with_name("other.db"))) as another:
        broker.enqueue([new_job()])
        drain(broker)
        batch = broker.outbox("history", 10)
        for storage in (same, another):
            storage.record_executions(batch.executions, record="all")
            assert storage.job_executions(batch.executions[0].job_id) == list(batch.executions)
        broker.acknowledge(batch)
        assert broker.jobs(JobFilter(), cursor=None, limit=10).jobs[0].state is JobState.COMPLETED

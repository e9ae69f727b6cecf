"""What the fault tests of the Redis broker stand on: a server, workers on it as real processes, and a way to look that no fault touches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import attrs
from redis import Redis
from redis_invariants import check_invariants

from jobqueue_core import JobQueue, JobState
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.job import new_job_id
from jobqueue_redis.broker import RedisBroker

if TYPE_CHECKING:
    from servers import RedisServer

    from tests.faults.conftest import Rig

__all__ = ["Producer", "Scene", "group_signal", "pass_time", "repeated"]


@attrs.frozen
class Scene:
    """A server, a rig whose processes work on it, and a way to look at it that no fault touches."""

    server: RedisServer
    rig: Rig
    client: Redis
    broker: RedisBroker

    def check(self, *, complete: bool = False) -> None:
        """Nothing is out of place, once everybody has stopped."""
        check_invariants(self.client, self.broker, complete=complete)

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Stop workers as an operator does; each must have been running until now, and end well."""
        assert [process.poll() for process in processes] == [None] * len(processes), f"a worker has ended by itself\n{self.rig.log()[-4000:]}"
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in processes] == [0] * len(processes), self.rig.log()[-4000:]

    def states(self, ids: list[str]) -> Counter[JobState | None]:
        return Counter(job and job.state for at in range(0, len(ids), 500) for job in self.broker.get(ids[at : at + 500]))

    def wait_completed(self, ids: list[str], *, within: float = 60.0) -> None:
        self.rig.wait(lambda: self.states(ids) == {JobState.COMPLETED: len(ids)}, "all jobs complete", within=within)

    def doctor(self, *arguments: str) -> tuple[int, str]:
        """What ``jobqueue doctor`` answers: its status, and what it prints."""
        environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
        command = [sys.executable, "-m", "jobqueue_cli", "-c", str(self.rig.folder / "jobqueue.toml"), "doctor", *arguments]
        answer = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        return answer.returncode, answer.stdout + answer.stderr

    def assert_recorded_once(self, ids: list[str]) -> None:
        """History has each run once, all that came before the last was lost, and the last completed."""
        for job_id in ids:
            executions = self.rig.queue.operations.job_executions(job_id)
            assert [one.run for one in executions] == sorted({one.run for one in executions})
            assert [one.state for one in executions] == [ExecutionState.LOST] * (len(executions) - 1) + [ExecutionState.COMPLETED]


@contextmanager
def repeated(step: Callable[[], object], *, every: float) -> Iterator[None]:
    """Do something again and again meanwhile."""
    over = threading.Event()
    problems: list[BaseException] = []

    def run() -> None:
        try:
            while not over.wait(every):
                step()
        except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not problems, problems


class Producer:
    """Enqueues at a steady rate in a thread of its own; what fails it repeats under the same id until it is accepted, as a careful caller does."""

    def __init__(self, queue: JobQueue, *, rate: float, **payload: Any) -> None:
        self.accepted: list[str] = []
        self.longest = 0.0
        """Seconds that the slowest call took, answered or not."""
        self.refused = 0
        self._queue, self._pause, self._payload = queue, 1 / rate, payload
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 0.2) + self._pause
            job_id = new_job_id("default")
            while not self._enqueue(job_id):
                pass
            self.accepted.append(job_id)

    def _enqueue(self, job_id: str) -> bool:
        began = time.monotonic()
        try:
            self._queue.enqueue("rig.quick", self._payload, id=job_id)
        except BrokerUnavailable:
            self.refused += 1
            return False
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
        return True


def group_signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    os.killpg(process.pid, number)


def pass_time(seconds: float) -> None:
    """Let a fault last that long: its length is what the test is about."""
    threading.Event().wait(seconds)

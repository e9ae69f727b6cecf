"""The rig of the fault tests: a real ``jobqueue-run``, a real handler package, real signals; what ran is counted outside of the queue.

Handlers note each start in a file opened with O_APPEND, so that no crash can hide one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import attrs
import pytest
from redis import Redis
from redis_scene import Scene
from scheduler_rig import Scheduling
from servers import PostgresPlace, Proxy, RedisPlace, RedisServer, joined_config
from shifted_clock import ShiftedClock, build_library

from jobqueue_core import JobQueue, JobState
from jobqueue_core.attempt import ExecutionState
from jobqueue_redis.broker import RedisBroker

_HANDLERS = """
import asyncio, os, time
from jobqueue_core import JobContext, handler

def note(ctx):
    file = os.open(os.environ["RIG_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{ctx.job.id} {ctx.run} {ctx.attempt} {os.getpid()}\\n".encode())
    os.close(file)

@handler("rig.thread")
def in_thread(payload, ctx: JobContext):
    note(ctx)
    time.sleep(payload["seconds"])

@handler("rig.async")
async def in_loop(payload, ctx: JobContext):
    note(ctx)
    await asyncio.sleep(payload["seconds"])

@handler("rig.quick")
async def quick(payload, ctx: JobContext):
    note(ctx)

@handler("rig.nothing")
async def nothing(payload): ...

@handler("rig.fail", max_retries=1)
def fail(payload, ctx: JobContext):
    note(ctx)
    time.sleep(payload["seconds"])
    raise ValueError("as it should")

@handler("rig.die")
def die(payload, ctx: JobContext):
    note(ctx)
    os.kill(os.getpid(), payload["signal"])
    time.sleep(10)
"""


@attrs.define
class Rig:
    """One folder with its own database, config and handler package, and the processes started on it."""

    folder: Path
    queue: JobQueue
    processes: list[subprocess.Popen[bytes]] = attrs.field(factory=list)
    environ: dict[str, str] = attrs.field(factory=dict)
    """What processes that are started from now on have in their environment besides."""

    def add_handlers(self, *modules: str) -> None:
        """Install modules beside this file as handler packages too."""
        site = self.folder / "site"
        for module in modules:
            shutil.copy(Path(__file__).with_name(f"{module}.py"), site)
        with (site / "rig_handlers-1.0.dist-info" / "entry_points.txt").open("a") as file:
            file.writelines(f"{module} = {module}\n" for module in modules)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start ``jobqueue-run`` in a process group of its own."""
        environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
        environ |= {"RIG_RUNS": str(self.folder / "runs"), "PYTHONPATH": str(self.folder / "site"), **self.environ}
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobqueue_core.run", "-c", str(self.folder / "jobqueue.toml"), *arguments],
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def enqueue(self, count: int, job_type: str = "rig.thread", *, seconds: float = 0.004) -> list[str]:
        """Enqueue *count* jobs that take *seconds* each."""
        answers = self.queue.enqueue_many([{"type": job_type, "payload": {"seconds": seconds}} for _ in range(count)])
        assert {answer.status for answer in answers} == {"created"}
        return [answer.job.id for answer in answers if answer.job is not None]

    def runs(self) -> list[tuple[str, int, int, int]]:
        """Every start of a handler: job, run, attempt, process."""
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(job, int(run), int(attempt), int(pid)) for job, run, attempt, pid in (line.split() for line in lines)]

    def starts(self, job_id: str) -> int:
        """How often a job's handler was started."""
        return sum(1 for job, _, _, _ in self.runs() if job == job_id)

    def notes(self, name: str) -> list[list[str]]:
        """What handlers have noted elsewhere."""
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def history(self, job_id: str) -> list[ExecutionState]:
        """How a job's runs ended, as far as that is recorded."""
        return [one.state for one in self.queue.operations.job_executions(job_id)]

    def states(self, ids: list[str]) -> Counter[JobState | None]:
        """How many of the jobs are in which state."""
        return Counter(job.state if job else None for at in range(0, len(ids), 500) for job in self.queue.broker.get(ids[at : at + 500]))

    def log(self) -> str:
        """What the processes have logged."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def wait(self, condition: Callable[[], object], what: str, *, within: float = 60.0) -> None:
        """Wait until *condition* holds; fail with the end of the log if it does not."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within} s: {what}\n{self.log()[-4000:]}")
            time.sleep(0.01)

    def all_completed(self, ids: list[str]) -> bool:
        """Whether every job has completed."""
        return self.states(ids) == {JobState.COMPLETED: len(ids)}

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Stop processes as an operator does, one after the other; each must have been running until now, and end well."""
        assert [process.poll() for process in processes] == [None] * len(processes), f"one has ended by itself\n{self.log()[-4000:]}"
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(20) for process in processes] == [0] * len(processes), self.log()[-4000:]

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """SIGSTOP a process group, but not while it keeps others from writing: a whole machine does not stop with one of its processes.

        That is of SQLite only: whoever is stopped in the middle of a transaction keeps the file locked.
        """
        for _ in range(20):
            os.killpg(process.pid, signal.SIGSTOP)
            if not self._is_locked():
                return
            os.killpg(process.pid, signal.SIGCONT)
        pytest.fail("the database is always locked")

    def _is_locked(self) -> bool:
        path = self.folder / "jobqueue.db"
        if not path.exists():
            return False
        with contextlib.closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
        return False

    def kill(self) -> None:
        """SIGKILL everything that was started."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        for pid in self.left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left_behind(self) -> list[int]:
        """The processes that live and were started for this rig, by whomever: their environment says so."""
        mark, found = f"RIG_RUNS={self.folder / 'runs'}\0".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found


BuildRig = Callable[[str], Rig]

_WORKER = """
[worker]
lease = "2s"
concurrency = 10
shutdown_timeout = "5s"
[log]
format = "console"
"""


@pytest.fixture
def build_rig(tmp_path: Path) -> Iterator[BuildRig]:
    """Make the rig, on the broker of a ``[broker]`` table, with a short lease."""
    made: list[Rig] = []

    def build_rig(broker: str) -> Rig:
        site = tmp_path / "site"
        facts = site / "rig_handlers-1.0.dist-info"
        facts.mkdir(parents=True)
        (site / "rig_handlers.py").write_text(_HANDLERS)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rig-handlers\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[jobqueue.handlers]\nrig = rig_handlers\n")
        config = tmp_path / "jobqueue.toml"
        config.write_text(dedent(broker) + _WORKER)
        made.append(Rig(tmp_path, JobQueue.from_config(config)))
        return made[-1]

    yield build_rig
    for one in made:
        one.kill()
        one.queue.close()


@pytest.fixture
def rig(build_rig: BuildRig) -> Rig:
    """A rig on the embedded default."""
    return build_rig("")


BuildScene = Callable[..., Scene]


@pytest.fixture
def build_scene(build_rig: BuildRig) -> Iterator[BuildScene]:
    """Have a rig work on a Redis server, by another url if need be."""
    made: list[Scene] = []

    def build_scene(server: RedisServer, url: str | None = None) -> Scene:
        rig = build_rig(f'[broker]\nplugin = "redis"\nurl = "{url or server.url}"\n')
        made.append(Scene(server, rig, Redis.from_url(server.url), RedisBroker(server.url)))
        return made[-1]

    yield build_scene
    for one in made:
        one.rig.kill()
        one.broker.close()
        one.client.close()


@pytest.fixture
def scene(build_scene: BuildScene, redis_server: RedisServer) -> Scene:
    """Workers straight on a server."""
    return build_scene(redis_server)


@pytest.fixture
def remote(build_scene: BuildScene, redis_server: RedisServer, redis_proxy: Proxy) -> Scene:
    """Workers and producers behind ``redis_proxy``."""
    return build_scene(redis_server, redis_proxy.url)


@pytest.fixture(params=["embedded", pytest.param("servers", marks=[pytest.mark.redis, pytest.mark.postgres])])
def backend_config(request: pytest.FixtureRequest) -> str:
    """The lines of a config file that choose broker and storage: SQLite for both, or Redis and PostgreSQL. What asks for it runs on each."""
    if request.param == "embedded":
        return ""
    redis: RedisPlace = request.getfixturevalue("redis_place")
    postgres: PostgresPlace = request.getfixturevalue("postgres_place")
    return joined_config(redis.config, postgres.config)


BuildScheduling = Callable[[str], Scheduling]


@pytest.fixture
def build_scheduling(backend_config: str, build_rig: BuildRig) -> BuildScheduling:
    """Have schedules on each kind of backend, with more lines in the config file."""
    return lambda lines: Scheduling(build_rig(backend_config + lines))


@pytest.fixture
def scheduling(build_scheduling: BuildScheduling) -> Scheduling:
    """Schedules on each kind of backend."""
    return build_scheduling("")


@pytest.fixture(scope="session")
def shift_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What shifts a clock. Where there is no C compiler the tests that ask for it are left out."""
    try:
        return build_library(tmp_path_factory.mktemp("clock"))
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture
def clocks(tmp_path: Path, shift_library: Path) -> list[ShiftedClock]:
    """The clocks of two hosts."""
    made = [ShiftedClock(tmp_path / f"clock.{number}", shift_library) for number in range(2)]
    for one in made:
        one.set(0)
    return made

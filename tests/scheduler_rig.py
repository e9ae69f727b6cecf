"""What fault tests of schedulers stand on: schedules on a rig, what storage and broker say of their ticks, schedulers that freeze themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
from redis_scene import pass_time

from jobqueue_core import Job
from jobqueue_core.broker import JobFilter
from jobqueue_core.scheduling.jobs import SCHEDULE, TICK
from jobqueue_core.storage import Schedule, Schedules, Tick

if TYPE_CHECKING:
    from tests.faults.conftest import Rig

__all__ = ["EACH_SECOND", "SECOND", "Scheduling", "cron_table", "missing", "seconds_between", "till_next_second"]

SECOND: Final = timedelta(seconds=1)
EACH_SECOND: Final = "* * * * * *"
_PAGE: Final = 500
_KEPT: Final = 2_000
"""More ticks than any of these tests makes."""

_SCHEDULER = """
import random, signal, sys, time
from datetime import timedelta
from pathlib import Path
from jobqueue_core import JobQueue, logs
from jobqueue_core.app import App
from jobqueue_core.scheduling import jobs
from jobqueue_core.service import Stop
from jobqueue_cron.ticker import Ticker

config, moment, window, pause = sys.argv[1:]
jobs._WINDOW = timedelta(seconds=float(window))

class Watched:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name not in ("claim_ticks", "enqueue", "mark_sent"):
            return getattr(self.inner, name)
        def call(given, **options):
            global moment
            if given and name == moment:
                moment = None
                signal.raise_signal(signal.SIGSTOP)
            time.sleep(random.uniform(0, float(pause)))
            answer = getattr(self.inner, name)(given, **options)
            said = ",".join(one.problem or one.status for one in answer) if name == "enqueue" else answer
            print(name, said, file=sys.stderr, flush=True)
            return answer
        return call

app = App.from_config(Path(config), environ={})
logs.configure(app.settings.log)
queue = JobQueue(Watched(app.broker), Watched(app.storage), timetables=app.queue.timetables)
Ticker(queue, queue.storage, poll_interval=app.settings.scheduler.poll_interval).run(Stop())
"""


def missing(moments: Sequence[datetime]) -> list[datetime]:
    """The whole seconds between the first and the last of *moments* that are not among them."""
    return [one for one in seconds_between(min(moments), max(moments)) if one not in set(moments)] if moments else []


def seconds_between(first: datetime, last: datetime) -> list[datetime]:
    """The whole seconds from *first*, which is one, to *last*, both included."""
    return [first + at * SECOND for at in range((last - first) // SECOND + 1)]


def till_next_second(*, plus: float = 0.0) -> float:
    """How long it takes until this host's clock shows a whole second, and *plus* of the next."""
    return 1.0 - time.time() % 1.0 + plus


def cron_table(name: str, expression: str = EACH_SECOND, job_type: str = "rig.nothing", **options: str) -> str:
    """A table ``[[cron]]`` of the config file; options are written as they are."""
    lines = [f'name = "{name}"', f'expression = "{expression}"', f'type = "{job_type}"', *(f"{key} = {value}" for key, value in options.items())]
    return "\n".join(["", "[[cron]]", *lines, ""])


@attrs.frozen
class Scheduling:
    """Schedules on a rig."""

    rig: Rig

    @property
    def storage(self) -> Schedules:
        storage = self.rig.queue.storage
        assert storage is not None
        return storage

    def now(self) -> datetime:
        """The broker's time."""
        return self.rig.queue.broker.now()

    def add(self, name: str = "each", expression: str = EACH_SECOND, job_type: str = "rig.nothing", **options: Any) -> Schedule:
        return self.rig.queue.schedules.add(name, expression, job_type, **options)

    def get(self, name: str = "each") -> Schedule:
        return self.rig.queue.schedules.get(name)

    # What has happened -----------------------------------------------------------------------------------------------------------------

    def ticks(self, name: str = "each") -> list[Tick]:
        """The ticks that were claimed, by when they were due."""
        return self.storage.ticks(name, _KEPT)[::-1]

    def due(self, name: str = "each") -> list[datetime]:
        """When they were due."""
        return [one.due for one in self.ticks(name)]

    def jobs(self) -> dict[str, list[Job]]:
        """All jobs of schedules that the broker knows: by schedule, in order of their ticks."""
        found: dict[str, list[Job]] = {}
        for job in self._all_jobs():
            if TICK in job.metadata:
                found.setdefault(job.metadata[SCHEDULE], []).append(job)
        return {name: sorted(jobs, key=_tick_of) for name, jobs in found.items()}

    def _all_jobs(self) -> Iterator[Job]:
        cursor = None
        while True:
            page = self.rig.queue.broker.jobs(JobFilter(), cursor=cursor, limit=_PAGE)
            yield from page.jobs
            if (cursor := page.next) is None:
                return

    def all_sent(self) -> bool:
        """Whether no tick is claimed and waits to be sent."""
        return not self.storage.unsent_ticks(self.now() + timedelta(hours=2), 1)

    def settle(self, *names: str) -> None:
        """Let nothing come due any more, and wait until what was claimed is sent, by whom it may be."""
        for name in names or ("each",):
            self.rig.queue.schedules.pause(name)
        self.rig.wait(self.all_sent, "every tick that was claimed is sent", within=20)

    def check(self, name: str = "each") -> list[datetime]:
        """Each tick is one job, and each job a tick, says storage and says the broker, once all is sent; gives them."""
        ticks = self.ticks(name)
        jobs = self.jobs().get(name, [])
        assert all(one.sent for one in ticks)
        assert [(one.due, one.job.id) for one in ticks] == [(_tick_of(job), job.id) for job in jobs]
        assert [job.scheduled_at for job in jobs] == [one.due for one in ticks]
        assert len({one.due for one in ticks}) == len(ticks)
        return [one.due for one in ticks]

    def wait_ticks(self, count: int, name: str = "each", *, within: float = 30.0) -> None:
        """Wait for so many more."""
        wanted = len(self.ticks(name)) + count
        self.rig.wait(lambda: len(self.ticks(name)) >= wanted, f"{count} more ticks of {name}", within=within)

    def wait_quiet(self, *names: str) -> None:
        """Wait until every tick fires on time, and then for the middle of a second, when there is nothing to do."""
        self.rig.wait(lambda: all(self._is_on_time(name) for name in names or ("each",)), "they fire on time")
        pass_time(till_next_second(plus=0.5))

    def _is_on_time(self, name: str) -> bool:
        ticks = self.ticks(name)
        return bool(ticks) and ticks[-1].claimed_at - ticks[-1].due < 0.3 * SECOND

    def wait_until(self, moment: datetime) -> None:
        """Wait until the broker's clock is past it."""
        self.rig.wait(lambda: self.now() > moment, "the time is over", within=(moment - self.now()).total_seconds() + 5)

    # Schedulers ------------------------------------------------------------------------------------------------------------------------

    def start(self, count: int, *options: str) -> list[subprocess.Popen[bytes]]:
        """Start schedulers at once."""
        return [self.rig.start("scheduler", *options) for _ in range(count)]

    def wait_started(self, *schedulers: subprocess.Popen[bytes]) -> None:
        """Wait until each has started the process that fires ticks, and so hears signals itself."""
        self.rig.wait(lambda: None not in map(self.child, schedulers), "all are started")

    def child(self, scheduler: subprocess.Popen[bytes]) -> int | None:
        """The process that ``jobqueue-run scheduler`` has started for that role; None when there is none just now."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.getpgid(int(entry.name)) == scheduler.pid != int(entry.name) and b"scheduler" in words:
                    return int(entry.name)
            except OSError:
                continue
        return None

    def freezing(self, moment: str, *, window: float = 30.0) -> subprocess.Popen[bytes]:
        """Start a scheduler, in its own process without a supervisor, that stops itself at its first tick, and wait until it has.

        Args:
            moment: Before which call: ``claim_ticks``, ``enqueue`` or ``mark_sent``.
            window: Seconds for which a job that was claimed may be sent.
        """
        process = self._scheduler(moment, window=window)
        self.rig.wait(lambda: _is_stopped(process.pid), "it has frozen itself")
        return process

    def hesitating(self, pause: float) -> subprocess.Popen[bytes]:
        """Start one likewise that waits up to *pause* seconds before each of these calls, so that more can come in between."""
        return self._scheduler("", pause=pause)

    def _scheduler(self, moment: str, *, window: float = 30.0, pause: float = 0.0) -> subprocess.Popen[bytes]:
        environ = {"PATH": os.environ["PATH"], "RIG_RUNS": str(self.rig.folder / "runs"), "PYTHONPATH": str(self.rig.folder / "site")}
        command = [sys.executable, "-c", _SCHEDULER, str(self.rig.folder / "jobqueue.toml"), moment, str(window), str(pause)]
        with (self.rig.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log, env=environ | self.rig.environ, start_new_session=True)
        self.rig.processes.append(process)
        return process

    def wake(self, process: subprocess.Popen[bytes]) -> None:
        """SIGCONT a process group."""
        os.killpg(process.pid, signal.SIGCONT)


def _tick_of(job: Job) -> datetime:
    return datetime.fromisoformat(job.metadata[TICK]).astimezone(UTC)


def _is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state not in {"Z", "X"}, "it has ended instead"
    return state == "T"

"""What the tests of schedules stand on: the embedded default on a clock that stands still until it is moved, hands that run jobs, and a count."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from jobqueue_core import Job, JobQueue
from jobqueue_core.broker import Enqueued
from jobqueue_core.job import NewJob
from jobqueue_core.plugins import Plugins
from jobqueue_core.recorder import Recorder
from jobqueue_core.scheduling.jobs import SCHEDULE, TICK
from jobqueue_core.service import Stop
from jobqueue_core.storage import Schedule
from jobqueue_core.testing import ManualClock
from jobqueue_core.testing.factories import NOON, completed
from jobqueue_core.timetable import Timetables
from jobqueue_cron.ticker import Ticker
from jobqueue_sqlite.broker import SqliteBroker
from jobqueue_sqlite.storage import SqliteStorage

__all__ = ["EACH_SECOND", "MINUTE", "NOON", "SECOND", "Killed", "Scene", "Wrapped", "seconds", "tick_of"]

SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
EACH_SECOND: Final = "* * * * * *"

Hook = Callable[[str], object]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it, and what was not written is not."""


class Wrapped:
    """A broker or storage whose calls can be watched, delayed, broken and cut off.

    Args:
        inner: The real one.
        before: Called with a method's name before it is, and *after* likewise when it has taken effect.
    """

    def __init__(self, inner: Any, *, before: Hook = lambda _name: None, after: Hook = lambda _name: None) -> None:
        self.inner = inner
        self.before = before
        self.after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **options: Any) -> Any:
            self.before(name)
            answer = method(*args, **options)
            self.after(name)
            return answer

        return call


class Counting(SqliteBroker):
    """The real broker, which also keeps each job that it has ever made, whatever became of it later and of the answer on its way."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.created: list[Job] = []

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        answers = super().enqueue(jobs, not_after=not_after)
        self.created += [one.job for one in answers if one.status == "created" and one.job is not None]
        return answers


@cache
def installed_timetables() -> Timetables:
    """What the installed plugins read; looked for once, for that takes longer than most tests."""
    return Timetables(Plugins.load().timetables())


@cache
def empty_file() -> bytes:
    """A file of the embedded default with nothing in it; to make one takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobqueue.db"
        JobQueue(SqliteBroker(path), SqliteStorage(path)).close()
        return path.read_bytes()


def spare_the_disk(opened: SqliteBroker | SqliteStorage) -> None:
    """Let it commit without waiting for the disk: machines do not crash here, and thousands of transactions would take minutes on a busy one."""
    with opened.database.write():
        pass
    writer = opened.database._own.writer
    assert writer is not None
    writer.execute("PRAGMA synchronous = OFF")


class Scene:
    """A queue on a file, at noon."""

    def __init__(self, path: Path, *, result_ttl: timedelta = timedelta(days=1)) -> None:
        self.clock = ManualClock(NOON)
        path.write_bytes(empty_file())
        self.broker = Counting(path, clock=self.clock, result_ttl=result_ttl)
        self.storage = SqliteStorage(path)
        for one in (self.broker, self.storage):
            spare_the_disk(one)
        self.queue = JobQueue(self.broker, self.storage, timetables=installed_timetables())
        self.schedules = self.queue.schedules
        self.recorder = Recorder(broker=self.broker, storage=self.storage)
        self._ticker: Ticker | None = None

    # Schedulers ------------------------------------------------------------------------------------------------------------------------

    def ticker(
        self,
        *,
        broker: Any = None,
        storage: Any = None,
        poll_interval: timedelta = SECOND,
        declared: Mapping[str, Mapping[str, object]] | None = None,
        **options: Any,
    ) -> Ticker:
        """A scheduler: another one, as it were in a process of its own."""
        store = self.storage if storage is None else storage
        queue = JobQueue(self.broker if broker is None else broker, store, **{"timetables": installed_timetables(), **options})
        return Ticker(queue, store, poll_interval=poll_interval, declared=declared)

    def turn(self, ticker: Ticker | None = None) -> float:
        """Let a scheduler (always the same, unless it is given) do what is due now."""
        if ticker is None:
            ticker = self._ticker = self._ticker or self.ticker()
        return ticker.turn(Stop())

    def pass_time(self, duration: timedelta, *, step: timedelta = SECOND, ticker: Ticker | None = None) -> None:
        """Let time pass, with a turn after each step."""
        for _ in range(duration // step):
            self.clock.advance(step)
            self.turn(ticker)

    # Schedules and their jobs ----------------------------------------------------------------------------------------------------------

    def add(self, name: str = "nightly", expression: str = EACH_SECOND, type: str = "t", **options: Any) -> Schedule:
        return self.schedules.add(name, expression, type, **options)

    def jobs(self, name: str = "nightly") -> list[Job]:
        """Every job that the schedule ever made, in the order in which the broker got them."""
        return [job for job in self.broker.created if job.metadata[SCHEDULE] == name]

    def ticks(self, name: str = "nightly") -> list[datetime]:
        """The tick of each of these jobs."""
        return [tick_of(job) for job in self.jobs(name)]

    def finish(self, queue: str = "default") -> int:
        """Let every job that waits run and complete; says how many."""
        count = 0
        self.broker.promote(10_000)
        while leases := self.broker.lease([queue], 200, worker_id="w", lease_for=30 * SECOND, wait=timedelta(0), suspects=0):
            assert all(self.broker.settle([completed(one) for one in leases], worker_id="w"))
            count += len(leases)
        return count

    def forget(self, after: timedelta) -> None:
        """Record what has finished, and let the broker forget it after its *result_ttl*, given as *after*."""
        self.recorder.record_waiting()
        self.clock.advance(after + SECOND)
        while self.broker.prune(1000):
            pass


def tick_of(job: Job) -> datetime:
    return datetime.fromisoformat(job.metadata[TICK]).astimezone(UTC)


def seconds(first: int, last: int) -> list[datetime]:
    """The whole seconds from *first* to *last* after noon, both included."""
    return [NOON + at * SECOND for at in range(first, last + 1)]

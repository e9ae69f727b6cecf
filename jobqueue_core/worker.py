"""The worker: joins lease, settle, keeper, upkeep and handler threads, and stops them in the right order."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobqueue_core._version import __version__
from jobqueue_core.attempt import Dead, Lease, Release
from jobqueue_core.broker import RunningJob, TypeInfo, WorkerInfo
from jobqueue_core.durations import Duration, to_timedelta
from jobqueue_core.errors import BrokerError, HandlerError
from jobqueue_core.executor import Executor, JobDefaults, Plan
from jobqueue_core.holdings import Holdings, Run, StartedJobs
from jobqueue_core.job import DeadReason, Priority
from jobqueue_core.keeper import Keeper
from jobqueue_core.middleware import Metrics, Middleware, log_runs
from jobqueue_core.observers import Observers
from jobqueue_core.recorder import Recorder
from jobqueue_core.requests import DEFAULT_QUEUE
from jobqueue_core.runners.loop import LoopRunner
from jobqueue_core.runners.threads import ThreadRunner
from jobqueue_core.service import Exit, Stop, StopLevel, Supervision
from jobqueue_core.settlement import Settler
from jobqueue_core.upkeep import UpkeepService

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobqueue_core.app import App
    from jobqueue_core.client import JobQueue
    from jobqueue_core.handlers import Lifespan, Registry

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("jobqueue.worker")
_MARGIN_SHARE: Final = 0.1
"""Nothing is started in the last tenth of a lease."""
_WAIT_SHARE: Final = 0.15
_FIRST_PARK: Final = timedelta(seconds=15)
_LAST_PARK: Final = timedelta(minutes=5)
_MAX_LEAKED: Final = 5
_STOP_NOTICE: Final = 1.0
"""How long handlers may take to notice a shutdown once the grace is over."""
_FLUSH: Final = 5.0
_SUMMARY: Final = 10.0
_CHECK_RSS: Final = 1.0
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 1.0
_SWITCH_INTERVAL: Final = 0.0005
"""Beside one handler thread that computes, the default of 5 ms costs two thirds of the throughput."""


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """How a worker works; the defaults are those of ``[worker]``."""

    queues: tuple[str, ...] = ("critical", "default", "low")
    concurrency: int = 10
    lease: timedelta = attrs.field(default=timedelta(seconds=30), converter=to_timedelta)
    poll_interval: timedelta = attrs.field(default=timedelta(seconds=1), converter=to_timedelta)
    shutdown_timeout: timedelta = attrs.field(default=timedelta(seconds=30), converter=to_timedelta)
    upkeep_interval: timedelta = attrs.field(default=timedelta(seconds=1), converter=to_timedelta)
    name: str | None = None
    max_jobs: int | None = None
    max_rss: int | None = None
    """Bytes of resident memory beyond which the worker asks for a fresh process."""


class Worker:
    """Runs handlers. :meth:`run` works in the caller's own process until told to stop.

    ::

        Worker.from_config("jobqueue.toml").run()
        Worker(queue, registry=Registry.of(my_handlers), queues=["default"], concurrency=10).run()

    Args:
        queue: Where jobs come from, and where history goes.
        registry: The handlers; None means the queue's own.
        middleware: Wrapped round every run, the first outermost.
        options: How to work; single ones may be given by keyword instead.
        defaults: What counts for a job when neither it nor its handler says otherwise.
        observers: Told of what happens.
        recorder: Moves history into storage in a thread of this process; None when somebody else does.
        supervision: The id to hold leases under and the table to note started jobs in, when a supervisor watches this process.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        registry: Registry | None = None,
        middleware: Sequence[Middleware] = (),
        options: WorkerOptions | None = None,
        queues: Sequence[str] | None = None,
        concurrency: int | None = None,
        lease: Duration | None = None,
        shutdown_timeout: Duration | None = None,
        name: str | None = None,
        defaults: JobDefaults | None = None,
        observers: Observers | None = None,
        recorder: Recorder | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "queues": queues and tuple(queues),
            "concurrency": concurrency,
            "lease": lease,
            "shutdown_timeout": shutdown_timeout,
            "name": name,
        }
        self.options = attrs.evolve(options or WorkerOptions(), **{field: value for field, value in given.items() if value is not None})
        self.registry = queue.registry if registry is None else registry
        self.worker_id = (supervision and supervision.worker_id) or str(uuid.uuid4())
        self.metrics = Metrics()
        self._queue = queue
        self._broker = queue.broker
        self._defaults = defaults or JobDefaults()
        self._observers = observers or Observers()
        self._recorder = recorder
        self._lease_seconds = self.options.lease.total_seconds()
        bundled: list[Middleware] = [log_runs] if _log.isEnabledFor(logging.DEBUG) else []
        layers = [*bundled, self.metrics.measure, *middleware]
        self._plans = self._make_plans(layers)
        self._assemble(None if supervision is None else supervision.table)
        self._stop = Stop()
        self._recycle: str | None = None
        self._started_at = self._broker.now()
        self._types = self._published_types()
        self._watch_rss_at = 0.0
        self._summary = _Summary()

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Worker:
        """A worker as a config file describes it, with all installed handlers; it records history itself.

        Raises:
            ConfigError: The configuration is wrong; with every problem.
            PluginError: What is chosen, or a handler package, cannot be used.
        """
        from jobqueue_core.app import App

        return cls.from_app(App.from_config(None if path is None else Path(path)), records=True)

    @classmethod
    def from_app(cls, app: App, *, records: bool) -> Worker:
        """A worker from an assembled app. Raises PluginError when a handler package cannot be used: half the handlers would be worse than none."""
        registry = app.registry
        if app.handler_faults:
            raise app.handler_faults[0]
        settings = app.settings
        return cls(
            app.queue,
            registry=registry,
            middleware=app.middleware(),
            options=WorkerOptions(
                queues=tuple(settings.worker.queues),
                concurrency=settings.worker.concurrency,
                lease=settings.worker.lease,
                poll_interval=settings.worker.poll_interval,
                shutdown_timeout=settings.worker.shutdown_timeout,
                upkeep_interval=settings.scheduler.poll_interval,
                name=settings.worker.name,
                max_jobs=settings.worker.max_jobs,
                max_rss=settings.worker.max_rss,
            ),
            defaults=JobDefaults(
                timeout=settings.job.default_timeout,
                max_retries=settings.job.default_max_retries,
                retry=settings.retry_policy(),
                max_crashes=settings.job.max_crashes,
                unknown_type_after=settings.job.unknown_type_after,
            ),
            observers=app.observers,
            recorder=Recorder(broker=app.broker, storage=app.storage, record=settings.history.record, retention=settings.history.retention)
            if records
            else None,
            supervision=app.process,
        )

    # Running ---------------------------------------------------------------------------------------------------------------------------

    def run(self, stop: Stop | None = None) -> Exit:
        """Work until told to stop: by *stop*, or without one by SIGTERM or SIGINT (twice: give everything back at once).

        Returns:
            How it ended: OK, ABANDONED when handlers did not end, AT_ONCE, or RECYCLE when it wants a fresh process.

        Raises:
            Exception: What a handler module's lifespan raised.
        """
        self._stop = stop or Stop()
        with _tuned(), _signals(self._stop) if stop is None else contextlib.nullcontext():
            return self._run()

    def _run(self) -> Exit:
        self._loop.start()
        try:
            self._loop.open(self._lifespans(), serve=any(plan.isolation == "async" for plan in self._plans.values()))
            if any(plan.isolation == "thread" for plan in self._plans.values()):
                self._threads.start()
            self._announce()
            chores = Stop()
            side = [threading.Thread(target=self._upkeep.run, args=(chores,), name="jobqueue-upkeep", daemon=True)]
            if self._recorder is not None:
                side.append(threading.Thread(target=self._recorder.run, args=(chores,), name="jobqueue-recorder", daemon=True))
            keeper = threading.Thread(target=self._keeper.run, name="jobqueue-keeper", daemon=True)
            settler = threading.Thread(target=self._settler.run, name="jobqueue-settle", daemon=True)
            lessee = threading.Thread(target=self._lease_forever, name="jobqueue-lease", daemon=True)
            for thread in (*side, keeper, settler, lessee):
                thread.start()
            self._stop.wait()
            abandoned = self._wind_down(lessee, settler)
            self._keeper.stop()
            keeper.join(_FLUSH)
            chores.request()
            for thread in side:
                thread.join(_FLUSH)
        finally:
            self._threads.close()
            self._loop.close()
        self._retire()
        if self._stop.level is StopLevel.AT_ONCE:
            return Exit.AT_ONCE
        if abandoned:
            return Exit.ABANDONED
        return Exit.RECYCLE if self._recycle else Exit.OK

    def _wind_down(self, lessee: threading.Thread, settler: threading.Thread) -> int:
        """Stop in the order of DESIGN R6 and R7; says how many handlers were abandoned."""
        facts = {"worker": self.worker_id, "running": len(self._holdings.running), "reason": self._recycle or "told to"}
        _log.info("stopping", extra={"fields": facts})
        self._holdings.stop_starting()
        self._broker.interrupt()
        grace = 0.0 if self._stop.level is StopLevel.AT_ONCE else self.options.shutdown_timeout.total_seconds()
        deadline = monotonic() + grace
        while self._holdings.running and monotonic() < deadline and not self._stop.wait(0.02, level=StopLevel.AT_ONCE):
            pass
        for run in list(self._holdings.running.values()):
            self._keeper.end(run, "shutdown", monotonic())
        notice = monotonic() + _STOP_NOTICE
        while self._holdings.running and monotonic() < notice:
            time.sleep(0.01)
        lessee.join(_FLUSH)
        # What does not end is given back last, when all else has been settled, and the process exits right after.
        stuck = list(self._holdings.running.values())
        for run in stuck:
            self._keeper.write_off(run)
        self._settler.finish()
        settler.join(_FLUSH + (0.0 if self._stop.level is StopLevel.AT_ONCE else _FLUSH))
        return len(stuck) + self._keeper.leaked

    def _lease_forever(self) -> None:
        pause = _FIRST_PAUSE
        options, holdings = self.options, self._holdings
        # A lease counts from when it was asked for: it must not be half over when the broker answers at last.
        wait = min(options.poll_interval, options.lease * _WAIT_SHARE)
        while not self._stop.level:
            want, suspects = holdings.room()
            if not want:
                holdings.wait_for_room(options.poll_interval.total_seconds())
                continue
            sent = monotonic()
            try:
                leases = self._broker.lease(options.queues, want, worker_id=self.worker_id, lease_for=options.lease, wait=wait, suspects=suspects)
            except BrokerError as error:
                if pause == _FIRST_PAUSE:
                    _log.warning("cannot lease, trying again: %s", error)
                self._stop.wait(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            if pause != _FIRST_PAUSE:
                _log.info("broker is back")
            pause = _FIRST_PAUSE
            runs = [run for lease in leases if (run := self._admit(lease, sent)) is not None]
            if runs:
                holdings.add(runs)

    def _admit(self, lease: Lease, began: float) -> Run | None:
        plan = self._plans.get(lease.job.type)
        if plan is None:
            self._park(lease, began)
            return None
        return Run(lease, plan, sent_at=began, valid_until=began + self._lease_seconds)

    def _park(self, lease: Lease, began: float) -> None:
        """Put off a job whose type has no handler here: 15 s, doubling to 5 min, dead after ``unknown_type_after``."""
        job = lease.job
        now = job.started_at or job.created_at
        waited = timedelta(0) if job.unknown_since is None else now - job.unknown_since
        if waited >= self._defaults.unknown_type_after:
            run = Run(lease, Plan.missing(job.type), sent_at=began, valid_until=began + self._lease_seconds)
            error = f"no worker has had a handler for {job.type!r} since {job.unknown_since}"
            self._holdings.settle_unstarted(run, Dead(reason=DeadReason.NO_HANDLER, error=error))
            return
        # After n delays of 15 s * 2**k the job has waited 15 s * (2**n - 1): what it has waited tells the next delay.
        delay = min(_FIRST_PARK + waited, _LAST_PARK)
        _log.info("no handler", extra={"fields": {"job_id": job.id, "type": job.type, "queue": job.queue, "worker": self.worker_id}})
        self._holdings.refuse(Release(lease=lease, delay=delay, unknown_type=True))

    def _assemble(self, table: StartedJobs | None) -> None:
        self._executor = Executor()
        self._holdings = Holdings(
            concurrency=self.options.concurrency, margin=self._lease_seconds * _MARGIN_SHARE, worker_id=self.worker_id, table=table
        )
        self._loop = LoopRunner(self._holdings, self._executor, concurrency=self.options.concurrency)
        self._threads = ThreadRunner(self._holdings, self._executor, concurrency=self.options.concurrency)
        self._upkeep = UpkeepService(
            self._broker, poll_interval=min(self.options.upkeep_interval, self.options.poll_interval), max_crashes=self._defaults.max_crashes
        )
        self._settler = Settler(self._broker, self._holdings, worker_id=self.worker_id, observers=self._observers, due_in=self._upkeep.due_in)
        self._keeper = Keeper(
            broker=self._broker,
            holdings=self._holdings,
            executor=self._executor,
            worker_id=self.worker_id,
            lease_for=self.options.lease,
            describe=self._describe,
            runner_of=lambda run: self._loop if run.plan.isolation == "async" else self._threads,
            also=self._watch_self,
        )

    # What it says of itself ------------------------------------------------------------------------------------------------------------

    def _describe(self, running: Sequence[RunningJob]) -> WorkerInfo:
        return WorkerInfo(
            id=self.worker_id,
            name=self.options.name or f"{socket.gethostname()}:{os.getpid()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues=self.options.queues,
            concurrency=self.options.concurrency,
            lease=self.options.lease,
            started_at=self._started_at,
            types=self._types,
            running=tuple(running),
            stopping=bool(self._stop.level),
        )

    def _published_types(self) -> tuple[TypeInfo, ...]:
        return tuple(
            TypeInfo(
                type=spec.type,
                queue=spec.options.queue or DEFAULT_QUEUE,
                priority=spec.options.priority or Priority.MEDIUM,
                description=spec.description,
                payload_schema=spec.payload_schema(),
                aliases=spec.options.aliases,
            )
            for spec in self.registry
        )

    def _announce(self) -> None:
        info = self._describe(())
        with contextlib.suppress(BrokerError):  # the keeper says so, and goes on trying
            self._broker.beat(info)
        _log.info(
            "worker up",
            extra={
                "fields": {
                    "worker": self.worker_id,
                    "queues": list(self.options.queues),
                    "concurrency": self.options.concurrency,
                    "handlers": [spec.type for spec in self.registry],
                }
            },
        )
        if not len(self.registry):
            _log.warning("no handlers are installed: every job will wait as unknown; install a handler package")
        if self._observers.worker_up is not None:
            self._observers.worker_up(info)

    def _retire(self) -> None:
        info = self._describe(())
        if self._holdings.idle():
            with contextlib.suppress(BrokerError):  # it will be forgotten when its heart has not beaten for a while
                self._broker.leave(self.worker_id)
        if self._observers.worker_down is not None:
            self._observers.worker_down(info)
        _log.info("worker down", extra={"fields": {"worker": self.worker_id, **dict(self._settler.counts)}})

    def _watch_self(self, now: float) -> None:
        self._summary.log(now, self)
        if self._recycle or self._stop.level:
            return
        options = self.options
        if self._keeper.leaked >= _MAX_LEAKED:
            self._recycle = f"{self._keeper.leaked} handlers do not end"
        elif options.max_jobs is not None and self.metrics.started >= options.max_jobs:
            self._recycle = f"max_jobs ({options.max_jobs}) reached"
        elif options.max_rss is not None and now - self._watch_rss_at >= _CHECK_RSS:
            self._watch_rss_at = now
            if (size := _resident_bytes()) > options.max_rss:
                self._recycle = f"max_rss ({options.max_rss} bytes) reached: {size}"
        if self._recycle:
            self._stop.request()

    # Assembly --------------------------------------------------------------------------------------------------------------------------

    def _make_plans(self, middleware: Sequence[Middleware]) -> dict[str, Plan]:
        plans: dict[str, Plan] = {}
        for spec in self.registry:
            if spec.isolation == "process":
                msg = f"handler {spec.origin}: isolation 'process' is not available in this release; use 'thread'"
                raise HandlerError(msg)
            plan = Plan(spec, middleware=middleware, defaults=self._defaults)
            for name in (spec.type, *spec.options.aliases):
                plans[name] = plan
        return plans

    def _lifespans(self) -> list[tuple[Lifespan, list[Plan]]]:
        found: dict[int, tuple[Lifespan, list[Plan]]] = {}
        for plan in self._plans.values():
            if plan.spec.lifespan is not None:
                found.setdefault(id(plan.spec.lifespan), (plan.spec.lifespan, []))[1].append(plan)
        return list(found.values())


class _Summary:
    """One line every ten seconds in which something ran."""

    def __init__(self) -> None:
        self._at = monotonic()
        self._started = 0
        self._counts: dict[str, int] = {}

    def log(self, now: float, worker: Worker) -> None:
        """Log the line if it is time."""
        elapsed = now - self._at
        if elapsed < _SUMMARY:
            return
        counts, started = dict(worker._settler.counts), worker.metrics.started  # noqa: SLF001 - part of the worker
        fresh = {name: counts.get(name, 0) - self._counts.get(name, 0) for name in ("completed", "failed", "dead")}
        begun = started - self._started
        self._at, self._counts, self._started = now, counts, started
        if not begun and not any(fresh.values()):
            return
        p95 = max((value for one in worker.metrics.durations.values() if (value := one.percentile(0.95)) is not None), default=0.0)
        _log.info(
            "summary",
            extra={
                "fields": {
                    "worker": worker.worker_id,
                    "started": begun,
                    **fresh,
                    "rate": round(sum(fresh.values()) / elapsed, 1),
                    "p95_ms": round(p95, 3),
                }
            },
        )


@contextlib.contextmanager
def _tuned() -> Iterator[None]:
    """Interpreter settings that were measured to pay for a worker; put back afterwards."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT raise *stop*, a second one to the utmost; only in the main thread, where Python lets us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(_number: int, _frame: object) -> None:
        # Not under the handler's own frame: it may have interrupted somebody who holds the lock that request() takes.
        level = StopLevel.AT_ONCE if stop.level else StopLevel.GRACEFUL
        threading.Thread(target=stop.request, args=(level,), daemon=True).start()

    before = [(one, signal.signal(one, told)) for one in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        # Not Linux: the peak is all there is.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()

"""The worker: joins lease, settle, keeper, upkeep and handler threads, and stops them in the right order."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobqueue_core.durations import Duration, to_timedelta
from jobqueue_core.errors import HandlerError
from jobqueue_core.handlers import unrunnable
from jobqueue_core.middleware import Metrics, Middleware, Next, log_runs
from jobqueue_core.observers import Observers
from jobqueue_core.recorder import Recorder
from jobqueue_core.service import Exit, Stop, StopLevel, Supervision
from jobqueue_core.upkeep import UpkeepService
from jobqueue_core.worker.executor import Executor, JobDefaults, Plan
from jobqueue_core.worker.holdings import Holdings, StartedJobs
from jobqueue_core.worker.intake import Intake
from jobqueue_core.worker.keeper import Keeper
from jobqueue_core.worker.presence import Presence, Summary
from jobqueue_core.worker.runners.loop import LoopRunner
from jobqueue_core.worker.runners.threads import ThreadRunner
from jobqueue_core.worker.settlement import Settler
from jobqueue_core.worker.tuning import resident_bytes, stopped_by_signals, tuned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from jobqueue_core.app import App
    from jobqueue_core.client import JobQueue
    from jobqueue_core.context import JobContext
    from jobqueue_core.handlers import Lifespan, Registry
    from jobqueue_core.job import Job

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("jobqueue.worker")
_MARGIN_SHARE: Final = 0.1
"""Nothing is started in the last tenth of a lease."""
_MAX_LEAKED: Final = 5
_LOOP_PATIENCE: Final = 2.0
"""Seconds that an event loop may owe a sign of life once a handler in it did not end."""
_STOP_NOTICE: Final = 1.0
"""How long handlers may take to notice a shutdown once the grace is over."""
_FLUSH: Final = 5.0
_FLUSH_AT_ONCE: Final = 3.0
_CHECK_RSS: Final = 1.0


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """How a worker works; the defaults are those of ``[worker]``."""

    queues: tuple[str, ...] = attrs.field(default=("critical", "default", "low"), validator=attrs.validators.min_len(1))
    concurrency: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    lease: timedelta = attrs.field(default=timedelta(seconds=30), converter=to_timedelta, validator=attrs.validators.ge(timedelta(seconds=1)))
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
            "queues": None if queues is None else tuple(queues),
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
        bundled: list[Middleware] = [log_runs] if _log.isEnabledFor(logging.DEBUG) else []
        if self._observers.started is not None:
            bundled.append(_telling(self._observers.started))
        layers = [*bundled, self.metrics.measure, *middleware]
        self._plans = self._make_plans(layers)
        self._stop = Stop()
        self._recycle: str | None = None
        self._watch_rss_at = 0.0
        self._assemble(None if supervision is None else supervision.table)

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
        if stop is not None:
            stop.listen(self._stop.request)
        with tuned(), stopped_by_signals(self._stop) if stop is None else contextlib.nullcontext():
            return self._run()

    def _run(self) -> Exit:
        self._loop.start()
        try:
            self._loop.open(self._lifespans(), serve=any(plan.isolation == "async" for plan in self._plans.values()))
            if any(plan.isolation == "thread" for plan in self._plans.values()):
                self._threads.start()
            self._presence.announce()
            chores, records = Stop(), Stop()
            side = [threading.Thread(target=self._upkeep.run, args=(chores,), name="jobqueue-upkeep", daemon=True)]
            if self._recorder is not None:
                side.append(threading.Thread(target=self._recorder.run, args=(records,), name="jobqueue-recorder", daemon=True))
            keeper = threading.Thread(target=self._keeper.run, name="jobqueue-keeper", daemon=True)
            settler = threading.Thread(target=self._settler.run, name="jobqueue-settle", daemon=True)
            lessee = threading.Thread(target=self._intake.run, args=(self._stop,), name="jobqueue-lease", daemon=True)
            for thread in (*side, keeper, settler, lessee):
                thread.start()
            self._stop.wait()
            chores.request()
            abandoned = self._wind_down(lessee, settler)
            records.request()
            self._keeper.stop()
            # Each may be in a call that takes five seconds to find a broker away: they are given up together.
            _join_all((keeper, *side), 1.0 if self._keeper.is_silent else _FLUSH)
        finally:
            self._threads.close()
            self._loop.close()
        self._presence.retire(self._settler.counts, may_leave=self._holdings.idle() and not self._keeper.is_silent)
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
        flushed_by = monotonic() + (_FLUSH_AT_ONCE if self._stop.level is StopLevel.AT_ONCE else 2 * _FLUSH)
        lessee.join(min(_FLUSH, flushed_by - monotonic()))
        # What does not end is given back last, when all else has been settled, and the process exits right after.
        stuck = list(self._holdings.running.values())
        for run in stuck:
            self._keeper.write_off(run)
        self._settler.finish()
        settler.join(max(flushed_by - monotonic(), 0.0))
        return len(stuck) + self._keeper.leaked

    def _watch_self(self, now: float) -> None:
        self._summary.log(now)
        if self._recycle or self._stop.level:
            return
        options = self.options
        if self._keeper.leaked and self._loop.silent_for(now) > _LOOP_PATIENCE:
            # The written-off handler keeps the loop itself: nothing asynchronous will ever run here again.
            culprit = self._loop.current.lease.job.type if self._loop.current is not None else "unknown"
            self._recycle = f"the event loop does not answer; the handler of {culprit!r} had it last"
        elif self._keeper.leaked >= _MAX_LEAKED:
            self._recycle = f"{self._keeper.leaked} handlers do not end"
        elif options.max_jobs is not None and self.metrics.started >= options.max_jobs:
            self._recycle = f"max_jobs ({options.max_jobs}) reached"
        elif options.max_rss is not None and now - self._watch_rss_at >= _CHECK_RSS:
            self._watch_rss_at = now
            if (size := resident_bytes()) > options.max_rss:
                self._recycle = f"max_rss ({options.max_rss} bytes) reached: {size}"
        if self._recycle:
            self._stop.request()

    # Assembly --------------------------------------------------------------------------------------------------------------------------

    def _assemble(self, table: StartedJobs | None) -> None:
        options = self.options
        self._executor = Executor()
        self._holdings = Holdings(
            concurrency=options.concurrency,
            margin=options.lease.total_seconds() * _MARGIN_SHARE,
            worker_id=self.worker_id,
            table=table,
            ask_again=self._broker.interrupt,
        )
        self._intake = Intake(
            self._broker,
            self._holdings,
            self._plans,
            queues=options.queues,
            worker_id=self.worker_id,
            lease_for=options.lease,
            poll_interval=options.poll_interval,
            unknown_type_after=self._defaults.unknown_type_after,
        )
        self._loop = LoopRunner(self._holdings, self._executor, concurrency=options.concurrency)
        self._threads = ThreadRunner(self._holdings, self._executor, concurrency=options.concurrency)
        self._presence = Presence(
            self._broker,
            self.registry,
            self._observers,
            self._stop,
            worker_id=self.worker_id,
            name=options.name,
            queues=options.queues,
            concurrency=options.concurrency,
            lease=options.lease,
        )
        self._upkeep = UpkeepService(
            self._broker,
            poll_interval=min(options.upkeep_interval, options.poll_interval),
            max_crashes=self._defaults.max_crashes,
            observers=self._observers,
        )
        self._settler = Settler(self._broker, self._holdings, worker_id=self.worker_id, observers=self._observers, due_in=self._upkeep.due_in)
        self._summary = Summary(self.worker_id, self.metrics, self._settler.counts)
        self._keeper = Keeper(
            broker=self._broker,
            holdings=self._holdings,
            executor=self._executor,
            worker_id=self.worker_id,
            lease_for=options.lease,
            describe=self._presence.describe,
            runner_of=lambda run: self._loop if run.plan.isolation == "async" else self._threads,
            also=self._watch_self,
        )

    def _make_plans(self, middleware: Sequence[Middleware]) -> dict[str, Plan]:
        plans: dict[str, Plan] = {}
        for spec in self.registry:
            if (reason := unrunnable(spec)) is not None:
                raise HandlerError(reason)
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


def _join_all(threads: Iterable[threading.Thread], timeout: float) -> None:
    """Wait for *threads*, *timeout* seconds for all of them together."""
    deadline = monotonic() + timeout
    for thread in threads:
        thread.join(max(deadline - monotonic(), 0.0))


def _telling(started: Callable[[Job], None]) -> Middleware:
    """Middleware that tells observers of each start."""

    def tell(ctx: JobContext, call_next: Next) -> Awaitable[object]:
        started(ctx.job)
        return call_next(ctx)

    return tell

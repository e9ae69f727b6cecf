"""The worker: joins lease, settle, keeper, upkeep and handler threads, and stops them in the right order."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import uuid
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, assert_never

import attrs

from jobqueue_core.errors import HandlerError
from jobqueue_core.middleware import Metrics, Middleware, Next, log_starts, misfit
from jobqueue_core.observers import Observers
from jobqueue_core.recorder import Recorder
from jobqueue_core.service import Exit, Stop, StopLevel, Supervision
from jobqueue_core.upkeep import UpkeepService
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.handlerloop import HandlerLoop
from jobqueue_core.worker.holdings import Holdings, StartedJobs
from jobqueue_core.worker.intake import Intake
from jobqueue_core.worker.isolation.pool import HandlerProcesses
from jobqueue_core.worker.keeper import Keeper
from jobqueue_core.worker.loopwatch import LoopWatch
from jobqueue_core.worker.options import HandlerProcessOptions, WorkerOptions
from jobqueue_core.worker.plan import JobDefaults
from jobqueue_core.worker.plans import lifespans, make_plans, process_setup
from jobqueue_core.worker.presence import Presence, Summary
from jobqueue_core.worker.recycling import Recycling
from jobqueue_core.worker.runners.loop import LoopRunner
from jobqueue_core.worker.runners.processes import ProcessRunner
from jobqueue_core.worker.runners.threads import ThreadRunner
from jobqueue_core.worker.settlement import Settler
from jobqueue_core.worker.shutdown import Shutdown
from jobqueue_core.worker.tuning import stopped_by_signals, tuned
from jobqueue_core.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from jobqueue_core.app import App
    from jobqueue_core.client import JobQueue
    from jobqueue_core.context import JobContext
    from jobqueue_core.durations import Duration
    from jobqueue_core.handlers import Registry
    from jobqueue_core.job import Job
    from jobqueue_core.worker.run import Run
    from jobqueue_core.worker.runners import Runner

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("jobqueue.worker")
_MARGIN_SHARE: Final = 0.1
"""Nothing is started in the last tenth of a lease."""
_FLUSH: Final = 5.0


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
        processes: What handlers with ``isolation="process"`` find in their processes; None means *middleware*, which must then be picklable.
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
        processes: HandlerProcessOptions | None = None,
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
        for problem in filter(None, map(misfit, middleware)):
            raise HandlerError(problem)
        bundled: list[Middleware] = [log_starts] if _log.isEnabledFor(logging.DEBUG) else []
        if self._observers.started is not None:
            bundled.append(_telling(self._observers.started))
        bundled.append(self.metrics.measure)
        setup = process_setup(
            self.registry,
            defaults=self._defaults,
            worker_id=self.worker_id,
            options=processes or HandlerProcessOptions(middleware=functools.partial(tuple, middleware)),
        )
        self._handler_processes = None if setup is None else HandlerProcesses(setup, max_rss=self.options.max_rss)
        self._plans = make_plans(
            self.registry,
            bundled=bundled,
            middleware=middleware,
            defaults=self._defaults,
            elsewhere=None if self._handler_processes is None else self._handler_processes.run,
        )
        self._stop = Stop()
        self._recycle: str | None = None
        self._broken: BaseException | None = None
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
        from jobqueue_core.app import installed_middleware

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
            processes=HandlerProcessOptions(
                middleware=functools.partial(installed_middleware, settings), log=None if app.process is None else settings.log
            ),
        )

    # Running ---------------------------------------------------------------------------------------------------------------------------

    def run(self, stop: Stop | None = None) -> Exit:
        """Work until told to stop: by *stop*, or without one by SIGTERM or SIGINT (twice: give everything back at once).

        Returns:
            How it ended: OK, ABANDONED when something did not end or could not be settled, AT_ONCE, or RECYCLE when it wants a fresh process.

        Raises:
            Exception: What a handler module's lifespan raised, or what broke the event loop or a thread of the worker, with a note that says which.
        """
        if stop is not None:
            stop.listen(self._stop.request)
        with tuned(), stopped_by_signals(self._stop) if stop is None else contextlib.nullcontext():
            return self._run()

    def _run(self) -> Exit:
        self._loop.start()
        left = 0
        try:
            if self._open():
                left = self._work()
        finally:
            self._threads.close()
            if self._process_runner is not None and not self._process_runner.close():
                left += 1
            self._loop.close(self._stop.level, first=self._loop_runner.close)
        if self._stop.level is StopLevel.AT_ONCE:
            return Exit.AT_ONCE
        if left or self._loop.left_behind:
            return Exit.ABANDONED
        return Exit.RECYCLE if self._recycle else Exit.OK

    def _open(self) -> bool:
        """Make everything ready to run handlers; False when told to stop meanwhile."""
        here = [plan for plan in self._plans.values() if plan.isolation != "process"]
        kinds = {plan.isolation for plan in self._plans.values()}
        if not self._loop.enter(lifespans(here), stop=self._stop):
            return False
        if "async" in kinds:
            self._loop_runner.start()
        if self._process_runner is not None:
            self._process_runner.start(self._stop)
        if kinds & {"thread", "process"}:
            self._threads.start()
        return True

    def _work(self) -> int:
        """Work until told to stop; says how much was left behind."""
        self._presence.announce()
        chores, records = Stop(), Stop()
        side = [self._thread("jobqueue-upkeep", self._upkeep.run, chores)]
        if self._recorder is not None:
            side.append(self._thread("jobqueue-recorder", self._recorder.run, records))
        keeper = self._thread("jobqueue-keeper", self._keeper.run)
        settler = self._thread("jobqueue-settle", self._settler.run)
        lessee = self._thread("jobqueue-lease", self._intake.run, self._stop)
        for thread in (*side, keeper, settler, lessee):
            thread.start()
        while not self._stop.wait(self._watchdog.pause()):
            self._watchdog.tick(monotonic())
        chores.request()
        if (broken := self._loop.broken or self._broken) is not None:
            # As in a crash, jobs are counted and taken back. What has ended is settled.
            self._settler.finish()
            settler.join(_FLUSH)
            raise broken
        left = self._wind_down(lessee, settler)
        records.request()
        self._keeper.stop()
        # Each may be in a call that takes five seconds to find a broker away: they are given up together.
        _join_all((keeper, *side), 1.0 if left or self._keeper.is_silent else _FLUSH)
        self._presence.retire(self._settler.counts, may_leave=self._holdings.idle() and not self._keeper.is_silent)
        return left

    def _thread(self, name: str, work: Callable[..., object], *arguments: object) -> threading.Thread:
        """A thread without which the worker would only seem to work: if it breaks, so does the worker."""

        def main() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised by run()
                error.add_note(f"raised in the thread {name}")
                self._broken = error
                self._stop.request()

        return threading.Thread(target=main, name=name, daemon=True)

    def _wind_down(self, lessee: threading.Thread, settler: threading.Thread) -> int:
        """Stop in order; says how much was left behind."""
        facts = {"worker": self.worker_id, "running": len(self._holdings.running), "reason": self._recycle or "told to"}
        _log.info("stopping", extra={"fields": facts})
        self._holdings.stop_starting()
        self._broker.interrupt()
        self._keeper.beat_soon()
        return self._shutdown.carry_out(lessee, settler)

    def _watch_self(self, now: float) -> None:
        self._summary.log(now)
        if self._handler_processes is not None:
            self._handler_processes.tidy(now)
        loop_silent = self._loop_watch.look(now)
        if self._loop.broken is not None:
            self._stop.request()
        if self._recycle or self._stop.level:
            return
        self._recycle = self._recycling.reason(now, started=self.metrics.started, leaked=list(self._holdings.written_off), loop_silent=loop_silent)
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
        self._loop = HandlerLoop()
        self._loop_runner = LoopRunner(self._loop, self._holdings, self._executor, concurrency=options.concurrency)
        self._threads = ThreadRunner(self._holdings, self._executor, concurrency=options.concurrency)
        self._process_runner = None if self._handler_processes is None else ProcessRunner(self._handler_processes, self._threads)
        self._loop_watch = LoopWatch(self._loop, self._holdings)
        self._recycling = Recycling(options, self._loop_watch)
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
        self._summary = Summary(self.worker_id, self.metrics, self._settler.counts, self._observers)
        self._watchdog = Watchdog(holdings=self._holdings, executor=self._executor, worker_id=self.worker_id, runner_of=self._runner_of)
        self._shutdown = Shutdown(
            holdings=self._holdings,
            watchdog=self._watchdog,
            settler=self._settler,
            stop=self._stop,
            grace=options.shutdown_timeout,
            lease=options.lease,
        )
        self._keeper = Keeper(
            broker=self._broker,
            holdings=self._holdings,
            watchdog=self._watchdog,
            worker_id=self.worker_id,
            lease_for=options.lease,
            describe=self._presence.describe,
            also=self._watch_self,
        )

    def _runner_of(self, run: Run) -> Runner:
        match run.plan.isolation:
            case "async":
                return self._loop_runner
            case "thread":
                return self._threads
            case "process":
                assert self._process_runner is not None  # noqa: S101 - there is one where there is such a handler
                return self._process_runner
            case _:
                assert_never(run.plan.isolation)


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

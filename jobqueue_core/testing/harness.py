"""Runs handlers in this process, through the real worker, broker and storage, for tests of handler packages.

::

    def test_a_broken_link_is_dead_after_its_retries():
        with Harness([my_package.handlers]) as harness:
            job = harness.run("page.fetch", {"url": "http://127.0.0.1:1/"}, max_retries=0)
        assert job.state == "dead"
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from jobqueue_core.app import App
from jobqueue_core.broker import JobFilter
from jobqueue_core.client import JobQueue
from jobqueue_core.durations import Duration, to_timedelta
from jobqueue_core.errors import WaitTimeout
from jobqueue_core.handlers import Registry
from jobqueue_core.job import Job, JobState
from jobqueue_core.observers import Observer, Observers
from jobqueue_core.plugins import Plugins
from jobqueue_core.recorder import Recorder
from jobqueue_core.retry import RetryPolicy
from jobqueue_core.service import Exit, Stop
from jobqueue_core.settings import load_settings
from jobqueue_core.worker import Worker, WorkerOptions
from jobqueue_core.worker.plan import JobDefaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType, TracebackType

    from jobqueue_core.middleware import Middleware
    from jobqueue_core.operations import Operations

__all__ = ["Harness"]

_ALL_QUEUES: Final = ("*",)


class Harness:
    """A queue on a private SQLite file, and one worker on all of its queues, in threads of this process.

    Everything is as in production but two things: retries wait 10 ms (a handler's own ``retry=`` counts as ever), and only the handlers given are
    known, whatever is installed.

    Args:
        handlers: Modules or decorated functions.
        middleware: Wrapped round every run, the first outermost.
        observers: Told of what happens.
        concurrency: Handlers that run at once.
        retry: For handlers without a policy of their own.
    """

    def __init__(
        self,
        handlers: Iterable[ModuleType | Callable[..., object]],
        *,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        concurrency: int = 4,
        retry: RetryPolicy | None = None,
    ) -> None:
        registry = Registry.of(*handlers)
        self._folder = tempfile.TemporaryDirectory(prefix="jobqueue-harness-")
        url = f"sqlite:///{Path(self._folder.name, 'jobqueue.db').absolute()}"
        plugins = Plugins.load()
        self._app = App(load_settings(environ={}, overrides={"broker.plugin": "sqlite", "broker.url": url}, plugins=plugins), plugins)
        self._observers = Observers(observers)
        self.registry = registry
        self.queue = JobQueue(self._app.broker, self._app.storage, registry=self.registry, observers=self._observers)
        """The client on that file."""
        self.recorder = Recorder(broker=self._app.broker, storage=self._app.storage)
        try:
            self.worker = Worker(
                self.queue,
                registry=self.registry,
                middleware=middleware,
                observers=self._observers,
                options=WorkerOptions(queues=_ALL_QUEUES, concurrency=concurrency, upkeep_interval=timedelta(milliseconds=50)),
                defaults=JobDefaults(retry=retry or RetryPolicy(base=timedelta(milliseconds=10), jitter="none"), max_retries=3),
            )
        except BaseException:
            self._remove()
            raise
        self._stop = Stop()
        self._thread = threading.Thread(target=self._main, name="jobqueue-harness")
        self._exit: Exit | None = None
        self._broken: BaseException | None = None

    @property
    def operations(self) -> Operations:
        """What an operator could do, with history brought up to date first."""
        self.recorder.record_waiting()
        return self.queue.operations

    def enqueue(self, job_type: str | Callable[..., object], payload: object = None, **options: Any) -> Job:
        """Enqueue a job; options and errors as ``JobQueue.enqueue``."""
        return self.queue.enqueue(job_type, payload, **options)

    def run(self, job_type: str | Callable[..., object], payload: object = None, *, within: Duration = "30s", **options: Any) -> Job:
        """Enqueue a job, wait until it has finished, and return it, however it ended.

        Raises:
            WaitTimeout: It had not finished after *within*.
        """
        return self.queue.wait(self.enqueue(job_type, payload, **options).id, timeout=within)

    def drain(self, *, within: Duration = "30s") -> None:
        """Wait until every job has finished.

        Raises:
            WaitTimeout: Some had not after *within*; the message names them.
        """
        deadline = time.monotonic() + to_timedelta(within).total_seconds()
        while unfinished := self._unfinished():
            patience = deadline - time.monotonic()
            if patience <= 0:
                msg = f"unfinished after {within}: " + ", ".join(f"{job.type} {job.id} ({job.state})" for job in unfinished[:10])
                raise WaitTimeout(msg)
            with contextlib.suppress(WaitTimeout):
                self.queue.wait(unfinished[0].id, timeout=timedelta(seconds=patience))

    def _unfinished(self) -> list[Job]:
        pages = (self.queue.operations.jobs(JobFilter(state=state), limit=100) for state in JobState if not state.finished)
        return [job for page in pages for job in page.jobs]

    def _main(self) -> None:
        try:
            self._exit = self.worker.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test by close()  # handed to the test by close()
            self._broken = error

    def close(self) -> None:
        """Stop the worker and remove the file. Raises what broke the worker (a lifespan)."""
        self._stop.request()
        self._thread.join()
        self._remove()
        if self._broken is not None:
            raise self._broken

    def _remove(self) -> None:
        self.queue.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

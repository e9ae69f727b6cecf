"""One handler, made ready to run in a worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs

from jobqueue_core.attempt import Completed, Outcome
from jobqueue_core.context import JobContext
from jobqueue_core.handlers import HandlerSpec, Isolation, handler, inspect_handler
from jobqueue_core.middleware import Middleware, Next, compose
from jobqueue_core.retry import RetryPolicy
from jobqueue_core.worker.interrupting import interruptible

if TYPE_CHECKING:
    from jobqueue_core.job import Job

__all__ = ["EndedElsewhere", "JobDefaults", "Plan"]


@attrs.frozen(kw_only=True)
class JobDefaults:
    """What counts for a job when neither it nor its handler says otherwise."""

    timeout: timedelta = timedelta(minutes=5)
    max_retries: int = 3
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_crashes: int = 3
    unknown_type_after: timedelta = timedelta(days=1)


class Plan:
    """One handler, made ready to run in this worker: its middleware wrapped round it, its options filled in."""

    __slots__ = (
        "_elsewhere",
        "call",
        "concurrency",
        "grace",
        "isolation",
        "max_crashes",
        "max_retries",
        "memory",
        "resources",
        "retry",
        "runs_async",
        "spec",
        "timeout",
    )

    def __init__(
        self,
        spec: HandlerSpec,
        *,
        middleware: Sequence[Middleware],
        defaults: JobDefaults,
        elsewhere: Callable[[Plan, JobContext], Outcome] | None = None,
    ) -> None:
        self.spec = spec
        self.isolation: Isolation = spec.isolation
        self.concurrency = spec.options.concurrency
        self.retry = spec.options.retry or defaults.retry
        self.timeout = spec.options.timeout or defaults.timeout
        self.grace = spec.options.grace
        self.memory = spec.options.memory
        self.max_retries = defaults.max_retries if spec.options.max_retries is None else spec.options.max_retries
        self.max_crashes = defaults.max_crashes
        self.runs_async = inspect.iscoroutinefunction(spec.function)
        self._elsewhere = elsewhere
        self.resources: object = None
        """What the handler's lifespan yielded; set before the first job."""
        innermost = self._call_async if self.runs_async else self._call_sync
        self.call: Next = compose(middleware, innermost if elsewhere is None else self._call_elsewhere)

    @classmethod
    def missing(cls, job_type: str) -> Plan:
        """A stand-in for a type that has no handler; it is never called."""

        @handler(job_type)
        def nobody(_payload: object) -> None: ...

        return cls(inspect_handler(nobody), middleware=(), defaults=JobDefaults())

    async def _call_async(self, context: JobContext) -> object:
        return await self.spec.call(context.payload, context)

    async def _call_sync(self, context: JobContext) -> object:
        return interruptible(context, self.spec.call, context.payload)

    async def _call_elsewhere(self, context: JobContext) -> Completed:
        assert self._elsewhere is not None  # noqa: S101 - called only where there is one
        outcome = self._elsewhere(self, context)
        if isinstance(outcome, Completed):
            return outcome
        raise EndedElsewhere(outcome)

    def timeout_of(self, job: Job) -> timedelta:
        """How long a run of *job* may take."""
        return self.timeout if job.timeout is None else job.timeout

    def context(self, job: Job, worker_id: str) -> JobContext:
        """The context of one run."""
        return JobContext(
            job,
            max_retries=self.max_retries if job.max_retries is None else job.max_retries,
            worker_id=worker_id,
            timeout=self.timeout_of(job),
            resources=self.resources,
        )


class EndedElsewhere(Exception):
    """Carries an outcome through the middleware, which sees that the run has not completed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome

"""The client: how a program enqueues jobs and asks after them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from jobqueue_core.broker import Broker, Enqueued
from jobqueue_core.coalescer import Coalescer
from jobqueue_core.durations import Duration, to_timedelta
from jobqueue_core.errors import BrokerUnavailable, Conflict, InvalidJob, JobNotFound, QueueFull, WaitTimeout
from jobqueue_core.handlers import Registry
from jobqueue_core.job import Idempotency, Job, NewJob, Priority, check_job_id
from jobqueue_core.observers import Observers
from jobqueue_core.requests import OPTION_NAMES, HandlerRouting, JobOptions, Routing, build_job
from jobqueue_core.routing import PublishedTypes, Routes
from jobqueue_core.sharing import SharedSend
from jobqueue_core.timetable import Timetables

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from jobqueue_core.operations import Operations
    from jobqueue_core.recording import RecordingQueue
    from jobqueue_core.scheduling.operations import ScheduleOperations
    from jobqueue_core.storage import Storage

__all__ = ["JobQueue", "accepted", "not_sent"]

_log = logging.getLogger("jobqueue.client")
_MAX_BATCH: Final = 500
_MAX_BATCH_BYTES: Final = 4 << 20
_ENOUGH: Final = 2.0
"""Seconds after which, when a step has failed, no other is sent: each may take five."""
_ENVELOPE: Final = 256
"""Bytes counted for a job beside its payload."""
_DEFAULT_MAX_PAYLOAD: Final = 1 << 20
_FIRST_POLL: Final = 0.02
_LAST_POLL: Final = 0.25


class JobQueue:
    """Enqueues jobs and asks after them. Safe to use from any thread.

    ::

        with JobQueue.from_config("jobqueue.toml") as queue:
            job = queue.enqueue("email.send", {"to": "a@b.c"}, delay="1h")

    Args:
        broker: Carries the jobs. Closed by :meth:`close`.
        storage: Where finished jobs are looked up once the broker has forgotten them; None for nowhere. Closed likewise.
        registry: Handlers whose decorators say where their jobs go; None asks running workers only.
        observers: Told of each new job.
        max_payload: The most bytes of JSON in a payload.
        timetables: Read the expressions of schedules; None for those of the installed plugins.
    """

    def __init__(
        self,
        broker: Broker,
        storage: Storage | None = None,
        *,
        registry: Registry | Callable[[], Registry] | None = None,
        observers: Observers | None = None,
        max_payload: int = _DEFAULT_MAX_PAYLOAD,
        timetables: Timetables | None = None,
    ) -> None:
        self._timetables = timetables
        self.broker = broker
        self.storage = storage
        self._registry = registry
        self._observers = observers or Observers()
        self.max_payload = max_payload
        self._routing: Routing = Routes(HandlerRouting(self._handler), PublishedTypes(broker))
        self._coalescer = Coalescer(self._send)
        self._shared = SharedSend(self._send)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> JobQueue:
        """Open the queue that a config file describes; without one, what the environment or the embedded default says.

        Raises:
            ConfigError: The file or environment is wrong; with every problem.
            PluginError: What is chosen cannot be used.
            BrokerError: The broker cannot be reached.
        """
        from jobqueue_core.app import App

        return App.from_config(None if path is None else Path(path)).queue

    @classmethod
    def from_env(cls) -> JobQueue:
        """Open the queue that the environment describes (``JOBQUEUE_CONFIG``, ``REDIS_URL`` ...). Raises as :meth:`from_config`."""
        configured = os.environ.get("JOBQUEUE_CONFIG")
        return cls.from_config(configured or None)

    @classmethod
    def recording(cls, registry: Registry | None = None) -> RecordingQueue:
        """A queue for tests that collects jobs in ``.jobs`` instead of sending them."""
        from jobqueue_core.recording import RecordingQueue

        return RecordingQueue(registry=registry)

    # Enqueue ---------------------------------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        job_type: str | Callable[..., object],
        payload: object = None,
        *,
        queue: str | None = None,
        priority: Priority | str | None = None,
        delay: Duration | None = None,
        scheduled_at: datetime | None = None,
        expires_in: Duration | None = None,
        expires_at: datetime | None = None,
        max_retries: int | None = None,
        timeout: Duration | None = None,
        unique_key: str | None = None,
        unique_for: Duration | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        id: object = None,
        idempotency: Idempotency | None = None,
    ) -> Job:
        """Enqueue one job; returns once the broker has accepted it, with the job that was there before when it is a duplicate.

        Args:
            job_type: The type's name, or the decorated function itself.
            payload: A JSON value, or an instance of the handler's payload class.
            queue: Where it goes; None: as declared by its handler, else ``default``.
            priority: None: as declared by its handler, else ``medium``.
            delay: Run it that much later.
            scheduled_at: Run it at that time (aware).
            expires_in: Cancel it if no run has started by then.
            expires_at: The same as a time (aware).
            max_retries: None: the handler's, else the worker's default.
            timeout: For one run; None likewise.
            unique_key: At most one unfinished job of the queue has this key; a duplicate gives back the existing job.
            unique_for: Hold the key at least that long after enqueue.
            metadata: Text to keep with the job.
            headers: Reserved for trace context and codecs.
            id: Any UUID of yours; a job that has it already is given back.
            idempotency: A key of the caller's request, kept 24 hours.

        Raises:
            InvalidJob: Something about it is wrong; nothing was sent.
            Conflict: The id belongs to another job, or the idempotency key was used with another body.
            BrokerUnavailable: No answer within 5 s; ``maybe_accepted`` says whether the job may be stored. Repeat it with the same ``id`` or key.
            QueueFull: The broker has no room.
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            delay=delay,
            scheduled_at=scheduled_at,
            expires_in=expires_in,
            expires_at=expires_at,
            max_retries=max_retries,
            timeout=timeout,
            unique_key=unique_key,
            unique_for=unique_for,
            metadata=metadata,
            headers=headers,
            id=id,
            idempotency=idempotency,
        )
        return accepted(self.send_one(self.build(job_type, payload, options)))

    def build(self, job_type: str | Callable[..., object], payload: object, options: JobOptions, *, at: str = "", ours: bool = False) -> NewJob:
        """Check a job without sending it. Raises as :func:`jobqueue_core.requests.build_job`."""
        return build_job(job_type, payload, options, routing=self._routing, max_payload=self.max_payload, at=at, ours=ours)

    def enqueue_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[Enqueued]:
        """Enqueue many jobs, each a mapping of ``type``, ``payload`` and the options of :meth:`enqueue`.

        All are checked before anything is sent. They are sent in steps of at most 500 jobs or 4 MiB.

        Returns:
            For each, in order: created, existing, refused or unknown (no answer came; sending the same ids again makes no second job).

        Raises:
            InvalidJob: One is wrong (``jobs[3].queue``); nothing was sent.
        """
        answers, _failure = self.send_many(self.build_many(jobs))
        return answers

    def build_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[NewJob]:
        """Check the jobs of an :meth:`enqueue_many` without sending them. Raises as that does."""
        return [self._from_mapping(index, one) for index, one in enumerate(jobs)]

    def send_many(self, jobs: Sequence[NewJob]) -> tuple[list[Enqueued], BrokerUnavailable | QueueFull | None]:
        """Enqueue jobs that :meth:`build_many` has made, in steps.

        Returns:
            What became of each, and what the last step failed with that did.
        """
        answers: list[Enqueued] = []
        began = time.monotonic()
        failure: BrokerUnavailable | QueueFull | None = None
        for step in _steps(jobs):
            if failure is not None and time.monotonic() - began > _ENOUGH:
                answers += [not_sent(job, failure) for job in step]
                continue
            try:
                answers += self._send(step)
            except (BrokerUnavailable, QueueFull) as error:
                failure = error
                status: Literal["unknown", "refused"] = "unknown" if getattr(error, "maybe_accepted", False) else "refused"
                problem = f"{type(error).__name__}: {error}"
                answers += [Enqueued(status=status, job_id=job.id, problem=f"{problem} (id {job.id})") for job in step]
        return answers, failure

    def _from_mapping(self, index: int, given: Mapping[str, Any]) -> NewJob:
        at = f"jobs[{index}]"
        if not isinstance(given, Mapping):
            raise InvalidJob(at, f"expected a mapping, got {type(given).__name__}")
        if "type" not in given:
            raise InvalidJob(f"{at}.type", "is missing")
        unknown = set(given) - OPTION_NAMES - {"type", "payload"}
        if unknown:
            raise InvalidJob(f"{at}.{min(map(str, unknown))}", f"is not an option; known: type, payload, {', '.join(sorted(OPTION_NAMES))}")
        options = JobOptions(**{name: value for name, value in given.items() if name in OPTION_NAMES})
        return self.build(given["type"], given.get("payload"), options, at=f"{at}.")

    def send_one(self, job: NewJob) -> Enqueued:
        """Enqueue a job that :meth:`build` has made. Threads that do so at once share round trips.

        Raises:
            BrokerUnavailable, QueueFull: As :meth:`enqueue`.
        """
        return self._shared.submit(job)

    def send(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        """Enqueue jobs that :meth:`build` has made, in steps as :meth:`enqueue_many`.

        After *not_after* by the broker's clock they are refused (``late``).

        Raises:
            BrokerUnavailable, QueueFull: For one step; those before it have arrived, those after it were not sent.
        """
        return [answer for step in _steps(jobs) for answer in self._send(step, not_after=not_after)]

    def _send(self, jobs: list[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        answers = self.broker.enqueue(jobs, not_after=not_after)
        if self._observers.enqueued is not None or _log.isEnabledFor(logging.DEBUG):
            for answer in answers:
                if answer.status == "created" and answer.job is not None:
                    self._tell(answer.job)
        return answers

    def _tell(self, job: Job) -> None:
        _log.debug("enqueued", extra={"fields": {**job.log_facts(), "priority": job.priority.value}})
        if self._observers.enqueued is not None:
            self._observers.enqueued(job)

    # Ask -------------------------------------------------------------------------------------------------------------------------------

    def get(self, job_id: object) -> Job | None:
        """The job as it is now; None when neither broker nor history knows it.

        Raises:
            InvalidJob: *job_id* is not a UUID.
            BrokerUnavailable: No answer.
        """
        return self.operations.find_job(check_job_id(job_id))

    def cancel(self, job_id: object) -> Job:
        """Cancel a job that waits, at once, or ask a running one to stop; returns it as it is then.

        Raises:
            JobNotFound: Nobody knows it.
            Conflict: It has finished (code ``finished``).
            BrokerUnavailable: No answer.
        """
        return self.operations.cancel_job(check_job_id(job_id)).job

    def wait(self, job_id: object, timeout: Duration | None = None) -> Job:
        """Wait until a job has finished, and return it.

        Raises:
            JobNotFound: Nobody knows it.
            WaitTimeout: It had not finished after *timeout*; it goes on.
            BrokerUnavailable: No answer.
        """
        known = check_job_id(job_id)
        deadline = None if timeout is None else time.monotonic() + to_timedelta(timeout).total_seconds()
        pause = _FIRST_POLL
        while True:
            job = self.get(known)
            if job is None:
                raise JobNotFound("job", known)
            if job.state.finished:
                return job
            if deadline is not None and time.monotonic() + pause > deadline:
                if time.monotonic() >= deadline:
                    msg = f"job {known} is still {job.state} after {timeout}"
                    raise WaitTimeout(msg)
                pause = max(deadline - time.monotonic(), 0.001)
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL)

    # Asynchronous twins ----------------------------------------------------------------------------------------------------------------

    async def aenqueue(self, job_type: str | Callable[..., object], payload: object = None, **options: Any) -> Job:
        """:meth:`enqueue` for asynchronous callers; those in flight at once share round trips."""
        unknown = set(options) - OPTION_NAMES
        if unknown:
            msg = f"aenqueue() got an unexpected keyword argument {min(unknown)!r}"
            raise TypeError(msg)
        # Routing may ask the broker which types are served: not on the event loop.
        new = await self._coalescer.in_thread(lambda: self.build(job_type, payload, JobOptions(**options)))
        return accepted(await self._coalescer.submit(new))

    async def aenqueue_many(self, jobs: Iterable[Mapping[str, Any]]) -> list[Enqueued]:
        """:meth:`enqueue_many` for asynchronous callers."""
        return await self._coalescer.in_thread(lambda: self.enqueue_many(jobs))

    async def aget(self, job_id: object) -> Job | None:
        """:meth:`get` for asynchronous callers."""
        return await self._coalescer.in_thread(lambda: self.get(job_id))

    async def acancel(self, job_id: object) -> Job:
        """:meth:`cancel` for asynchronous callers."""
        return await self._coalescer.in_thread(lambda: self.cancel(job_id))

    async def await_job(self, job_id: object, timeout: Duration | None = None) -> Job:  # noqa: ASYNC109 - the twin of wait
        """:meth:`wait` for asynchronous callers."""
        return await self._coalescer.in_thread(lambda: self.wait(job_id, timeout))

    # The rest --------------------------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Operations:
        """Everything an operator can do with this queue."""
        from jobqueue_core.operations import Operations

        return Operations(self)

    @property
    def registry(self) -> Registry:
        """The handlers known here; empty when none are."""
        if self._registry is None:
            return Registry()
        if not isinstance(self._registry, Registry):
            self._registry = self._registry()
        return self._registry

    def knows(self, job_type: str) -> bool:
        """Whether a handler for *job_type* is known here, or a running worker has one.

        Raises:
            BrokerUnavailable: No answer.
        """
        return self._handler(job_type) is not None or any(job_type in (one.type, *one.aliases) for one in self.broker.types())

    @property
    def timetables(self) -> Timetables:
        """What reads the expressions of schedules; unless given, what the installed plugins offer."""
        if self._timetables is None:
            from jobqueue_core.plugins import Plugins

            self._timetables = Timetables(Plugins.load().timetables())
        return self._timetables

    @property
    def schedules(self) -> ScheduleOperations:
        """Schedules, and what can be done with them."""
        return self.operations.schedules

    def _handler(self, job_type: str) -> Any:
        return self.registry.get(job_type) if self._registry is not None else None

    def close(self) -> None:
        """Let go of broker and storage."""
        self._coalescer.close()
        self.broker.close()
        if self.storage is not None:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def accepted(answer: Enqueued) -> Job:
    """The job of an answer to an enqueue.

    Raises:
        Conflict: It was refused; the code says why.
        BrokerUnavailable: No answer came.
    """
    if answer.status == "unknown":
        raise BrokerUnavailable(answer.problem or "no answer came", maybe_accepted=True)
    if answer.job is None or answer.status == "refused":
        messages = {
            "idempotency_conflict": "this Idempotency-Key was used with another request",
            "id_conflict": "another job, of another type or queue, has this id",
            "late": "the broker's clock is past the time by which it had to be enqueued",
        }
        problem = answer.problem or "refused"
        raise Conflict(messages.get(problem, problem), code=problem)
    return answer.job


def not_sent(job: NewJob, failure: Exception) -> Enqueued:
    """What is answered for a job that was not sent, because one before it has failed with *failure*."""
    problem = f"not sent after {type(failure).__name__}: {failure} (id {job.id})"
    return Enqueued(status="refused", job_id=job.id, problem=problem)


def _steps(jobs: Iterable[NewJob]) -> Iterable[list[NewJob]]:
    step: list[NewJob] = []
    size = 0
    for job in jobs:
        weight = len(job.payload_json) + _ENVELOPE
        if step and (len(step) >= _MAX_BATCH or size + weight > _MAX_BATCH_BYTES):
            yield step
            step, size = [], 0
        step.append(job)
        size += weight
    if step:
        yield step

"""What a handler is told about its run, and how it answers while it runs."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from jobqueue_core.attempt import LogLine
from jobqueue_core.job import Job, Progress
from jobqueue_core.payload import encodable

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

__all__ = ["JobContext", "StopReason", "current_run", "run_facts"]

StopReason = Literal["timeout", "cancel", "shutdown"]
"""Why a run is asked to stop before its handler has returned."""

current_run: Final[ContextVar[JobContext | None]] = ContextVar("jobqueue_run", default=None)
"""The run that the calling code belongs to, for log lines. The executor sets it when a run starts; it counts until that run's ``ended`` is set.

It is not set back at the end of a run: to mark the run costs a sixth as much, and also ends it for tasks that outlive it, such as those of a
connection pool that a handler was the first to use.
"""

_MAX_LINES: Final = 1_000
_MAX_LINE: Final = 2_000


def run_facts() -> dict[str, object]:
    """What a log line says of the run that the calling code belongs to: job_id, type, queue, attempt, run; empty outside of runs."""
    context = current_run.get()
    return {} if context is None or context.ended else context.job.log_facts()


class JobContext:
    """One run, as its handler sees it.

    Attributes:
        job: The job, as it was leased.
        attempt: Which attempt this is, from 1: what the retry policy counts.
        run: Which run this is, from 1: counts every start of a handler over the job's whole life. (job id, run) is unique.
        max_retries: Retries that are allowed, after decorator and configuration were filled in.
        worker_id: Who runs it.
        resources: What the module's ``@lifespan`` yielded; None without one.
    """

    __slots__ = (
        "_dirty",
        "_lines",
        "_logger",
        "_progress",
        "attempt",
        "deadline_at",
        "ended",
        "job",
        "max_retries",
        "payload",
        "resources",
        "run",
        "stop_reason",
        "worker_id",
    )

    def __init__(
        self,
        job: Job,
        *,
        payload: object = None,
        max_retries: int = 0,
        worker_id: str = "",
        timeout: timedelta | None = None,
        resources: Any = None,
    ) -> None:
        self.job = job
        self.attempt = job.retry_count + 1
        self.run = job.run
        self.max_retries = max_retries
        self.worker_id = worker_id
        self.resources = resources
        self.payload = payload
        self.stop_reason: StopReason | None = None
        self.ended = False
        """Whether its outcome is known; set by the executor."""
        self.deadline_at = math.inf if timeout is None else time.monotonic() + timeout.total_seconds()
        """When this run times out, by the monotonic clock. For the worker."""
        self._logger: JobLogger | None = None
        self._progress: Progress | None = None
        self._lines: deque[LogLine] | None = None
        self._dirty = False

    @property
    def cancelled(self) -> bool:
        """True once this run is asked to stop: by a cancel, its timeout or a shutdown.

        A handler in a thread has to look; an ``async def`` one gets a ``CancelledError``.
        """
        return self.stop_reason is not None

    @property
    def deadline(self) -> datetime | None:
        """When this run times out, by this host's clock; None without a timeout."""
        if self.deadline_at == math.inf:
            return None
        return datetime.now(UTC) + timedelta(seconds=self.deadline_at - time.monotonic())

    @property
    def logger(self) -> JobLogger:
        """A logger whose lines carry the job's id and type, and are kept with the job (``jobqueue job logs ID``): its latest 1,000 lines."""
        if self._logger is None:
            self._logger = JobLogger(self)
        return self._logger

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far this run has come; shown with the job within a second. Costs nothing to call often.

        Args:
            fraction: From 0 to 1; what lies outside is brought to the nearer end.
            message: A few words, cut at 200 characters.
        """
        self._progress = Progress(min(max(0.0, float(fraction)), 1.0), message if message is None else encodable(str(message)[:200]))
        self._dirty = True

    def take_report(self) -> tuple[Progress | None, tuple[LogLine, ...]] | None:
        """What is new since the last call, for the broker; None when nothing is. For the worker."""
        if not self._dirty:
            return None
        # Cleared first: what is added by the handler's thread meanwhile is taken now or next time, never missed.
        self._dirty = False
        lines: list[LogLine] = []
        if self._lines:
            while self._lines:
                lines.append(self._lines.popleft())
        progress, self._progress = self._progress, None
        return progress, tuple(lines)

    def put_back(self, progress: Progress | None, lines: Iterable[LogLine]) -> None:
        """Undo :meth:`take_report`, whose answer could not be stored. For the worker."""
        if self._progress is None:
            self._progress = progress
        if self._lines is None:
            self._lines = deque(maxlen=_MAX_LINES)
        room = _MAX_LINES - len(self._lines)
        self._lines.extendleft(reversed(tuple(lines)[-room:] if room else ()))
        self._dirty = True

    def hear(self, progress: Progress | None, lines: Iterable[LogLine]) -> None:
        """Take over what a handler has said in another process. For the worker."""
        if progress is not None:
            self._progress = progress
        if self._lines is None:
            self._lines = deque(maxlen=_MAX_LINES)
        self._lines.extend(lines)
        self._dirty = True

    def keep_line(self, level: str, message: str) -> None:
        """Keep one line with the job. For the logger."""
        if self._lines is None:
            self._lines = deque(maxlen=_MAX_LINES)
        self._lines.append(LogLine(datetime.now(UTC), self.run, level, encodable(message[:_MAX_LINE])))
        self._dirty = True


class JobLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic in stubs only
    """Logs to ``jobqueue.job`` with the job's facts, and keeps each enabled line with the job."""

    def __init__(self, context: JobContext) -> None:
        super().__init__(logging.getLogger("jobqueue.job"), {})
        self._context = context
        # Also where the run's context variable does not reach: in a thread that the handler has started.
        self._facts = context.job.log_facts()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the job's facts to a line."""
        extra = dict(kwargs.get("extra") or {})
        extra["fields"] = {**self._facts, **extra.get("fields", {})}
        kwargs["extra"] = extra
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line and keep it."""
        if not self.isEnabledFor(level):
            return
        try:
            text = str(msg) % args if args else str(msg)
        except Exception:  # noqa: BLE001 - the handler's own objects: a line for the log must not fail its job
            text = f"{msg if isinstance(msg, str) else type(msg)} (its arguments cannot be shown)"
        if (shown := encodable(text)) != text:
            # No stream or collector could write half a character.
            text, msg, args = shown, shown, ()
        self._context.keep_line(logging.getLevelName(level).lower(), text)
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **kwargs)

"""A queue for tests: it checks and collects jobs instead of sending them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from jobqueue_core.broker import Enqueued, TypeInfo
from jobqueue_core.client import JobQueue
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.lifecycle import accept, cancel
from jobqueue_core.payload import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobqueue_core.handlers import Registry
    from jobqueue_core.job import Job, NewJob
    from jobqueue_core.requests import JobOptions

__all__ = ["RecordingQueue"]


class _RecordingBroker:
    """As much of a broker as a producer meets, in memory: it stores, knows ids and unique keys, and runs nothing."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}

    def enqueue(self, jobs: Sequence[NewJob], *, not_after: datetime | None = None) -> list[Enqueued]:
        now = datetime.now(UTC)
        if not_after is not None and now > not_after:
            return [Enqueued(status="refused", problem="late") for _ in jobs]
        return [self._enqueue(new, now) for new in jobs]

    def _enqueue(self, new: NewJob, now: datetime) -> Enqueued:
        holder = self._keys.get((new.queue, new.unique_key)) if new.unique_key is not None else None
        known = self.jobs.get(new.id) or (self.jobs[holder] if holder else None)
        if known is not None and known.id == new.id and (known.type, known.queue) != (new.type, new.queue):
            return Enqueued(status="refused", job=known, problem="id_conflict")
        if known is not None:
            return Enqueued(status="existing", job=known)
        job = self.jobs[new.id] = accept(new, now)
        if new.unique_key is not None:
            self._keys[new.queue, new.unique_key] = new.id
        return Enqueued(status="created", job=job)

    def cancel(self, job_id: str) -> Literal["cancelled", "finished", "unknown"]:
        job = self.jobs.get(job_id)
        if job is None:
            return "unknown"
        if job.state.finished:
            return "finished"
        self.jobs[job_id] = cancel(job, datetime.now(UTC))
        if job.unique_key is not None:
            self._keys.pop((job.queue, job.unique_key), None)
        return "cancelled"

    def get(self, job_ids: Sequence[str]) -> list[Job | None]:
        return [self.jobs.get(job_id) for job_id in job_ids]

    def types(self) -> list[TypeInfo]:
        return []

    def close(self) -> None:
        """Nothing is open."""


class RecordingQueue(JobQueue):
    """What ``JobQueue.recording()`` gives: every job that was enqueued is in :attr:`jobs`.

    Everything is checked as for a real queue, and more: where the handler is known, because it was given as a function or stands in the
    registry, a payload that does not fit its annotation raises at once what would make the job dead as ``invalid_payload``.
    """

    def __init__(self, *, registry: Registry | None = None) -> None:
        self._recorded = _RecordingBroker()
        super().__init__(self._recorded, registry=registry)  # type: ignore[arg-type]  # a producer's half of a broker

    def build(self, job_type: str | Callable[..., object], payload: object, options: JobOptions, *, at: str = "", ours: bool = False) -> NewJob:
        """Check a job. Raises as ``JobQueue.build``, and InvalidPayload where the handler would refuse the payload."""
        new = super().build(job_type, payload, options, at=at, ours=ours)
        spec = self.registry.get(new.type) if isinstance(job_type, str) else inspect_handler(job_type)
        if spec is not None:
            spec.convert(new.payload_json)
        return new

    @property
    def jobs(self) -> list[Job]:
        """The jobs so far, in the order of their enqueueing."""
        return list(self._recorded.jobs.values())

    def payloads(self, job_type: str) -> list[object]:
        """The payloads of the jobs of one type."""
        return [decode_json(job.payload_json) for job in self.jobs if job.type == job_type]

    def clear(self) -> None:
        """Forget all jobs."""
        self._recorded.jobs.clear()
        self._recorded._keys.clear()  # noqa: SLF001 - its own broker

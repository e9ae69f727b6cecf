"""Workers, and the job types that they serve."""

from __future__ import annotations

from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_core.objects import TypeObject, WorkerObject

__all__ = ["Types", "Workers"]


class Workers:
    """The workers that live."""

    @operation("listWorkers", "The workers that live", tag="workers", role="read", answers={200: list[WorkerObject]})
    def on_get(self, call: Call[None, None]) -> Answer:
        """The worker processes that live, oldest first, with the jobs that each runs."""
        return Answer([worker.to_dict() for worker in call.operations.workers()])


class Types:
    """The job types."""

    @operation("listTypes", "The job types", tag="workers", role="read", answers={200: list[TypeObject]})
    def on_get(self, call: Call[None, None]) -> Answer:
        """The job types that workers serve or have served in the last day, with the JSON Schema of their payload."""
        return Answer([one.to_dict() for one in call.operations.types()])

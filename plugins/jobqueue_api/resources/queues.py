"""Queues: their numbers, and what an operator does with them."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_core.objects import Count, DepthObject, QueueName, QueueObject

__all__ = ["QueueDepth", "QueueJobs", "QueuePause", "QueueResume", "QueueStats", "Queues"]


class QueueDepthObject(TypedDict):
    """How many jobs wait in a queue."""

    name: QueueName
    depth: DepthObject
    waiting: Count


class QueueStateObject(TypedDict):
    """Whether a queue hands out jobs."""

    name: QueueName
    paused: bool


class PurgedObject(TypedDict):
    """What a purge has done."""

    queue: QueueName
    purged: Annotated[int, Meta(ge=0, description="How many jobs were cancelled.")]


class Queues:
    """All queues."""

    @operation("listQueues", "List queues", tag="queues", role="read", answers={200: list[QueueObject]})
    def on_get(self, call: Call[None, None]) -> Answer:
        """All queues that have ever had a job or are paused, by name, with depth, age of the oldest job, totals and rates."""
        return Answer([queue.to_dict() for queue in call.operations.queues()])


class QueueStats:
    """The numbers of one queue."""

    @operation("getQueueStats", "A queue in numbers", tag="queues", role="read", answers={200: QueueObject}, problems=(404,))
    def on_get(self, call: Call[None, None], name: str) -> Answer:
        """Depth by priority, jobs in each other state, age of the oldest job, totals and rates."""
        return Answer(call.operations.queue(name).to_dict())


class QueueDepth:
    """The depth of one queue."""

    @operation("getQueueDepth", "How many jobs wait in a queue", tag="queues", role="read", answers={200: QueueDepthObject}, problems=(404,))
    def on_get(self, call: Call[None, None], name: str) -> Answer:
        """Jobs that wait, by priority and in all."""
        queue = call.operations.queue(name).to_dict()
        return Answer(QueueDepthObject(name=queue["name"], depth=queue["depth"], waiting=queue["waiting"]))


class QueuePause:
    """Pausing a queue."""

    @operation("pauseQueue", "Pause a queue", tag="queues", role="admin", answers={200: QueueStateObject}, problems=(400, 404))
    def on_post(self, call: Call[None, None], name: str) -> Answer:
        """Hand out nothing more from it. What runs goes on, and jobs may still be enqueued; a queue that has no jobs yet may be paused too."""
        call.operations.pause_queue(name)
        return Answer(QueueStateObject(name=name, paused=True))


class QueueResume:
    """Resuming a queue."""

    @operation("resumeQueue", "Resume a queue", tag="queues", role="admin", answers={200: QueueStateObject}, problems=(400, 404))
    def on_post(self, call: Call[None, None], name: str) -> Answer:
        """Hand out its jobs again."""
        call.operations.resume_queue(name)
        return Answer(QueueStateObject(name=name, paused=False))


class QueueJobs:
    """The jobs of a queue that have not started."""

    @operation("purgeQueue", "Purge a queue", tag="queues", role="admin", answers={200: PurgedObject}, problems=(400, 404))
    def on_delete(self, call: Call[None, None], name: str) -> Answer:
        """Cancel all its jobs that wait, are scheduled or are to be retried. What runs goes on."""
        return Answer(PurgedObject(queue=name, purged=call.operations.purge_queue(name)))

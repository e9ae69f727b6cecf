"""Health: whether the process serves, and whether what it depends on answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from msgspec import Meta

from jobqueue_api.backend import ping
from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_api.http.problems import ErrorDetailObject, Refusal

if TYPE_CHECKING:
    from jobqueue_core.client import JobQueue

__all__ = ["Health", "Readiness"]


class HealthObject(TypedDict):
    """The process serves."""

    status: Literal["ok"]


class ReadinessObject(TypedDict):
    """Everything that the process depends on answers."""

    status: Literal["ready"]
    dependencies: Annotated[dict[str, str], Meta(description="What answers: broker and storage, and where they are.")]


class Health:
    """Whether the process serves."""

    @operation("getHealth", "Whether the process serves", tag="monitoring", role=None, answers={200: HealthObject})
    def on_get(self, _call: Call[None, None]) -> Answer:
        """200 while it does, whatever else is away."""
        return Answer(HealthObject(status="ok"))


class Readiness:
    """Whether broker and storage answer."""

    @operation("getReadiness", "Whether broker and storage answer", tag="monitoring", role=None, answers={200: ReadinessObject})
    def on_get(self, call: Call[None, None]) -> Answer:
        """200 when they do; 503 names the one that does not."""
        queue = call.backend.queue
        # At once: each may take five seconds to find out.
        with ThreadPoolExecutor(2) as threads:
            asked = {"broker": threads.submit(_ask_broker, queue), "storage": threads.submit(_ask_storage, queue)}
        problems = {name: str(error) for name, one in asked.items() if (error := one.exception()) is not None}
        if problems:
            message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            details = [ErrorDetailObject(field=name, problem=problem) for name, problem in problems.items()]
            raise Refusal(503, "not_ready", message, headers={"Retry-After": "2"}, details=details)
        return Answer(ReadinessObject(status="ready", dependencies={name: one.result() for name, one in asked.items()}))


def _ask_broker(queue: JobQueue) -> str:
    queue.broker.outbox_lag()
    return queue.broker.describe()


def _ask_storage(queue: JobQueue) -> str:
    if queue.storage is None:
        return "none"
    ping(queue.storage)
    return queue.storage.describe()

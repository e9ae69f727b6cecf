"""Health: whether the process serves, and whether what it depends on answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypedDict

from msgspec import Meta

from jobqueue_core.errors import JobQueueError

from .operation import Answer, Call, operation
from .problems import ErrorDetailObject, Refusal

if TYPE_CHECKING:
    from jobqueue_core.app import App

__all__ = ["Health", "Readiness"]

_NOBODY: Final = "00000000-0000-0000-0000-000000000000"


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
        problems: dict[str, str] = {}
        found: dict[str, str] = {}
        for name, ask in _questions(call.backend.app):
            try:
                found[name] = ask()
            except JobQueueError as error:
                problems[name] = str(error)
        if problems:
            message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            details = [ErrorDetailObject(field=name, problem=problem) for name, problem in problems.items()]
            raise Refusal(503, "not_ready", message, headers={"Retry-After": "2"}, details=details)
        return Answer(ReadinessObject(status="ready", dependencies=found))


def _questions(app: App) -> Iterator[tuple[str, Callable[[], str]]]:
    """What to ask of each dependency; apart, so that all that are away are named."""

    def broker() -> str:
        app.broker.outbox_lag()
        return app.broker.describe()

    def storage() -> str:
        app.storage.dead_letter(_NOBODY)
        return app.storage.describe()

    yield "broker", broker
    yield "storage", storage

"""All routes: which path leads to which resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from .http.operation import Operation, Streamed, operation_of
from .resources.dead_letters import DeadLetterGroups, DeadLetterRetries, DeadLetterRetry, DeadLetters, SingleDeadLetter
from .resources.documents import Described, DocsAsset, DocsPage, JsonDocument, YamlDocument
from .resources.events import Events
from .resources.executions import Executions, JobExecutions
from .resources.health import Health, Readiness
from .resources.jobs import JobBatches, JobLogs, Jobs, SingleJob
from .resources.metrics import Metrics
from .resources.queues import QueueDepth, QueueJobs, QueuePause, QueueResume, Queues, QueueStats
from .resources.schedules import ScheduleNext, ScheduleRun, ScheduleRuns, Schedules, SingleSchedule
from .resources.statistics import Statistics
from .resources.workers import Types, Workers

if TYPE_CHECKING:
    from jobqueue_core.app import App

    from .http.held import Held
    from .server.closing import Closing
    from .streaming.eventhub import EventHub

__all__ = ["PREFIX", "Route", "routes"]

PREFIX: Final = "/api/v1"
_METHODS: Final = ("get", "post", "patch", "delete")


@attrs.frozen
class Route:
    """A path and what it leads to."""

    path: str
    """As falcon has it: pieces that name things are written ``{name:converter}``."""
    resource: Any
    is_documented: bool = attrs.field(default=True, kw_only=True)
    """False: what belongs to the description itself."""

    def operations(self) -> Iterator[tuple[str, Operation]]:
        """Method, in lower case, and declaration of each operation."""
        for method in _METHODS:
            declared = operation_of(getattr(self.resource, f"on_{method}", None))
            if declared is not None:
                yield method, declared

    def answer_head(self) -> None:
        """Have HEAD answered as GET is, without the body; but for a stream, which has no end."""
        declared = operation_of(getattr(self.resource, "on_get", None))
        if declared is not None and not any(isinstance(one, Streamed) for one in declared.answers.values()):
            self.resource.on_head = self.resource.on_get


def routes(app: App, *, held: Held, closing: Closing, hub: EventHub, described: Described) -> Sequence[Route]:
    """The table.

    Args:
        app: Settings and plugins.
        held: Budget of threads that streams and waits may hold.
        closing: Ends them.
        hub: Where events come from.
        described: The document that is made from the table.
    """
    return [
        Route("/health", Health()),
        Route("/ready", Readiness()),
        Route("/metrics", Metrics(app)),
        Route(f"{PREFIX}/jobs", Jobs()),
        Route(f"{PREFIX}/jobs/batch", JobBatches()),
        Route(f"{PREFIX}/jobs/{{job_id:job}}", SingleJob(held, closing)),
        Route(f"{PREFIX}/jobs/{{job_id:job}}/logs", JobLogs()),
        Route(f"{PREFIX}/queues", Queues()),
        Route(f"{PREFIX}/queues/{{name:name}}/depth", QueueDepth()),
        Route(f"{PREFIX}/queues/{{name:name}}/stats", QueueStats()),
        Route(f"{PREFIX}/queues/{{name:name}}/pause", QueuePause()),
        Route(f"{PREFIX}/queues/{{name:name}}/resume", QueueResume()),
        Route(f"{PREFIX}/queues/{{name:name}}/jobs", QueueJobs()),
        Route(f"{PREFIX}/dlq", DeadLetters()),
        Route(f"{PREFIX}/dlq/groups", DeadLetterGroups()),
        Route(f"{PREFIX}/dlq/retry", DeadLetterRetries()),
        Route(f"{PREFIX}/dlq/{{job_id:job}}", SingleDeadLetter()),
        Route(f"{PREFIX}/dlq/{{job_id:job}}/retry", DeadLetterRetry()),
        Route(f"{PREFIX}/executions", Executions()),
        Route(f"{PREFIX}/executions/{{job_id:job}}", JobExecutions()),
        Route(f"{PREFIX}/stats", Statistics()),
        Route(f"{PREFIX}/schedules", Schedules()),
        Route(f"{PREFIX}/schedules/{{name:name}}", SingleSchedule()),
        Route(f"{PREFIX}/schedules/{{name:name}}/run", ScheduleRun()),
        Route(f"{PREFIX}/schedules/{{name:name}}/runs", ScheduleRuns()),
        Route(f"{PREFIX}/schedules/{{name:name}}/next", ScheduleNext()),
        Route(f"{PREFIX}/workers", Workers()),
        Route(f"{PREFIX}/types", Types()),
        Route(f"{PREFIX}/events", Events(hub, held, closing)),
        Route(f"{PREFIX}/openapi.json", JsonDocument(described), is_documented=False),
        Route(f"{PREFIX}/openapi.yaml", YamlDocument(described), is_documented=False),
        Route("/docs", DocsPage(), is_documented=False),
        *(Route(f"/docs/{name}", DocsAsset(name), is_documented=False) for name in ("swagger.js", "swagger.css", "start.js")),
    ]

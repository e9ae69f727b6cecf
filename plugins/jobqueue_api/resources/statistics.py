"""The whole in numbers."""

from __future__ import annotations

from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_core.objects import StatisticsObject

__all__ = ["Statistics"]


class Statistics:
    """The whole in numbers."""

    @operation("getStatistics", "The whole in numbers", tag="statistics", role="read", answers={200: StatisticsObject})
    def on_get(self, call: Call[None, None]) -> Answer:
        """Jobs by state, totals, and the executions of the last 24 hours. What storage knows is null while it is away; `storage_error` says why."""
        return Answer(call.operations.stats())

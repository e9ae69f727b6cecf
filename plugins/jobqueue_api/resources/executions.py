"""Executions: every run of every job, and how it ended."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from jobqueue_api.http.filters import Queue, Type
from jobqueue_api.http.links import next_link
from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_api.http.querystring import Cursor, Instant, Limit, Offset, Query
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.objects import ExecutionObject
from jobqueue_core.storage import ExecutionFilter

__all__ = ["Executions", "JobExecutions"]


class ExecutionsQuery(Query):
    """Which executions to list."""

    type: Type | None = None
    state: Annotated[ExecutionState, Meta(description="Only those that ended so.")] | None = None
    queue: Queue | None = None
    since: Annotated[Instant, Meta(description="Only those that finished at that time or later.")] | None = None
    until: Annotated[Instant, Meta(description="Only those that finished before that time.")] | None = None
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor | None = None


class Executions:
    """All executions."""

    @operation("listExecutions", "List executions", tag="executions", role="read", query=ExecutionsQuery, answers={200: list[ExecutionObject]})
    def on_get(self, call: Call[ExecutionsQuery, None]) -> Answer:
        """List executions, newest first."""
        query = call.query
        wanted = ExecutionFilter(type=query.type, state=query.state, queue=query.queue, since=query.since, until=query.until)
        page = call.operations.executions(wanted, cursor=query.cursor, offset=query.offset, limit=query.limit)
        return Answer([execution.to_dict() for execution in page.executions], headers=next_link(call, page.next))


class JobExecutions:
    """The executions of one job."""

    @operation("listJobExecutions", "The runs of a job", tag="executions", role="read", answers={200: list[ExecutionObject]}, problems=(404,))
    def on_get(self, call: Call[None, None], job_id: str) -> Answer:
        """All recorded runs of a job, by number; none for a job that has not run."""
        operations = call.operations
        executions = operations.job_executions(job_id)
        if not executions:
            operations.job(job_id)
        return Answer([execution.to_dict() for execution in executions])

"""Dead letters: jobs that failed for good, and what can be done about them, one by one and in bulk."""

from __future__ import annotations

from typing import Annotated, Literal

import attrs
import msgspec
from msgspec import Meta

from jobqueue_api.http.bodies import Replacement
from jobqueue_api.http.filters import Fingerprint, Queue, Type
from jobqueue_api.http.links import next_link
from jobqueue_api.http.operation import Answer, Call, operation
from jobqueue_api.http.querystring import Cursor, Instant, Limit, Offset, Query
from jobqueue_core.attempt import DeadLetterState
from jobqueue_core.objects import BulkResultObject, DeadLetterGroupObject, DeadLetterObject, JobObject
from jobqueue_core.storage import DeadLetterFilter

__all__ = ["DeadLetterGroups", "DeadLetterRetries", "DeadLetterRetry", "DeadLetters", "SingleDeadLetter"]

_Since = Annotated[Instant, Meta(description="Only those that died at that time or later.")]
_Until = Annotated[Instant, Meta(description="Only those that died at that time or before.")]


class Narrowed(Query):
    """What narrows every choice of dead letters."""

    type: Type | None = None
    queue: Queue | None = None
    fingerprint: Fingerprint | None = None
    since: _Since | None = None
    until: _Until | None = None

    @property
    def wanted(self) -> DeadLetterFilter:
        """The open dead letters that are meant."""
        return DeadLetterFilter(type=self.type, queue=self.queue, fingerprint=self.fingerprint, died_after=self.since, died_before=self.until)


class GroupsQuery(Narrowed):
    """Which groups to list."""

    limit: Limit = 50


class DeadLettersQuery(Narrowed):
    """Which dead letters to list."""

    state: Annotated[Literal["open", "requeueing", "requeued", "discarded", "all"], Meta(description="Only in this state.")] = "open"
    limit: Limit = 50
    offset: Offset = 0
    cursor: Cursor | None = None

    @property
    def wanted(self) -> DeadLetterFilter:
        """The dead letters that are meant, in whatever state."""
        return attrs.evolve(super().wanted, state=None if self.state == "all" else DeadLetterState(self.state))


class BulkQuery(Narrowed):
    """Which open dead letters to act on; without a filter all of them."""

    dry_run: Annotated[bool, Meta(description="Only say how many.")] = False


class DeadLetters:
    """All dead letters."""

    @operation("listDeadLetters", "List dead letters", tag="dead letters", role="read", query=DeadLettersQuery, answers={200: list[DeadLetterObject]})
    def on_get(self, call: Call[DeadLettersQuery, None]) -> Answer:
        """List dead letters, latest death first; unless told otherwise those that are open: neither retried nor deleted."""
        query = call.query
        page = call.operations.dead_letters(query.wanted, cursor=query.cursor, offset=query.offset, limit=query.limit)
        return Answer([letter.to_dict() for letter in page.dead_letters], headers=next_link(call, page.next))

    @operation(
        "deleteDeadLetters",
        "Delete dead letters in bulk",
        tag="dead letters",
        role="admin",
        query=BulkQuery,
        answers={200: BulkResultObject},
        problems=(400,),
    )
    def on_delete(self, call: Call[BulkQuery, None]) -> Answer:
        """Discard every open dead letter that the filter names: they are not listed or retried any more. Without a filter all of them."""
        return Answer(call.operations.discard_dead_letters(call.query.wanted, dry_run=call.query.dry_run).to_dict())


class DeadLetterGroups:
    """Dead letters by what went wrong."""

    @operation(
        "listDeadLetterGroups",
        "Dead letters by what went wrong",
        tag="dead letters",
        role="read",
        query=GroupsQuery,
        answers={200: list[DeadLetterGroupObject]},
    )
    def on_get(self, call: Call[GroupsQuery, None]) -> Answer:
        """Open dead letters by the fingerprint of their error, largest group first."""
        groups = call.operations.dead_letter_groups(call.query.wanted, limit=call.query.limit)
        return Answer([group.to_dict() for group in groups])


class DeadLetterRetries:
    """Retrying in bulk."""

    @operation(
        "retryDeadLetters",
        "Retry dead letters in bulk",
        tag="dead letters",
        role="write",
        query=BulkQuery,
        answers={200: BulkResultObject},
        problems=(400,),
    )
    def on_post(self, call: Call[BulkQuery, None]) -> Answer:
        """Make every dead job live again that the filter names and that was dead when this began. Without a filter all of them."""
        return Answer(call.operations.retry_dead_letters(call.query.wanted, dry_run=call.query.dry_run).to_dict())


class SingleDeadLetter:
    """The latest death of one job."""

    @operation("getDeadLetter", "Get a dead letter", tag="dead letters", role="read", answers={200: DeadLetterObject}, problems=(404,))
    def on_get(self, call: Call[None, None], job_id: str) -> Answer:
        """The latest death of a job, with its traceback."""
        return Answer(call.operations.dead_letter(job_id).to_dict())

    @operation(
        "deleteDeadLetter", "Delete a dead letter", tag="dead letters", role="admin", answers={200: DeadLetterObject}, problems=(400, 404, 409)
    )
    def on_delete(self, call: Call[None, None], job_id: str) -> Answer:
        """Discard it: it is not listed or retried any more. One that is not open is a conflict."""
        operations = call.operations
        operations.discard_dead_letter(job_id)
        return Answer(operations.dead_letter(job_id).to_dict())


class DeadLetterRetry:
    """Retrying one job."""

    @operation(
        "retryDeadLetter",
        "Retry a dead job",
        tag="dead letters",
        role="write",
        body=Replacement | None,
        answers={200: JobObject},
        problems=(400, 404, 409, 413, 415),
    )
    def on_post(self, call: Call[None, Replacement | None], job_id: str) -> Answer:
        """Make it live again under its id, with all its attempts; perhaps with another payload.

        A conflict when its dead letter is not open, it has completed since, or another job holds its unique key.
        """
        replaced = {} if call.body is None or call.body.payload is msgspec.UNSET else {"payload": call.body.payload}
        return Answer(call.operations.retry_dead_letter(job_id, **replaced).to_dict())

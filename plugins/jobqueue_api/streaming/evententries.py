"""From what the broker's log holds to what is sent: one server-sent event for each thing that has happened to a job or a queue.

The id of each says exactly how far its reader has come, also within an entry of the log, which may tell of hundreds of jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypedDict

import attrs
import msgspec
from msgspec import Meta

from jobqueue_core.job import JobState, rfc3339
from jobqueue_core.objects import Count, InstantText, JobId, JobType, QueueName

if TYPE_CHECKING:
    from jobqueue_core.broker import Event

__all__ = [
    "BrokerEventObject",
    "Entry",
    "EventFilter",
    "EventKind",
    "JobEventObject",
    "Mark",
    "QueueEventObject",
    "ResetObject",
    "Told",
    "entries",
    "server_sent",
]

JobEventKind = Literal["settled", "reclaimed", "cancelled", "cancel_requested", "requeued"]
QueueEventKind = Literal["paused", "resumed", "purged"]
BrokerEventKind = Literal["data_lost"]
EventKind = Literal[JobEventKind, QueueEventKind, BrokerEventKind]


class JobEventObject(TypedDict):
    """Something has happened to a job."""

    kind: Annotated[JobEventKind, Meta(description="What. It is the name of the server-sent event too.")]
    at: InstantText
    job_id: JobId
    type: JobType
    queue: QueueName
    state: Annotated[JobState, Meta(description="The job's state since then.")]


class QueueEventObject(TypedDict):
    """Something was done to a queue."""

    kind: Annotated[QueueEventKind, Meta(description="What. It is the name of the server-sent event too.")]
    at: InstantText
    queue: QueueName
    count: Annotated[Count | None, Meta(description="Of `purged`: how many jobs were cancelled; they are not told of one by one.")]


class BrokerEventObject(TypedDict):
    """The broker has lost what it had."""

    kind: BrokerEventKind
    at: InstantText
    broker: Annotated[str, Meta(description="Which one.")]


class ResetObject(TypedDict):
    """Events have been missed: the stream goes on from a position behind them."""

    position: Annotated[str, Meta(description="From where it goes on.")]


_KIND: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}", re.ASCII)
_WITHIN: Final = re.compile(r"(.+)~([0-9]{1,6})~([0-9]{1,19})", re.ASCII | re.DOTALL)
_STATES: Final[Mapping[str, JobState]] = {
    "cancelled": JobState.CANCELLED,
    "cancel_requested": JobState.PROCESSING,
    "requeued": JobState.QUEUED,
}
"""What is known of a job by the kind of the event alone."""
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)

_encoder = msgspec.json.Encoder(enc_hook=repr)


@attrs.frozen
class Mark:
    """How far a reader has come: it is what ids of server-sent events say.

    Within an entry it is named by the position before it, how much of it was seen, and when it happened: on Redis Cluster another entry may have come
    between, by the time that the log is read again.
    """

    position: str
    """Behind an entry of the log."""
    seen: int = 0
    """How much has been seen of an entry that follows."""
    at_us: int = 0
    """Of which one."""

    @classmethod
    def read(cls, text: str) -> Self:
        """The mark that *text* is; what is none is taken for a position, of which the broker will know that it is none."""
        match = _WITHIN.fullmatch(text)
        return cls(text) if match is None else cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.position}~{self.seen}~{self.at_us}" if self.seen else self.position


@attrs.frozen
class Told:
    """A server-sent event, and what it can be chosen by."""

    kind: str
    type: object
    queue: object
    job_id: object
    state: object
    id: str
    text: bytes


@attrs.frozen
class Entry:
    """An entry of the log, as it is told."""

    position: str
    """Behind it."""
    told: Sequence[Told]
    size: int
    """Bytes of all that is told."""


@attrs.frozen(kw_only=True)
class EventFilter:
    """What of the log somebody wants; None: no matter. What has no such thing, as a queue has no state, is not wanted then."""

    kind: str | None = None
    type: str | None = None
    queue: str | None = None
    job_id: str | None = None
    state: str | None = None

    def chosen(self, told: Sequence[Told]) -> Sequence[Told]:
        """Those that are wanted."""
        for name, value in attrs.asdict(self).items():
            if value is not None:
                told = [one for one in told if getattr(one, name) == value]
        return told


def entries(events: Sequence[Event], mark: Mark) -> list[Entry]:
    """What is told of *events* to a reader who has come as far as *mark*, behind which they follow."""
    found = []
    before = mark.position
    for event in events:
        at_us = (event.at - _UNIX) // timedelta(microseconds=1)
        told = list(_told(event, before, at_us))
        if mark.seen and at_us == mark.at_us:
            told = told[mark.seen :]
            mark = Mark(event.id)
        found.append(Entry(event.id, told, sum(len(one.text) for one in told)))
        before = event.id
    return found


def server_sent(kind: str, data: object, event_id: object = None) -> bytes:
    """A server-sent event; without an id its reader is where he was."""
    head = f"event: {kind}\n" if event_id is None else f"id: {event_id}\nevent: {kind}\n"
    return b"%sdata: %s\n\n" % (head.encode(), _encoder.encode(data))


def _told(event: Event, before: str, at_us: int) -> Iterator[Told]:
    """What an entry tells, one by one; nothing when it is of a kind that cannot be."""
    if not _KIND.fullmatch(event.kind):
        return
    jobs = event.data.get("jobs")
    rows = [row for row in (jobs if isinstance(jobs, list) else [event.data]) if isinstance(row, dict)]
    for number, row in enumerate(rows, 1):
        data = _data(event, row)
        mark = Mark(event.id) if number == len(rows) else Mark(before, number, at_us)
        event_id = str(mark)
        yield Told(
            event.kind, data.get("type"), data.get("queue"), data.get("job_id"), data.get("state"), event_id, server_sent(event.kind, data, event_id)
        )


def _data(event: Event, row: Mapping[str, Any]) -> dict[str, Any]:
    """The object of what happened; of a kind that a newer release has added, whatever there is."""
    data: dict[str, Any] = {"kind": event.kind, "at": rfc3339(event.at)}
    for name, value in row.items():
        data["job_id" if name == "id" else str(name)] = value
    if (state := _STATES.get(event.kind)) is not None:
        data.setdefault("state", state.value)
    if event.kind in ("paused", "resumed"):
        data["count"] = None
    return data

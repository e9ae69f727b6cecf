"""Events as they happen."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from jobqueue_api.http.filters import Queue, Type
from jobqueue_api.http.operation import Call, Stream, Streamed, operation
from jobqueue_api.http.querystring import Query, WrittenDuration, read_duration
from jobqueue_api.streaming.clientwatch import ClientWatch
from jobqueue_api.streaming.evententries import BrokerEventObject, EventFilter, EventKind, JobEventObject, Mark, QueueEventObject, ResetObject
from jobqueue_api.streaming.eventstream import EventStream, Wish
from jobqueue_core.job import JobState, check_job_id

if TYPE_CHECKING:
    from jobqueue_api.http.held import Held
    from jobqueue_api.server.closing import Closing
    from jobqueue_api.streaming.eventhub import EventHub

__all__ = ["Events"]

LAST_EVENT_ID: Final = "Last-Event-ID"
_PARTS: Final = r"(?:[0-9]{1,4}d)?(?:[0-9]{1,5}h)?(?:[0-9]{1,5}m)?(?:[0-9]{1,6}(?:\.[0-9]{1,3})?s)?(?:[0-9]{1,6}ms)?"
_TIMEOUT: Final = {"pattern": rf"^(?=[0-9])(?:[0-9]{{1,9}}(?:\.[0-9]{{1,6}})?|{_PARTS})$"}
EVENT_STREAM: Final = "text/event-stream"
_TOLD: Final = (JobEventObject, QueueEventObject, BrokerEventObject, ResetObject)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventsQuery(Query):
    """Which events, and how many."""

    kind: Annotated[EventKind, Meta(description="Only of this kind.")] | None = None
    type: Type | None = None
    queue: Queue | None = None
    job_id: Annotated[str, Meta(description="Only of this job.", extra_json_schema={"format": "uuid"})] | None = None
    state: Annotated[JobState, Meta(description="Only of jobs that are in this state since.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=500, description="End the stream after so many events.")] | None = None
    timeout: Annotated[WrittenDuration, Meta(description="End the stream after that time.", extra_json_schema=_TIMEOUT)] | None = None
    last_event_id: (
        Annotated[str, Meta(min_length=1, max_length=4_096, description="As the header Last-Event-ID, which comes first, for who cannot send it.")]
        | None
    ) = None


class Events:
    """Events as they happen.

    Args:
        hub: Where they come from.
        held: Budget of threads that streams may hold.
        closing: Ends them.
    """

    def __init__(self, hub: EventHub, held: Held, closing: Closing) -> None:
        self._hub = hub
        self._held = held
        self._closing = closing

    @operation(
        "streamEvents",
        "Events as they happen",
        tag="events",
        role="read",
        query=EventsQuery,
        headers=(LAST_EVENT_ID,),
        answers={200: Streamed(EVENT_STREAM, _TOLD)},
    )
    def on_get(self, call: Call[EventsQuery, None]) -> Stream:
        """Stream what happens to jobs and queues as server-sent events, from now on or from behind the event that `Last-Event-ID` names.

        The name of each event is its `kind`; its data is one object in JSON. What is no longer in the broker's log is answered by the event `reset`,
        and the stream goes on from there. Where as many requests wait or stream as a process allows, one more is answered 503.
        """
        wish = _wish(call.query)
        with ExitStack() as holds:
            self._held.take(503, "too_many_streams", "streams")
            holds.callback(self._held.give_back)
            subscription = holds.enter_context(self._hub.subscribed(_mark(call)))
            client = ClientWatch(call.request)
            stream = EventStream(subscription, wish, client=client, closing=self._closing, holds=holds.pop_all())
        return Stream(stream, EVENT_STREAM, headers=_HEADERS)


def _mark(call: Call[EventsQuery, None]) -> Mark | None:
    text = call.request.get_header(LAST_EVENT_ID) or call.query.last_event_id
    return None if text is None else Mark.read(text)


def _wish(query: EventsQuery) -> Wish:
    state = None if query.state is None else query.state.value
    job_id = None if query.job_id is None else check_job_id(query.job_id, "job_id")
    chosen = EventFilter(kind=query.kind, type=query.type, queue=query.queue, job_id=job_id, state=state)
    return Wish(chosen=chosen, limit=query.limit, timeout=read_duration(query.timeout, "timeout"))

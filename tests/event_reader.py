"""Reading server-sent events as a browser does: by the rules of the HTML standard, one line after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import falcon.testing
from api_site import PREFIX, SECRETS, ApiSite

__all__ = ["EventReader", "ReceivedEvent", "Tap", "events_of"]


@attrs.frozen
class ReceivedEvent:
    """A server-sent event."""

    kind: str
    data: Any
    id: str
    """The id of the last event, which this one need not have brought."""

    @property
    def job_id(self) -> str:
        return str(self.data["job_id"])


class EventReader:
    """Makes events of bytes, however these are cut."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry: int | None = None
        self.comments: list[str] = []
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes) -> Iterator[ReceivedEvent]:
        """The events that *data* completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._line(line.decode())

    def _line(self, line: str) -> Iterator[ReceivedEvent]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                self.comments.append(value)
            else:
                assert name not in self._fields, line
                self._fields[name] = value
            return
        fields, self._fields = self._fields, {}
        assert set(fields) <= {"id", "event", "data", "retry"}, fields
        self.retry = int(fields["retry"]) if "retry" in fields else self.retry
        self.last_id = fields.get("id", self.last_id)
        if "data" in fields:
            yield ReceivedEvent(fields.get("event", "message"), json.loads(fields["data"]), self.last_id)


class Tap:
    """A stream of a site in this process, read piece by piece as its server would.

    Args:
        site: Whose.
        query: As it is written.
        last_event_id: The header.
        environ: More for the WSGI environment.
    """

    def __init__(self, site: ApiSite, query: str = "", *, last_event_id: str | None = None, **environ: Any) -> None:
        headers = {"Host": "localhost:8080", "Authorization": f"Bearer {SECRETS['read']}"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reader = EventReader()
        asked = falcon.testing.create_environ(f"{PREFIX}/events", query_string=query, headers=headers) | environ
        self._body: Iterable[bytes] = site.wsgi(asked, self._start)
        self.pieces = iter(self._body)
        self._waiting: list[ReceivedEvent] = []

    def _start(self, status: str, headers: list[tuple[str, str]], _problem: object = None) -> Callable[[bytes], object]:
        self.status = int(status[:3])
        self.headers = {name.lower(): value for name, value in headers}
        return lambda _data: None

    def begin(self) -> Tap:
        """Read the first piece; itself."""
        assert self.status == 200, b"".join(self.pieces)
        self._waiting += self.reader.feed(next(self.pieces))
        return self

    def take(self, count: int) -> list[ReceivedEvent]:
        """The next so many events; more pieces than that takes are not read."""
        while len(self._waiting) < count:
            self._waiting += self.reader.feed(next(self.pieces))
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def rest(self) -> list[ReceivedEvent]:
        """All that still comes of a stream that ends."""
        for piece in self.pieces:
            self._waiting += self.reader.feed(piece)
        taken, self._waiting = self._waiting, []
        return taken

    def close(self) -> None:
        """As a server does when the client has gone, or the stream has ended."""
        if hasattr(self._body, "close"):
            self._body.close()


def events_of(site: ApiSite, query: str = "", *, last_event_id: str | None = None) -> tuple[list[ReceivedEvent], Tap]:
    """All events of a stream that ends by itself, and the stream."""
    tap = Tap(site, query, last_event_id=last_event_id).begin()
    try:
        return tap.rest(), tap
    finally:
        tap.close()

"""One client's connection: what it sends goes to gunicorn's parser, what is answered goes out, and neither may take for ever."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.errors import ParseException, UnsupportedTransferCoding
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader
from gunicorn.http.wsgi import Response

from .received import Progress, Received

if TYPE_CHECKING:
    from gunicorn.config import Config

__all__ = ["ClientSocket", "Connection", "Patience", "Reply"]

_LARGEST_PIECE: Final = 1 << 20
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Patience:
    """How long to wait for a client that sends, or reads: some seconds, and more for all that it has moved, so that it needs some pace.

    Who moves nothing, or a byte a second, is given up soon; who has moved much at once cannot rest on that for long either.
    """

    _FIRST: Final = 10.0
    _MOST: Final = 30.0
    _SLOWEST: Final = 64 << 10
    """Bytes a second."""

    def __init__(self) -> None:
        self.until = time.monotonic() + self._FIRST
        """Until when, by the monotonic clock."""

    @property
    def left(self) -> float:
        """How many seconds are left; never zero, which means something else to a socket."""
        return max(self.until - time.monotonic(), 0.001)

    def moved(self, count: int) -> None:
        """Take note of so many bytes."""
        self.until = min(self.until + count / self._SLOWEST, time.monotonic() + self._MOST)


class ClientSocket(socket.socket):
    """A socket that never blocks, but to send what the client does not read at once, and what cannot be kept either."""

    unsent: memoryview = memoryview(b"")
    """What is kept to be sent when the client reads on."""

    @property
    def has_more(self) -> bool:
        """Whether something is there to be received."""
        try:
            return bool(self.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def send_or_keep(self, data: bytes, *, may_keep: Callable[[int], bool]) -> None:
        """Send *data*, the last there is; the rest of it when *may_keep* so many bytes is kept for :meth:`send_unsent`.

        Raises:
            TimeoutError: It may not, and the client does not read.
        """
        rest = memoryview(data)[self._send(data) :]
        if rest and may_keep(len(rest)):
            self.unsent = rest
        elif rest:
            self._send_slowly(rest)

    def send_unsent(self) -> int:
        """Send of it what can be sent now; says how much that was."""
        sent = self._send(self.unsent)
        self.unsent = self.unsent[sent:]
        return sent

    def sendall(self, data: Any, _flags: int = 0) -> None:
        """Send all of *data*, as long as the client reads it at some pace.

        Raises:
            TimeoutError: It does not.
        """
        if (sent := self._send(data)) < len(data):
            self._send_slowly(memoryview(data)[sent:])

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.send(data)
        except BlockingIOError:
            return 0

    def _send_slowly(self, data: memoryview) -> None:
        patience = Patience()
        try:
            while data:
                self.settimeout(patience.left)
                sent = self.send(data)
                patience.moved(sent)
                data = data[sent:]
        finally:
            self.settimeout(0)


class Reply(Response):
    """An answer that leaves in one piece when it is whole. A stream's head leaves at once: nobody knows when its first event comes.

    Args:
        req: The request.
        sock: The client's.
        cfg: Gunicorn's settings.
        may_keep: Whether so many bytes may wait for the client to read, and no thread with them.
    """

    def __init__(self, req: Request, sock: ClientSocket, cfg: Config, may_keep: Callable[[int], bool]) -> None:
        super().__init__(req, sock, cfg)
        self.headers_sent: bool = False
        self._may_keep = may_keep
        self._head = b""

    @property
    def begun(self) -> bool:
        """Whether the client has some of it."""
        return bool(self.headers_sent and not self._head)

    def send_headers(self) -> None:
        """Send the head, or keep it for the body."""
        if self.headers_sent or self.response_length is None:
            super().send_headers()
            return
        fields = "".join([*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"])
        self._head = fields.encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        data, self._head = self._head + data if self._head else data, b""
        if self.sent == self.response_length:
            self.sock.send_or_keep(data, may_keep=self._may_keep)
        else:
            super()._emit_body(data)

    def close(self) -> None:
        """Send what was kept, and what ends the body."""
        super().close()
        if self._head:
            self.sock.sendall(self._head)
            self._head = b""


class Connection(Unreader):
    """A connection. It belongs to the loop while a request comes in, to a thread while that is served, and never to both.

    Args:
        sock: The client's.
        client: Its address.
        server: The address that it has connected to.
        max_body: The most bytes of a body.
    """

    def __init__(self, sock: ClientSocket, client: Any, server: Any, *, max_body: int) -> None:
        super().__init__()
        self.sock = sock
        self.client = client
        self.server = server
        self.received = Received(max_body)
        self.patience = Patience()
        """How long to wait for what still comes of a request."""
        self.requests = 0
        """How many have been served."""
        self.watched = False
        """Whether it belongs to the loop."""
        self.waiting_since = 0.0
        """When it was given to the loop, by the monotonic clock."""
        self.idle = True
        """Whether nothing of its next request has come."""
        self.lingering = False
        """Whether all has been said, and what still comes is thrown away."""
        self.then: Progress | None = None
        """What follows when all is sent: how far the next request has come."""
        self._has_head = False

    @property
    def held(self) -> int:
        """How many bytes it keeps in memory."""
        return len(self.received) + len(self.sock.unsent)

    def add(self, data: bytes) -> Progress:
        """Take note of what has come."""
        if self.idle:
            self.idle = False
            self.patience = Patience()
        return self._note(self.received.add(data), len(data))

    def _note(self, progress: Progress, count: int) -> Progress:
        if progress is Progress.BODY:
            if self._has_head:
                self.patience.moved(count)
            else:
                self._has_head = True
                self.patience = Patience()
            if self.received.expects:
                self.received.expects = False
                # Who has not even room for that can wait until patience ends.
                with contextlib.suppress(BlockingIOError):
                    self.sock.send(_CONTINUE)
        return progress

    def request(self, cfg: Config) -> Request:
        """Parse the request that has been received.

        Raises:
            ParseException: It is none; of gunicorn.
        """
        self.requests += 1
        request = Request(cfg, self, self.client, self.requests)
        if any(name == "TRANSFER-ENCODING" and value.strip().lower() != "chunked" for name, value in request.headers):
            # The parser takes "gzip, chunked" for chunked, and whoever is in front of us perhaps does not.
            raise UnsupportedTransferCoding("not only chunked")
        # The client has been told to go on, or is to be told that its body is too large.
        request._expected_100_continue = False  # noqa: SLF001 - it has no other name
        return request

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next piece, for the parser.

        Raises:
            ParseException: There is none: the parser takes the request for longer than it was received. No thread waits to see who is right.
        """
        piece = self.received.take(min(max(size_hint or 0, 8192), _LARGEST_PIECE))
        if not piece:
            msg = "the request is not what it seemed"
            raise ParseException(msg)
        return piece

    def proceed(self, request: Request) -> Progress | None:
        """Go on to the next request, leaving what nobody has read of *request*.

        Returns:
            How far the next one has come; None when the connection is of no more use.
        """
        if request.body.failed or not self.received.whole:
            return None
        try:
            while request.body.read(_LARGEST_PIECE):
                pass
        except (OSError, ParseException):
            return None
        progress = self.received.proceed(self.take_buffered())
        self.idle = not self.received
        self._has_head = False
        self.patience = Patience()
        return None if progress is None else self._note(progress, 0)

    def linger(self) -> None:
        """Say no more, and throw away what still comes: closed with something unread, a connection takes back what was said last."""
        self.lingering = True
        self.received = Received(0)
        self.sock.shutdown(socket.SHUT_WR)

"""What a worker and a handler process say to each other, over a socket: a length, then a msgpack message.

Only :class:`Setup`, the first thing a handler process is told, is a pickle: it names functions and classes of the worker's own packages.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import msgspec

from jobqueue_core.attempt import Cancelled, Completed, Crashed, Dead, LogLine, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.context import StopReason
from jobqueue_core.job import Progress
from jobqueue_core.middleware import Middleware
from jobqueue_core.settings.sections import LogSection
from jobqueue_core.worker.plan import JobDefaults

__all__ = ["Ask", "Began", "Channel", "Ended", "HandlerAddress", "Ready", "Said", "Setup", "Start", "Unusable"]

_LENGTH: Final = struct.Struct("!I")
_OUTCOMES: Final[dict[str, type[Outcome]]] = {one.__name__: one for one in (Completed, Retrying, Snoozed, Dead, Cancelled, Returned, Crashed)}


# Once, before anything else ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class HandlerAddress:
    """Where a handler process finds one handler."""

    type: str
    module: str
    function: str | None = None
    """None: the module is searched for handlers, and its lifespan is theirs."""


@attrs.frozen(kw_only=True)
class Setup:
    """What a handler process needs to be one."""

    handlers: tuple[HandlerAddress, ...]
    middleware: Callable[[], Sequence[Middleware]]
    """Makes the middleware, in the handler process."""
    defaults: JobDefaults
    worker_id: str
    log: LogSection | None
    """None where the worker's process has not been told either."""
    log_level: int
    """Without *log*: the least level that is kept."""


# To the handler process ----------------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Run a handler. *number* names this run in all that is said of it, so that what comes too late reaches no other."""

    number: int
    job: bytes
    """As ``encode_job`` writes it."""
    memory: int | None
    """Bytes it may take."""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Ask a handler to end."""

    number: int
    reason: StopReason


# To the worker -------------------------------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Everything is imported and every lifespan entered."""


class Unusable(msgspec.Struct, frozen=True, tag="unusable"):
    """It cannot run handlers: a package that cannot be imported, a lifespan that raised. It is about to end."""

    why: str
    traceback: str


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The handler is about to be called: from now on the death of this process is a crash of its job."""

    number: int


class Said(msgspec.Struct, frozen=True, tag="said"):
    """What the handler has said of itself."""

    number: int
    progress: Progress | None
    lines: tuple[LogLine, ...]


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """How the run has ended."""

    number: int
    kind: str
    fields: msgspec.Raw

    @classmethod
    def of(cls, number: int, outcome: Outcome) -> Ended:
        """*outcome*, as it is sent."""
        return cls(number, type(outcome).__name__, msgspec.Raw(msgspec.msgpack.encode(outcome)))

    def outcome(self) -> Outcome:
        """The outcome that was sent."""
        return msgspec.msgpack.decode(self.fields, type=_OUTCOMES[self.kind])


Message = Start | Ask | Ready | Unusable | Began | Said | Ended
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class Channel:
    """One end of the socket. Any thread may send, one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Its descriptor, for ``select``."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message. Raises OSError when nobody is at the other end."""
        self.send_bytes(_encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send what is no message. Raises OSError when nobody is at the other end."""
        with self._sending:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def send_soon(self, message: Message) -> None:
        """Send a short message if that can be done without waiting: not while another thread sends, nor when the other end does not read."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            data = _encode(message)
            # So short a message is taken as a whole or not at all.
            self._socket.send(_LENGTH.pack(len(data)) + data, socket.MSG_DONTWAIT)
        except OSError:  # full, or nobody is there
            return
        finally:
            self._sending.release()

    def receive(self) -> Message | None:
        """Wait for the next message; None once the other end is closed.

        Raises:
            ValueError: Somebody else has written into the connection.
        """
        data = self.receive_bytes()
        if data is None:
            return None
        try:
            message: Message = _decode(data)
        except msgspec.DecodeError as error:
            msg = f"what was received is no message: {error}"
            raise ValueError(msg) from error
        return message

    def receive_bytes(self) -> bytes | None:
        """Wait for what :meth:`send_bytes` sent; None once the other end is closed."""
        head = self._exactly(_LENGTH.size)
        return None if head is None else self._exactly(_LENGTH.unpack(head)[0])

    def _exactly(self, size: int) -> bytes | None:
        parts: list[bytes] = []
        while size:
            try:
                part = self._socket.recv(min(size, 1 << 20))
            except OSError:  # reset: as good as closed
                return None
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Say that nothing more will be sent; what the other end still sends can be received."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

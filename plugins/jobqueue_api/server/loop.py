"""The loop of a serving process: it receives requests until they are whole, without a thread to each, and sends what is read slowly."""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from .connection import ClientSocket, Connection, Patience
from .received import Progress
from .refusing import BUSY, TOO_SLOW, RawAnswer, answer_to

__all__ = ["Loop"]

_GLANCE: Final = 1.0
"""How often to look after the clock, in seconds."""
_KEEP_ALIVE: Final = 65.0
"""How long a connection may idle: longer than with the proxies before us, which would else send into one that is being closed."""
_FIRST_REQUEST: Final = 10.0
_LAST_REQUEST: Final = 1.0
"""How long a stopping process waits for requests that may be on their way already."""
_LINGER: Final = 2.0
_CONNECTIONS: Final = 1000
_ACCEPT_AT_ONCE: Final = 16
_RECEIVE: Final = 64 << 10
_SMALL: Final = 64 << 10
"""So much of a body is kept in any case."""
_KEPT: Final = 64 << 20
"""So much may wait in memory for slow clients. Beyond, large bodies are refused: threads that waited for them would be missed by everybody."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_MAPPED: Final = "::ffff:"


class Loop:
    """All connections of a process.

    A connection is either watched by the loop or owned by a thread; it goes to a thread by *give*, and comes back by :meth:`follow`,
    :meth:`refuse` or :meth:`forget`. These may be called in any thread: selectors of epoll and kqueue take registrations while another thread
    waits in them, so that nobody has to wake the loop. All else is for the thread that calls :meth:`turn`.

    Args:
        listeners: Where connections are accepted.
        give: Takes a connection with a request to be served.
        max_body: The most bytes of a request's body.
    """

    def __init__(self, listeners: Sequence[socket.socket], give: Callable[[Connection], None], *, max_body: int) -> None:
        self._listeners = listeners
        self._give = give
        self._max_body = max_body
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Broker and storage need files too.
        self._most = min(_CONNECTIONS, files // 2) if files > 0 else _CONNECTIONS
        self._most_kept = max(_KEPT, 2 * max_body)
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        """Keeps what is registered and ``Connection.watched`` the same."""
        self._connections: set[Connection] = set()
        self._accepting = False
        self._idle_until: float | None = None
        """When a stopping process closes what idles, by the monotonic clock."""
        self._glanced_at = 0.0

    def listen(self, fd: int, callback: Callable[[], None]) -> None:
        """Call *callback* whenever there is something to read from *fd*."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def ignore(self, fd: int) -> None:
        """Do so no more."""
        self._selector.unregister(fd)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def unfinished(self) -> int:
        """How many have a request that is being served, or sent the answer of one."""
        return sum(not one.watched or bool(one.sock.unsent) for one in list(self._connections))

    def turn(self, seconds: float = _GLANCE) -> bool:
        """Wait up to so many seconds for something to happen, and deal with it. True when it is time to look after other things too."""
        for key, _events in self._selector.select(seconds):
            if not isinstance(key.data, Connection):
                key.data()
            elif key.data.sock.unsent:
                self._send(key.data)
            else:
                self._receive(key.data)
        now = time.monotonic()
        if now - self._glanced_at < min(_GLANCE, seconds):
            return False
        self._glanced_at = now
        self._expire(now)
        return True

    def may_keep(self, count: int) -> bool:
        """Whether so many bytes more may wait for slow clients. For any thread."""
        return sum(one.held for one in list(self._connections)) + count <= self._most_kept

    # Coming ------------------------------------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Accept connections from now on; again, where there was no room for more."""
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ, lambda listener=listener: self._accept(listener, _ACCEPT_AT_ONCE))

    def accept_no_more(self) -> None:
        """Accept who has connected already, and close the addresses; who idles is soon sent away."""
        self._pause()
        for listener in self._listeners:
            self._accept(listener, self._most)
            listener.close()
        self._idle_until = time.monotonic() + _LAST_REQUEST

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._selector.unregister(listener)

    def _accept(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            if len(self._connections) >= self._most and not self._make_room():
                self._pause()
                return
            try:
                accepted, client = listener.accept()
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in _NO_ROOM and not self._make_room():
                    self._pause()
                return
            sock = ClientSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
            sock.settimeout(0)
            connection = Connection(sock, _plain(client), listener.getsockname(), max_body=self._max_body)
            self._connections.add(connection)
            self._watch(connection)

    def _make_room(self) -> bool:
        """Close the connection that has been waiting longest; False when none does."""
        waiting = [one for one in list(self._connections) if one.watched]
        if not waiting:
            return False
        self._drop(min(waiting, key=lambda one: one.waiting_since))
        return True

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE)
            if not data:
                self._drop(connection)
            elif not connection.lingering and not self._wants_more(connection, progress := connection.add(data)):
                self._unwatch(connection)
                self._go_on(connection, progress)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _wants_more(self, connection: Connection, progress: Progress) -> bool:
        if progress is Progress.HEAD:
            return True
        return progress is Progress.BODY and (len(connection.received) <= _SMALL or self.may_keep(0))

    def _go_on(self, connection: Connection, progress: Progress) -> None:
        """Give a request to a thread, or refuse what came."""
        if progress is Progress.WHOLE:
            self._give(connection)
        else:
            self.refuse(connection, BUSY if progress is Progress.BODY else answer_to(progress))

    # Waiting -----------------------------------------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        for connection in list(self._connections):
            if not connection.watched or now < self._until(connection) or (connection.idle and connection.sock.has_more):
                continue
            if connection.idle or connection.lingering or connection.sock.unsent:
                self._drop(connection)
            else:
                self._unwatch(connection)
                self.refuse(connection, TOO_SLOW)

    def _until(self, connection: Connection) -> float:
        if connection.lingering:
            return connection.waiting_since + _LINGER
        if connection.sock.unsent or not connection.idle:
            return connection.patience.until
        until = connection.waiting_since + (_KEEP_ALIVE if connection.requests else _FIRST_REQUEST)
        return until if self._idle_until is None else min(until, self._idle_until)

    def _watch(self, connection: Connection) -> None:
        with self._lock:
            connection.waiting_since = time.monotonic()
            self._selector.register(connection.sock, selectors.EVENT_WRITE if connection.sock.unsent else selectors.EVENT_READ, connection)
            connection.watched = True

    def _unwatch(self, connection: Connection) -> None:
        with self._lock:
            if connection.watched:
                self._selector.unregister(connection.sock)
                connection.watched = False

    def _drop(self, connection: Connection) -> None:
        self._unwatch(connection)
        self.forget(connection)

    # Going -------------------------------------------------------------------------------------------------------------------------------

    def follow(self, connection: Connection) -> None:
        """Go on with a connection whose request is answered: with the rest of the answer, the next request, or its end."""
        if connection.sock.unsent:
            connection.patience = Patience()
            self._watch(connection)
        elif connection.then is None and connection.received.whole:
            self.forget(connection)
        elif connection.then is None:
            self._linger(connection)
        elif self._wants_more(connection, connection.then):
            self._watch(connection)
        else:
            self._go_on(connection, connection.then)

    def _send(self, connection: Connection) -> None:
        try:
            connection.patience.moved(connection.sock.send_unsent())
        except OSError:
            self._drop(connection)
            return
        if not connection.sock.unsent:
            self._unwatch(connection)
            self.follow(connection)

    def refuse(self, connection: Connection, answer: RawAnswer) -> None:
        """Answer, without waiting for the client to read it, and end the connection."""
        with contextlib.suppress(OSError):
            connection.sock.send(answer.encode())
        self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        try:
            connection.linger()
        except OSError:
            self.forget(connection)
        else:
            self._watch(connection)

    def forget(self, connection: Connection) -> None:
        """Close a connection."""
        self._connections.discard(connection)
        connection.sock.close()


def _plain(client: Any) -> Any:
    """The client's address; that of IPv4 as such, also where it has come by a socket for both."""
    return (client[0].removeprefix(_MAPPED), *client[1:2]) if isinstance(client, tuple) and client[0].startswith(_MAPPED) else client

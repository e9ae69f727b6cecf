"""Waiting for work: blocked in the server, woken by an entry, by a thread of this process, or by time."""

from __future__ import annotations

import math
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import redis

from jobqueue_core.errors import ConfigError, IncompatibleData

from .faults import is_passing
from .wire import Effort, NothingYet, Wire, pack

if TYPE_CHECKING:
    from .link import Bell, Link
    from .server import Server

__all__ = ["Waiter"]

_GRACE: Final = 1.0
"""Seconds after the end of a wait for which the server's answer is waited for."""
_REOPEN: Final = 1.0
"""Seconds in which a server that has closed a connection must take another, or counts as gone."""
_UNBLOCK: Final = 0.25
"""Seconds to take back a wait; then its connection is given up instead."""


class Waiter:
    """Waits for entries in streams. Any number of threads may; each has connections of its own meanwhile, which are used again afterwards.

    Args:
        link: The way to the server.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._interrupted = False
        self._waiting: set[_Alarm] = set()
        self._spare: list[_Alarm] = []
        self._lines: dict[Server, deque[_Line]] = {}

    def wait(self, bells: Sequence[Bell], seconds: float) -> bool:
        """Wait until an entry is added to one of *bells*, for at most *seconds*.

        Returns:
            True when it is time to look again: there is an entry, or the server has come back from where it was. False when there is none, or
            the wait was interrupted.

        Raises:
            BrokerUnavailable: The server has gone.
        """
        if seconds <= 0:
            return False
        alarm = self._enter()
        if alarm is None:
            return False
        lines: list[_Line] = []
        is_interrupted = False
        try:
            has_news = self._wait(alarm, lines, bells, seconds)
        except (redis.RedisError, ConfigError) as error:
            raise self._link.fault(error, "wait for work", maybe_accepted=False) from error
        finally:
            for line in lines:
                self._put_back(line)
            is_interrupted = self._leave(alarm)
        # Whoever interrupts wants an end of the wait, also when it ends by itself at that moment.
        return has_news and not is_interrupted

    def interrupt(self) -> None:
        """End every wait, or the next one if there is none; from any thread."""
        with self._mine():
            self._interrupted = not self._waiting
            for alarm in self._waiting:
                alarm.ring()

    def close(self) -> None:
        """End every wait for good, and close the connections."""
        with self._mine():
            self._is_closed = True
            for alarm in self._waiting:
                alarm.ring()
            spare, self._spare = self._spare, []
            lines, self._lines = self._lines, {}
        for alarm in spare:
            alarm.close()
        for line in (line for of_server in lines.values() for line in of_server):
            line.wire.close()

    def _mine(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._reset()
        return self._lock

    # One wait --------------------------------------------------------------------------------------------------------------------------

    def _enter(self) -> _Alarm | None:
        with self._mine():
            if self._is_closed or self._interrupted:
                self._interrupted = False
                return None
            alarm = self._spare.pop() if self._spare else _Alarm()
            self._waiting.add(alarm)
            return alarm

    def _leave(self, alarm: _Alarm) -> bool:
        """The wait is over; whether it was interrupted."""
        with self._lock:
            self._waiting.discard(alarm)
            was_rung = alarm.hush()
            if self._is_closed:
                alarm.close()
            else:
                self._spare.append(alarm)
            return was_rung

    def _wait(self, alarm: _Alarm, lines: list[_Line], bells: Sequence[Bell], seconds: float) -> bool:
        effort = Effort(monotonic() + seconds + _GRACE)
        for group in self._link.groups(bells):
            line = self._line(group[0][0], effort)
            lines.append(line)
            try:
                line.ask(group, seconds)
            except redis.RedisError:
                return self._reopen(line)
        poller = select.poll()
        poller.register(alarm, select.POLLIN)
        for line in lines:
            poller.register(line.wire, select.POLLIN)
        by_number = {line.wire.fileno(): line for line in lines}
        while (left := effort.deadline - monotonic()) > 0:
            for number, _ in poller.poll(math.ceil(left * 1000)):
                if number not in by_number:
                    return False
                with suppress(NothingYet):
                    return self._heard(by_number[number])
        # The server hangs: what it may still say, nobody will hear.
        for line in lines:
            line.wire.close()
        return False

    def _heard(self, line: _Line) -> bool:
        """What an answer means.

        Raises:
            NothingYet: It was none.
        """
        try:
            reply = line.read()
        except (redis.ConnectionError, redis.TimeoutError):
            return self._reopen(line)
        except redis.ResponseError as error:
            if not is_passing(error):
                raise
            # Its role or its slots have changed. Whoever looks for work next finds out who has them.
            self._doubt(line.server, error)
            return True
        return reply is not None

    def _reopen(self, line: _Line) -> bool:
        """A connection is lost. With the server there, and only then, something may have been missed that is worth a look."""
        line.wire.close()
        try:
            again = self._open(line.server, Effort(monotonic() + _REOPEN))
        except redis.RedisError as error:
            self._doubt(line.server, error)
            raise
        self._put_back(again)
        return True

    # Connections -----------------------------------------------------------------------------------------------------------------------

    def _line(self, key: str, effort: Effort) -> _Line:
        server = self._link.routes.server(key, effort)
        with suppress(KeyError, IndexError):
            return self._lines[server].pop()
        try:
            return self._open(server, effort)
        except redis.RedisError as error:
            self._doubt(server, error)
            raise

    @staticmethod
    def _open(server: Server, effort: Effort) -> _Line:
        wire, _ = server.open(effort)
        wire.send(pack(("CLIENT", "ID")))
        number = wire.read(effort)
        return _Line(server, wire, number if isinstance(number, int) else None)

    def _doubt(self, server: Server, error: redis.RedisError) -> None:
        self._link.routes.doubt(server, error)
        for line in self._lines.pop(server, ()):
            line.wire.close()

    def _put_back(self, line: _Line) -> None:
        if line.is_asked and line.wire.is_connected:
            line.take_back()
        if not line.wire.is_connected:
            return
        with self._lock:
            if not self._is_closed:
                self._lines.setdefault(line.server, deque()).append(line)
                return
        line.wire.close()


class _Line:
    """A connection on which one wait at a time can be made."""

    def __init__(self, server: Server, wire: Wire, number: int | None) -> None:
        self.server = server
        self.wire = wire
        self.is_asked = False
        self._number = number
        """What the server calls it; None when we may not know."""

    def ask(self, bells: Sequence[Bell], seconds: float) -> None:
        """Have the server wait.

        Raises:
            redis.RedisError: It cannot be told.
        """
        block_ms = max(math.ceil(seconds * 1000), 1)  # 0 would be for ever
        keys, ids = zip(*bells, strict=True)
        self.is_asked = True
        self.wire.send(pack(("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", *keys, *ids)))

    def read(self) -> list[Any] | None:
        """What it says; None when the time was over.

        Raises:
            redis.RedisError: It answered with an error, or the connection is lost.
            NothingYet: It has said nothing so far, or not all.
        """
        reply: list[Any] | redis.ResponseError | None = self.wire.read_now()
        self.is_asked = False
        if isinstance(reply, redis.ResponseError):
            raise reply
        return reply

    def take_back(self) -> None:
        """End the server's wait, so that the connection can be used again; else close it."""
        try:
            if self._number is None:
                self.wire.close()
                return
            effort = Effort(monotonic() + _UNBLOCK)
            (is_ended,) = self.server.ask(pack(("CLIENT", "UNBLOCK", self._number)), 1, effort)
            if is_ended == 1:
                self.wire.read(effort)
            else:
                # It has just answered, or not begun to wait: that is not waited for.
                self.wire.read_now()
            self.is_asked = False
        except (redis.RedisError, ConfigError, IncompatibleData, NothingYet):
            self.wire.close()


class _Alarm:
    """Wakes a thread that waits for connections."""

    def __init__(self) -> None:
        self._end, self._bell = socket.socketpair()
        self._end.settimeout(0)
        self._bell.settimeout(0)
        self._is_ringing = False

    def fileno(self) -> int:
        """For ``select``."""
        return self._end.fileno()

    def ring(self) -> None:
        """Wake it."""
        if not self._is_ringing:
            self._is_ringing = True
            self._bell.send(b"!")

    def hush(self) -> bool:
        """Make it quiet again; whether it was ringing."""
        if not self._is_ringing:
            return False
        self._is_ringing = False
        self._end.recv(16)
        return True

    def close(self) -> None:
        """Let go of it."""
        self._end.close()
        self._bell.close()

"""Connections: how one is made, and how long it may take."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

try:
    from hiredis import pack_command
except ImportError:  # no wheel for this platform: the driver's own parser and packer do
    pack_command = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .addresses import Address, Login

__all__ = ["PATIENCE", "Arg", "Effort", "NothingYet", "Wire", "pack"]

PATIENCE: Final = 5.0
"""Seconds within which every call is answered or given up."""
_CONNECT: Final = 2.0
"""Most seconds to wait for one address: the next may answer, or the same after a failover."""
_LEAST: Final = 0.001
_UNHURRIED: Final = 0.9
"""The part of all the time that must be left for a connection to be kept: its driver goes on with what it was given for sending."""
_READ_SIZE: Final = 65536

Arg = str | bytes | int | float
"""What a command is made of."""


@attrs.define
class Effort:
    """One call: until when (monotonic) it is to be done, and what has come of it so far."""

    deadline: float
    quiet_us: int | None = None
    """Give up when the servers have been disturbed since; None: whatever happens."""
    doubtful: bool = False
    """Something has been sent that nobody answered."""

    @property
    def left(self) -> float:
        """Seconds left, never none: a socket would take that for "do not wait at all"."""
        return max(self.deadline - monotonic(), _LEAST)


def pack(command: Sequence[Arg]) -> bytes:
    """*command* as it is sent."""
    if pack_command is not None:
        packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # a tuple of several types is one of each
        return packed
    pieces = [b"*%d\r\n" % len(command)]
    for arg in command:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


class NothingYet(Exception):
    """The reply, or the rest of it, is still to come."""


class Wire:
    """One connection. It is closed by whatever leaves half a reply unread, and not opened again.

    The driver repeats nothing by itself, and speaks RESP2, whose replies to plain commands have the same shape on every server.

    Args:
        address: How to log in, and with or without TLS.
        host: Where to connect to; unused for a socket.
        port: Where to connect to.
        login: Who we are there.
        db: The number of the database.
    """

    def __init__(self, address: Address, host: str, port: int, *, login: Login, db: int) -> None:
        options: dict[str, Any] = {
            "db": db,
            "username": login.username,
            "password": login.password,
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),
            "socket_read_size": _READ_SIZE,
        }
        self._host_port = None if address.kind == "unix" else (host, port)
        driver: Any  # its classes have no types, and its methods none either
        if address.kind == "unix":
            driver = redis.UnixDomainSocketConnection
            options |= {"path": address.path}
        else:
            driver = redis.Connection if address.tls is None else redis.SSLConnection
            options |= {"host": host, "port": port, "socket_keepalive": True, **(address.tls or {})}
        self._connection = driver(**options)

    def open(self, effort: Effort) -> bool:
        """Connect and log in; false when it was made in haste, and is not to be kept for calls that have more time.

        Raises:
            redis.RedisError: It cannot be connected.
        """
        left = effort.left
        addresses = 1 if self._host_port is None else _resolve(*self._host_port, left)
        self._connection.socket_connect_timeout = min(_CONNECT, effort.left / addresses)
        self._connection.socket_timeout = effort.left
        try:
            self._connection.connect()
        except BaseException:
            self.close()
            raise
        return left > PATIENCE * _UNHURRIED

    @property
    def is_connected(self) -> bool:
        """False before it is opened and after it is closed, by whomever."""
        return bool(self._connection.is_connected)

    def fileno(self) -> int:
        """Its socket, to be waited for together with other things."""
        number: int = self._connection._sock.fileno()  # noqa: SLF001 - the driver offers it in no other way
        return number

    def send(self, request: bytes) -> None:
        """Send *request*.

        Raises:
            redis.RedisError: It cannot be sent, or not whole.
        """
        self._connection.send_packed_command((request,), check_health=False)

    def read(self, effort: Effort) -> Any:
        """The next reply; an error that the server has answered is returned, not raised.

        Raises:
            redis.RedisError: There is none in time.
        """
        try:
            return self._connection.read_response(timeout=effort.left)
        except redis.ResponseError as error:
            return error

    def read_now(self) -> Any:
        """The next reply, as :meth:`read`, if it is there.

        Raises:
            NothingYet: It is not, or not whole.
            redis.RedisError: The connection is lost.
        """
        try:
            return self._connection.read_response(timeout=0, disconnect_on_error=False)
        except redis.ResponseError as error:
            return error
        except redis.TimeoutError:
            raise NothingYet from None
        except redis.RedisError:
            self.close()
            raise

    def is_quiet(self) -> bool:
        """False when an idle connection is of no use: the other side has closed it, or has said something unasked."""
        try:
            return not self._connection.can_read(0)
        except (redis.RedisError, OSError):
            return False

    def close(self) -> None:
        """Close it, whatever state it is in."""
        with suppress(redis.RedisError, OSError):
            self._connection.disconnect()


def _resolve(host: str, port: int, seconds: float) -> int:
    """How many addresses *host* has. Asked in a thread, for a name server that does not answer cannot be interrupted."""
    found: list[int] = []
    errors: list[OSError | UnicodeError] = []

    def ask() -> None:
        try:
            found.append(len(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    asking = threading.Thread(target=ask, name="jobqueue-redis-resolve", daemon=True)
    asking.start()
    asking.join(seconds)
    if errors:
        raise redis.ConnectionError(f"{host}: {errors[0]}") from errors[0]
    if not found:
        raise redis.TimeoutError(f"{host}: no name server answered")
    return max(found[0], 1)

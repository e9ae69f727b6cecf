"""A pooler before a PostgreSQL that does what PgBouncer does in transaction mode, for machines that have none."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from asyncio import StreamReader, StreamWriter
from collections import defaultdict, deque
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

import attrs

from .postgres_messages import CANCEL, GSS, LOGIN_OK, PROTOCOL, READY, TLS, Message, error, read_message, read_startup, startup

__all__ = ["TransactionPooler"]

T = TypeVar("T")

_PATIENCE: Final = 20.0
_PARAMETERS: Final = {"user", "database", "application_name", "client_encoding", "datestyle", "standard_conforming_strings", "timezone"}
"""Those with which a client may begin. All but the first two are taken and forgotten: no session belongs to a client."""
_ANSWERED: Final = (b"Q", b"S", b"F")
"""Requests that the server ends with ReadyForQuery."""
_COPY: Final = (b"d", b"c", b"f")


@attrs.define(eq=False)
class _Server:
    """A connection to the server, and whose it is now."""

    reader: StreamReader
    writer: StreamWriter
    key: bytes = b""
    parameters: list[Message] = attrs.field(factory=list)
    client: _Client | None = None
    task: asyncio.Task[None] | None = None
    """Which reads what the server says."""


@attrs.define(eq=False)
class _Client:
    """A client, and what it has asked the server for that is not answered yet."""

    writer: StreamWriter
    server: _Server | None = None
    awaited: int = 0
    """ReadyForQuery that are to come."""
    unfinished: bool = False
    """Whether it has sent something that only its next Sync will have answered."""


@attrs.define(eq=False)
class _Pool:
    """The connections of one user to one database."""

    turn: asyncio.Semaphore
    """Held as long as a client has one of them."""
    idle: deque[_Server] = attrs.field(factory=deque)


class _Refused(Exception):
    """The server does not take a connection."""


class TransactionPooler:
    """Shares *size* connections to the server on *port* among all clients: each has one of them only from its first request until the server
    has ended the transaction. Then it goes, as it is, to whoever is next, so that what a session remembers leaks.

    The server must trust it. It runs in a thread of its own; all methods may be called from any thread.
    """

    def __init__(self, port: int, *, size: int = 2, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.port = 0
        self._clients: dict[bytes, _Client] = {}
        """By the key with which each may cancel what it has asked for."""
        self._pools: defaultdict[bytes, _Pool] = defaultdict(lambda: _Pool(asyncio.Semaphore(size)))
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pooler", daemon=True)
        self._thread.start()
        self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Of the server behind it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def close(self) -> None:
        """End all connections and be gone."""
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_PATIENCE)
            self._loop.close()

    # In the thread ---------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(_PATIENCE)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        client = _Client(writer)
        key = secrets.token_bytes(8)
        try:
            if (pool := await self._log_in(client, reader, key)) is not None:
                await self._requests(client, reader, pool)
        except _Refused as refused:
            writer.write(bytes(error(str(refused))))
        except (EOFError, OSError, asyncio.CancelledError):
            pass  # the client is gone, or the pooler is closed
        finally:
            self._clients.pop(key, None)
            if client.server is not None:  # in the middle of something, which the server then rolls back
                client.server.writer.close()
            writer.close()

    # Clients ---------------------------------------------------------------------------------------------------------------------------

    async def _log_in(self, client: _Client, reader: StreamReader, key: bytes) -> bytes | None:
        """Let a client in; says which pool it uses. None: there is nothing more to do for it."""
        code, body = await read_startup(reader)
        while code in (TLS, GSS):
            client.writer.write(b"N")
            code, body = await read_startup(reader)
        if code == CANCEL:
            await self._cancel(body)
            return None
        if code != PROTOCOL:
            raise _Refused(f"unsupported protocol {code}")
        words = body.decode().split("\0")
        given = {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=False) if name}
        if unknown := given.keys() - _PARAMETERS:
            raise _Refused(f"unsupported startup parameter: {min(unknown)}")
        database = given.get("database", given["user"])
        pool = f"user\0{given['user']}\0database\0{database}\0\0".encode()
        server = await self._take(pool)
        welcome = [LOGIN_OK, *server.parameters, Message(b"K", key), READY]
        self._give_back(pool, server)
        self._clients[key] = client
        client.writer.write(b"".join(map(bytes, welcome)))
        return pool

    async def _requests(self, client: _Client, reader: StreamReader, pool: bytes) -> None:
        while (message := await read_message(reader)).kind != b"X":
            if client.server is None:
                if message.kind in _COPY:
                    continue  # the rest of a copy that the server has refused
                client.server = await self._take(pool)
                client.server.client = client
            client.awaited += message.kind in _ANSWERED
            if message.kind not in _COPY:
                client.unfinished = message.kind not in _ANSWERED
            client.server.writer.write(bytes(message))
            await client.server.writer.drain()

    async def _cancel(self, key: bytes) -> None:
        client = self._clients.get(key)
        if client is not None and client.server is not None:
            reader, writer = await asyncio.open_connection(*self._target)
            writer.write(startup(CANCEL, client.server.key))
            await reader.read()  # the server closes when it has done it
            writer.close()

    # Servers ---------------------------------------------------------------------------------------------------------------------------

    async def _take(self, pool: bytes) -> _Server:
        """Wait for a turn, and take the connection that has been idle for longest, or a new one."""
        await self._pools[pool].turn.acquire()
        try:
            return self._pools[pool].idle.popleft()
        except IndexError:
            try:
                return await self._connect(pool)
            except BaseException:
                self._pools[pool].turn.release()
                raise

    def _give_back(self, pool: bytes, server: _Server) -> None:
        self._pools[pool].idle.append(server)
        self._pools[pool].turn.release()

    async def _connect(self, pool: bytes) -> _Server:
        try:
            server = _Server(*await asyncio.open_connection(*self._target))
        except OSError as caught:
            raise _Refused("server login failed: connect failed") from caught
        server.writer.write(startup(PROTOCOL, pool))
        try:
            while (message := await read_message(server.reader)).kind != b"Z":
                match message.kind:
                    case b"S":
                        server.parameters.append(message)
                    case b"K":
                        server.key = message.body
                    case b"E":
                        raise _Refused("server login failed: " + message.body.decode(errors="replace").replace("\0", " "))
        except (EOFError, OSError) as caught:
            raise _Refused("server login failed: server conn crashed?") from caught
        server.task = asyncio.create_task(self._replies(server, pool))
        return server

    async def _replies(self, server: _Server, pool: bytes) -> None:
        """Pass on what the server says, to whom it concerns, as long as the connection lasts."""
        try:
            while True:
                message = await read_message(server.reader)
                client = server.client
                if client is None:
                    continue  # a notice to an idle session
                with contextlib.suppress(OSError):  # the client is gone; _serve takes care of that
                    client.writer.write(bytes(message))
                    await client.writer.drain()
                if message.kind == b"Z":
                    client.awaited -= 1
                    if message.body == b"I" and not client.awaited and not client.unfinished:
                        client.server = server.client = None
                        self._give_back(pool, server)
        except (EOFError, OSError):
            pass
        finally:
            self._lose(server, pool)

    def _lose(self, server: _Server, pool: bytes) -> None:
        server.writer.close()
        client = server.client
        if client is None:
            with contextlib.suppress(ValueError):
                self._pools[pool].idle.remove(server)
            return
        client.server = None
        client.writer.write(bytes(error("server conn crashed?")))
        client.writer.close()
        self._pools[pool].turn.release()

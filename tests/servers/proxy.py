"""A TCP proxy before a server, which can be told to do what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypeVar

import attrs

__all__ = ["Proxy"]

T = TypeVar("T")

_PORTION: Final = 65_536
_LONGEST_MATCH: Final = 200
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, and what was not sent is dropped."""
_PATIENCE: Final = 20.0


@attrs.define
class _Cut:
    """What is to be cut, and how often."""

    containing: bytes
    times: int
    forwarded: bool
    """Whether the server gets the request."""
    reply: int
    """How many bytes of the reply still come through."""


@attrs.define(eq=False)
class _Pair:
    """One connection: its two halves."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    seen: bytes = b""
    """The end of what the client has sent."""
    remaining: int | None = None
    """Bytes of replies that come through before the connection is reset; None: all."""


class Proxy:
    """Passes everything on until it is told otherwise. It runs in a thread of its own; all methods may be called from any thread.

    A *request* is what a client sends: a cut takes the next one that contains some bytes (those of a script's SHA, say), so that it hits
    what it is meant for. Cuts are counted in :attr:`cuts`: a test that needs one must look whether it took place.

    Args:
        port: Of the server.
        host: Of the server.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self.port = 0
        self.cuts = 0
        """Connections that were reset by a cut."""
        self.requests = 0
        """Portions that clients have sent."""
        self._pairs: set[_Pair] = set()
        self._cut: _Cut | None = None
        self._delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._resetting: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Of a Redis server behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def postgres_url(self) -> str:
        """Of a PostgreSQL server behind it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    # What it can be told ---------------------------------------------------------------------------------------------------------------

    def pass_on(self) -> None:
        """Pass everything on, at once, from now; what was held back comes through now."""
        self._do(self._pass_on())

    def reset(self) -> int:
        """Reset all connections, once; says how many. New ones are served."""
        return self._do(self._reset())

    def reset_every(self, seconds: float) -> None:
        """Reset all connections again and again until :meth:`pass_on`."""
        self._do(self._reset_every(seconds))

    def halt(self) -> None:
        """Hold back everything, in both directions, without a word: connections are accepted, and nothing comes through."""
        self._now(self._open.clear)

    def delay(self, seconds: float) -> None:
        """Let each portion of a reply take so much longer."""
        self._now(lambda: setattr(self, "_delay", seconds))

    def cut_request(self, *, containing: bytes = b"", times: int = 1) -> None:
        """Reset the connection when the next request comes: the server never gets it.

        Args:
            containing: Only a request in which this occurs.
            times: How many requests in succession.
        """
        self._arm(_Cut(containing, times, forwarded=False, reply=0))

    def cut_reply(self, *, after: int = 0, containing: bytes = b"", times: int = 1) -> None:
        """Reset the connection when the next request has been answered: the server has carried it out, the client does not know.

        Args:
            after: How many bytes of the reply still come through.
            containing: Only of a request in which this occurs.
            times: How many requests in succession.
        """
        self._arm(_Cut(containing, times, forwarded=True, reply=after))

    def close(self) -> None:
        """Reset all connections and be gone."""
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_PATIENCE)
            self._loop.close()

    # In the thread ---------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(_PATIENCE)

    def _now(self, step: Callable[[], object]) -> None:
        async def run() -> None:
            step()

        self._do(run())

    def _arm(self, cut: _Cut) -> None:
        assert len(cut.containing) <= _LONGEST_MATCH
        self._now(lambda: setattr(self, "_cut", cut))

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _pass_on(self) -> None:
        self._cut, self._delay = None, 0.0
        await self._stop_resetting()
        self._open.set()

    async def _reset(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            self._drop(pair)
        return len(pairs)

    async def _reset_every(self, seconds: float) -> None:
        async def run() -> None:
            while True:
                await self._reset()
                await asyncio.sleep(seconds)

        await self._stop_resetting()
        self._resetting = asyncio.create_task(run())

    async def _stop_resetting(self) -> None:
        task, self._resetting = self._resetting, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._stop_resetting()
        await self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            from_server, server = await asyncio.open_connection(*self._target)
        except OSError:
            _reset_socket(client)  # nobody is there: so it seems to the client too
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._requests(pair, from_client), self._replies(pair, from_server))
        except (OSError, asyncio.CancelledError):
            self._drop(pair)  # one side reset the connection: so it seems to the other; or the proxy is closed
        finally:
            self._pairs.discard(pair)
            client.close()
            server.close()

    async def _requests(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        while portion := await reader.read(_PORTION):
            await self._open.wait()
            self.requests += 1
            if (cut := self._hit(pair, portion)) is not None:
                if not cut.forwarded:
                    self._fall(pair)
                    return
                pair.remaining = cut.reply
            pair.server.write(portion)
            await pair.server.drain()
        if pair.server.can_write_eof():
            pair.server.write_eof()

    async def _replies(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        while portion := await reader.read(_PORTION):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._open.wait()
            if pair.remaining is not None:
                rest, pair.remaining = portion[: pair.remaining], max(0, pair.remaining - len(portion))
                pair.client.write(rest)
                await pair.client.drain()
                if pair.remaining == 0:
                    self._fall(pair)
                    return
                continue
            pair.client.write(portion)
            await pair.client.drain()
        if pair.client.can_write_eof():
            pair.client.write_eof()

    def _hit(self, pair: _Pair, portion: bytes) -> _Cut | None:
        """The cut that this request is due, if any; it is then counted down."""
        seen = pair.seen + portion
        pair.seen = seen[-_LONGEST_MATCH:]
        cut = self._cut
        if cut is None or cut.containing not in seen:
            return None
        pair.seen = b""
        cut.times -= 1
        if cut.times == 0:
            self._cut = None
        return cut

    def _fall(self, pair: _Pair) -> None:
        self.cuts += 1
        self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        _reset_socket(pair.client)
        _reset_socket(pair.server)


def _reset_socket(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() != -1:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

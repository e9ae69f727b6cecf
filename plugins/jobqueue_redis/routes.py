"""Which server a key is on: the one there is, the one that sentinels name, or one of a cluster (``cluster.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import redis

from .addresses import Address, place
from .faults import Passing
from .server import Rules, Server
from .wire import Effort, Wire, pack

if TYPE_CHECKING:
    from .watch import Watch

__all__ = ["Routes", "Sentinels", "Single"]

_ONLY: Final = "server"
"""What the watch calls the one server, whoever plays it."""
_SENTINEL_TIME: Final = 1.0
"""Seconds for one sentinel: the next knows as much."""


class Routes(Protocol):
    """Finds servers. May be asked by any thread."""

    def server(self, key: str, effort: Effort) -> Server:
        """The server on which *key* is.

        Raises:
            redis.RedisError: It cannot be found out.
        """

    def servers(self) -> list[Server]:
        """All that have been used."""

    def server_at(self, host: str, port: int) -> Server:
        """The server at an address that another server has named."""

    def doubt(self, server: Server, error: redis.RedisError) -> None:
        """*server* has answered a call with *error*, or not at all: find out anew before the next."""


class Single:
    """The one server."""

    def __init__(self, address: Address, rules: Rules, watch: Watch) -> None:
        host, port = address.hosts[0] if address.hosts else ("", 0)
        self._server = Server(address, host, port, rules=rules, watch=watch, role=_ONLY)

    def server(self, key: str, effort: Effort) -> Server:  # noqa: ARG002 - there is but one
        """See ``Routes``."""
        return self._server

    def servers(self) -> list[Server]:
        """See ``Routes``."""
        return [self._server]

    def server_at(self, host: str, port: int) -> Server:  # noqa: ARG002 - only nodes of a cluster name others
        """See ``Routes``."""
        return self._server

    def doubt(self, server: Server, error: redis.RedisError) -> None:  # noqa: ARG002 - whatever is wrong, a new connection looks at it
        """See ``Routes``."""
        server.drop_idle()


class Sentinels:
    """The server that the sentinels call the master: asked at first, and whenever it is in doubt."""

    def __init__(self, address: Address, rules: Rules, watch: Watch) -> None:
        self._address = address
        self._rules = rules
        self._watch = watch
        self._sentinels = address.hosts
        self._known: dict[tuple[str, int], Server] = {}
        self._current: Server | None = None

    def server(self, key: str, effort: Effort) -> Server:  # noqa: ARG002 - all keys are on one server
        """See ``Routes``."""
        current = self._current
        if current is None:
            current = self._current = self.server_at(*self._discover(effort))
        return current

    def servers(self) -> list[Server]:
        """See ``Routes``."""
        return list(self._known.values())

    def server_at(self, host: str, port: int) -> Server:
        """See ``Routes``."""
        server = self._known.get((host, port))
        if server is None:
            server = Server(self._address, host, port, rules=self._rules, watch=self._watch, role=_ONLY)
            server = self._known.setdefault((host, port), server)
        return server

    def doubt(self, server: Server, error: redis.RedisError) -> None:  # noqa: ARG002 - the sentinels know better than we
        """See ``Routes``."""
        server.drop_idle()
        self._current = None

    def _discover(self, effort: Effort) -> tuple[str, int]:
        problems = []
        for host, port in self._sentinels:
            try:
                found = self._ask(host, port, effort)
            except redis.RedisError as error:
                problems.append(str(error))
                continue
            if found is not None:
                # The one that answers comes first next time.
                self._sentinels = ((host, port), *(other for other in self._sentinels if other != (host, port)))
                return found
            problems.append(f"{place(host, port)} knows no master {self._address.master!r}")
        raise Passing(f"no sentinel names the master: {'; '.join(problems)}")

    def _ask(self, host: str, port: int, effort: Effort) -> tuple[str, int] | None:
        some = Effort(effort.deadline - max(effort.left - _SENTINEL_TIME, 0.0))
        wire = Wire(self._address, host, port, login=self._address.sentinel_login, db=0)
        wire.open(some)
        try:
            wire.send(pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)))
            reply = wire.read(some)
        finally:
            wire.close()
        if isinstance(reply, redis.RedisError):
            raise reply
        return (reply[0].decode(), int(reply[1])) if reply else None

"""A Redis Cluster: which node serves which slot, learnt from any node and learnt again whenever one says otherwise."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.crc import key_slot

from .addresses import Address, place
from .faults import Passing, code_of
from .server import Rules, Server, ask_all
from .wire import Effort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .watch import Watch

__all__ = ["Cluster", "slot_of"]

_NODE_TIME: Final = 1.0
"""Seconds for one node to tell who serves what: the next knows as much."""
_PAUSE: Final = 0.05
"""Seconds between two questions, however many threads find something changed."""


def slot_of(key: str) -> int:
    """The slot of *key*: keys with one hash tag have one slot."""
    slot: int = key_slot(key.encode())
    return slot


class Cluster:
    """The nodes of a cluster."""

    def __init__(self, address: Address, rules: Rules, watch: Watch) -> None:
        self._address = address
        self._rules = rules
        self._watch = watch
        self._known: dict[tuple[str, int], Server] = {}
        self._owners: dict[int, Server] = {}
        self._stale = True
        self._asked_at = 0.0

    def server(self, key: str, effort: Effort) -> Server:
        """See ``Routes``."""
        if self._stale:
            self._refresh(effort)
        owner = self._owners.get(slot_of(key))
        if owner is None:
            self._stale = True
            raise Passing(f"no node of the cluster serves slot {slot_of(key)}")
        return owner

    def servers(self) -> list[Server]:
        """See ``Routes``."""
        return list(set(self._owners.copy().values()))

    def server_at(self, host: str, port: int) -> Server:
        """See ``Routes``."""
        server = self._known.get((host, port))
        if server is None:
            server = Server(self._address, host, port, rules=self._rules, watch=self._watch, role=place(host, port))
            server = self._known.setdefault((host, port), server)
        return server

    def doubt(self, server: Server, error: redis.RedisError) -> None:
        """See ``Routes``."""
        if code_of(error) == "MOVED" and isinstance(error, redis.exceptions.MovedError):
            # A node that does not know its own name leaves out the host: it means the one that was asked.
            self._assign(error.slot_id, self.server_at(error.host or server.host, error.port))
        elif code_of(error) not in ("ASK", "TRYAGAIN"):
            server.drop_idle()
        self._stale = True

    def _refresh(self, effort: Effort) -> None:
        if not self._owners or monotonic() - self._asked_at > _PAUSE:
            self._learn(effort)
            self._asked_at = monotonic()
            self._stale = False

    def _learn(self, effort: Effort) -> None:
        problems = []
        for server in self._guides():
            some = Effort(effort.deadline - max(effort.left - _NODE_TIME, 0.0))
            try:
                (ranges,) = ask_all(server, [("CLUSTER", "SLOTS")], some)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if isinstance(error, redis.AuthenticationError):
                    raise
                problems.append(f"{server.where}: {error}")
                continue
            if ranges:
                self._adopt(server, ranges)
                return
            problems.append(f"{server.where} serves no slots")
        raise Passing(f"no node of the cluster answers: {'; '.join(problems)}")

    def _guides(self) -> Iterator[Server]:
        """Whom to ask: nodes that are used, then those that the url names."""
        yield from self.servers()
        for host, port in self._address.hosts:
            yield self.server_at(host, port)

    def _adopt(self, guide: Server, ranges: list[Any]) -> None:
        owners: dict[int, Server] = {}
        for first, last, master, *_replicas in ranges:
            host = master[0].decode() if master[0] else ""
            server = self.server_at(host if host not in ("", "?") else guide.host, master[1])
            for slot in range(first, last + 1):
                owners[slot] = server
        for slot, server in owners.items():
            self._assign(slot, server)
        self._owners = owners

    def _assign(self, slot: int, server: Server) -> None:
        before = self._owners.get(slot)
        if before is not None and before is not server:
            self._watch.moved(server.role)
        self._owners[slot] = server

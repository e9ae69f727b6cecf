"""One Redis server: its connections, and what is checked and noted of it whenever one is made."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import redis

from jobqueue_core.errors import ConfigError, IncompatibleData

from .addresses import place
from .faults import Disturbed, Passing
from .wire import Effort, Wire, pack

if TYPE_CHECKING:
    from .addresses import Address
    from .watch import Watch

__all__ = ["Rules", "Server", "ask_all"]

_log = logging.getLogger("jobqueue.redis")
_OLDEST: Final = (6, 2)
_MOST_IDLE: Final = 64
"""Connections kept for the next calls; more threads than that at once make new ones."""
_FRESH: Final = 0.05
"""Seconds for which an idle connection is taken to be open still. Later it is looked at first: what is never sent was certainly not accepted."""
_LOOK: Final = b"".join(map(pack, (("TIME",), ("INFO", "server"), ("INFO", "memory"), ("INFO", "replication"))))


@attrs.frozen(kw_only=True)
class Rules:
    """What a server must be."""

    allow_eviction: bool
    mode: Literal["standalone", "cluster"]


class Server:
    """A server that calls are sent to. Any number of threads may ask at once: each takes a connection, and puts it back when it is done.

    Args:
        address: How to log in, and with or without TLS.
        host: Where it is; unused for a socket.
        port: Where it is.
        rules: What it must be.
        watch: Told when it is seen.
        role: What *watch* calls it: the same name for all servers that take each other's place.
    """

    def __init__(self, address: Address, host: str, port: int, *, rules: Rules, watch: Watch, role: str) -> None:
        self.host: Final = host
        self.port: Final = port
        self.role: Final = role
        self.scripts: Final[set[str]] = set()
        """The scripts it has been told, by their hash; it may have forgotten some."""
        self._address = address
        self._rules = rules
        self._watch = watch
        self._idle: deque[tuple[Wire, float]] = deque()
        self._pid = os.getpid()
        self._warned = False
        self._closed = False

    @property
    def where(self) -> str:
        """For people: which server this is."""
        return self._address.path or place(self.host, self.port)

    def ask(self, request: bytes, count: int, effort: Effort) -> list[Any]:
        """Send *request*, which is *count* commands, and return their replies; one that is an error stands among them.

        Raises:
            redis.RedisError: There is no reply, or ``Disturbed``. The connection is closed: half a reply may still have come.
        """
        wire, is_kept = self._take(effort)
        if effort.quiet_us not in (None, self._watch.quiet_us):
            self._put_back(wire, is_kept=is_kept)
            raise Disturbed
        doubtful, effort.doubtful = effort.doubtful, True
        try:
            wire.send(request)
            replies = [wire.read(effort) for _ in range(count)]
        except BaseException:
            wire.close()
            self.drop_idle()
            raise
        effort.doubtful = doubtful
        self._put_back(wire, is_kept=is_kept)
        return replies

    def open(self, effort: Effort) -> tuple[Wire, bool]:
        """A new connection, and whether it is to be kept. The server is looked at first.

        Raises:
            redis.RedisError: It cannot be connected, or is not ready.
            ConfigError: It is set up in a way that would lose jobs.
            IncompatibleData: It is too old.
        """
        wire = Wire(self._address, self.host, self.port, login=self._address.login, db=self._address.db)
        is_kept = wire.open(effort)
        try:
            self._look(wire, effort)
        except BaseException:
            wire.close()
            raise
        return wire, is_kept

    def close(self) -> None:
        """Close the connections, those in use as soon as they are not."""
        self._closed = True
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close the idle connections: the server has gone, or is to be looked at anew."""
        while self._idle:
            try:
                wire, _ = self._idle.pop()
            except IndexError:  # another thread was quicker
                return
            wire.close()

    def _put_back(self, wire: Wire, *, is_kept: bool) -> None:
        if is_kept and not self._closed and len(self._idle) < _MOST_IDLE:
            self._idle.append((wire, monotonic()))
        else:
            wire.close()

    def _take(self, effort: Effort) -> tuple[Wire, bool]:
        if self._pid != os.getpid():
            # After a fork the connections belong to the parent.
            self._pid, self._idle = os.getpid(), deque()
        while True:
            try:
                wire, used_at = self._idle.pop()
            except IndexError:
                return self.open(effort)
            if monotonic() - used_at < _FRESH or wire.is_quiet():
                return wire, True
            wire.close()

    # Looking at it ---------------------------------------------------------------------------------------------------------------------

    def _look(self, wire: Wire, effort: Effort) -> None:
        wire.send(_LOOK)
        clock, *texts = [wire.read(effort) for _ in range(4)]
        facts: dict[str, str] = {}
        for text in texts:
            if isinstance(text, redis.RedisError):
                raise text
            facts |= _facts(text)
        self._check_kind(facts)
        self._check_eviction(facts)
        # A replica in a cluster sends us to its master by itself, and tells who serves what as well as any.
        if facts.get("role", "master") != "master" and self._rules.mode != "cluster":
            raise Passing(f"{self.where} is a replica, of {facts.get('master_host')}:{facts.get('master_port')}: it takes no writes")
        if isinstance(clock, redis.RedisError):
            raise clock
        now_us = int(clock[0]) * 1_000_000 + int(clock[1])
        uptime = facts.get("uptime_in_seconds", "")
        self._watch.seen(self.role, facts.get("run_id", ""), int(uptime) if uptime.isdecimal() else None, now_us)

    def _check_kind(self, facts: Mapping[str, str]) -> None:
        version = facts.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if len(numbers) == 2 and numbers < _OLDEST:
            raise IncompatibleData(f"{self.where} is Redis {version}: this release needs Redis 6.2 or later, or Valkey")
        mode = facts.get("redis_mode") or facts.get("server_mode")  # as Redis and as Valkey call it
        match mode:
            case "sentinel":
                raise ConfigError([f"broker.url: {self.where} is a sentinel: use redis+sentinel://{self.where}/<name of the master>"])
            case "cluster" if self._rules.mode != "cluster":
                raise ConfigError([f"broker.url: {self.where} belongs to a Redis Cluster: use redis+cluster://{self.where}"])
            case "standalone" if self._rules.mode == "cluster":
                raise ConfigError([f"broker.url: {self.where} is no node of a Redis Cluster: use redis://{self.where}"])

    def _check_eviction(self, facts: Mapping[str, str]) -> None:
        policy = facts.get("maxmemory_policy", "")
        if policy.startswith("allkeys") and not self._rules.allow_eviction:
            problem = f"{self.where} has maxmemory-policy {policy}: when its memory is full it would throw jobs away unseen"
            raise ConfigError([f"broker.url: {problem}; set maxmemory-policy noeviction there, or [broker] allow_eviction = true here"])
        if policy.startswith("volatile") and not self._warned:
            self._warned = True
            _log.warning(
                "%s has maxmemory-policy %s: when its memory is full it forgets results of finished jobs, unique keys and idempotency keys "
                "before their time; no job is lost; maxmemory-policy noeviction keeps all",
                self.where,
                policy,
            )


def _facts(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").split("\r\n") if not line.startswith("#"))
    return {name: value for name, _, value in lines if name}


def ask_all(server: Server, commands: Sequence[Sequence[str | bytes | int]], effort: Effort) -> list[Any]:
    """The replies to *commands*, sent together.

    Raises:
        redis.RedisError: There is no reply, or one is an error.
    """
    replies = server.ask(b"".join(map(pack, commands)), len(commands), effort)
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply
    return replies

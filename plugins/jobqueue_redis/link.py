"""The way to Redis: every call is answered within five seconds, or ends in one of our errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis

from jobqueue_core.errors import BrokerUnavailable, ConfigError, JobQueueError

from .addresses import read_address
from .cluster import Cluster, slot_of
from .faults import code_of, is_passing, translate
from .registry import ClusterRegistry, SingleRegistry
from .routes import Sentinels, Single
from .scripts import Script, script
from .server import Rules, Server
from .times import from_us
from .watch import Watch
from .wire import PATIENCE, Arg, Effort, pack

if TYPE_CHECKING:
    from .addresses import Address
    from .keys import Shard
    from .routes import Routes

__all__ = ["Bell", "Link"]

T = TypeVar("T")
Bell = tuple[str, str | bytes]
"""A stream to wait for, and the id after which an entry is news."""

_FIRST_PAUSE: Final = 0.01
_LAST_PAUSE: Final = 0.2
_REDIRECTS: Final = 5
"""How often a call follows its key to another node at once; a cluster that sends it round longer than that is given time to settle."""
_ANSWERED: Final = 0.5
"""Seconds of a call that replicas do not have: a server looks at its clock ten times a second, and its answer must still arrive."""


class Link:
    """Everything that is sent to Redis goes through here. Any thread may call; a process that was forked has connections of its own.

    Args:
        url: Where it is.
        namespace: Prefix of all keys; empty for none.
        wait_replicas: How many replicas must have what a call with ``replicate`` has written before it returns.
        allow_eviction: Use a server that may evict jobs.

    Raises:
        ConfigError: The url cannot be read, or the server is set up in a way that would lose jobs.
        BrokerUnavailable: It does not answer.
        IncompatibleData: It is too old.
    """

    def __init__(self, url: str, *, namespace: str = "", wait_replicas: int = 0, allow_eviction: bool = False) -> None:
        address = read_address(url)
        self._where = address.describe()
        self._wait_replicas = wait_replicas
        self._watch = Watch()
        self._is_cluster = address.kind == "cluster"
        rules = Rules(allow_eviction=allow_eviction, mode="cluster" if self._is_cluster else "standalone")
        kinds: dict[str, Callable[[Address, Rules, Watch], Routes]] = {"cluster": Cluster, "sentinel": Sentinels}
        self.routes: Final = kinds.get(address.kind, Single)(address, rules, self._watch)
        prefix = f"{namespace}:" if namespace else ""
        self._registry = ClusterRegistry(self, prefix) if self._is_cluster else SingleRegistry(self, prefix)
        self.home: Final = self._registry.home
        """The shard of what belongs to no queue."""
        self._is_closed = False
        self._is_open = False
        try:
            self._registry.open()
        except BaseException:
            self.close()
            raise
        self._is_open = True

    def describe(self) -> str:
        """Where it is, without secrets."""
        return self._where

    def close(self) -> None:
        """Close all connections, those in use as soon as they are not."""
        self._is_closed = True
        for server in self.routes.servers():
            server.close()

    # Shards ----------------------------------------------------------------------------------------------------------------------------

    def shard_of(self, queue: str) -> Shard:
        """The shard of *queue*."""
        return self._registry.shard_of(queue)

    def know(self, queue: str) -> None:
        """Make *queue* known before its first use, so that ``shards`` has it."""
        self._registry.know(queue)

    def shards(self) -> list[Shard]:
        """All shards that hold jobs; on a cluster, those of the queues that are known now."""
        return self._registry.shards()

    def shards_of_job(self, job_id: str) -> list[Shard]:
        """The shards in which a job may be, the likeliest first (DESIGN R14)."""
        return self._registry.shards_of_job(job_id)

    def lost_generation(self) -> bool:
        """True, once, when the server has lost all it had: someone emptied it, or it came back without its data."""
        return self._registry.lost_generation()

    # Time ------------------------------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The broker's clock."""
        return from_us(self.insist(self.home.route, "TIME", self._tick))

    def quiet_until(self) -> int:
        """When (µs, broker's clock) a server was last restarted or replaced or had its clock set: leases run anew from then (DESIGN R9)."""
        self.insist(self.home.route, "TIME", self._tick)
        for server in self.routes.servers() if self._is_cluster else ():
            try:
                self._tick(server, Effort(monotonic() + PATIENCE))
            except redis.RedisError as error:
                self.routes.doubt(server, error)
                raise self.fault(error, "TIME", maybe_accepted=False) from error
            except ConfigError as error:
                raise self.fault(error, "TIME", maybe_accepted=False) from error
        return self._watch.quiet_us

    def _tick(self, server: Server, effort: Effort) -> int:
        (reply,) = server.ask(pack(("TIME",)), 1, effort)
        seconds, micros = _value(reply)
        now_us = int(seconds) * 1_000_000 + int(micros)
        self._watch.ticked(server.role, now_us)
        return now_us

    # Calls -----------------------------------------------------------------------------------------------------------------------------

    def call(self, name: str, shard: Shard, *args: Arg, replicate: bool = False, quiet_us: int | None = None, repeats: bool = True) -> Any:
        """Run a script: repeated until it is answered, for nearly every script may be.

        Args:
            name: ``lua/<name>.lua``.
            shard: What it touches.
            args: Its arguments after the prefix.
            replicate: Wait until ``wait_replicas`` replicas have it.
            quiet_us: What ``quiet_until`` said: when that holds no more, nothing is done.
            repeats: False for the script that hands out something else each time: given up once an answer was lost.

        Raises:
            BrokerUnavailable: No answer within 5 s.
            QueueFull: No room; nothing was stored.
            IncompatibleData: The server has refused what this release needs.
        """
        one = script(name)
        replicas = self._wait_replicas if replicate else 0
        tail = self._tail(shard, args)

        def attempt(server: Server, effort: Effort) -> Any:
            replies = server.ask(_evaluate(server, one, tail) + _wait(replicas, effort), 2 if replicas else 1, effort)
            if isinstance(replies[0], redis.exceptions.NoScriptError):
                server.scripts.discard(one.sha)
                replies = server.ask(_evaluate(server, one, tail) + _wait(replicas, effort), 2 if replicas else 1, effort)
            result = _value(replies[0])
            if replicas:
                self._check_replicas(name, replicas, _value(replies[1]))
            return result

        return self.insist(shard.route, name, attempt, quiet_us=quiet_us, repeats=repeats)

    def calls(self, several: Sequence[tuple[str, Shard, Sequence[Arg]]]) -> list[Any]:
        """Run several scripts, those of one shard by one round trip. Raises as :meth:`call`, and then any of them may have been carried out."""
        results: list[Any] = [None] * len(several)
        by_shard: dict[Shard, list[int]] = {}
        for number, (_name, shard, _args) in enumerate(several):
            by_shard.setdefault(shard, []).append(number)
        for shard, numbers in by_shard.items():
            wanted = [(script(several[number][0]), self._tail(shard, several[number][2])) for number in numbers]
            answers = self.insist(shard.route, several[numbers[0]][0], partial(_run_all, wanted))
            for number, result in zip(numbers, answers, strict=True):
                results[number] = result
        return results

    def command(self, shard: Shard, *args: Arg) -> Any:
        """The reply to one plain command on a key of *shard*, in the shape of RESP2. It must be one that may be repeated. Raises as :meth:`call`."""
        return self.commands(shard, args)[0]

    def commands(self, shard: Shard, *several: Sequence[Arg]) -> list[Any]:
        """The replies to several plain commands, by one round trip. Raises as :meth:`call`."""

        def attempt(server: Server, effort: Effort) -> list[Any]:
            replies = server.ask(b"".join(map(pack, several)), len(several), effort)
            return [self._follow(reply, args, effort) for reply, args in zip(replies, several, strict=True)]

        return self.insist(shard.route, str(several[0][0]), attempt)

    def insist(self, key: str, what: str, attempt: Callable[[Server, Effort], T], *, quiet_us: int | None = None, repeats: bool = True) -> T:
        """Carry out *attempt* on the server that has *key*: again and again, until it is answered or the time is over.

        Raises:
            BrokerUnavailable: No answer within 5 s.
            QueueFull: No room.
            IncompatibleData: The server has refused it.
        """
        effort = Effort(monotonic() + PATIENCE, quiet_us)
        tries = 0
        while True:
            server: Server | None = None
            try:
                if self._is_closed:
                    raise BrokerUnavailable(f"{self._where}: this end is closed", maybe_accepted=False)
                server = self.routes.server(key, effort)
                return attempt(server, effort)
            except ConfigError as error:
                if not self._is_open:
                    raise
                raise self.fault(error, what, maybe_accepted=effort.doubtful) from error
            except redis.RedisError as error:
                passes = is_passing(error)
                if passes and server is not None:
                    self.routes.doubt(server, error)
                pause = 0.0 if code_of(error) == "MOVED" and tries < _REDIRECTS else _pause(tries)
                if not passes or monotonic() + pause >= effort.deadline or (effort.doubtful and not repeats):
                    raise self.fault(error, what, maybe_accepted=effort.doubtful) from error
                tries += 1
            time.sleep(pause)

    def fault(self, error: redis.RedisError | ConfigError, what: str, *, maybe_accepted: bool) -> JobQueueError:
        """What to raise for what the driver, or a look at a server that was set up anew, has raised."""
        if isinstance(error, ConfigError):
            return BrokerUnavailable(str(error), maybe_accepted=maybe_accepted)
        return translate(error, where=self._where, what=what, maybe_accepted=maybe_accepted)

    def _tail(self, shard: Shard, args: Sequence[Arg]) -> tuple[Arg, ...]:
        """Keys and arguments of a script.

        On a cluster a second key is named that never exists: while a slot is on its way to another node, its keys are on both, and the nodes refuse
        what names one they do not have. A script that saw half of a shard would lose jobs.
        """
        if self._is_cluster:
            return (2, shard.route, f"{shard.prefix}nothing", shard.prefix, *args)
        return (1, shard.route, shard.prefix, *args)

    def _follow(self, reply: Any, args: Sequence[Arg], effort: Effort) -> Any:
        """The value of *reply*; where the key is on its way to another node, that node's."""
        if isinstance(reply, redis.exceptions.AskError) and not isinstance(reply, redis.exceptions.MovedError):
            target = self.routes.server_at(reply.host, reply.port)
            reply = target.ask(pack(("ASKING",)) + pack(args), 2, effort)[1]
        return _value(reply)

    def _check_replicas(self, name: str, wanted: int, found: int) -> None:
        if found < wanted:
            raise BrokerUnavailable(
                f"{self._where}: {name} was done, but only {found} of {wanted} replicas had it in time ([broker] wait_replicas)", maybe_accepted=True
            )

    # Waiting ---------------------------------------------------------------------------------------------------------------------------

    def groups(self, bells: Sequence[Bell]) -> list[list[Bell]]:
        """*bells* in groups that one command may name together, and where they are for all queues, the bell that rings for a new shard."""
        if not self._is_cluster:
            return [list(bells)] if bells else []
        by_slot: dict[int, list[Bell]] = {}
        others = self._registry.bells() if any(key.endswith(":*") for key, _ in bells) else []
        for bell in (*bells, *others):
            by_slot.setdefault(slot_of(bell[0]), []).append(bell)
        return list(by_slot.values())


def _value(reply: Any) -> Any:
    if isinstance(reply, redis.RedisError):
        raise reply
    return reply


def _run_all(wanted: Sequence[tuple[Script, Sequence[Arg]]], server: Server, effort: Effort) -> list[Any]:
    replies = server.ask(b"".join(_evaluate(server, one, tail) for one, tail in wanted), len(wanted), effort)
    for position, (one, tail) in enumerate(wanted):
        if isinstance(replies[position], redis.exceptions.NoScriptError):
            server.scripts.discard(one.sha)
            (replies[position],) = server.ask(_evaluate(server, one, tail), 1, effort)
    return [_value(reply) for reply in replies]


def _evaluate(server: Server, one: Script, tail: Sequence[Arg]) -> bytes:
    """Have *server* run a script that it knows, or else is told now."""
    if one.sha in server.scripts:
        return pack(("EVALSHA", one.sha, *tail))
    server.scripts.add(one.sha)
    return pack(("EVAL", one.text, *tail))


def _wait(replicas: int, effort: Effort) -> bytes:
    """Have the server wait for replicas, if any are wanted, for so long that its answer still arrives."""
    return pack(("WAIT", replicas, max(int((effort.left - _ANSWERED) * 1000), 1))) if replicas else b""


def _pause(tries: int) -> float:
    """How long to wait before trying again: longer each time, and never all callers at once."""
    return random.uniform(_FIRST_PAUSE, min(_LAST_PAUSE, _FIRST_PAUSE * 2 ** (tries + 1)))  # noqa: S311 - not a secret

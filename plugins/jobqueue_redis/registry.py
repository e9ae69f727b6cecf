"""Which shards there are: one on a single server; on a cluster one a queue, listed in a shard that belongs to none."""

from __future__ import annotations

import secrets
import uuid
import zlib
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobqueue_core.errors import QueueFull

from .events import begin_listening, is_listened
from .keys import HOME_TAG, Shard

if TYPE_CHECKING:
    from .link import Link

__all__ = ["ClusterRegistry", "SingleRegistry"]

_FRESH: Final = 10.0
"""Seconds after which the queues are listed again although no bell has rung: who made one known may have died before it rang."""
_KNOWN: Final = 60.0
"""Seconds after which a queue is made known once more, in case someone has emptied a server."""
_LOOKED_AT: Final = 16
"""How many shards are looked at by one question whether anything was lost: however many there are, each has its turn."""


class Generations:
    """Notices that a shard has lost all it had: then the mark is gone that was made with the first connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._marks: dict[Shard, bytes] = {}

    def meet(self, shard: Shard) -> None:
        """See to it that *shard* has a mark from now on."""
        if shard not in self._marks:
            self.lost(shard)

    def lost(self, shard: Shard) -> bool:
        """True, once, when *shard* has another mark than it had; it is made where there is none."""
        key = shard.key("GENERATION")
        mark = self._link.command(shard, "GET", key)
        if mark is None:
            try:
                _, mark = self._link.commands(shard, ("SET", key, secrets.token_hex(8), "NX"), ("GET", key))
            except QueueFull:
                return False  # said, once, when there is room for another mark
        before = self._marks.get(shard)
        self._marks[shard] = mark
        return before is not None and before != mark


class SingleRegistry:
    """One shard for everything."""

    def __init__(self, link: Link, prefix: str) -> None:
        self.home: Final = Shard(prefix)
        self._generations = Generations(link)

    def open(self) -> None:
        """Connect for the first time."""
        self._generations.meet(self.home)

    def shard_of(self, queue: str) -> Shard:  # noqa: ARG002 - all queues are in one shard
        """See ``Link``."""
        return self.home

    def know(self, queue: str) -> None:
        """See ``Link``: the scripts do so themselves."""

    def shards(self) -> list[Shard]:
        """See ``Link``."""
        return [self.home]

    def shards_of_job(self, job_id: str) -> list[Shard]:  # noqa: ARG002 - all jobs are in one shard
        """See ``Link``."""
        return [self.home]

    def bells(self) -> list[tuple[str, bytes]]:
        """See ``Link``: no other shard will come."""
        return []

    def lost_generation(self) -> bool:
        """See ``Link``."""
        return self._generations.lost(self.home)


class ClusterRegistry:
    """One shard a queue. The set of queues is in the home shard, and so is a bell that rings for a new one."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self.home: Final = Shard(prefix + HOME_TAG)
        self._generations = Generations(link)
        self._shards: dict[str, Shard] = {}
        self._ring: Final = ("XREVRANGE", self.home.key("WAKE", "*"), "+", "-", "COUNT", 1)
        self._bell = b""
        self._listed_at = -_FRESH
        self._known: dict[str, float] = {}
        self._turn = 0
        self._seen: set[str] = set()
        """Every queue there has been, in case the list is lost."""

    def open(self) -> None:
        """Connect for the first time."""
        self._generations.meet(self.home)

    def shard_of(self, queue: str) -> Shard:
        """See ``Link``."""
        return Shard(f"{self._prefix}{{{queue}}}")

    def know(self, queue: str) -> None:
        """See ``Link``."""
        if monotonic() - self._known.get(queue, -_KNOWN) < _KNOWN:
            return
        self._generations.meet(self.shard_of(queue))
        self._add([queue])
        self._known[queue] = monotonic()

    def shards(self) -> list[Shard]:
        """See ``Link``."""
        # The bell costs the same however many queues there are.
        if self._last_ring(self._link.command(self.home, *self._ring)) != self._bell or monotonic() - self._listed_at >= _FRESH:
            self._list()
        return list(self._shards.values())

    def shards_of_job(self, job_id: str) -> list[Shard]:
        """See ``Link``."""
        shards = self.shards()
        try:
            number = uuid.UUID(job_id)
        except ValueError:
            return shards
        bits = (number.int >> 64) & 0xFFF
        # One that someone else has made may be anywhere.
        return [shard for queue, shard in sorted(self._shards.items(), key=lambda one: zlib.crc32(one[0].encode()) & 0xFFF != bits)]

    def bells(self) -> list[tuple[str, bytes]]:
        """See ``Link``."""
        return [(self.home.key("WAKE", "*"), self._bell or b"0-0")]

    def lost_generation(self) -> bool:
        """See ``Link``."""
        is_lost = self._generations.lost(self.home)
        if is_lost and self._seen:
            self._add(sorted(self._seen))  # other nodes still have their jobs
        shards = self.shards()
        first, self._turn = self._turn % max(len(shards), 1), self._turn + _LOOKED_AT
        turn = [*shards[first:], *shards[:first]][:_LOOKED_AT]
        lost = [self._generations.lost(shard) for shard in turn]
        return is_lost or any(lost)

    def _add(self, queues: Sequence[str]) -> None:
        if self._link.command(self.home, "SADD", self.home.key("QUEUES"), *queues):
            if is_listened(self._link):
                for queue in queues:
                    begin_listening(self._link, self.shard_of(queue))
            self._link.command(self.home, "XADD", self.home.key("WAKE", "*"), "MAXLEN", 1, "*", "queue", queues[0])

    def _list(self) -> None:
        # The bell first: who is added after the list was read rings later.
        at = monotonic()
        ring, queues = self._link.commands(self.home, self._ring, ("SMEMBERS", self.home.key("QUEUES")))
        self._bell = self._last_ring(ring)
        self._shards = {queue: self.shard_of(queue) for queue in sorted(name.decode() for name in queues)}
        self._seen.update(self._shards)
        self._listed_at = at

    @staticmethod
    def _last_ring(entries: list[tuple[bytes, object]]) -> bytes:
        return entries[0][0] if entries else b"0-0"

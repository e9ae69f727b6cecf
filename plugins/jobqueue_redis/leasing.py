"""Handing jobs out: lease, wait, renew."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobqueue_core import lifecycle
from jobqueue_core.attempt import Lease
from jobqueue_core.broker import Renewal
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData

from .entries import Entry, held_by, read_entry, with_own_ids
from .keys import Place, Shard
from .notes import log_notes
from .settling import End, Handed, Settling
from .steps import steps
from .times import duration_ms
from .values import EPOCH
from .waiting import Waiter

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Leasing"]

_log = logging.getLogger("jobqueue.redis")
_MOST_RENEWED: Final = 500
_SECOND_LOOK: Final = 1 / 3
"""Of a lease: when to look once more for leases whose answer was lost, for a command may be carried out long after it was given up."""
_PATIENCE: Final = 5.0
"""Seconds for which one call goes on when all it finds has expired or cannot be read."""
_PORTION: Final = 200
_SOON: Final = 1.0
"""Seconds within which one call tries again when an answer was lost."""


@attrs.frozen(kw_only=True)
class _Wish:
    """What a worker asks for."""

    queues: Sequence[str]
    limit: int
    suspects: int
    worker_id: str
    lease_for: timedelta


@attrs.define
class _Found:
    """What one look for work has found."""

    leases: list[Lease] = attrs.field(factory=list)
    unfit: list[End] = attrs.field(factory=list)
    """What cannot be handed out any more."""
    unreadable: list[End] = attrs.field(factory=list)
    newer: list[str] = attrs.field(factory=list)
    """Tokens of what a newer release has written."""
    bells: list[tuple[str, bytes]] = attrs.field(factory=list)


class Leasing:
    """Leases jobs.

    Args:
        link: The server.
        settling: Remembers what was handed out, and puts away what cannot be.
    """

    def __init__(self, link: Link, settling: Settling) -> None:
        self._link = link
        self._settling = settling
        self._waiter = Waiter(link)
        self._doubtful: dict[str, list[float]] = {}
        """Worker ids for whom an answer was lost: when (monotonic) to look for what it may have held."""

    def close(self) -> None:
        """End all waits and let go of their connections."""
        self._waiter.close()

    def interrupt(self) -> None:
        """See ``Consumer.interrupt``."""
        self._waiter.interrupt()

    def lease(self, queues: Sequence[str], limit: int, *, worker_id: str, lease_for: timedelta, wait: timedelta, suspects: int) -> list[Lease]:
        """See ``Consumer.lease``."""
        wish = _Wish(queues=queues, limit=limit, suspects=suspects, worker_id=worker_id, lease_for=lease_for)
        began = monotonic()
        while True:
            try:
                found = self._look(wish)
            except BrokerUnavailable as error:
                # An answer was lost: what it held is looked for at once, while there is time for that.
                if error.maybe_accepted and monotonic() - began < _SOON:
                    continue
                raise
            if found.leases:
                return found.leases
            passed = monotonic() - began
            if (found.unfit or found.unreadable) and passed < _PATIENCE:
                continue
            remaining = wait.total_seconds() - passed
            if remaining <= 0 or not found.bells or not self._waiter.wait(found.bells, remaining):
                return []

    def _look(self, wish: _Wish) -> _Found:
        found = _Found()
        if self._doubtful:
            self._regain(found, wish)
        if not found.leases:
            self._ask(found, wish)
        if found.unfit or found.unreadable:
            self._settling.end([*found.unfit, *with_own_ids(self._link, found.unreadable)], event="settled")
        if found.newer:
            self._put_back(found)
        return found

    # Asking ----------------------------------------------------------------------------------------------------------------------------

    def _ask(self, found: _Found, wish: _Wish) -> None:
        consumer = f"{wish.worker_id}:{duration_ms(wish.lease_for)}"
        for shard, names, others in self._portions(wish.queues):
            room = wish.limit - len(found.leases)
            suspects_left = max(wish.suspects - sum(lease.job.crashes > 0 for lease in found.leases), 0)
            try:
                reply = self._link.call("lease", shard, consumer, room, suspects_left, int(others), *names, repeats=False)
            except BrokerUnavailable as error:
                if error.maybe_accepted:
                    now = monotonic()
                    self._doubtful[wish.worker_id] = [now, now + wish.lease_for.total_seconds() * _SECOND_LOOK]
                if found.leases:
                    return
                raise
            now_us, listening, notes, bells, flat = reply
            self._settling.listening = bool(listening)
            log_notes(notes)
            self._take(found, flat, EPOCH + timedelta(microseconds=int(now_us)), wish.worker_id)
            # An empty lease tells bells: of each name it was given, or one of all.
            rung = names if len(bells) == len(names) and not others else ("*",)
            found.bells += [(shard.key("WAKE", name), bell) for name, bell in zip(rung, bells, strict=False)]
            if len(found.leases) >= wish.limit:
                return

    def _portions(self, queues: Sequence[str]) -> Iterator[tuple[Shard, Sequence[str], bool]]:
        """The queues by shard, in order, and whether all others of the shard are meant too."""
        others = "*" in queues
        named = [queue for queue in queues if queue != "*"]
        shards = self._link.shards() if others else ()
        if len(shards) == 1 and all(self._link.shard_of(queue) == shards[0] for queue in named):
            yield shards[0], named, True
            return
        by_shard: dict[Shard, list[str]] = {}
        for queue in named:
            by_shard.setdefault(self._link.shard_of(queue), []).append(queue)
        for shard, names in by_shard.items():
            yield shard, names, False
        for shard in shards:
            if shard not in by_shard:
                yield shard, (), True

    def _take(self, found: _Found, flat: Sequence[Any], now: datetime, worker_id: str) -> None:
        position = 0
        while position < len(flat):
            code = flat[position].decode()
            end = position + 2 + 3 * flat[position + 1]
            for at in range(position + 2, end, 3):
                self._admit(found, Entry(f"{code} {flat[at].decode()}", worker_id, 0, now, flat[at + 1], flat[at + 2]), now)
            position = end

    def _admit(self, found: _Found, entry: Entry, now: datetime) -> None:
        token = entry.token
        try:
            read = read_entry(entry, now)
        except IncompatibleData as error:
            _log.warning("%s", error)
            found.newer.append(token)
            return
        if isinstance(read, End):
            found.unreadable.append(read)
            return
        job, keeps = read
        if job.expires_at is not None and job.expires_at <= now:
            found.unfit.append(End(token, lifecycle.expire(job, EPOCH), keeps))
            return
        found.leases.append(Lease(lifecycle.begin(job, entry.worker_id, entry.started_at), token))
        self._settling.handed[token] = Handed(job.id, keeps)

    def _put_back(self, found: _Found) -> None:
        """A newer release has written some of what was found: all of it goes back, for those who can read it.

        Raises:
            IncompatibleData: Always.
        """
        ends = []
        for lease in found.leases:
            job = lifecycle.give_back(lease.job, now=EPOCH, delay=timedelta(0), cancel_requested=False)
            ends.append(End(lease.token, job, self._settling.handed.pop(lease.token).keeps))
        self._settling.end(ends)
        for token in found.newer:
            code, _, entry = token.partition(" ")
            self._link.call("put_back", self._link.shard_of(code[2:]), code, entry)
        raise IncompatibleData(f"{len(found.newer)} jobs are of a newer release and were put back for its workers: upgrade jobqueue here")

    # Answers that were lost --------------------------------------------------------------------------------------------------------------

    def _regain(self, found: _Found, wish: _Wish) -> None:
        """Find leases that the server has given this worker and whose answer never arrived."""
        times = self._doubtful.get(wish.worker_id)
        if not times or times[0] > monotonic():
            return
        # As of before the server is asked: what is settled meanwhile is among its answers, and no longer among what was handed out.
        handed = frozenset(self._settling.handed)
        lost = [
            (entry, now)
            for shard, _names, _others in self._portions(wish.queues)
            for entries, now in held_by(self._link, shard, wish.worker_id, _PORTION)
            for entry in entries
            if entry.token not in handed and entry.lease_ms == duration_ms(wish.lease_for)
        ]
        for entry, now in lost[: wish.limit]:
            self._admit(found, entry, now)
        if lost:
            _log.info("found %d leases whose answer was lost", len(lost))
        if len(lost) <= wish.limit:
            del times[0]
            if not times:
                del self._doubtful[wish.worker_id]

    # Renewing --------------------------------------------------------------------------------------------------------------------------

    def renew(self, tokens: Sequence[str], *, worker_id: str, lease_for: timedelta) -> Renewal:
        """See ``Consumer.renew``."""
        lost: set[str] = set()
        cancelled: set[str] = set()
        consumer = f"{worker_id}:{duration_ms(lease_for)}"
        by_shard: dict[Shard, list[str]] = {}
        for token in tokens:
            try:
                by_shard.setdefault(self._link.shard_of(Place.from_code(token.partition(" ")[0]).queue), []).append(token)
            except ValueError:
                lost.add(token)
        for shard, of_shard in by_shard.items():
            for some in steps(of_shard, _MOST_RENEWED):
                self._renew(shard, some, consumer, lost, cancelled)
        for token in lost:
            self._settling.handed.pop(token, None)
        return Renewal(lost=frozenset(lost), cancel_requested=frozenset(cancelled))

    def _renew(self, shard: Shard, tokens: Sequence[str], consumer: str, lost: set[str], cancelled: set[str]) -> None:
        by_stream: dict[str, list[str]] = {}
        for token in tokens:
            by_stream.setdefault(token.partition(" ")[0], []).append(token)
        order: list[str] = []
        args: list[str | int] = []
        for code, of_stream in by_stream.items():
            args += (code, len(of_stream))
            for token in of_stream:
                handed = self._settling.handed.get(token)
                args += (token.partition(" ")[2], "" if handed is None else handed.job_id)
                order.append(token)
        gone, stopping = self._link.call("renew", shard, consumer, *args)
        lost.update(order[number - 1] for number in gone)
        cancelled.update(order[number - 1] for number in stopping)

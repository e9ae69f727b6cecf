"""Taking jobs back from workers that were lost, and mending what somebody else has damaged."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs
import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.broker import Reclaimed
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import DeadReason, JobState

from .entries import Entry, held_by, read_entries, read_entry, with_own_ids
from .notes import log_notes
from .settling import End, Settling
from .values import EPOCH

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["Reclaiming"]

_log = logging.getLogger("jobqueue.redis")
_PORTION: Final = 200
_START: Final = b"0"
_REMEMBERED_MS: Final = 60_000
"""How long a consumer that holds nothing is remembered after it was last seen."""

_encoder = msgspec.msgpack.Encoder()


@attrs.frozen(kw_only=True)
class _Loss:
    """How workers were lost."""

    error: str
    max_crashes: int
    quiet_us: int | None = None
    """Since when the server has been undisturbed; a loss by time counts only while that holds."""
    started: frozenset[str] | None = None
    """The jobs whose handlers were running, of a worker that is known to be dead; None of one that has been silent for a whole lease."""

    def counts(self, job_id: str) -> bool:
        """Whether the loss counts as a crash of a job that was held."""
        return self.started is None or job_id in self.started


class Reclaiming:
    """Reclaims leases; goes through the queues by cursor, so that each call is bounded.

    Args:
        link: The server.
        settling: Carries out what becomes of the jobs.
    """

    def __init__(self, link: Link, settling: Settling) -> None:
        self._link = link
        self._settling = settling
        self._swept: dict[Shard, bytes] = {}

    def reclaim(self, limit: int, *, max_crashes: int) -> Reclaimed:
        """See ``Upkeep.reclaim``."""
        if self._link.lost_generation():
            _log.error(
                "%s has lost all it had: somebody has emptied it, or it came back without its data; jobs that were in it are gone",
                self._link.describe(),
            )
            self._link.call("tell", self._link.home, _encoder.encode(["data_lost", {"broker": self._link.describe()}]))
        quiet_us = self._link.quiet_until()
        loss = _Loss(error="its worker lost the lease", max_crashes=max_crashes, quiet_us=quiet_us)
        total = Reclaimed()
        for shard in self._link.shards():
            self._sweep(shard)
            cursor = _START
            while (left := limit - _count(total)) > 0:
                cursor, now_us, notes, flat = self._link.call("lapsed", shard, cursor, min(left, _PORTION), quiet_us, _REMEMBERED_MS)
                log_notes(notes)
                total = self._crash(total, read_entries(flat), EPOCH + timedelta(microseconds=int(now_us)), loss)
                if cursor == _START:
                    break
        return total

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        """See ``Upkeep.reclaim_worker``."""
        loss = _Loss(error=error, max_crashes=max_crashes, started=frozenset(started))
        total = Reclaimed()
        for shard in self._link.shards():
            before = -1
            while before != (before := _count(total)):
                for entries, now in held_by(self._link, shard, worker_id, _PORTION):
                    total = self._crash(total, entries, now, loss)
        return total

    def _sweep(self, shard: Shard) -> None:
        self._swept[shard], notes = self._link.call("sweep", shard, self._swept.get(shard, _START))
        log_notes(notes)

    def _crash(self, total: Reclaimed, entries: Sequence[Entry], now: datetime, loss: _Loss) -> Reclaimed:
        """Take *entries* from their holder."""
        found = [(entry, end) for entry in entries if (end := _lost(entry, now, loss)) is not None]
        unreadable = with_own_ids(self._link, [end for _, end in found if end.job.dead_reason is DeadReason.UNDECODABLE])
        if unreadable:
            own = {end.token: end for end in unreadable}
            found = [(entry, own.get(end.token, end)) for entry, end in found]
        answers = self._settling.end([end for _, end in found], event="reclaimed", quiet_us=loss.quiet_us)
        done = [end for (_, end), answer in zip(found, answers, strict=True) if answer == 1]
        states = [end.job.state for end in done]
        total = attrs.evolve(
            total,
            requeued=total.requeued + states.count(JobState.QUEUED),
            dead=total.dead + states.count(JobState.DEAD),
            cancelled=total.cancelled + states.count(JobState.CANCELLED),
            dead_letters=(*total.dead_letters, *(end.dead_letter for end in done if end.dead_letter is not None)),
        )
        # Somebody has asked for a cancel since these were read.
        stopping = [replace(entry, stops=True) for (entry, _), answer in zip(found, answers, strict=True) if answer == 2]
        return self._crash(total, stopping, now, loss) if stopping else total


def _lost(entry: Entry, now: datetime, loss: _Loss) -> End | None:
    """What becomes of a job whose holder was lost; None when it is left for workers that can read it."""
    silent_ms = entry.lease_ms if loss.started is None else None
    try:
        read = read_entry(entry, now)
    except IncompatibleData as problem:
        _log.warning("a lost job is left for workers of its release: %s", problem)
        return None
    if isinstance(read, End):
        return replace(read, silent_ms=silent_ms)
    job, keeps = read
    held = lifecycle.begin(job, entry.worker_id, entry.started_at)
    end = lifecycle.crash(held, now=now, error=loss.error, counted=loss.counts(job.id), cancel_requested=entry.stops, max_crashes=loss.max_crashes)
    return End(entry.token, end.job, keeps, execution=end.execution, dead_letter=end.dead_letter, silent_ms=silent_ms)


def _count(reclaimed: Reclaimed) -> int:
    return reclaimed.requeued + reclaimed.dead + reclaimed.cancelled

"""What an operator may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from jobqueue_core import lifecycle
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData
from jobqueue_core.job import JobState

from .entries import Entry, read_entry
from .keys import Place
from .lookup import find
from .settling import End
from .values import EPOCH, Known, read_look
from .withdraw import Withdrawal, bury_entry, bury_member, withdraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .link import Link

__all__ = ["cancel", "purge", "set_paused"]

_TRIES: Final = 20
"""How often to look again when a job is not where it just was."""
_PAGE: Final = 100
_STREAMS: Final = {"s": "STREAM", "r": "READY", "u": "SUSPECT"}

_encoder = msgspec.msgpack.Encoder()


def set_paused(link: Link, queue: str, *, paused: bool) -> None:
    """See ``Control.pause`` and ``Control.resume``."""
    link.know(queue)
    event = ("paused" if paused else "resumed", {"queue": queue})
    link.call("pause", link.shard_of(queue), queue, int(paused), _encoder.encode(event))


# Cancel --------------------------------------------------------------------------------------------------------------------------------


def cancel(link: Link, job_id: str, *, ttl_ms: int) -> Literal["cancelled", "requested", "finished", "unknown"]:
    """See ``Control.cancel``. A waiting job that cannot be read becomes a dead letter instead, and is answered as ``finished``."""
    for _ in range(_TRIES):
        (known,) = find(link, [job_id])
        if known is None:
            return "unknown"
        if not known.readable:
            withdrawal = _unreadable(link, job_id)
            if withdrawal is None:
                return "unknown"
            if withdraw(link, link.shard_of(withdrawal[1].queue), [withdrawal], ttl_ms=ttl_ms)[0]:
                return "finished"
        elif known.job.state.finished:
            return "finished"
        elif known.job.state is not JobState.PROCESSING:
            withdrawal = known, lifecycle.cancel(known.job, EPOCH), None
            if withdraw(link, link.shard_of(known.job.queue), [withdrawal], ttl_ms=ttl_ms, event=_cancelled)[0]:
                return "cancelled"
            continue
        if _request(link, known):
            return "requested"
    raise BrokerUnavailable(f"job {job_id} went from hand to hand while it was to be cancelled; try again", maybe_accepted=False)


def _cancelled(withdrawals: Sequence[Withdrawal]) -> tuple[str, dict[str, str]]:
    ((known, _, _),) = withdrawals
    return "cancelled", _facts(known)


def _facts(known: Known) -> dict[str, str]:
    return {"id": known.job.id, "type": known.job.type, "queue": known.job.queue}


def _request(link: Link, known: Known) -> bool:
    """Ask the holder of a job to stop; False when nobody has it any more."""
    if known.place is None or known.entry is None:
        return False
    event = _encoder.encode(("cancel_requested", _facts(known)))
    return bool(link.call("request_cancel", link.shard_of(known.place.queue), known.place.code, known.entry, event))


def _unreadable(link: Link, job_id: str) -> Withdrawal | None:
    """What becomes of a job that cannot be read; None when its record does not even say where it is."""
    for shard in link.shards_of_job(job_id):
        record = link.command(shard, "GET", shard.key("JOB", job_id))
        code, _, entry = (record or b"")[2:].partition(b" ")
        try:
            place = Place.from_code(code.decode())
        except ValueError:
            continue
        if place.letter in "dt":
            return bury_member(place, job_id.encode(), record)
        found = link.command(shard, "XRANGE", shard.key(_STREAMS[place.letter], place.queue, place.priority), entry, entry)
        return bury_entry(place, entry.decode(), found[0][1] if found else None, job_id=job_id)
    return None


# Purge ---------------------------------------------------------------------------------------------------------------------------------


def purge(link: Link, queue: str, limit: int, *, ttl_ms: int) -> int:
    """See ``Control.purge``. What cannot be read becomes a dead letter, and counts.

    Raises:
        IncompatibleData: A job was written by a newer release; the others found with it are purged.
    """
    shard = link.shard_of(queue)
    purged = fruitless = 0
    while purged < limit and fruitless < _TRIES:
        waiting = link.call("waiting_jobs", shard, queue, min(limit - purged, _PAGE))
        if not waiting:
            break
        withdrawals: list[Withdrawal] = []
        newer: IncompatibleData | None = None
        for at in range(0, len(waiting), 4):
            try:
                withdrawals.append(_purged(*waiting[at : at + 4]))
            except IncompatibleData as error:
                newer = error
        done = sum(withdraw(link, shard, withdrawals, ttl_ms=ttl_ms, purged=queue))
        if newer is not None:
            raise newer
        purged += done
        fruitless = 0 if done else fruitless + 1
    return purged


def _purged(code: bytes, at: bytes, field: bytes, value: bytes | None) -> Withdrawal:
    """What becomes of a waiting job: an entry of a stream, or a member of a sorted set and its record."""
    place = Place.from_code(code.decode())
    if place.letter in "dt":
        known = read_look(at.decode("utf-8", "replace"), None if value is None else (value,))
        if known is None or not known.readable or known.place is None or (known.place.letter, known.place.queue) != (place.letter, place.queue):
            return bury_member(place, at, value)
        return known, lifecycle.cancel(known.job, EPOCH), None
    entry = at.decode()
    read = read_entry(Entry(f"{place.code} {entry}", "", 0, EPOCH, field, value or b""), EPOCH)
    if isinstance(read, End):
        return Known(job=read.job, place=place, entry=entry, readable=False), read.job, read.dead_letter
    job, keeps = read
    return Known(job=job, keeps=keeps, place=place, entry=entry), lifecycle.cancel(job, EPOCH), None

"""Leased entries of streams, as scripts find them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from jobqueue_core.errors import IncompatibleData

from .keys import Place
from .notes import log_notes
from .settling import End
from .values import EPOCH, FORMAT, bury, read_value

if TYPE_CHECKING:
    from jobqueue_core.job import Job

    from .keys import Shard
    from .link import Link

__all__ = ["Entry", "held_by", "read_entries", "read_entry"]

_log = logging.getLogger("jobqueue.redis")


class Entry(msgspec.Struct, frozen=True):
    """A leased entry: where it is, who holds it and since when, and what is in it."""

    token: str
    worker_id: str
    lease_ms: int
    """How long its holder may be silent."""
    started_at: datetime
    field: bytes
    value: bytes
    stops: bool = False
    """Whether someone has asked for a cancel."""


def read_entries(flat: Sequence[Any]) -> list[Entry]:
    """The entries in an answer of the scripts ``lapsed`` and ``of_worker``."""
    found = []
    for at in range(0, len(flat), 7):
        code, consumer, entry_id, started_us, stops, field, value = flat[at : at + 7]
        worker_id, _, lease_ms = consumer.decode().rpartition(":")
        started_at = EPOCH + timedelta(microseconds=int(started_us))
        silence = int(lease_ms) if lease_ms.isdecimal() else 60_000
        found.append(Entry(f"{code.decode()} {entry_id.decode()}", worker_id, silence, started_at, field, value, bool(stops)))
    return found


def held_by(link: Link, shard: Shard, worker_id: str, limit: int) -> Iterator[tuple[list[Entry], datetime]]:
    """What a worker holds, in portions, each with the broker's time."""
    cursor = b"0"
    while True:
        cursor, now_us, notes, flat = link.call("of_worker", shard, cursor, limit, worker_id)
        log_notes(notes)
        yield read_entries(flat), EPOCH + timedelta(microseconds=int(now_us))
        if cursor == b"0":
            return


def read_entry(entry: Entry, now: datetime) -> tuple[Job, bool] | End:
    """The job in an entry and whether its record is kept for an idempotency key; of an entry that cannot be read, what becomes of it.

    Raises:
        IncompatibleData: It was written by a newer release.
    """
    try:
        if entry.field == b"1":
            return read_value(entry.value)
    except (ValueError, LookupError) as error:
        return _buried(entry, str(error), now)
    if entry.field.isdigit() and int(entry.field) > FORMAT:
        raise IncompatibleData(f"the job at {entry.token} has format {int(entry.field)}; this release reads up to {FORMAT}: upgrade jobqueue")
    return _buried(entry, "not an entry of this broker", now)


def _buried(entry: Entry, problem: str, now: datetime) -> End:
    letter = bury(Place.from_code(entry.token.partition(" ")[0]), now, problem, raw=entry.value)
    _log.warning("undecodable entry at %s became dead letter %s: %s", entry.token, letter.job.id, problem)
    return End(entry.token, letter.job, keeps=False, dead_letter=letter)

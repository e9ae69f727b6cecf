"""Leased entries of streams, as scripts find them."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from jobqueue_core.errors import IncompatibleData

from .keys import Place
from .lookup import find
from .notes import log_notes
from .settling import End
from .values import EPOCH, FORMAT, bury, read_value

if TYPE_CHECKING:
    from jobqueue_core.job import Job

    from .keys import Shard
    from .link import Link

__all__ = ["Entry", "held_by", "read_entries", "read_entry", "with_own_ids"]

_ID: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

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

    Its dead letter has the id that the entry seems to have; :func:`with_own_ids` must have the last word.

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


def with_own_ids(link: Link, ends: Sequence[End]) -> list[End]:
    """*ends* of entries that cannot be read, each under the id of the job whose record points there, else under one of its own.

    What looks like an id in garbage may be that of another job, which lives.
    """
    known = find(link, [end.job.id for end in ends])
    return [end if one is not None and one.token == end.token else _renamed(end, str(uuid.uuid4())) for end, one in zip(ends, known, strict=True)]


def _renamed(end: End, job_id: str) -> End:
    job = replace(end.job, id=job_id)
    return replace(end, job=job, dead_letter=end.dead_letter and replace(end.dead_letter, job=job))


def _buried(entry: Entry, problem: str, now: datetime) -> End:
    found = _ID.search(entry.value)
    job_id = None if found is None else found[0].decode()
    letter = bury(Place.from_code(entry.token.partition(" ")[0]), now, problem, raw=entry.value, job_id=job_id)
    _log.warning("undecodable entry at %s became dead letter %s: %s", entry.token, letter.job.id, problem)
    return End(entry.token, letter.job, keeps=False, dead_letter=letter)

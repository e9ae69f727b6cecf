"""Whether a database is what it should be: for ``doctor`` and for tests. Nothing else goes through all keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs
from msgspec.structs import replace

from jobqueue_core.job import Priority

from .keys import Place, Shard
from .keyspace import glob
from .steps import steps
from .times import to_us
from .values import read_look
from .withdraw import Withdrawal, bury_entry, bury_member, withdraw

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Leftovers", "Neglected", "Stray", "Stuck", "leases", "leftovers", "mend", "neglected", "strays"]

_QUEUES_A_SCRIPT: Final = 20
_IDS_A_SCRIPT: Final = 500
_PAGE: Final = 1_000
_LEASES_LONG: Final = 3


# Queues --------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Neglected:
    """A queue that nobody would visit, or a place whose group is gone.

    *kind* says what for: ``work`` (to lease), ``held`` (to reclaim), ``due`` (to promote); or ``group``.
    """

    kind: str
    what: str


def neglected(link: Link, *, mend: bool) -> list[Neglected]:
    """What nobody would visit; with *mend* it is visited from now on."""
    found: list[Neglected] = []
    for shard, names in _queues(link):
        flat = [text.decode() for text in link.call("audit_queues", shard, int(mend), *names)]
        found += map(Neglected, flat[::2], flat[1::2])
    return found


@attrs.frozen
class Stuck:
    """Leases at a place that ran out long ago and were not taken back."""

    place: Place
    count: int
    longest_ms: int


def leases(link: Link) -> tuple[int, list[Stuck]]:
    """How many consumers hold nothing, and the leases that have been silent for three times their length."""
    idle = 0
    stuck = []
    for shard, names in _queues(link):
        count, *flat = link.call("audit_leases", shard, _LEASES_LONG, *names)
        idle += count
        stuck += [Stuck(Place.from_code(flat[at].decode()), flat[at + 1], flat[at + 2]) for at in range(0, len(flat), 3)]
    return idle, stuck


def _queues(link: Link) -> Iterator[tuple[Shard, Sequence[str]]]:
    for shard in link.shards():
        names = sorted(name.decode() for name in link.command(shard, "SMEMBERS", shard.key("QUEUES")))
        for some in steps(names, _QUEUES_A_SCRIPT):
            yield shard, some


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Stray:
    """A job that is not where it is said to be: nobody will ever run it. At most one of *withdrawal* and *restores* is there to mend it."""

    shard: Shard
    job_id: str
    problem: str
    withdrawal: Withdrawal | None = None
    """What makes it a dead letter, where all that was known of it is gone."""
    restores: tuple[Place, int] | None = None
    """Where it belongs, and when it is due (µs), where its record has it all."""


def strays(link: Link) -> Iterator[Stray]:
    """Jobs that are not where they are said to be. An entry without a record is none: it runs, and writes its record then."""
    for shard in link.shards():
        for ids in _names(link, shard, "JOB"):
            flat = [text.decode("utf-8", "replace") for text in link.call("audit_jobs", shard, *ids)]
            for at in range(0, len(flat), 3):
                yield _stray(link, shard, *flat[at : at + 3])
        yield from _stray_members(link, shard)


def mend(link: Link, found: Sequence[Stray], *, ttl_ms: int, last_death: Callable[[str], int]) -> int:
    """Put back what can be put back, and make dead letters of the others, each only if it is still astray; says how many were.

    Args:
        link: The server.
        found: What to mend.
        ttl_ms: How long the records of the dead are kept.
        last_death: How often a job is known to have died.
    """
    mended = 0
    by_shard: dict[Shard, list[Withdrawal]] = {}
    for one in found:
        if one.withdrawal is not None:
            by_shard.setdefault(one.shard, []).append(_numbered(one.withdrawal, last_death))
        elif one.restores is not None:
            place, due_us = one.restores
            mended += link.call("audit_restore", one.shard, one.job_id, place.code, due_us)
    return mended + sum(sum(withdraw(link, shard, withdrawals, ttl_ms=ttl_ms)) for shard, withdrawals in by_shard.items())


def _numbered(withdrawal: Withdrawal, last_death: Callable[[str], int]) -> Withdrawal:
    """*withdrawal* with the number of the death: storage keeps one dead letter of each, and has perhaps the first."""
    known, after, letter = withdrawal
    before = last_death(after.id)
    if letter is None or not before:
        return withdrawal
    dead = replace(after, deaths=before + 1)
    return known, dead, replace(letter, job=dead)


def _stray(link: Link, shard: Shard, job_id: str, code: str, entry: str) -> Stray:
    if not code:
        return Stray(shard=shard, job_id=job_id, problem=f"its record cannot be read: {shard.key('JOB', job_id)}")
    place = Place.from_code(code)
    if entry:
        problem = f"its entry {entry} is missing from {_stream(shard, place)}"
        return Stray(shard=shard, job_id=job_id, problem=problem, withdrawal=bury_entry(place, entry, None, job_id=job_id))
    problem = f"it is missing from {_zset(shard, place)}"
    record = link.command(shard, "GET", shard.key("JOB", job_id))
    known = read_look(job_id, None if record is None else (record,))
    if known is not None and known.readable and known.job.scheduled_at is not None:
        return Stray(shard=shard, job_id=job_id, problem=problem, restores=(place, to_us(known.job.scheduled_at)))
    return Stray(shard=shard, job_id=job_id, problem=problem, withdrawal=bury_member(place, job_id.encode(), record))


def _stray_members(link: Link, shard: Shard) -> Iterator[Stray]:
    """Members of sorted sets whose record does not say that they are there."""
    for name in sorted(text.decode() for text in link.command(shard, "SMEMBERS", shard.key("QUEUES"))):
        for letter in "dt":
            place = Place(letter, Priority.MEDIUM, name)
            for members in _pages(link, shard, "ZSCAN", _zset(shard, place)):
                for some in steps(members[::2], _IDS_A_SCRIPT):
                    flat = link.call("audit_members", shard, place.code, *some)
                    for member, record in zip(flat[::2], flat[1::2], strict=True):
                        shown = member.decode("utf-8", "replace")
                        problem = f"it stands in {_zset(shard, place)}, but its record {'is missing' if record is None else 'does not say so'}"
                        yield Stray(shard=shard, job_id=shown, problem=problem, withdrawal=bury_member(place, member, record))


def _stream(shard: Shard, place: Place) -> str:
    return shard.key("STREAM" if place.letter == "s" else "READY", place.queue, place.priority)


def _zset(shard: Shard, place: Place) -> str:
    return shard.key("DELAYED" if place.letter == "d" else "RETRY", place.queue)


# Leftovers -----------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Leftovers:
    """Keys that nothing will remove."""

    unique: int
    """Unique keys whose holder is gone: free for the taking, but there."""
    logs: int
    """Logs of jobs that are gone."""


def leftovers(link: Link, *, remove: bool) -> Leftovers:
    """Count what is left of jobs that are gone, and with *remove* remove it."""
    counts = {"UNIQUE": 0, "LOGS": 0}
    for shard in link.shards():
        for name in counts:
            for keys in _names(link, shard, name):
                counts[name] += link.call("audit_leftovers", shard, int(remove), name.lower(), *keys)
    return Leftovers(unique=counts["UNIQUE"], logs=counts["LOGS"])


def _names(link: Link, shard: Shard, name: str) -> Iterator[Sequence[bytes]]:
    """What follows in the names of all keys that begin as *name* says; some may come twice."""
    start = shard.key(name)
    for keys in _pages(link, shard, "SCAN", None, "MATCH", f"{glob(start)}*"):
        for some in steps(keys, _IDS_A_SCRIPT):
            yield [key[len(start.encode()) :] for key in some]


def _pages(link: Link, shard: Shard, command: str, key: str | None, *options: str) -> Iterator[Sequence[bytes]]:
    of = () if key is None else (key,)
    cursor = b"0"
    while True:
        cursor, found = link.command(shard, command, *of, cursor, *options, "COUNT", _PAGE)
        if found:
            yield found
        if cursor == b"0":
            return

"""Lists of jobs.

What is to be looked at is collected first, by id only, then sorted, then read, newest first, until there are enough for a page. Jobs of a state in
which they can be found through their queues (waiting, leased, scheduled, retrying) are collected there, others by going through all jobs. Where these
are more than one call may look at, the walk goes part by part (``keyspace``), and only within a part from new to old.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.broker import JobFilter, JobPage
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import Job

from .keyspace import EXAMINED, Part, Scanner
from .live import live_ids
from .lookup import find

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["jobs"]

_PORTION: Final = 200
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PIECE: Final = re.compile(rf"(?:(\d{{1,2}})\.(\d{{1,8}}))?(?:@({_UUID}))?", re.ASCII)
_IN_SHARD: Final = re.compile(rf"shard\.([0-9a-f]+)\.(\d{{1,20}})@({_UUID})?@({_UUID})?", re.ASCII)
_MOST_PIECES: Final = 64
_ALL: Final = "~"
"""Sorts after every id."""


@attrs.frozen
class _Piece:
    """What is left of a part: the jobs with ids below *before*."""

    part: Part
    before: str = _ALL


@attrs.frozen
class _InShard:
    """What is left on a Redis Cluster with more jobs than one call may look at: of one shard, from a cursor on, and all shards behind it.

    *before* holds for what SCAN tells at the cursor, *bound* for everything.
    """

    prefix: str
    cursor: int = 0
    before: str = _ALL
    bound: str = _ALL


@attrs.define
class _Page:
    """The page that is being made."""

    wanted: JobFilter
    limit: int
    scanner: Scanner
    jobs: list[Job] = attrs.field(factory=list)
    examined: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.jobs) >= self.limit or self.examined >= EXAMINED

    @property
    def ends(self) -> bool:
        """Whether nothing more is to be collected; what has been collected is read even so, or a walk might never get on."""
        return self.is_full or self.scanner.is_tired

    def read(self, link: Link, ids: Iterable[str], before: str) -> str | None:
        """Add those of *ids* that are wanted and below *before*, from new to old; where it stopped, or None when it has seen all."""
        left = sorted((job_id for job_id in ids if job_id < before), reverse=True)
        everything = self.wanted == JobFilter()
        start = 0
        while start < len(left):
            if self.is_full:
                return left[start - 1] if start else before
            some = left[start : start + min(self.limit - len(self.jobs) if everything else _PORTION, _PORTION, EXAMINED - self.examined)]
            for job_id, known in zip(some, find(link, some), strict=True):
                start += 1
                self.examined += 1
                if known is not None and _fits(known.job, self.wanted):
                    self.jobs.append(known.job)
                    if len(self.jobs) == self.limit:
                        return job_id if start < len(left) else None
        return None


def jobs(link: Link, wanted: JobFilter, *, cursor: str | None, limit: int) -> JobPage:
    """See ``Inspection.jobs``.

    Up to some 10,000 jobs (of the filter's state, where they can be found by it) are listed newest first. Beyond, each part of the list is. No job
    comes twice, however jobs change meanwhile, except: when the server was restarted or failed over in the middle of such a long walk; when all but a
    thousandth of the keys went away in the middle of it; and on Redis Cluster, where a queue with more than 10,000 jobs loses most of them.
    """
    page = _Page(wanted, limit, Scanner(link))
    left = [_Piece(Part())] if cursor is None else _parse(cursor)
    if isinstance(left, _InShard):
        rest = _list_shards(link, page, left)
        return JobPage(jobs=tuple(page.jobs), next=None if rest is None else _write_shard(rest))
    while left and not page.ends:
        piece = left.pop(0)
        ids = _collect(link, page, piece.part)
        if ids is None and link.shards() != [link.home]:
            rest = _list_shards(link, page, _InShard("", bound=piece.before))
            return JobPage(jobs=tuple(page.jobs), next=None if rest is None else _write_shard(rest))
        if ids is None:
            left[:0] = [_Piece(half, piece.before) for half in piece.part.halves()]
        elif (stopped := page.read(link, ids, piece.before)) is not None:
            left.insert(0, _Piece(piece.part, stopped))
    return JobPage(jobs=tuple(page.jobs), next="~".join(map(_write, left)) if left else None)


def _collect(link: Link, page: _Page, part: Part) -> set[str] | None:
    """The ids to look at; None when there are too many."""
    wanted = page.wanted
    if part == Part() and (found := live_ids(link, wanted, EXAMINED)) is not None:
        return found
    all_ids: set[str] = set()
    for shard in _shards(link, wanted):
        ids = page.scanner.ids(shard, part)
        if ids is None or len(all_ids) + len(ids) > EXAMINED:
            return None
        all_ids |= ids
    return all_ids


def _shards(link: Link, wanted: JobFilter) -> Sequence[Shard]:
    return link.shards() if wanted.queue is None else [link.shard_of(wanted.queue)]


def _list_shards(link: Link, page: _Page, at: _InShard) -> _InShard | None:
    """Go on with a walk on Redis Cluster; what is left of it."""
    for shard in sorted(_shards(link, page.wanted), key=lambda shard: shard.prefix):
        if shard.prefix < at.prefix:
            continue
        if shard.prefix > at.prefix:
            at = _InShard(shard.prefix, bound=at.bound)
        while True:
            if page.ends:
                return at
            after, ids = page.scanner.scan(shard, at.cursor, max(page.limit, 10))
            if (stopped := page.read(link, ids, min(at.before, at.bound))) is not None:
                return attrs.evolve(at, before=stopped)
            at = attrs.evolve(at, cursor=after, before=_ALL)
            if not after:
                break
        at = _InShard(shard.prefix + "\0", bound=at.bound)
    return None


def _fits(job: Job, wanted: JobFilter) -> bool:
    return (
        (wanted.state is None or job.state is wanted.state)
        and (wanted.type is None or job.type == wanted.type)
        and (wanted.queue is None or job.queue == wanted.queue)
    )


# Cursors -------------------------------------------------------------------------------------------------------------------------------


def _write(piece: _Piece) -> str:
    part = "" if piece.part == Part() else f"{piece.part.level}.{piece.part.index}"
    return part if piece.before == _ALL else f"{part}@{piece.before}"


def _write_shard(at: _InShard) -> str:
    before, bound = ("" if one == _ALL else one for one in (at.before, at.bound))
    return f"shard.{at.prefix.encode().hex()}.{at.cursor}@{before}@{bound}"


def _parse(cursor: str) -> list[_Piece] | _InShard:
    """What is left of a walk.

    Raises:
        InvalidJob: The cursor is not one that a former page gave.
    """
    try:
        if match := _IN_SHARD.fullmatch(cursor):
            return _InShard(bytes.fromhex(match[1]).decode(), int(match[2]), match[3] or _ALL, match[4] or _ALL)
        return _parse_pieces(cursor.split("~"))
    except ValueError as error:
        raise InvalidJob("cursor", f"{cursor!r:.60} is not a cursor of this list") from error


def _parse_pieces(texts: Sequence[str]) -> list[_Piece]:
    pieces = []
    for text in texts:
        match = _PIECE.fullmatch(text)
        if match is None or not text:
            msg = "not a piece"
            raise ValueError(msg)
        level, index = int(match[1] or 0), int(match[2] or 0)
        if index >= 1 << level or level > _MOST_PIECES // 2 or len(texts) > _MOST_PIECES:
            msg = "no such part"
            raise ValueError(msg)
        pieces.append(_Piece(Part(level, index), match[3] or _ALL))
    return pieces

"""Jobs that can be found through their queues: those that wait, are leased, scheduled or retrying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from jobqueue_core.job import JobState, Priority

from .keys import Place
from .steps import steps

if TYPE_CHECKING:
    from jobqueue_core.broker import JobFilter

    from .keys import Shard
    from .link import Link

__all__ = ["live_ids"]

_QUEUES_AT_ONCE: Final = 50
_IDS_A_SCRIPT: Final = 500
_IN_STREAMS: Final = {JobState.QUEUED: ("waiting", "QUEUES"), JobState.PROCESSING: ("leased", "HELD")}
"""What the script ``live`` calls them, and the key of the queues that may have some."""
_IN_SETS: Final = {JobState.SCHEDULED: "DELAYED", JobState.RETRYING: "RETRY"}
_CODES: Final = tuple((letter, priority) for priority in Priority for letter in "urs")


def live_ids(link: Link, wanted: JobFilter, most: int) -> set[str] | None:
    """The ids of jobs that are in the state that is *wanted*; None when they cannot be found so, or are more than *most*."""
    if wanted.state in _IN_STREAMS:
        return _in_streams(link, *_IN_STREAMS[wanted.state], wanted.queue, most)
    if wanted.state in _IN_SETS:
        return _in_sets(link, _IN_SETS[wanted.state], wanted.queue, most)
    return None


def _in_streams(link: Link, what: str, registry: str, queue: str | None, most: int) -> set[str] | None:
    ids: set[str] = set()
    for shard, names in _queues(link, queue, "SMEMBERS", registry):
        codes = [Place(letter, priority, name).code for name in names for letter, priority in _CODES]
        after = b""
        while codes:
            done, after, found = link.call("live", shard, what, _IDS_A_SCRIPT, after, *codes)
            codes = codes[done:]
            ids.update(job_id.decode() for job_id in found)
            if len(ids) > most:
                return None
    return ids


def _in_sets(link: Link, name: str, queue: str | None, most: int) -> set[str] | None:
    ids: set[str] = set()
    for shard, names in _queues(link, queue, "ZRANGE", "DUE", 0, -1):
        keys = [shard.key(name, one) for one in names]
        if sum(link.commands(shard, *(("ZCARD", key) for key in keys))) + len(ids) > most:
            return None
        for found in link.commands(shard, *(("ZRANGE", key, 0, most) for key in keys)):
            ids.update(job_id.decode("utf-8", "replace") for job_id in found)
    return ids


def _queues(link: Link, queue: str | None, command: str, registry: str, *span: int) -> Iterator[tuple[Shard, Sequence[str]]]:
    """The queues to look into, some at a time, by shard: the one that is asked for, or all that are registered."""
    if queue is not None:
        yield link.shard_of(queue), [queue]
        return
    for shard in link.shards():
        names = [name.decode() for name in link.command(shard, command, shard.key(registry), *span)]
        for some in steps(names, _QUEUES_AT_ONCE):
            yield shard, some

"""Jobs that can be found through their queues: those that wait, are leased, scheduled or retrying."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from jobqueue_core.job import JobState, Priority

from .keys import Place
from .portions import portions

if TYPE_CHECKING:
    from jobqueue_core.broker import JobFilter

    from .keys import Shard
    from .link import Link

__all__ = ["live_ids"]

_QUEUES_A_SCRIPT: Final = 50
_WHERE: Final = {
    JobState.QUEUED: ("waiting", "WORK", "rs", 1_000),
    JobState.PROCESSING: ("leased", "HELD", "rs", 1_000),
    JobState.SCHEDULED: ("delayed", "DUE", "d", None),
    JobState.RETRYING: ("delayed", "DUE", "t", None),
}
"""What the script ``live`` calls them, the key of the queues that may have some, the letters of their places, and how many ids one script finds. It
cannot go on in the middle of a sorted set: there it must find all."""


def live_ids(link: Link, wanted: JobFilter, most: int) -> set[str] | None:
    """The ids of jobs that are in the state that is *wanted*; None when they cannot be found so, or are more than *most*."""
    if wanted.state is None or wanted.state not in _WHERE:
        return None
    what, _, letters, at_once = _WHERE[wanted.state]
    ids: set[str] = set()
    for shard, names in _queues(link, wanted):
        for some in portions(names, _QUEUES_A_SCRIPT):
            codes = [Place(letter, priority, name).code for name in some for priority in _priorities(letters) for letter in letters]
            after = b""
            while codes:
                done, after, found = link.call("live", shard, what, at_once or most + 1 - len(ids), after, *codes)
                codes = codes[done:]
                ids.update(job_id.decode("utf-8", "replace") for job_id in found)
                if len(ids) > most:
                    return None
    return ids


def _priorities(letters: str) -> Iterable[Priority]:
    # A sorted set holds jobs of all priorities.
    return Priority if letters == "rs" else (Priority.MEDIUM,)


def _queues(link: Link, wanted: JobFilter) -> Sequence[tuple[Shard, Sequence[str]]]:
    """The queues to look into, by shard."""
    if wanted.queue is not None:
        return [(link.shard_of(wanted.queue), [wanted.queue])]
    registry = "" if wanted.state is None else _WHERE[wanted.state][1]
    members = ("ZRANGE", 0, -1) if registry == "DUE" else ("SMEMBERS",)
    command, *span = members
    return [(shard, [name.decode() for name in link.command(shard, command, shard.key(registry), *span)]) for shard in link.shards()]

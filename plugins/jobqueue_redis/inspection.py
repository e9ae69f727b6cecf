"""Answers to questions; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jobqueue_core.attempt import LogLine
from jobqueue_core.broker import QueueStats
from jobqueue_core.job import Job, Priority

from .listing import jobs
from .lookup import find
from .steps import steps

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["find", "get", "jobs", "logs", "queue", "queues"]

_QUEUES_A_SCRIPT: Final = 25
_RATES: Final = ("enqueued", "completed", "failed", "dead")
_RATED_SECONDS: Final = 300
_PRIORITIES: Final = tuple(Priority)

_log_line = msgspec.msgpack.Decoder(LogLine)


def get(link: Link, job_ids: Sequence[str]) -> list[Job | None]:
    """See ``Inspection.get``."""
    return [None if known is None else known.job for known in find(link, job_ids)]


def logs(link: Link, job_id: str) -> list[LogLine]:
    """See ``Inspection.logs``."""
    for shard in link.shards_of_job(job_id):
        if lines := link.command(shard, "LRANGE", shard.key("LOGS", job_id), 0, -1):
            return [_log_line.decode(line) for line in lines]
    return []


def queue(link: Link, name: str) -> QueueStats | None:
    """See ``Inspection.queue``."""
    (reply,) = link.call("stats", link.shard_of(name), name)
    return None if reply is None else _stats(name, reply)


def queues(link: Link) -> list[QueueStats]:
    """See ``Inspection.queues``."""
    by_shard: dict[Shard, list[str]] = {}
    for name in sorted(text.decode() for text in link.command(link.home, "SMEMBERS", link.home.key("QUEUES"))):
        by_shard.setdefault(link.shard_of(name), []).append(name)
    calls = [("stats", shard, some) for shard, names in by_shard.items() for some in steps(names, _QUEUES_A_SCRIPT)]
    found = [
        _stats(name, reply)
        for (_, _, names), replies in zip(calls, link.calls(calls), strict=True)
        for name, reply in zip(names, replies, strict=True)
        if reply is not None
    ]
    return sorted(found, key=lambda one: one.name)


def _stats(name: str, reply: Sequence[Any]) -> QueueStats:
    paused, *numbers, oldest_us = reply
    depth, (processing, scheduled, retrying, enqueued, completed, failed, dead, cancelled), recent = numbers[:4], numbers[4:12], numbers[12:]
    return QueueStats(
        name=name,
        paused=bool(paused),
        depth=dict(zip(_PRIORITIES, depth, strict=True)),
        processing=processing,
        scheduled=scheduled,
        retrying=retrying,
        oldest_age=timedelta(microseconds=int(oldest_us)) if oldest_us else None,
        completed=completed,
        failed=failed,
        dead=dead,
        cancelled=cancelled,
        enqueued=enqueued,
        rates={kind: count / _RATED_SECONDS for kind, count in zip(_RATES, recent, strict=True)},
    )

"""Forgetting. Finished jobs, keys and rates expire by themselves; here is what Redis cannot know."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core import lifecycle
from jobqueue_core.errors import IncompatibleData

from . import fleet, outbox
from .lookup import find
from .times import from_us
from .values import EPOCH
from .withdraw import withdraw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .keys import Shard
    from .link import Link
    from .values import Known
    from .withdraw import Withdrawal

__all__ = ["prune"]

_log = logging.getLogger("jobqueue.redis")
_PORTION: Final = 500


def prune(link: Link, limit: int, *, ttl_ms: int, max_pending: int) -> int:
    """See ``Upkeep.prune``. Afterwards no more than *max_pending* executions wait for storage; on Redis Cluster, of each queue."""
    outbox.trim(link, max_pending)
    pruned = 0
    for shard in link.shards():
        if pruned < limit:
            forgotten, now_us, expired = link.call("prune", shard, min(limit - pruned, _PORTION), ttl_ms)
            pruned += forgotten + _expire(link, shard, [job_id.decode() for job_id in expired], from_us(int(now_us)), ttl_ms)
    return pruned + (fleet.prune(link, limit - pruned) if pruned < limit else 0)


def _expire(link: Link, shard: Shard, job_ids: Sequence[str], now: datetime, ttl_ms: int) -> int:
    """Cancel waiting jobs that have expired; says how many. One that cannot be read is left to whoever comes upon it next."""
    if not job_ids:
        return 0
    ends = [
        (known, lifecycle.expire(known.job, EPOCH), None)
        for known in _readable(link, job_ids)
        if known.place is not None and known.job.expires_at is not None and known.job.expires_at <= now
    ]
    answers = withdraw(link, shard, ends, ttl_ms=ttl_ms, event=_settled)
    done = [known.job.id for (known, _, _), was_done in zip(ends, answers, strict=True) if was_done]
    if others := set(job_ids).difference(done):
        link.call("postpone", shard, *others)
    return len(done)


def _settled(withdrawals: Sequence[Withdrawal]) -> tuple[str, dict[str, Any]]:
    jobs = [job for _, job, _ in withdrawals]
    return "settled", {"jobs": [{"id": job.id, "type": job.type, "queue": job.queue, "state": job.state.value} for job in jobs]}


def _readable(link: Link, job_ids: Sequence[str]) -> list[Known]:
    try:
        found = find(link, job_ids)
    except IncompatibleData as error:
        if len(job_ids) == 1:
            _log.warning("an expired job is left for workers of its release: %s", error)
            return []
        return [known for job_id in job_ids for known in _readable(link, [job_id])]
    return [known for known in found if known is not None and known.readable and not known.job.state.finished]

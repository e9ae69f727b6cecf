"""Jobs by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .steps import steps
from .values import Known, read_look

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

__all__ = ["find"]

_IDS_A_SCRIPT: Final = 200


def find(link: Link, job_ids: Sequence[str]) -> list[Known | None]:
    """What is known of jobs; None for one that is unknown.

    Raises:
        IncompatibleData: One was written by a newer release.
    """
    by_shard: dict[Shard, list[str]] = {}
    for job_id in dict.fromkeys(job_ids):
        for shard in link.shards_of_job(job_id):
            by_shard.setdefault(shard, []).append(job_id)
    calls = [("get", shard, some) for shard, ids in by_shard.items() for some in steps(ids, _IDS_A_SCRIPT)]
    found: dict[str, Known] = {}
    for (_, _, ids), replies in zip(calls, link.calls(calls), strict=True):
        for job_id, reply in zip(ids, replies, strict=True):
            known = read_look(job_id, reply)
            # On Redis Cluster two queues may each have a job of one id that a client made: the one that lives counts.
            if known is not None and (job_id not in found or found[job_id].job.state.finished):
                found[job_id] = known
    return [found.get(job_id) for job_id in job_ids]

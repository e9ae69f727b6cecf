"""Says what has become of jobs whose worker was lost: to the log, and to observers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue_core.broker import Reclaimed
    from jobqueue_core.observers import Observers

__all__ = ["announce"]

_log = logging.getLogger("jobqueue.upkeep")


def announce(reclaimed: Reclaimed, observers: Observers, *, worker_id: str | None = None) -> None:
    """Tell of a reclaim, if it has reclaimed anything.

    Args:
        reclaimed: What was done.
        observers: Told of each job that has died.
        worker_id: Whose jobs these were, where it was one worker that is known to be dead.
    """
    counts = {"requeued": reclaimed.requeued, "dead": reclaimed.dead, "cancelled": reclaimed.cancelled}
    if any(counts.values()):
        whose = {} if worker_id is None else {"worker": worker_id}
        _log.warning("reclaimed", extra={"fields": {**whose, **counts}})
    for letter in reclaimed.dead_letters:
        job = letter.job
        reason = "" if job.dead_reason is None else job.dead_reason.value
        facts = {**job.log_facts(), "worker": job.worker_id, "crashes": job.crashes, "reason": reason, "error": letter.error}
        _log.warning("worker_lost", extra={"fields": facts})
        if observers.dead is not None:
            observers.dead(job, reason, letter.error)

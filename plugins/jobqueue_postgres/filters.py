"""Conditions for lists: only those that are wanted stand in the statement, so that each list is read along an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .statements import statement

__all__ = ["filtered"]

_CONDITIONS: Final[Mapping[str, str]] = {
    # Executions. A cursor's first half stands by itself too: by it partitions are passed over.
    "execution_type": "execution.type = %(execution_type)s",
    "execution_queue": "execution.queue = %(execution_queue)s",
    # With a type: read along the index by type, which knows the queue of each row; the expression keeps the planner from the one by queue,
    # and from taking a queue of a type for rare.
    "execution_queue_of_type": "coalesce(execution.queue = %(execution_queue_of_type)s, false)",
    "finished_since": "execution.finished_at >= %(finished_since)s",
    "finished_until": "execution.finished_at < %(finished_until)s",
    "after_execution": "execution.finished_at <= %(after_at)s AND (execution.finished_at, execution.id) < (%(after_at)s, %(after_id)s::uuid)",
    # Dead letters, and the kinds of them that are counted.
    "letter_type": "letter.type = %(letter_type)s",
    "letter_queue": "letter.queue = %(letter_queue)s",
    "letter_fingerprint": "letter.fingerprint = %(letter_fingerprint)s",
    "kind_type": "kind.type = %(kind_type)s",
    "kind_queue": "kind.queue = %(kind_queue)s",
    "kind_fingerprint": "kind.fingerprint = %(kind_fingerprint)s",
    "died_after": "letter.died_at >= %(died_after)s",
    "died_before": "letter.died_at <= %(died_before)s",
    "after_death": "(letter.died_at, letter.job_id, letter.death) < (%(after_at)s, %(after_id)s::uuid, %(after_death)s)",
}


def filtered(name: str, wanted: Mapping[str, Any]) -> str:
    """The statement *name* with the conditions of *wanted* whose value is not None."""
    conditions = [_CONDITIONS[key] for key, value in wanted.items() if value is not None]
    return statement(name).replace("/*filter*/", " AND ".join(conditions) or "true")

"""Conditions for lists: only those that are wanted stand in the statement, so that each list is read along an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .statements import statement

__all__ = ["filtered"]

_CONDITIONS: Final[Mapping[str, str]] = {
    "type": "type = :type",
    "queue": "queue = :queue",
    "state": "state = :state",
    "fingerprint": "fingerprint = :fingerprint",
    "finished_since_us": "finished_us >= :finished_since_us",
    "finished_until_us": "finished_us < :finished_until_us",
    "died_after_us": "died_us >= :died_after_us",
    "died_before_us": "died_us <= :died_before_us",
    "after_execution": "(finished_us, id) < (:after_us, :after_id)",
    "after_death": "(died_us, job_id, death) < (:after_us, :after_id, :after_death)",
}


def filtered(name: str, wanted: Mapping[str, Any]) -> str:
    """The statement *name* with the conditions of *wanted* whose value is not None."""
    conditions = [_CONDITIONS[key] for key, value in wanted.items() if value is not None]
    return statement(name).replace("/*filter*/", " AND ".join(conditions) or "1")

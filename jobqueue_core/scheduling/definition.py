"""The definition of a schedule: from what people write, field by field, to a checked ``Schedule``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from msgspec.structs import replace

from jobqueue_core.errors import InvalidJob, InvalidSchedule
from jobqueue_core.job import QUEUE_PATTERN, check_job_type, check_queue
from jobqueue_core.payload import encode_payload
from jobqueue_core.requests import check_count, check_duration, check_instant, check_priority
from jobqueue_core.storage import Schedule

__all__ = ["FIELDS", "MAX_MISFIRE_LIMIT", "TIMING", "Misfire", "Overlap", "blank", "change", "check_name"]

Misfire = Literal["once", "skip", "all"]
"""What to do about ticks that were missed: fire the latest, none, or all of them."""
Overlap = Literal["allow", "skip"]
"""Whether to fire a tick while the last job has not ended."""

TIMING: Final = frozenset({"expression", "timezone", "start", "end"})
"""The fields that say when a schedule is due."""
MAX_MISFIRE_LIMIT: Final = 1_000

_NAME: Final = re.compile(QUEUE_PATTERN)


def blank(name: str, source: str) -> Schedule:
    """A schedule of that name with nothing in it, to be filled by :func:`change`. Raises InvalidSchedule when *name* is not a legal one."""
    # A first version that no schedule of this name has had: who has read one that was deleted since must not take this for it.
    first = 1 + secrets.randbelow(1 << 31)
    return Schedule(name=check_name(name), expression="", type="", payload_json=b"null", source=source, version=first)


def check_name(name: object) -> str:
    """Return *name* when a schedule may be called so.

    Raises:
        InvalidSchedule: It is not a string of 1 to 100 letters, digits, ``_ . -`` that begins with a letter or digit.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    problem = f"{name!r:.60} is not a schedule name: 1 to 100 letters, digits, '_', '.' or '-', beginning with a letter or digit"
    raise InvalidSchedule("name", problem)


def change(schedule: Schedule, changes: Mapping[str, object], *, max_payload: int) -> Schedule:
    """A schedule with some fields changed. Expression and time zone are only checked to be text: whoever reads them checks the rest.

    Args:
        schedule: What to change.
        changes: Field (see ``FIELDS``) -> value, as ``ScheduleOperations.add`` takes them; None unsets what may be unset.
        max_payload: The most bytes of JSON in the payload.

    Raises:
        InvalidSchedule: A field is unknown, a value is wrong, or the values do not fit together.
    """
    values: dict[str, Any] = {}
    for field, value in changes.items():
        if field not in FIELDS:
            raise InvalidSchedule(str(field)[:60], f"is not a field of a schedule; there are {', '.join(FIELDS)}")
        try:
            if field == "payload":
                values["payload_json"] = encode_payload(value, limit=max_payload)
            else:
                values[field] = FIELDS[field](value, field)
        except InvalidSchedule:
            raise
        except InvalidJob as error:
            raise InvalidSchedule(error.field, error.problem) from error
    changed = replace(schedule, **values)
    if changed.start is not None and changed.end is not None and changed.end < changed.start:
        raise InvalidSchedule("end", f"{changed.end.isoformat()} is before the start, {changed.start.isoformat()}")
    return changed


# Fields --------------------------------------------------------------------------------------------------------------------------------


def _text(value: object, field: str) -> str:
    if isinstance(value, str):
        return value
    raise InvalidSchedule(field, f"must be text, not {type(value).__name__}")


def _flag(value: object, field: str) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidSchedule(field, f"must be true or false, not {value!r:.60}")


def _one_of(kind: Any) -> Callable[[object, str], str]:
    choices = get_args(kind)

    def check(value: object, field: str) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise InvalidSchedule(field, f"{value!r:.60} is not one of {', '.join(choices)}")

    return check


def _misfire_limit(value: object, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_MISFIRE_LIMIT:
        return value
    raise InvalidSchedule(field, f"must be a whole number from 1 to {MAX_MISFIRE_LIMIT}, not {value!r:.60}")


def _optional(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda value, field: None if value is None else check(value, field)


FIELDS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "expression": _text,
    "timezone": _text,
    "type": check_job_type,
    "payload": lambda value, _field: value,
    "queue": _optional(check_queue),
    "priority": _optional(lambda value, field: check_priority(value, field).value),
    "max_retries": check_count,
    "timeout": lambda value, field: check_duration(value, field, positive=True),
    "enabled": _flag,
    "misfire": _one_of(Misfire),
    "misfire_limit": _misfire_limit,
    "overlap": _one_of(Overlap),
    "jitter": _optional(check_duration),
    "start": check_instant,
    "end": check_instant,
}
"""Each field that people define -> what checks a value of it."""

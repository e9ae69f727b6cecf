"""The tables ``[[cron]]`` of the config file: one schedule each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from jobqueue_core.errors import InvalidSchedule, PluginError
from jobqueue_core.job import check_job_type, check_queue
from jobqueue_core.options import OptionError, between, option
from jobqueue_core.payload import encode_payload
from jobqueue_core.requests import check_count, check_duration, check_priority
from jobqueue_core.scheduling.definition import MAX_MISFIRE_LIMIT, Misfire, Overlap, blank, change, check_name
from jobqueue_core.timetable import Timetables

__all__ = ["CronEntry"]

_MAX_PAYLOAD: Final = 1 << 28
"""What a payload may be at most, whatever ``[job] max_payload`` says."""


def _expression(value: str, _key: str) -> None:
    if ":" not in value:
        _read(value, "UTC")
        return
    # Another plugin's language ("solar: sunset"): who has written one has plugins to be loaded.
    from jobqueue_core.plugins import Plugins

    try:
        Timetables(Plugins.load().timetables()).read(value, "UTC")
    except PluginError as error:
        raise InvalidSchedule("expression", str(error)) from error


def _read(expression: str, timezone: str) -> None:
    try:
        # Where no table is written, nobody pays for the import.
        from .timetable import read
    except ImportError as error:
        raise InvalidSchedule("expression", f"cannot be read without the extra 'cron': pip install 'jobqueue[cron]' ({error})") from error
    read(expression, timezone)


@attrs.frozen(kw_only=True)
class CronEntry:
    """A schedule that stands in the config file."""

    name: str = option(unique=True, check=lambda value, _key: check_name(value), help="What it is called: 1 to 100 letters, digits, `_`, `.` or `-`.")
    expression: str = option(check=_expression, help="When it is due: five cron fields, or six with seconds first, or `@hourly` and the like.")
    type: str = option(check=check_job_type, help="The type of its jobs.")
    timezone: str = option(
        "UTC", check=lambda value, _key: _read("@daily", value), help="The IANA time zone by whose clocks it is due, as `Europe/Berlin`."
    )
    payload: Any = option(None, check=lambda value, key: encode_payload(value, limit=_MAX_PAYLOAD, field=key), help="The payload of its jobs.")
    queue: str | None = option(None, check=check_queue, help="Their queue. Not given: the handler's.")
    priority: str | None = option(None, check=check_priority, help="Their priority. Not given: the handler's.")
    max_retries: int | None = option(None, check=check_count, help="How often they are retried. Not given: as the handler says, else `[job]`.")
    timeout: timedelta | None = option(
        None, check=lambda value, key: check_duration(value, key, positive=True), help="How long a run may take. Not given: likewise."
    )
    enabled: bool = option(default=True, help="False: it makes no jobs.")
    misfire: Misfire = option("once", help="What to do about ticks that were missed while no scheduler ran: the latest, none, or all.")
    misfire_limit: int = option(100, rule=between(1, MAX_MISFIRE_LIMIT), help='With `misfire = "all"`: at most the latest so many.')
    overlap: Overlap = option("allow", help='`"skip"`: make no job while the last one has not ended.')
    jitter: timedelta | None = option(None, help="Let each job wait a random time up to this.")
    start: datetime | None = option(None, help="Not due before.")
    end: datetime | None = option(None, help="Not due after.")

    def __attrs_post_init__(self) -> None:
        try:
            change(blank(self.name, "config"), self.fields(), max_payload=_MAX_PAYLOAD)
        except InvalidSchedule as error:
            raise OptionError(error.field, error.problem) from error

    def fields(self) -> dict[str, Any]:
        """What it declares, as ``ScheduleOperations.add`` takes it, but for the name."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.name != "name"}

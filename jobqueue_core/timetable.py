"""Timetables: when a schedule is due. A plugin reads the expression; the core knows none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

import attrs

from jobqueue_core.errors import InvalidSchedule, PluginError

__all__ = ["Timetable", "TimetablePlugin", "Timetables"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_DEFAULT: Final = "cron"
"""Whose expressions need not say so."""


class Timetable(Protocol):
    """The moments at which an expression is due in a time zone. All moments are aware and in UTC, and fall on whole seconds."""

    def after(self, moment: datetime) -> datetime | None:
        """The first moment later than *moment*; None when there is none."""

    def before(self, moment: datetime) -> datetime | None:
        """The last moment not later than *moment*; None when there is none."""


@attrs.frozen(kw_only=True)
class TimetablePlugin:
    """What the hook ``jobqueue_timetables`` returns: one language in which expressions may be written."""

    name: str
    """``cron`` reads every expression but those that begin with the name of another and a colon (``solar: sunset``)."""
    read: Callable[[str, str], Timetable]
    """``(expression, timezone) -> Timetable``.

    Raises:
        InvalidSchedule: One of them is wrong (field ``expression`` or ``timezone``), or the expression never comes due.
    """


class Timetables:
    """Reads expressions by what plugins offer.

    Args:
        offered: Name -> the plugin that reads such expressions.
    """

    def __init__(self, offered: Mapping[str, TimetablePlugin]) -> None:
        self._offered = offered

    def read(self, expression: str, timezone: str) -> Timetable:
        """The timetable that an expression describes.

        Raises:
            InvalidSchedule: It is wrong, or the time zone is unknown.
            PluginError: No plugin reads such expressions, or it lacks what it needs.
        """
        prefix, colon, rest = expression.partition(":")
        name = prefix.strip()
        if colon and name in self._offered:
            return self._offered[name].read(rest.strip(), timezone)
        if colon and _NAME.fullmatch(name):
            msg = f"no installed plugin reads expressions of {name!r}; installed: {', '.join(sorted(self._offered)) or 'none'}"
            raise InvalidSchedule("expression", msg)
        if _DEFAULT not in self._offered:
            msg = "no installed plugin reads such expressions: pip install 'jobqueue[cron]'; `jobqueue plugins` says what is broken or disabled"
            raise PluginError(msg, plugin=_DEFAULT)
        return self._offered[_DEFAULT].read(expression, timezone)

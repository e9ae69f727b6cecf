"""The fields of a cron expression: which numbers each names, checked here so that an error can say which field is wrong and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NoReturn

import attrs

from jobqueue_core.errors import InvalidSchedule

__all__ = ["DAY", "FIELDS", "HOUR", "MINUTE", "MONTH", "SECOND", "WEEKDAY", "Field", "FieldKind"]

_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_HASHED: Final = re.compile(r"[hr](\(.*|/.*)?")
_STEPPED: Final = re.compile(r"(?P<span>[^/]*)/(?P<step>[^/]*)")
_RANGE: Final = re.compile(r"(?P<first>[^-]+)-(?P<last>[^-]+)")
_NTH: Final = re.compile(r"(?P<weekday>[^#]+)#(?P<nth>[^#]*)")
_LAST: Final = re.compile(r"(?P<weekday>[0-9]|[a-z]{3})l|l(?P<after>[0-9]|[a-z]{3})")  # 5L as cronsim and Quartz have it, L5 as croniter


@attrs.frozen(kw_only=True)
class Field:
    """One field of an expression, read."""

    text: str
    spelled: str
    """The same with nothing left to read into it: ``*`` for all, else each number by itself (``0,15,30,45``, ``1#2``, ``l``, ``l5``).

    croniter takes ``5-5`` for all there is, and ``22-2`` for a night; it is asked nothing of the kind.
    """

    @property
    def starts_with_star(self) -> bool:
        """Whether it begins with ``*``: cron decides by that, not by what it means."""
        return self.text.startswith("*")


@attrs.frozen(kw_only=True)
class FieldKind:
    """What may stand in one of the fields."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    """Words for the numbers, from *first* on."""

    def read(self, text: str) -> Field:
        """Read what stands in a field of this kind, in lower case.

        Raises:
            InvalidSchedule: It is wrong.
        """
        items = {item for part in text.split(",") for item in self._items(part, text)}
        if len({item.isdigit() for item in items}) > 1 and self.is_weekday:
            self._refuse(f"{text!r} mixes plain days with 'n-th' or 'last' ones; make it two schedules")
        everything = {str(number) for number in range(self.first, 7 if self.is_weekday else self.last + 1)}
        return Field(text=text, spelled="*" if items >= everything else ",".join(sorted(items)))

    @property
    def is_weekday(self) -> bool:
        """Whether it counts the days of the week, where 0 and 7 both are Sunday."""
        return self.names == _WEEKDAYS

    @property
    def is_day(self) -> bool:
        """Whether it counts the days of the month."""
        return self.last == 31

    def _items(self, part: str, text: str) -> Iterator[str]:
        if not part:
            self._refuse(f"{text!r} has nothing beside a comma")
        if _HASHED.fullmatch(part):
            self._refuse(f"{part!r}: a hashed or random time is not supported; write a time, and spread the load with jitter")
        if self.is_day and part == "l":
            yield "l"
        elif self.is_weekday and (match := _NTH.fullmatch(part)):
            if match["nth"] not in {"1", "2", "3", "4", "5"}:
                self._refuse(f"{part!r}: after # comes 1 to 5, which of them in the month")
            yield f"{self._number(match['weekday']) % 7}#{match['nth']}"
        elif self.is_weekday and (match := _LAST.fullmatch(part)):
            yield f"l{self._number(match['weekday'] or match['after']) % 7}"
        else:
            yield from (str(number % 7 if self.is_weekday else number) for number in self._numbers(part))

    def _numbers(self, part: str) -> range:
        """Read ``*``, ``5``, ``5-9``, and each of them with a step: ``5/10`` means from 5 to the end."""
        if match := _STEPPED.fullmatch(part):
            return self._span(match["span"], is_open=True)[:: self._step(part, match["step"])]
        return self._span(part, is_open=False)

    def _span(self, part: str, *, is_open: bool) -> range:
        if part == "*":
            return range(self.first, self.last + 1)
        if match := _RANGE.fullmatch(part):
            first, last = self._number(match["first"]), self._number(match["last"])
            if self.is_weekday and last == 0 < first:
                last = 7  # sat-sun
            if last < first:
                self._refuse(f"{part!r} runs backwards; write it as two ranges with a comma between")
            return range(first, last + 1)
        first = self._number(part)
        return range(first, (self.last if is_open else first) + 1)

    def _step(self, part: str, step: str) -> int:
        # As in Debian's cron. A step past the end would quietly mean once an hour: */90 in minutes is not each hour and a half.
        if not step.isdigit() or not 1 <= int(step) <= self.last:
            self._refuse(f"{part!r}: a step is 1 to {self.last}")
        return int(step)

    def _number(self, text: str) -> int:
        words = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        allowed = f"is not in {self.first}-{self.last}{words}"
        if text in self.names:
            return self.names.index(text) + self.first
        if not text.isdigit():
            self._refuse(f"{text!r} {allowed}{self._hint(text)}")
        if not self.first <= int(text) <= self.last:
            self._refuse(f"{text} {allowed}")
        return int(text)

    def _hint(self, text: str) -> str:
        if text == "?":
            return "; write * for any"
        if self.is_day and "w" in text:
            return "; the nearest working day (W) is not supported"
        if self.is_day and "l" in text:
            return "; the last day is written L"
        if self.is_weekday and "l" in text:
            return "; the last Friday is written 5L"
        return ""

    def _refuse(self, problem: str) -> NoReturn:
        raise InvalidSchedule("expression", f"{self.name} {problem}")


SECOND: Final = FieldKind(name="second", first=0, last=59)
MINUTE: Final = FieldKind(name="minute", first=0, last=59)
HOUR: Final = FieldKind(name="hour", first=0, last=23)
DAY: Final = FieldKind(name="day of month", first=1, last=31)
MONTH: Final = FieldKind(name="month", first=1, last=12, names=_MONTHS)
WEEKDAY: Final = FieldKind(name="day of week", first=0, last=7, names=_WEEKDAYS)
FIELDS: Final = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)

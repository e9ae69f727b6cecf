"""When a cron expression is due in a time zone, against others who know: cronsim, and the rules applied second by second."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given
from hypothesis import strategies as st
from timetables import HOUR, MINUTE, SECOND, assert_due, changes, utc

from jobqueue_cron.timetable import read

MICROSECOND = timedelta(microseconds=1)

ZONES = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Chatham",
]

# A year against cronsim, which is not made from croniter ---------------------------------------------------------------------------------

SPARSE = [
    "30 2 * * *",
    "0 0 * * *",
    "59 23 * * 1-5",
    "0 3 * * sun",
    "0 12 13 * 5",
    "30 0 1,15 * 1",
    "0 2 */2 * sun",
    "0 0 29 2 *",
    "0 0 L * *",
    "30 1 * * SUN#5",
    "0 2 * * 5L",
    "15,45 1-2 * 3,11 *",
    "*/20 2 1-8 3,4,10,11 0",
    "0 */2 * 10 0",
]
DENSE = ["0 * * * *", "*/15 * * * *", "0 */2 * * *", "*/20 2 * * *", "5/20 0-4 * * *", "30 */6 * * *", "* * * 3,10 *", "15,45 * * * 0,6"]

LOST_BY_CRONSIM = {
    # Behind a change it looks for the hour before the minute, in whole hours, and so steps over a part of the hour at which clocks are set
    # by half of one, or at a quarter to. By the rules these are due: the clocks show them.
    ("Australia/Lord_Howe", "0 */2 * * *"): ["2025-04-05T15:30"],
    ("Australia/Lord_Howe", "*/20 2 * * *"): ["2025-04-05T15:30", "2025-04-05T15:50"],
    ("Australia/Lord_Howe", "*/20 2 1-8 3,4,10,11 0"): ["2025-04-05T15:30", "2025-04-05T15:50"],
}
LOSING_ZONES = {"Australia/Lord_Howe", "Pacific/Chatham"}


def assert_as_cronsim_has_it(zone: str, expression: str, since: datetime, until: datetime) -> None:
    expected = [utc(at) for at in LOST_BY_CRONSIM.get((zone, expression), []) if since <= utc(at) <= until]
    for at in CronSim(expression, (since - SECOND).astimezone(ZoneInfo(zone))):
        if at > until:
            break
        expected.append(at.astimezone(UTC))
    expected.sort()
    assert_due(read(expression, zone), since, until, expected)


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_of_ticks_is_that_of_cronsim(zone: str) -> None:
    for expression in SPARSE:
        assert_as_cronsim_has_it(zone, expression, utc("2025-01-01T00:00"), utc("2026-01-01T00:00"))


@pytest.mark.parametrize("zone", ZONES)
def test_dense_ticks_around_a_change_are_those_of_cronsim(zone: str) -> None:
    for change in changes(zone, 2025):
        for expression in DENSE:
            assert_as_cronsim_has_it(zone, expression, change - 4 * HOUR, change + 4 * HOUR)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("zone", "year"), [(zone, year) for zone in ZONES for year in (2025, 2040) if year == 2025 or zone not in LOSING_ZONES])
def test_years_of_all_ticks_are_those_of_cronsim(zone: str, year: int) -> None:
    for expression in [*SPARSE, *DENSE]:
        assert_as_cronsim_has_it(zone, expression, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))


# The rules, second by second -------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """An expression, and the same said in Python."""

    expression: str
    matches: Callable[[datetime], bool]
    is_fixed: bool


CASES = [
    Case("* */10 * * * *", lambda wall: wall.minute % 10 == 0, is_fixed=False),
    Case("*/7 * * * * *", lambda wall: wall.second % 7 == 0, is_fixed=False),
    Case("13 * * * * *", lambda wall: wall.second == 13, is_fixed=False),
    Case("0 0 */2 * * *", lambda wall: wall.hour % 2 == wall.minute == wall.second == 0, is_fixed=False),
    Case("10,50 */20 * * * *", lambda wall: wall.second in {10, 50} and wall.minute % 20 == 0, is_fixed=False),
    Case("20 */10 1-2 * * *", lambda wall: wall.second == 20 and wall.minute % 10 == 0 and wall.hour in {1, 2}, is_fixed=False),
    Case("* 5/10 0-23 * * *", lambda wall: wall.minute % 10 == 5, is_fixed=True),
    Case("5 30 0-4 * * *", lambda wall: wall.second == 5 and wall.minute == 30 and wall.hour < 5, is_fixed=True),
    Case("*/30 15,45 0-2,23 * * *", lambda wall: wall.second in {0, 30} and wall.minute in {15, 45} and wall.hour in {0, 1, 2, 23}, is_fixed=True),
]
CHANGES = [
    (zone, change) for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"] for change in changes(zone, 2025)
]
AROUND = 70 * MINUTE


@cache
def shown(zone: str, since: datetime, until: datetime) -> dict[datetime, datetime]:
    """Each second of a span, and what the clocks show at it."""
    info = ZoneInfo(zone)
    seconds = (since + number * SECOND for number in range((until - since) // SECOND))
    return {at: at.astimezone(info).replace(tzinfo=None) for at in seconds}


def due_by_definition(case: Case, zone: str, since: datetime, until: datetime) -> list[datetime]:
    """Walk every second: an interval is due whenever the clocks show it; a fixed time when they first do, or else are past it."""
    walls = shown(zone, since - 2 * HOUR, until + 2 * HOUR)
    if not case.is_fixed:
        return [at for at, wall in walls.items() if since <= at <= until and case.matches(wall)]
    first_shown = {wall: at for at, wall in reversed(walls.items())}
    earliest, wall, due = min(first_shown), max(first_shown), set()
    passed = first_shown[wall]
    while wall >= earliest:
        passed = first_shown.get(wall, passed)
        if since <= passed <= until and case.matches(wall):
            due.add(passed)
        wall -= SECOND
    return sorted(due)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.expression)
@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_expressions_with_seconds_are_due_by_the_same_rules(case: Case, zone: str, change: datetime) -> None:
    since, until = change - AROUND, change + AROUND
    assert_due(read(case.expression, zone), since, until, due_by_definition(case, zone, since, until))


# What is true of any timetable -----------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A random expression, and the same said in Python."""

    def field(first: int, last: int) -> tuple[str, set[int]]:
        step = draw(st.integers(0, 40))
        if step == 0:
            numbers = draw(st.sets(st.integers(first, last), min_size=1, max_size=4))
            return ",".join(map(str, numbers)), numbers
        step = min(step, last)
        return draw(st.sampled_from([f"*/{step}", f"{first}-{last}/{step}"])), set(range(first, last + 1, step))

    (second, seconds), (minute, minutes), (hour, hours) = field(0, 59), field(0, 59), field(0, 23)
    weekday, weekdays = draw(st.sampled_from([("*", set(range(7))), ("1-5", {1, 2, 3, 4, 5}), ("sun", {0})]))

    def matches(wall: datetime) -> bool:
        return wall.second in seconds and wall.minute in minutes and wall.hour in hours and wall.isoweekday() % 7 in weekdays

    is_fixed = not (minute.startswith("*") or hour.startswith("*"))
    return Case(f"{second} {minute} {hour} * * {weekday}", matches, is_fixed)


NIGHTS = [
    *((zone, change) for zone in ZONES for change in changes(zone, 2025)),
    ("UTC", utc("2025-01-01T00:00")),
    ("America/Juneau", utc("1867-10-19T00:31:13")),
    ("America/St_Johns", utc("2006-04-02T03:31")),
    ("America/St_Johns", utc("2006-10-29T02:31")),
    ("Asia/Kathmandu", utc("1985-12-31T18:30")),
    ("Pacific/Apia", utc("2011-12-30T10:00")),
]


def is_right(case: Case, zone: str, tick: datetime) -> bool:
    """Whether the clocks show what is due, or (fixed times only) have just skipped it."""
    wall, before = (at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in (tick, tick - SECOND))
    skipped = (before + number * SECOND for number in range(1, (wall - before) // SECOND))
    return case.matches(wall) or (case.is_fixed and any(map(case.matches, skipped)))


@given(case=cases(), night=st.sampled_from(NIGHTS), away=st.timedeltas(-2 * HOUR, 2 * HOUR) | st.timedeltas(-30 * HOUR, 30 * HOUR))
def test_after_and_before_are_each_others_inverse_and_name_only_what_is_due(case: Case, night: tuple[str, datetime], away: timedelta) -> None:
    zone, change = night
    timetable, moment = read(case.expression, zone), change + away
    earlier, later = timetable.before(moment), timetable.after(moment)
    assert earlier
    assert later
    assert earlier <= moment < later
    assert timetable.after(earlier) == later
    assert timetable.before(later) == later
    assert timetable.before(later - MICROSECOND) == earlier
    assert timetable.after(earlier - MICROSECOND) == earlier
    assert is_right(case, zone, earlier)
    assert is_right(case, zone, later)


@given(
    expression=st.sampled_from(["* * * * *", "30 2 * * *", "0 */2 * * *", "* * * * * *", "0 0 29 2 *", "* * 29 2 *"]),
    zone=st.sampled_from([*ZONES, "Etc/GMT+12", "Etc/GMT-14"]),
    moment=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=23)), timezone(-timedelta(hours=23)), ZoneInfo("Europe/Berlin")])),
)
@example(expression="* * * * *", zone="Etc/GMT+12", moment=datetime.min.replace(tzinfo=UTC))
@example(expression="* * * * *", zone="Etc/GMT-14", moment=datetime.max.replace(tzinfo=UTC))
@example(expression="30 2 * * *", zone="Europe/Berlin", moment=datetime.min.replace(tzinfo=timezone(timedelta(hours=23))))
@example(expression="30 2 * * *", zone="Europe/Berlin", moment=datetime.max.replace(tzinfo=timezone(-timedelta(hours=23))))
@example(expression="* * 29 2 *", zone="America/New_York", moment=datetime.max.replace(tzinfo=UTC))
def test_any_moment_that_there_is_can_be_asked_about(expression: str, zone: str, moment: datetime) -> None:
    timetable = read(expression, zone)
    earlier, later = timetable.before(moment), timetable.after(moment)
    assert earlier is None or earlier <= moment
    assert later is None or later > moment
    assert later or moment.year >= 9996
    assert earlier or moment.year <= 4


@pytest.mark.parametrize("expression", ["30 2 * * *", "*/15 * * * *", "* * * * * *"])
def test_a_fraction_of_a_second_is_not_lost(expression: str) -> None:
    timetable = read(expression, "Europe/Berlin")
    tick = timetable.after(utc("2025-06-01T00:00"))
    assert tick
    assert tick.tzinfo is UTC
    assert tick.microsecond == 0
    assert timetable.after(tick - MICROSECOND) == tick
    assert timetable.before(tick) == tick
    assert timetable.before(tick + SECOND - MICROSECOND) == tick
    assert timetable.before(tick - MICROSECOND) == timetable.before(tick - SECOND)
    assert timetable.after(tick) == timetable.after(tick + SECOND - MICROSECOND)


@pytest.mark.parametrize("expression", ["* * * * * *", "* 0-59 0-23 * * *", "* * 29 2 *"])
def test_the_last_tick_of_a_year_long_pause_is_found_without_counting_the_others(expression: str) -> None:
    timetable = read(expression, "Europe/Berlin")
    began = time.process_time()
    for number in range(20):
        assert timetable.before(utc("2026-03-29T00:59:59") + number * SECOND)
    assert time.process_time() - began < 1  # a year has 31 million of them

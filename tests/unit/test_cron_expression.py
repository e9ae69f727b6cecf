"""What a cron expression may be, what it names, and how a wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue_core.errors import InvalidSchedule
from jobqueue_cron.expression import FIRST, LAST, Expression, read_expression

NEW_YEAR = datetime(2025, 1, 1)  # noqa: DTZ001 - all here are wall times


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


def found(expression: Expression, count: int, since: datetime = NEW_YEAR) -> list[datetime]:
    """The first *count* wall times, which must be the same when looked for from the end."""
    forwards = []
    at: datetime | None = since
    while len(forwards) < count and at and (at := expression.next(at)):
        forwards.append(at)
    backwards = [expression.last(forwards[-1])]
    while len(backwards) < len(forwards):
        assert backwards[-1]
        backwards.append(expression.last(backwards[-1] - timedelta(seconds=1)))
    assert backwards[::-1] == forwards
    return forwards


# What is understood ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 2 * * *", ["2025-01-01T02:30", "2025-01-02T02:30"]),
        ("05 09 1 * *", ["2025-01-01T09:05", "2025-02-01T09:05"]),
        ("  0\t0 1   1 * ", ["2026-01-01", "2027-01-01"]),
        ("10 30 2 * * *", ["2025-01-01T02:30:10", "2025-01-02T02:30:10"]),
        ("*/20 59 23 * * *", ["2025-01-01T23:59", "2025-01-01T23:59:20", "2025-01-01T23:59:40", "2025-01-02T23:59"]),
        ("50/5 * * * *", ["2025-01-01T00:50", "2025-01-01T00:55", "2025-01-01T01:50"]),
        ("59/15 * * * *", ["2025-01-01T00:59", "2025-01-01T01:59"]),
        ("5-5 * * * *", ["2025-01-01T00:05", "2025-01-01T01:05"]),
        ("5-5/10 * * * *", ["2025-01-01T00:05", "2025-01-01T01:05"]),
        ("0-30/20,45 6 * * *", ["2025-01-01T06:00", "2025-01-01T06:20", "2025-01-01T06:45", "2025-01-02T06:00"]),
        ("0 0 1 JAN,jul *", ["2025-07-01", "2026-01-01"]),
        ("0 0 1 mar-May *", ["2025-03-01", "2025-04-01", "2025-05-01", "2026-03-01"]),
        ("0 0 * * Mon", ["2025-01-06", "2025-01-13"]),
        ("0 0 * * 0", ["2025-01-05", "2025-01-12"]),
        ("0 0 * * 7", ["2025-01-05", "2025-01-12"]),
        ("0 0 * * sat-sun", ["2025-01-04", "2025-01-05", "2025-01-11"]),
        ("0 0 * * 5-7", ["2025-01-03", "2025-01-04", "2025-01-05", "2025-01-10"]),
        ("0 0 L * *", ["2025-01-31", "2025-02-28", "2025-03-31"]),
        ("0 0 15,L 2 *", ["2025-02-15", "2025-02-28", "2026-02-15"]),
        ("0 0 * * mon#2", ["2025-01-13", "2025-02-10"]),
        ("0 0 * * 7#5", ["2025-03-30", "2025-06-29", "2025-08-31"]),
        ("0 0 * * 5L", ["2025-01-31", "2025-02-28", "2025-03-28"]),
        ("0 0 * * L5", ["2025-01-31", "2025-02-28", "2025-03-28"]),
        ("0 0 * * friL", ["2025-01-31", "2025-02-28", "2025-03-28"]),
        ("0 0 * * 1#1,1#3", ["2025-01-06", "2025-01-20", "2025-02-03"]),
        ("0 0 31 * *", ["2025-01-31", "2025-03-31", "2025-05-31"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
    ],
)
def test_it_names_these_wall_times(text: str, expected: list[str]) -> None:
    assert found(read_expression(text), len(expected)) == [wall(at) for at in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 0 13 * fri", ["2025-01-03", "2025-01-10", "2025-01-13", "2025-01-17"]),  # either
        ("0 0 */13 * fri", ["2025-02-14", "2025-03-14", "2025-06-27"]),  # both, as one begins with *
        ("0 0 13 * */5", ["2025-04-13", "2025-06-13", "2025-07-13"]),  # both: Sunday or Friday the 13th
        ("0 0 1-31 * fri", ["2025-01-02", "2025-01-03", "2025-01-04"]),  # all days, but it does not begin with *: either
        ("0 0 3 * mon#2", ["2025-01-03", "2025-01-13", "2025-02-03", "2025-02-10"]),
        ("0 0 31 2 mon", ["2025-02-03", "2025-02-10"]),  # what never happens takes nothing from the other
        ("0 0 L * 0", ["2025-01-05", "2025-01-12", "2025-01-19", "2025-01-26", "2025-01-31"]),
    ],
)
def test_a_date_must_fit_the_day_of_month_and_of_week_if_one_begins_with_a_star_and_else_either(text: str, expected: list[str]) -> None:
    since = NEW_YEAR + timedelta(days=1)
    assert found(read_expression(text), len(expected), since - timedelta(seconds=1)) == [wall(at) for at in expected]


@pytest.mark.parametrize(
    ("alias", "meaning"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, " {} ".format])
def test_an_alias_stands_for_its_five_fields(alias: str, meaning: str, spelling: Callable[[str], str]) -> None:
    expression, same = read_expression(spelling(alias)), read_expression(meaning)
    assert found(expression, 30) == found(same, 30)
    assert expression.is_fixed == same.is_fixed


@pytest.mark.parametrize(
    ("text", "is_fixed"),
    [
        ("30 2 * * *", True),
        ("0-59 0-23 * * *", True),
        ("5/10 0/2 * * *", True),
        ("* 2 * * *", False),
        ("*/15 2 * * *", False),
        ("0 * * * *", False),
        ("0 */2 * * *", False),
        ("*/10 30 2 * * *", True),  # the second has no say
        ("0 */30 2 * * *", False),
        ("@daily", True),
        ("@hourly", False),
    ],
)
def test_times_are_fixed_if_neither_minute_nor_hour_begins_with_a_star(text: str, *, is_fixed: bool) -> None:
    assert read_expression(text).is_fixed is is_fixed


def test_a_leap_day_is_found_across_the_century_that_has_none() -> None:
    assert found(read_expression("0 0 29 2 *"), 2, wall("2095-01-01")) == [wall("2096-02-29"), wall("2104-02-29")]


def test_a_leap_day_that_must_be_a_monday_is_found_from_any_year_of_the_calendar() -> None:
    expression = read_expression("0 0 29 2 1#5")  # either
    assert expression.next(wall("2025-01-01")) == wall("2028-02-29")
    leap_days = [day for year in range(1600, 2400, 4) if (day := datetime(year, 3, 1) - timedelta(days=1)).day == 29]  # noqa: DTZ001
    for weekday in range(7):
        days = [day for day in leap_days if day.isoweekday() % 7 == weekday]
        assert max(later.year - earlier.year for earlier, later in pairwise(days)) <= 40  # croniter gives up after 50


# The same against cronsim, which knows nothing of croniter -------------------------------------------------------------------------------


def numbers(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    ranges = st.tuples(number, number).map(sorted).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: f"{pair[0]}-{pair[1]}")
    steps = st.tuples(st.one_of(ranges, st.just("*"), number.map(str)), st.integers(1, last)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.one_of(
        st.just("*"),
        number.map(str),
        ranges,
        steps,
        st.lists(st.one_of(number.map(str), ranges), min_size=2, max_size=4).map(",".join),
    )


days = st.one_of(numbers(1, 31), st.just("L"), st.integers(1, 31).map("{},L".format))
weekdays = st.one_of(
    numbers(0, 7),
    st.integers(0, 7).map("{}L".format),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
)
expressions = st.one_of(
    st.tuples(numbers(0, 59), numbers(0, 23), days, numbers(1, 12), weekdays),
    st.tuples(numbers(0, 59), numbers(0, 59), numbers(0, 23), days, numbers(1, 12), weekdays),
).map(" ".join)


@given(text=expressions, since=st.datetimes(wall("1950-01-01"), wall("2150-01-01")))
@example(text="* * 1 3 5 *", since=wall("2043-02-02"))
@example(text="0 0 30 2,3 *", since=wall("2000-01-01"))
@example(text="0 0 5 * 3#1", since=wall("2000-01-01"))
def test_any_expression_names_what_cronsim_finds(text: str, since: datetime) -> None:
    since = since.replace(microsecond=0)
    try:
        expression = read_expression(text)
    except InvalidSchedule as refused:
        assert "it never happens" in str(refused)
        return
    forwards, backwards = CronSim(text, since), CronSim(text, since + timedelta(seconds=1), reverse=True)
    later: datetime | None = since
    earlier: datetime | None = since + timedelta(seconds=1)
    for _ in range(6):
        assert later
        assert earlier
        later, earlier = expression.next(later), expression.last(earlier - timedelta(seconds=1))
        assert later == next(forwards)
        assert earlier == next(backwards)


# What is refused -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" \t ", "is empty"),
        (None, "expected text such as '30 2 * * *', got NoneType"),
        (5, "expected text such as '30 2 * * *', got int"),
        (b"* * * * *", "expected text such as '30 2 * * *', got bytes"),
        ("*", "1 field: write 5 (minute, hour, day of month, month, day of week), or 6 with seconds first"),
        ("* * * *", "4 fields: write 5 (minute, hour, day of month, month, day of week), or 6 with seconds first"),
        ("0 0 0 1 1 * 2030", "7 fields: a year is not supported"),
        ("* * * * * * * *", "8 fields: write 5"),
        ("0 " * 101, "is 202 characters long, more than 200"),
        ("٣ * * * *", "has characters that no cron expression has"),
        ("0\u00a00 * * *", "has characters that no cron expression has"),
        ("\0 * * * *", "has characters that no cron expression has"),
        ("0 0 * * *\n", None),  # whitespace at the ends is none of ours
        ("0 0 *\n* *", "has characters that no cron expression has"),
        ("@reboot", "'@reboot' is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"),
        ("@every 5m", "'@every 5m' is none of @hourly"),
        ("@", "'@' is none of @hourly"),
        ("@daily @daily", "'@daily @daily' is none of"),
        ("61 * * * *", "minute 61 is not in 0-59"),
        ("0 24 * * *", "hour 24 is not in 0-23"),
        ("0 0 0 * *", "day of month 0 is not in 1-31"),
        ("0 0 32 * *", "day of month 32 is not in 1-31"),
        ("0 0 1 0 *", "month 0 is not in 1-12 or jan-dec"),
        ("0 0 1 january *", "month 'january' is not in 1-12 or jan-dec"),
        ("0 0 * * 8", "day of week 8 is not in 0-7 or sun-sat"),
        ("0 0 * * jan", "day of week 'jan' is not in 0-7 or sun-sat"),
        ("60 0 0 * * *", "second 60 is not in 0-59"),
        ("-1 * * * *", "minute '-1' is not in 0-59"),
        ("1.5 * * * *", "minute '1.5' is not in 0-59"),
        ("+5 * * * *", "minute '+5' is not in 0-59"),
        ("1,,2 * * * *", "minute '1,,2' has nothing beside a comma"),
        (", * * * *", "minute ',' has nothing beside a comma"),
        ("*/0 * * * *", "minute '*/0': a step is 1 to 59"),
        ("*/90 * * * *", "minute '*/90': a step is 1 to 59"),
        ("*/ * * * *", "minute '*/': a step is 1 to 59"),
        ("*/-5 * * * *", "minute '*/-5': a step is 1 to 59"),
        ("/5 * * * *", "minute '' is not in 0-59"),
        ("*/5/5 * * * *", "minute '*/5/5' is not in 0-59"),
        ("** * * * *", "minute '**' is not in 0-59"),
        ("1-2-3 * * * *", "minute '1-2-3' is not in 0-59"),
        ("0 22-2 * * *", "hour '22-2' runs backwards; write it as two ranges with a comma between"),
        ("0 0 * * fri-mon", "day of week 'fri-mon' runs backwards"),
        ("H * * * *", "minute 'h': a hashed or random time is not supported; write a time, and spread the load with jitter"),
        ("H/15 * * * *", "minute 'h/15': a hashed or random time is not supported"),
        ("0 R(0-10) * * *", "hour 'r(0-10)': a hashed or random time is not supported"),
        ("0 0 ? * *", "day of month '?' is not in 1-31; write * for any"),
        ("0 0 15W * *", "day of month '15w' is not in 1-31; the nearest working day (W) is not supported"),
        ("0 0 LW * *", "the nearest working day (W) is not supported"),
        ("0 0 L-3 * *", "day of month 'l' is not in 1-31; the last day is written L"),
        ("0 0 * * L", "day of week 'l' is not in 0-7 or sun-sat; the last Friday is written 5L"),
        ("0 0 * * 8L", "day of week 8 is not in 0-7"),
        ("0 0 * * mon#6", "day of week 'mon#6': after # comes 1 to 5"),
        ("0 0 * * mon#", "day of week 'mon#': after # comes 1 to 5"),
        ("0 0 * * #1", "day of week '#1' is not in 0-7"),
        ("0 0 * * mon-fri#1", "day of week 'mon-fri' is not in 0-7"),
        ("0 0 * * mon#1,fri", "mixes plain days with 'n-th' or 'last' ones; make it two schedules"),
        ("0 0 31 2 *", "it never happens: no date has day of month 31, month 2 and day of week *"),
        ("0 0 30 2 *", "it never happens: no date has day of month 30, month 2 and day of week *"),
        ("0 0 0 30,31 FEB *", "it never happens"),
        ("0 0 31 4,6,9,11 *", "it never happens: no date has day of month 31, month 4,6,9,11 and day of week *"),
        ("0 0 */31 * mon#2", "it never happens: no date has day of month */31, month * and day of week mon#2"),
        ("0 0 30 2 */2", "it never happens"),
    ],
)
def test_what_is_wrong_is_refused_with_the_field_and_what_it_may_be(text: Any, said: str | None) -> None:
    if said is None:
        read_expression(text)
        return
    with pytest.raises(InvalidSchedule) as refused:
        read_expression(text)
    assert refused.value.field == "expression"
    assert said in refused.value.problem
    assert refused.value.__cause__ is None


@given(
    text=st.one_of(
        st.text(),
        st.text("0123456789*/-,#LWHR?@ \tadeimnorstuy()", max_size=40),
        st.lists(st.sampled_from(["*", "5", "*/5", "L", "1#1", "0-7", "3L", "jan", "/", ""]), min_size=5, max_size=6).map(" ".join),
    )
)
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        expression = read_expression(text)
    except InvalidSchedule as refused:
        assert refused.field == "expression"
    else:
        assert found(expression, 2)


# The ends of time ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["* * * * *", "* * * * * *", "30 2 * * *", "0 0 1 1 *", "0 0 29 2 *", "0 0 L * mon#1"])
def test_nothing_is_found_beyond_the_ends_of_time(text: str) -> None:
    expression = read_expression(text)
    assert expression.next(LAST) is None
    assert expression.last(FIRST - timedelta(seconds=1)) is None
    latest, earliest = expression.last(LAST), expression.next(FIRST - timedelta(days=1))
    assert latest
    assert latest.year >= 9996
    assert expression.next(latest) is None
    assert earliest
    assert earliest.year <= 4
    assert expression.last(earliest - timedelta(seconds=1)) is None

"""What is due when clocks are set: the rules, applied by hand to nights in which they are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from timetables import MINUTE, SECOND, assert_due, utc

from jobqueue_cron.timetable import read


class Night(NamedTuple):
    """A few hours (UTC) of a day in which clocks are set."""

    zone: str
    day: str
    since: str
    until: str

    def at(self, time: str) -> datetime:
        return utc(f"{self.day}T{time}")


BERLIN_GAP = Night("Europe/Berlin", "2025-03-30", "00:00", "03:00")  # at 01:00 UTC 02:00 becomes 03:00
BERLIN_OVERLAP = Night("Europe/Berlin", "2025-10-26", "00:00", "03:00")  # at 01:00 UTC 03:00 becomes 02:00
NEW_YORK_GAP = Night("America/New_York", "2025-03-09", "06:00", "09:00")  # at 07:00 UTC 02:00 becomes 03:00
NEW_YORK_OVERLAP = Night("America/New_York", "2025-11-02", "05:00", "08:00")  # at 06:00 UTC 02:00 becomes 01:00
LORD_HOWE_GAP = Night("Australia/Lord_Howe", "2025-10-04", "14:30", "17:30")  # at 15:30 UTC 02:00 becomes 02:30
LORD_HOWE_OVERLAP = Night("Australia/Lord_Howe", "2025-04-05", "14:00", "17:00")  # at 15:00 UTC 02:00 becomes 01:30
NO_CHANGE = Night("UTC", "2025-03-30", "01:00", "04:00")
HAVANA_GAP = Night("America/Havana", "2025-03-09", "04:00", "07:00")  # at 05:00 UTC 00:00 becomes 01:00
HAVANA_OVERLAP = Night("America/Havana", "2025-11-02", "04:00", "07:00")  # at 05:00 UTC 01:00 becomes 00:00
SANTIAGO_GAP = Night("America/Santiago", "2025-09-07", "03:00", "06:00")  # at 04:00 UTC 00:00 becomes 01:00
SANTIAGO_OVERLAP = Night("America/Santiago", "2025-04-06", "02:00", "05:00")  # at 03:00 UTC 00:00 becomes 23:00 of the day before
ST_JOHNS_GAP = Night("America/St_Johns", "2006-04-02", "03:00", "05:00")  # at 03:31 UTC 00:01 becomes 01:01
ST_JOHNS_OVERLAP = Night("America/St_Johns", "2006-10-29", "01:30", "05:00")  # at 02:31 UTC 00:01 becomes 23:01 of the day before
CASABLANCA_GAP = Night("Africa/Casablanca", "2025-04-06", "00:00", "04:00")  # Ramadan is over: at 02:00 UTC 02:00 becomes 03:00
CASABLANCA_OVERLAP = Night("Africa/Casablanca", "2025-02-23", "00:00", "04:00")  # at 02:00 UTC 03:00 becomes 02:00
KATHMANDU_GAP = Night("Asia/Kathmandu", "1985-12-31", "17:30", "19:30")  # at 18:30 UTC 00:00 becomes 00:15

FIXED_TIMES = [
    (BERLIN_GAP, "30 2 * * *", "01:00"),
    (BERLIN_GAP, "0 2 * * *", "01:00"),
    (BERLIN_GAP, "0 3 * * *", "01:00"),
    (BERLIN_GAP, "0 2,3 * * *", "01:00"),
    (BERLIN_GAP, "15,45 2 * * *", "01:00"),
    (BERLIN_GAP, "0-59 2 * * *", "01:00"),
    (BERLIN_GAP, "59 1 * * *", "00:59"),
    (BERLIN_GAP, "15,45 1-3 * * *", "00:15 00:45 01:00 01:15 01:45"),
    (BERLIN_GAP, "30 2 * * 0", "01:00"),
    (BERLIN_GAP, "15 30 2 * * *", "01:00"),
    (BERLIN_GAP, "*/20 30 2 * * *", "01:00"),
    (BERLIN_GAP, "*/20 0 3 * * *", "01:00 01:00:20 01:00:40"),
    (BERLIN_OVERLAP, "30 2 * * *", "00:30"),
    (BERLIN_OVERLAP, "0 2 * * *", "00:00"),
    (BERLIN_OVERLAP, "0 3 * * *", "02:00"),
    (BERLIN_OVERLAP, "15,45 2 * * *", "00:15 00:45"),
    (BERLIN_OVERLAP, "15,45 1-3 * * *", "00:15 00:45 02:15 02:45"),
    (BERLIN_OVERLAP, "*/20 30 2 * * *", "00:30 00:30:20 00:30:40"),
    (NEW_YORK_GAP, "30 2 * * *", "07:00"),
    (NEW_YORK_GAP, "15,45 2 * * *", "07:00"),
    (NEW_YORK_GAP, "*/30 30 2 * * *", "07:00"),
    (NEW_YORK_OVERLAP, "30 1 * * *", "05:30"),
    (NEW_YORK_OVERLAP, "15,45 1 * * *", "05:15 05:45"),
    (NEW_YORK_OVERLAP, "0 2 * * *", "07:00"),
    (NEW_YORK_OVERLAP, "0 1-23/2 * * *", "05:00 08:00"),
    (LORD_HOWE_GAP, "0 2 * * *", "15:30"),
    (LORD_HOWE_GAP, "15 2 * * *", "15:30"),
    (LORD_HOWE_GAP, "30 2 * * *", "15:30"),
    (LORD_HOWE_GAP, "15,45 2 * * *", "15:30 15:45"),
    (LORD_HOWE_GAP, "10 15 2 * * *", "15:30"),
    (LORD_HOWE_OVERLAP, "45 1 * * *", "14:45"),
    (LORD_HOWE_OVERLAP, "15,45 1 * * *", "14:15 14:45"),
    (LORD_HOWE_OVERLAP, "0 2 * * *", "15:30"),
    (NO_CHANGE, "30 2 * * *", "02:30"),
    (NO_CHANGE, "15,45 2 * * *", "02:15 02:45"),
    (NO_CHANGE, "10 30 2 * * *", "02:30:10"),
    (HAVANA_GAP, "0 0 * * *", "05:00"),
    (HAVANA_GAP, "@daily", "05:00"),
    (HAVANA_GAP, "30 0,1 * * *", "05:00 05:30"),
    (HAVANA_OVERLAP, "0 0 * * *", "04:00"),
    (HAVANA_OVERLAP, "30 0 * * *", "04:30"),
    (HAVANA_OVERLAP, "0 1 * * *", "06:00"),
    (SANTIAGO_GAP, "0 0 * * *", "04:00"),
    (SANTIAGO_GAP, "0 0 7 9 *", "04:00"),
    (SANTIAGO_OVERLAP, "30 23 * * *", "02:30"),
    (SANTIAGO_OVERLAP, "0 0 * * *", "04:00"),
    (ST_JOHNS_GAP, "0 0 * * *", "03:30"),
    (ST_JOHNS_GAP, "30 0 * * *", "03:31"),
    (ST_JOHNS_GAP, "0 1 * * *", "03:31"),
    (ST_JOHNS_OVERLAP, "0 0 * * *", "02:30"),
    (ST_JOHNS_OVERLAP, "30 23 * * *", "02:00"),
    (CASABLANCA_GAP, "30 2 * * *", "02:00"),
    (CASABLANCA_OVERLAP, "30 2 * * *", "01:30"),
    (KATHMANDU_GAP, "0 0 * * *", "18:30"),
    (KATHMANDU_GAP, "10,20 0 * * *", "18:30 18:35"),
]

INTERVALS = [
    (BERLIN_GAP, "0 * * * *", "00:00 01:00 02:00 03:00"),
    (BERLIN_GAP, "@hourly", "00:00 01:00 02:00 03:00"),
    (BERLIN_GAP, "15,45 * * * *", "00:15 00:45 01:15 01:45 02:15 02:45"),
    (BERLIN_GAP, "0 */2 * * *", "02:00"),
    (BERLIN_GAP, "* 2 * * *", ""),
    (BERLIN_GAP, "*/30 30 * * * *", "00:30 00:30:30 01:30 01:30:30 02:30 02:30:30"),
    (BERLIN_GAP, "30 0 */3 * * *", "01:00:30"),
    (BERLIN_GAP, "59 59 * * * *", "00:59:59 01:59:59 02:59:59"),
    (BERLIN_OVERLAP, "0 * * * *", "00:00 01:00 02:00 03:00"),
    (BERLIN_OVERLAP, "15,45 * * * *", "00:15 00:45 01:15 01:45 02:15 02:45"),
    (BERLIN_OVERLAP, "0 */2 * * *", "00:00 01:00 03:00"),
    (BERLIN_OVERLAP, "*/30 2 * * *", "00:00 00:30 01:00 01:30"),
    (BERLIN_OVERLAP, "30 0 */2 * * *", "00:00:30 01:00:30"),
    (BERLIN_OVERLAP, "59 59 * * * *", "00:59:59 01:59:59 02:59:59"),
    (NEW_YORK_GAP, "0 * * * *", "06:00 07:00 08:00 09:00"),
    (NEW_YORK_GAP, "0 */2 * * *", "08:00"),
    (NEW_YORK_GAP, "*/15 2 * * *", ""),
    (NEW_YORK_OVERLAP, "0 * * * *", "05:00 06:00 07:00 08:00"),
    (NEW_YORK_OVERLAP, "0 */2 * * *", "07:00"),
    (NEW_YORK_OVERLAP, "*/30 1 * * *", "05:00 05:30 06:00 06:30"),
    (LORD_HOWE_GAP, "0 * * * *", "14:30 16:00 17:00"),
    (LORD_HOWE_GAP, "15,45 * * * *", "14:45 15:15 15:45 16:15 16:45 17:15"),
    (LORD_HOWE_GAP, "0 */2 * * *", "17:00"),
    (LORD_HOWE_GAP, "*/15 2 * * *", "15:30 15:45"),
    (LORD_HOWE_OVERLAP, "0 * * * *", "14:00 15:30 16:30"),
    (LORD_HOWE_OVERLAP, "30 * * * *", "14:30 15:00 16:00 17:00"),
    (LORD_HOWE_OVERLAP, "0 */2 * * *", "15:30"),
    (LORD_HOWE_OVERLAP, "*/15 1 * * *", "14:00 14:15 14:30 14:45 15:00 15:15"),
    (NO_CHANGE, "0 * * * *", "01:00 02:00 03:00 04:00"),
    (NO_CHANGE, "0 */2 * * *", "02:00 04:00"),
    (NO_CHANGE, "*/40 0 * * * *", "01:00 01:00:40 02:00 02:00:40 03:00 03:00:40 04:00"),
    (HAVANA_GAP, "0 * * * *", "04:00 05:00 06:00 07:00"),
    (HAVANA_GAP, "*/30 0 * * *", ""),
    (HAVANA_OVERLAP, "*/30 0 * * *", "04:00 04:30 05:00 05:30"),
    (SANTIAGO_OVERLAP, "*/30 23 * * *", "02:00 02:30 03:00 03:30"),
    (ST_JOHNS_GAP, "0 * * * *", "03:30 04:30"),
    (ST_JOHNS_OVERLAP, "0 * * * *", "01:30 02:30 03:30 04:30"),
    (ST_JOHNS_OVERLAP, "*/30 23 * * *", "01:30 02:00 03:00"),
    (CASABLANCA_OVERLAP, "*/30 2 * * *", "01:00 01:30 02:00 02:30"),
    (KATHMANDU_GAP, "*/5 0 * * *", "18:30 18:35 18:40 18:45 18:50 18:55 19:00 19:05 19:10"),
]


def assert_due_at(night: Night, expression: str, times: str) -> None:
    expected = [night.at(time) for time in times.split()]
    assert_due(read(expression, night.zone), night.at(night.since), night.at(night.until), expected)


@pytest.mark.parametrize(("night", "expression", "times"), FIXED_TIMES)
def test_a_fixed_time_in_a_gap_is_due_once_at_its_end_and_one_shown_twice_the_first_time(night: Night, expression: str, times: str) -> None:
    assert_due_at(night, expression, times)


@pytest.mark.parametrize(("night", "expression", "times"), INTERVALS)
def test_an_interval_is_due_whenever_the_clocks_show_it(night: Night, expression: str, times: str) -> None:
    assert_due_at(night, expression, times)


@pytest.mark.parametrize("night", [BERLIN_GAP, BERLIN_OVERLAP, NEW_YORK_GAP, NEW_YORK_OVERLAP, LORD_HOWE_GAP, LORD_HOWE_OVERLAP, NO_CHANGE])
@pytest.mark.parametrize(("expression", "every"), [("*/15 * * * *", 15 * MINUTE), ("*/30 * * * * *", 30 * SECOND)])
def test_a_short_interval_follows_elapsed_time_through_any_change(night: Night, expression: str, every: timedelta) -> None:
    since, until = night.at(night.since), night.at(night.until)
    expected = [since + number * every for number in range((until - since) // every + 1)]
    assert_due(read(expression, night.zone), since, until, expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * *", ["2011-12-28T19:00", "2011-12-29T19:00", "2011-12-30T10:00", "2011-12-30T19:00"]),
        ("0 9 30 12 *", ["2011-12-30T10:00"]),
        ("0 0 31 12 *", ["2011-12-30T10:00"]),
        ("0 */12 * * *", ["2011-12-28T10:00", "2011-12-28T22:00", "2011-12-29T10:00", "2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"]),
        ("* * 30 12 *", []),
    ],
)
def test_a_day_that_a_country_skips_is_a_gap_like_any_other(expression: str, expected: list[str]) -> None:
    timetable = read(expression, "Pacific/Apia")  # at 10:00 UTC of the 30th it became the 31st there
    since, until = utc("2011-12-28T10:00"), utc("2011-12-30T22:30")
    assert_due(timetable, since, until, [utc(at) for at in expected])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 12 * * *", ["1867-10-17T20:57:41", "1867-10-18T20:57:41", "1867-10-20T20:57:41"]),
        ("0 */12 19 10 *", ["1867-10-18T08:57:41", "1867-10-18T20:57:41", "1867-10-19T08:57:41", "1867-10-19T20:57:41"]),
    ],
)
def test_a_day_that_a_country_had_twice_is_an_overlap_like_any_other(expression: str, expected: list[str]) -> None:
    timetable = read(expression, "America/Juneau")  # Alaska was sold: at 00:31:13 UTC of the 19th, 15:33:32 of the 19th became that of the 18th
    since, until = utc("1867-10-17T12:00"), utc("1867-10-21T00:00")
    assert_due(timetable, since, until, [utc(at) for at in expected])


def test_two_changes_a_week_apart_are_both_seen_from_afar() -> None:
    # Summer time that lasted a week: on the 15th, at 03:00 UTC, midnight became 23:00 of the 14th again, as far from UTC as on the 7th.
    timetable = read("*/30 23 14 10 *", "America/Boa_Vista")
    since, until = utc("2000-10-01T00:00"), utc("2000-10-31T00:00")
    assert_due(timetable, since, until, [utc(f"2000-10-15T{time}") for time in ("02:00", "02:30", "03:00", "03:30")])

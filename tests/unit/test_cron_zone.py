"""Which time zones there are, and how a wrong one is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core.errors import InvalidSchedule
from jobqueue_cron.timetable import read
from jobqueue_cron.zone import read_zone


def test_every_zone_of_the_iana_list_is_known() -> None:
    for name in available_timezones() - {"Factory", "localtime"}:
        assert abs(read_zone(name).offset(datetime(2025, 1, 1))) < timedelta(days=1)  # noqa: DTZ001 - UTC, by definition


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Europe/Berln", "no time zone 'Europe/Berln'; did you mean Europe/Berlin"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Berlin", "did you mean Europe/Berlin"),
        ("new_york", "did you mean America/New_York"),
        ("utc", "did you mean UTC"),
        ("Europe", "no time zone 'Europe'"),
        ("Nowhere/Atall", "no time zone 'Nowhere/Atall'"),
        ("EDT", "no time zone 'EDT'; its name is as in the IANA list, such as 'Europe/Berlin' or 'UTC'"),
        ("", "'' is not a name such as 'Europe/Berlin' or 'UTC'"),
        (" UTC", "is not a name"),
        ("+02:00", "is not a name"),
        ("Europe/Berlin/", "is not a name"),
        ("\0", "is not a name"),
        ("Europe/Berlin\0", "is not a name"),
        ("../../etc/passwd", "is not a name"),
        ("Europe/../Europe/Berlin", "is not a name"),
        ("/etc/localtime", "is not a name"),
        ("zone.tab", "is not a name"),
        ("posix/Europe/Berlin", "is not a name"),
        ("right/Europe/Berlin", "is not a name"),
        ("localtime", "is not a name"),
        ("leapseconds", "no time zone 'leapseconds'"),
        ("Europe/Bérlin", "is not a name"),
        ("x" * 300, "and so on is not a name"),
        ("Europe/" + "x" * 57, "no time zone 'Europe/xxx"),
        (None, "expected a name such as 'Europe/Berlin', got NoneType"),
        (2, "expected a name such as 'Europe/Berlin', got int"),
    ],
)
def test_an_unknown_zone_is_refused_and_what_may_be_meant_is_said(name: Any, said: str) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        read("30 2 * * *", name)
    assert refused.value.field == "timezone"
    assert said in refused.value.problem
    assert len(refused.value.problem) < 250


@given(name=st.one_of(st.text(), st.text("AEUTCaeinop/._-+0123456789 \0", max_size=80)))
def test_any_name_is_known_or_refused_and_nothing_else(name: str) -> None:
    try:
        read_zone(name)
    except InvalidSchedule as refused:
        assert refused.field == "timezone"


def test_on_a_machine_without_time_zones_utc_is_known_and_the_remedy_is_said_for_others() -> None:
    code = """
import sys
sys.modules["tzdata"] = None
from datetime import UTC, datetime
from jobqueue_cron.timetable import read
print(read("30 2 * * *", "UTC").after(datetime(2025, 1, 1, tzinfo=UTC)))
read("30 2 * * *", "Europe/Berlin")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONTZPATH": ""}, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout.strip() == str(datetime(2025, 1, 1, 2, 30, tzinfo=UTC))
    assert "no time zone 'Europe/Berlin'; this machine has no time zones: install the package tzdata" in ended.stderr

"""The watch over the host's clock: one that is wrong is told of when that begins and when it ends, and one that is a little off is not."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from schedule_scene import NOON, SECOND

from jobqueue_cron import clockwatch


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(seconds=5.1), timedelta(seconds=-5.1)], ids=str)
def test_a_host_whose_clock_is_wrong_is_told_of_when_that_begins_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, off: timedelta
) -> None:
    caplog.set_level("INFO", logger="jobqueue.cron")
    host, minutes = [NOON + off], itertools.count()
    monkeypatch.setattr(clockwatch, "monotonic", lambda: next(minutes) * 60.0)
    watch = clockwatch.ClockWatch(lambda: NOON, lambda: host[0])
    for _ in range(6):
        watch.look()
    (record,) = caplog.records
    assert (record.levelname, record.fields["host_is"]) == ("WARNING", "ahead" if off > timedelta(0) else "behind")  # type: ignore[attr-defined]
    assert record.fields["seconds"] == pytest.approx(abs(off.total_seconds()))  # type: ignore[attr-defined]
    host[0] = NOON
    for _ in range(6):
        watch.look()
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("off", [timedelta(0), timedelta(seconds=4.9), timedelta(seconds=-4.9)], ids=str)
def test_a_clock_that_is_a_little_off_is_no_news(caplog: pytest.LogCaptureFixture, off: timedelta) -> None:
    clockwatch.ClockWatch(lambda: NOON, lambda: NOON + off).look()
    assert caplog.records == []


def test_a_broker_that_is_slow_to_answer_makes_no_clock_wrong(caplog: pytest.LogCaptureFixture) -> None:
    host = iter([NOON - 30 * SECOND, NOON + 30 * SECOND])
    clockwatch.ClockWatch(lambda: NOON, lambda: next(host)).look()
    assert caplog.records == []


def test_the_clock_is_looked_at_now_and_then_only() -> None:
    asked = []
    watch = clockwatch.ClockWatch(lambda: asked.append(1) or NOON)  # type: ignore[func-returns-value]
    for _ in range(100):
        watch.look()
    assert asked == [1]

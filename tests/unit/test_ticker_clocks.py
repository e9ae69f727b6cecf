"""The ticker's clock is set back and forward: no tick fires twice, and what is passed over counts as missed."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds
from schedule_trials import HOUR, assert_one_each, killed_at, open_scene

scene = pytest.fixture(open_scene)


@pytest.mark.parametrize("policy", [{}, {"misfire": "all"}, {"overlap": "skip"}], ids=str)
def test_a_clock_that_is_set_back_makes_no_tick_twice_and_loses_none(scene: Scene, policy: dict[str, Any]) -> None:
    scene.add(expression="*/5 * * * * *", **policy)
    for at in range(240):
        if at == 60:
            scene.clock.advance(-2 * MINUTE)
        scene.pass_time(SECOND)
        scene.finish()
    assert_one_each(scene.ticks(), seconds(5, 120)[::5])


def test_a_scheduler_that_comes_while_the_clock_is_set_back_repeats_nothing(scene: Scene) -> None:
    scene.add()
    scene.pass_time(5 * SECOND)
    scene.clock.advance(-2 * MINUTE)
    scene.pass_time(126 * SECOND, step=3 * SECOND, ticker=scene.ticker(declared={}))
    assert_one_each(scene.ticks(), seconds(1, 11))


def test_a_tick_that_was_claimed_and_not_sent_when_the_clock_was_set_back_is_sent_once(scene: Scene) -> None:
    scene.add(expression="* * * * *")
    scene.clock.advance(MINUTE)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    scene.clock.advance(-2 * MINUTE)
    scene.pass_time(4 * MINUTE, step=10 * SECOND)
    assert_one_each(scene.ticks(), [NOON + MINUTE, NOON + 2 * MINUTE, NOON + 3 * MINUTE])


@pytest.mark.parametrize("edit", [{"expression": "*/2 * * * * *"}, {"timezone": "Europe/Berlin"}], ids=str)
def test_a_schedule_that_is_edited_while_the_clock_is_set_back_repeats_nothing_and_goes_on(scene: Scene, edit: dict[str, Any]) -> None:
    scene.add()
    scene.pass_time(MINUTE)
    scene.clock.advance(-30 * SECOND)
    scene.schedules.edit("nightly", edit)
    scene.pass_time(40 * SECOND)
    expected = seconds(1, 70) if "timezone" in edit else [*seconds(1, 60), *seconds(61, 70)[1::2]]
    assert_one_each(scene.ticks(), expected)


def test_the_same_after_more_ticks_than_are_looked_at_once(scene: Scene) -> None:
    ticker = scene.ticker(poll_interval=10 * MINUTE)  # so that all of them are on time
    scene.add()
    scene.add("other", "* * * * *")
    scene.clock.advance(10 * MINUTE)
    scene.turn(ticker)
    assert scene.ticks() == seconds(1, 600)
    scene.clock.advance(-9 * MINUTE)
    scene.schedules.edit("nightly", {"timezone": "Europe/Berlin"})
    began = time.monotonic()
    scene.pass_time(10 * MINUTE, step=20 * SECOND)
    assert time.monotonic() - began < 5
    found = scene.ticks()
    assert [one for one, count in Counter(found).items() if count > 1] == []
    assert NOON + 11 * MINUTE in found
    assert scene.ticks("other") == [NOON + minute * MINUTE for minute in range(1, 12)]


def test_a_clock_that_is_set_forward_skips_as_a_downtime_does(scene: Scene) -> None:
    for name, misfire in (("once", "once"), ("skip", "skip"), ("all", "all")):
        scene.add(name, misfire=misfire, misfire_limit=3)
    scene.pass_time(2 * SECOND)
    scene.clock.advance(HOUR)
    scene.pass_time(2 * SECOND)
    expected = {"once": 1, "skip": 0, "all": 3}
    for name, count in expected.items():
        # The second that passes after the jump belongs to what was missed: nothing was looked at before.
        assert_one_each(scene.ticks(name), [*seconds(1, 2), *seconds(3603 - count + 1, 3603), *seconds(3604, 3604)])


def test_the_hosts_clock_does_not_matter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    scene.add()
    scene.pass_time(3 * SECOND)
    assert abs(datetime.now(UTC) - NOON) > HOUR  # so that it is tested
    assert scene.ticks() == seconds(1, 3)

"""Ticks that the ticker comes to late: what was missed fires as the schedule's misfire policy says, and what is a little late was not missed."""

from __future__ import annotations

import itertools
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds
from schedule_trials import HOUR, assert_one_each, open_scene

from jobqueue_core.service import Stop

scene = pytest.fixture(open_scene)


# Missed ticks --------------------------------------------------------------------------------------------------------------------------


def missed_ticks(scene: Scene, *, downtime: timedelta, **policy: Any) -> list[datetime]:
    """The ticks that fire when a scheduler comes back after *downtime*, of a schedule with a tick each second."""
    scene.add(**policy)
    scene.clock.advance(downtime)
    scene.turn()
    return scene.ticks()


@pytest.mark.parametrize("count", [10, 99, 100, 101, 250])
@pytest.mark.parametrize(
    ("policy", "most"),
    [
        ({}, 1),
        ({"misfire": "once"}, 1),
        ({"misfire": "once", "misfire_limit": 5}, 1),
        ({"misfire": "skip"}, 0),
        ({"misfire": "all"}, 100),
        ({"misfire": "all", "misfire_limit": 1}, 1),
        ({"misfire": "all", "misfire_limit": 10}, 10),
        ({"misfire": "all", "misfire_limit": 11}, 11),
    ],
    ids=str,
)
def test_what_was_missed_fires_as_the_policy_says_latest_ticks_oldest_first(scene: Scene, policy: dict[str, Any], most: int, count: int) -> None:
    expected = seconds(count - min(most, count) + 1, count)
    assert missed_ticks(scene, downtime=count * SECOND, **policy) == expected
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == expected + seconds(count + 1, count + 2)


@pytest.mark.parametrize(("misfire", "expected"), [("once", [50]), ("skip", []), ("all", [40, 50])])
def test_missed_ticks_of_a_schedule_that_is_due_now_and_then(scene: Scene, misfire: str, expected: list[int]) -> None:
    scene.add(expression="*/10 * * * *", misfire=misfire, misfire_limit=2)
    scene.clock.advance(59 * MINUTE)
    scene.turn()
    assert scene.ticks() == [NOON + minutes * MINUTE for minutes in expected]
    scene.clock.advance(MINUTE)
    scene.turn()
    assert scene.ticks() == [NOON + minutes * MINUTE for minutes in [*expected, 60]]


def test_one_missed_tick_fires_late_by_default(scene: Scene) -> None:
    scene.add(expression="0 13 * * *")
    scene.clock.advance(timedelta(hours=20))
    scene.turn()
    assert scene.ticks() == [NOON + HOUR]


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_month_of_missed_seconds_takes_no_time(scene: Scene, misfire: str) -> None:
    scene.add(misfire=misfire, misfire_limit=3)
    scene.clock.advance(timedelta(days=31))
    began = time.monotonic()
    scene.turn()
    assert time.monotonic() - began < 0.5
    last = NOON + timedelta(days=31)
    assert scene.ticks() == {"once": [last], "skip": [], "all": [last - 2 * SECOND, last - SECOND, last]}[misfire]


def test_a_schedule_that_ended_while_it_was_missed_fires_its_last_ticks_only(scene: Scene) -> None:
    scene.add("all", misfire="all", end=NOON + 20 * SECOND, misfire_limit=3)
    scene.add("once", end=NOON + 20 * SECOND)
    scene.add("skip", misfire="skip", end=NOON + 20 * SECOND)
    scene.clock.advance(HOUR)
    scene.turn()
    assert (scene.ticks("all"), scene.ticks("once"), scene.ticks("skip")) == (seconds(18, 20), seconds(20, 20), [])
    assert [one.next_run for one in scene.schedules.all()] == [None] * 3


def test_a_scheduler_that_dies_while_it_catches_up_loses_none_and_repeats_none(scene: Scene) -> None:
    scene.add(misfire="all", misfire_limit=30)
    scene.clock.advance(100 * SECOND)
    enqueued = itertools.count(1)

    def dies(name: str) -> None:
        if name == "enqueue" and next(enqueued) == 7:
            raise Killed

    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=dies)))
    scene.pass_time(10 * SECOND)
    assert_one_each(scene.ticks(), seconds(71, 110))


def test_catching_up_makes_no_other_schedule_miss_its_ticks(scene: Scene) -> None:
    scene.add("many", misfire="all", misfire_limit=1000)
    scene.clock.advance(timedelta(hours=1))
    scene.add("other")
    # Each claim takes 10 ms, so that catching up takes ten seconds.
    storage = Wrapped(scene.storage, after=lambda name: scene.clock.advance(SECOND / 100) if name == "claim_ticks" else None)
    ticker = scene.ticker(storage=storage)
    for _ in range(30):
        scene.turn(ticker)
        scene.clock.advance(SECOND / 10)
    found = scene.ticks("other")
    assert len(found) >= 10
    assert_one_each(found, [NOON + HOUR + at * SECOND for at in range(1, len(found) + 1)])


def test_a_scheduler_that_is_told_to_stop_does_not_first_catch_up(scene: Scene) -> None:
    scene.add("many", misfire="all", misfire_limit=1000)
    scene.clock.advance(timedelta(hours=1))
    stop = Stop()
    storage = Wrapped(scene.storage, after=lambda name: stop.request() if name == "claim_ticks" else None)
    scene.ticker(storage=storage).turn(stop)
    assert len(scene.ticks("many")) < 5
    scene.turn()
    assert_one_each(scene.ticks("many"), seconds(2601, 3600))


# On time -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{"misfire": "skip"}, {"misfire": "once"}, {"misfire": "all", "misfire_limit": 1}], ids=str)
@pytest.mark.parametrize(("poll", "late"), [(1, 1), (1, 5), (0.1, 5), (3, 6), (60, 119)])
def test_a_scheduler_that_is_a_little_late_fires_every_tick(scene: Scene, policy: dict[str, Any], poll: float, late: int) -> None:
    scene.add(**policy)
    scene.clock.advance((1 + late) * SECOND)
    scene.turn(scene.ticker(poll_interval=poll * SECOND))
    assert scene.ticks() == seconds(1, 1 + late)


@pytest.mark.parametrize(("poll", "late"), [(1, 5), (3, 6)])
def test_what_is_later_was_missed(scene: Scene, poll: float, late: int) -> None:
    scene.add(misfire="skip")
    scene.clock.advance((1 + late) * SECOND + timedelta(milliseconds=1))
    scene.turn(scene.ticker(poll_interval=poll * SECOND))
    assert scene.ticks() == []


def test_what_a_busy_scheduler_comes_to_late_was_not_missed(scene: Scene) -> None:
    for number in range(401):
        scene.add(f"one-{number:03}", "0 * * * *", misfire="skip")
    scene.turn()
    storage = Wrapped(scene.storage, after=lambda name: scene.clock.advance(4 * SECOND) if name == "claim_ticks" else None)
    ticker = scene.ticker(storage=storage)
    scene.turn(ticker)
    scene.clock.advance(timedelta(minutes=59, seconds=58))
    scene.turn(ticker)
    scene.clock.advance(2 * SECOND)
    scene.turn(ticker)
    assert [name for name in (f"one-{number:03}" for number in range(401)) if len(scene.ticks(name)) != 1] == []

"""What the ticker cannot read, or cannot have, holds up no other schedule: wrong definitions, damaged rows, broken timetables, held schedules."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Killed, Scene, Wrapped, installed_timetables, seconds
from schedule_trials import HOUR, assert_one_each, killed_at, open_scene, put

from jobqueue_core.storage import Claim
from jobqueue_core.testing.factories import tick
from jobqueue_core.timetable import TimetablePlugin, Timetables

scene = pytest.fixture(open_scene)


# Definitions ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        {"expression": "no"},
        {"expression": ""},
        {"expression": "0 0 31 2 *"},
        {"timezone": "Mars/Olympus"},
        {"type": "not a type"},
        {"queue": "no queue!"},
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_read_holds_up_no_other(scene: Scene, broken: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    put(scene, "a-broken", **broken)
    scene.add("fine")
    scene.pass_time(10 * SECOND)
    assert scene.ticks("fine") == seconds(1, 10)
    assert scene.jobs("a-broken") == []
    assert [one for one in caplog.messages if "'a-broken'" in one]


def test_many_schedules_that_cannot_be_read_hold_up_no_other(scene: Scene) -> None:
    for number in range(450):
        put(scene, f"broken-{number}", expression="no", next_run=NOON)
    scene.add("fine")
    scene.pass_time(3 * SECOND)
    assert scene.ticks("fine") == seconds(1, 3)


def test_what_cannot_be_read_is_not_complained_of_all_the_time(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    put(scene, "broken", expression="no")
    scene.pass_time(20 * SECOND)
    assert len([one for one in caplog.messages if "'broken'" in one]) == 1


def test_a_schedule_that_is_mended_fires_from_then_on(scene: Scene) -> None:
    put(scene, "broken", expression="no")
    scene.pass_time(3 * SECOND)
    scene.schedules.edit("broken", {"expression": EACH_SECOND})
    scene.pass_time(10 * SECOND)
    assert scene.ticks("broken") == seconds(4, 13)


# Timetables ----------------------------------------------------------------------------------------------------------------------------


class Broken:
    """A timetable with a mistake in it."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake
        self.asked = 0

    def after(self, moment: datetime) -> datetime | None:
        self.asked += 1
        if self.asked > 10_000:
            raise Killed  # nobody may ask it for ever
        match self.mistake:
            case "after raises":
                raise RuntimeError("after")
            case "after stands still":
                return moment.replace(microsecond=0)
            case "after goes back":
                return moment - HOUR
            case _:
                return moment.replace(tzinfo=None) + SECOND

    def before(self, moment: datetime) -> datetime | None:
        return moment.replace(microsecond=0)


@pytest.mark.parametrize("mistake", ["read raises", "after raises", "after is naive", "after stands still", "after goes back"])
def test_a_third_partys_broken_timetable_holds_up_no_other_schedule(scene: Scene, mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    def read(expression: str, timezone: str) -> Any:
        if mistake == "read raises":
            raise RuntimeError("read")
        return Broken(mistake)

    offered = {"cron": TimetablePlugin(name="cron", read=installed_timetables().read), "bad": TimetablePlugin(name="bad", read=read)}
    put(scene, "a-broken", expression="bad: x")
    scene.add("fine")
    scene.pass_time(5 * SECOND, ticker=scene.ticker(timetables=Timetables(offered)))
    assert scene.ticks("fine") == seconds(1, 5)
    assert [one for one in caplog.messages if "'a-broken'" in one]


# Rows ----------------------------------------------------------------------------------------------------------------------------------


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path / "jobqueue.db") as connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def test_a_damaged_row_holds_up_no_other_schedule(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene.add("a-damaged")
    scene.add("fine")
    damage(tmp_path, "UPDATE schedules SET record = x'c1c1' WHERE name = 'a-damaged'")
    scene.pass_time(3 * SECOND)
    assert scene.ticks("fine") == seconds(1, 3)
    assert len([one for one in caplog.messages if "'a-damaged'" in one and "record" in one]) == 1


def test_a_damaged_tick_that_was_not_sent_holds_up_no_other(scene: Scene, tmp_path: Path) -> None:
    for name in ("a-damaged", "fine"):
        scene.add(name, "0 13 * * *")
    scene.clock.advance(HOUR)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    damage(tmp_path, "UPDATE ticks SET record = x'c1c1' WHERE schedule = 'a-damaged'")
    scene.add("other")
    scene.pass_time(10 * SECOND)
    assert scene.ticks("fine") == [NOON + HOUR]
    assert len(scene.ticks("other")) == 10


def test_a_damaged_last_tick_holds_up_no_other_schedule(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add("a-damaged", "* * * * *", overlap="skip")
        scene.add("fine", "* * * * *")
        scene.pass_time(MINUTE, step=MINUTE)
        scene.finish()
        scene.forget(MINUTE)
        damage(tmp_path, "UPDATE ticks SET record = x'c1c1' WHERE schedule = 'a-damaged'")
        scene.turn()
        assert scene.ticks("fine") == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_a_tick_that_is_there_already_does_not_wedge_its_schedule(scene: Scene) -> None:
    scene.add()
    seen = scene.schedules.get("nightly")
    assert scene.storage.claim_ticks([Claim(schedule=seen, tick=tick(seen, due=NOON + 2 * SECOND), next_run=NOON + SECOND)]) == [True]
    scene.storage.mark_sent([("nightly", NOON + 2 * SECOND)])
    scene.add("other")
    scene.pass_time(6 * SECOND)
    assert_one_each(scene.ticks(), [*seconds(1, 1), *seconds(3, 6)])
    assert scene.ticks("other") == seconds(1, 6)


# Schedules that others hold ------------------------------------------------------------------------------------------------------------


class Held(Wrapped):
    """A storage in which a frozen scheduler holds the schedules that it was about to claim; each answer takes 50 ms."""

    rounds = 0
    passed = 0.0

    def claim_ticks(self, claims: list[Claim]) -> list[bool]:
        self.rounds += 1
        self.passed += 0.05
        if self.rounds > 500:
            raise Killed  # it goes round and round
        free = [one for one in claims if not one.schedule.name.startswith("held-")]
        answers = dict(zip([one.schedule.name for one in free], self.inner.claim_ticks(free), strict=True))
        return [answers.get(one.schedule.name, False) for one in claims]


def test_schedules_that_others_hold_hold_up_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(250):
        put(scene, f"held-{number:03}", next_run=NOON)
    scene.add("fine")
    held = Held(scene.storage)
    monkeypatch.setattr("jobqueue_cron.ticker.monotonic", lambda: held.passed)
    ticker = scene.ticker(storage=held)
    for _ in range(8):
        began = held.passed
        scene.clock.advance(SECOND)
        while held.passed < began + 1:  # as Ticker.run does
            held.passed += max(scene.turn(ticker), 0.001)
    scene.turn(ticker)
    assert_one_each(scene.ticks("fine"), seconds(1, 8))
    assert held.rounds < 200, "nobody asks all the time"

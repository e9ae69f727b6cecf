"""Schedulers die and freeze at every moment of a turn: each tick still becomes one job, also where the broker has forgotten it meanwhile."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds
from schedule_trials import DEADLY, HOUR, assert_one_each, killed_at, open_scene, put

from jobqueue_cron.ticker import Ticker

scene = pytest.fixture(open_scene)


class Points:
    """Numbers the moments before and after each call to broker and storage, and does something at one of them."""

    def __init__(self, scene: Scene, at: int, then: Callable[[], object]) -> None:
        self.reached = 0
        self.where = ""
        self._at = at
        self._then = then
        self.broker = Wrapped(scene.broker, before=self._before, after=self._after)
        self.storage = Wrapped(scene.storage, before=self._before, after=self._after)

    def _before(self, name: str) -> None:
        self._point(f"before {name}")

    def _after(self, name: str) -> None:
        self._point(f"after {name}")

    def _point(self, where: str) -> None:
        if where.split()[1] in DEADLY:
            self.reached += 1
            if self.reached == self._at:
                self.where = f"point {self._at}, {where}"
                self._then()


def die() -> None:
    raise Killed


# At any moment -------------------------------------------------------------------------------------------------------------------------


def test_a_scheduler_may_die_at_any_moment(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db")
        with scene.queue:
            scene.add("a")
            scene.add("b", "*/2 * * * * *", jitter="3s")
            points = Points(scene, at, die)
            first = scene.ticker(broker=points.broker, storage=points.storage)
            try:
                for step in (1, 3):  # the second time two ticks are due at once
                    scene.clock.advance(step * SECOND)
                    scene.turn(first)
            except Killed:
                scene.pass_time(NOON + 12 * SECOND - scene.clock())
                assert_one_each(scene.ticks("a"), seconds(1, 12), points.where)
                assert_one_each(scene.ticks("b"), seconds(1, 12)[1::2], points.where)
                assert scene.storage.unsent_ticks(scene.clock() + HOUR, 10) == [], points.where
                continue
        assert at > 30, "there were moments to die at"
        return


def test_the_one_who_sends_again_may_die_at_any_moment_too(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db")
        with scene.queue:
            for name in ("a", "b", "c"):
                scene.add(name, "*/10 * * * * *")
            scene.clock.advance(10 * SECOND)
            with pytest.raises(Killed):
                scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
            scene.clock.advance(6 * SECOND)
            points = Points(scene, at, die)
            try:
                scene.turn(scene.ticker(broker=points.broker, storage=points.storage))
            except Killed:
                scene.pass_time(5 * SECOND)
                for name in ("a", "b", "c"):
                    assert_one_each(scene.ticks(name), seconds(1, 20)[9::10], points.where)
                continue
        assert at > 10, "there were moments to die at"
        return


def test_a_scheduler_may_freeze_at_any_moment_and_wake_when_its_job_is_forgotten(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db", result_ttl=MINUTE)
        with scene.queue:
            scene.add("a", "*/20 * * * * *")
            scene.add("b", "*/20 * * * * *", overlap="skip")
            others = scene.ticker()

            def frozen(scene: Scene = scene, others: Ticker = others) -> None:
                for _ in range(12):
                    scene.clock.advance(10 * SECOND)
                    scene.turn(others)
                    scene.finish()
                    scene.broker.prune(1000)

            points = Points(scene, at, frozen)
            first = scene.ticker(broker=points.broker, storage=points.storage, poll_interval=10 * SECOND)
            for _ in range(2):
                scene.clock.advance(20 * SECOND)
                scene.turn(first)
                scene.finish()
            if points.where:
                for _ in range(4):
                    scene.pass_time(10 * SECOND, step=10 * SECOND, ticker=first)
                    scene.finish()
                for name in ("a", "b"):
                    assert_one_each(scene.ticks(name), seconds(1, 200)[19::20], points.where)
                assert scene.storage.unsent_ticks(scene.clock() + HOUR, 10) == [], points.where
                continue
        assert at > 20, "there were moments to freeze at"
        return


# Jobs that are forgotten ---------------------------------------------------------------------------------------------------------------


def test_a_frozen_schedulers_late_job_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="* * * * *")
        other = scene.ticker()

        def frozen(name: str) -> None:
            if name == "enqueue":
                scene.clock.advance(6 * SECOND)
                scene.turn(other)
                assert scene.finish() == 1
                scene.forget(MINUTE)
                scene.turn(other)
                scene.finish()
                assert scene.broker.get([scene.jobs()[0].id]) == [None]

        scene.clock.advance(MINUTE)
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=frozen)))
        scene.pass_time(30 * SECOND, step=5 * SECOND)
        assert_one_each(scene.ticks(), [NOON + MINUTE, NOON + 2 * MINUTE])


def test_while_recording_is_behind_a_forgotten_job_is_not_taken_for_one_that_was_never_sent(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="0 13 * * *")
        scene.clock.advance(HOUR)
        with pytest.raises(Killed):
            scene.turn(scene.ticker(storage=Wrapped(scene.storage, before=killed_at("mark_sent"))))
        assert scene.finish() == 1
        scene.clock.advance(MINUTE + SECOND)
        while scene.broker.prune(1000):
            pass
        scene.turn()
        assert len(scene.jobs()) == 1
        assert [tick.sent for tick in scene.storage.ticks("nightly", 10)] == [False]
        scene.recorder.record_waiting()
        scene.turn()
        assert len(scene.jobs()) == 1
        assert [tick.sent for tick in scene.storage.ticks("nightly", 10)] == [True]


def test_a_job_that_has_run_and_is_forgotten_is_not_sent_again_by_who_comes_much_later(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="0 13 * * *")
        scene.clock.advance(HOUR)
        with pytest.raises(Killed):
            scene.turn(scene.ticker(storage=Wrapped(scene.storage, before=killed_at("mark_sent"))))
        assert scene.finish() == 1
        scene.forget(MINUTE)
        scene.clock.advance(HOUR)
        scene.turn()
        assert scene.ticks() == [NOON + HOUR]
        assert scene.storage.unsent_ticks(scene.clock(), 10) == []


# Many at once --------------------------------------------------------------------------------------------------------------------------


def test_many_unsent_ticks_are_all_sent_again(scene: Scene) -> None:
    for number in range(450):
        put(scene, f"s{number}")
    scene.clock.advance(SECOND)
    for _ in range(3):
        with pytest.raises(Killed):
            scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    assert scene.broker.created == []
    for one in scene.storage.schedules():
        scene.schedules.pause(one.name)
    scene.clock.advance(6 * SECOND)
    scene.turn()
    assert Counter(job.metadata["jobqueue.schedule"] for job in scene.broker.created) == {f"s{number}": 1 for number in range(450)}

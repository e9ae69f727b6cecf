"""Edits of schedules: what they do to the next tick, and what comes of them while others change, remove, recreate or fire the same schedule."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Scene, Wrapped, seconds
from schedule_trials import HOUR, HOURLY, open_scene, stored

from jobqueue_core import JobNotFound, JobQueue
from jobqueue_core.job import Priority

scene = pytest.fixture(open_scene)


# The next tick -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"type": "other"}, {"type": "other"}),
        ({"payload": {"a": 1}}, {"payload": {"a": 1}}),
        ({"payload": None}, {"payload": None}),
        ({"queue": "q", "priority": "high"}, {"queue": "q", "priority": "high"}),
        ({"priority": Priority.LOW}, {"priority": "low"}),
        ({"queue": None, "priority": None}, {"queue": None, "priority": None}),
        ({"max_retries": 5, "timeout": "2m"}, {"max_retries": 5, "timeout": "2m"}),
        ({"max_retries": None, "timeout": None}, {"max_retries": None, "timeout": None}),
        ({"misfire": "all", "misfire_limit": 3}, {"misfire": "all", "misfire_limit": 3}),
        ({"overlap": "skip"}, {"overlap": "skip"}),
        ({"jitter": "3s"}, {"jitter": "3s"}),
        ({"jitter": None}, {"jitter": None}),
        ({}, {}),
    ],
    ids=str,
)
def test_an_edit_of_anything_but_the_timing_keeps_the_next_tick(scene: Scene, changes: dict[str, Any], shown: dict[str, Any]) -> None:
    before = scene.add(expression=HOURLY, payload=7, queue="old", priority="medium", max_retries=1, timeout="1s", jitter="1s")
    scene.clock.advance(90 * MINUTE)  # the tick of one o'clock has not fired yet
    edited = scene.schedules.edit("nightly", changes)
    assert edited == stored(scene)
    assert edited.next_run == NOON + HOUR
    assert edited.to_dict() == {**before.to_dict(), **shown, "version": edited.version}
    assert (edited.version > before.version) == bool(changes)
    scene.turn()
    assert scene.ticks() == [NOON + HOUR]


@pytest.mark.parametrize(
    ("changes", "following"),
    [
        ({"expression": "*/20 * * * *"}, NOON + 100 * MINUTE),
        ({"timezone": "Asia/Kolkata"}, NOON + 90 * MINUTE + HOUR),
        ({"start": NOON + 5 * HOUR}, NOON + 5 * HOUR),
        ({"start": NOON - HOUR}, NOON + 2 * HOUR),
        ({"end": NOON + 9 * HOUR}, NOON + 2 * HOUR),
        ({"expression": "*/20 * * * *", "payload": 1, "start": NOON + 3 * HOUR}, NOON + 3 * HOUR),
    ],
    ids=str,
)
def test_an_edit_of_the_timing_begins_with_the_next_tick_from_now_on(scene: Scene, changes: dict[str, Any], following: datetime) -> None:
    scene.add(expression=HOURLY, misfire="all")
    scene.clock.advance(90 * MINUTE)
    assert scene.schedules.edit("nightly", changes).next_run == stored(scene).next_run == following
    scene.turn()
    assert scene.ticks() == []
    scene.clock.advance(following - scene.clock())
    scene.turn()
    assert scene.ticks() == [following]


def test_the_same_timing_again_is_no_edit_of_it(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    scene.clock.advance(90 * MINUTE)
    assert scene.schedules.edit("nightly", {"expression": HOURLY, "timezone": "UTC", "start": None, "payload": 1}).next_run == NOON + HOUR


# Meanwhile -----------------------------------------------------------------------------------------------------------------------------


def test_an_edit_of_what_others_change_meanwhile_loses_neither_change(scene: Scene) -> None:
    scene.add()
    others = iter([{"payload": 1}, {"overlap": "skip"}, {"misfire": "all"}])

    def meanwhile(name: str) -> None:
        if name == "schedule" and (other := next(others, None)):
            scene.schedules.edit("nightly", other)

    storage = Wrapped(scene.storage, after=meanwhile)
    JobQueue(scene.broker, storage).schedules.edit("nightly", {"queue": "mine"})
    found = stored(scene)
    assert (found.payload_json, found.overlap, found.misfire, found.queue) == (b"1", "skip", "all", "mine")


def test_of_two_edits_of_one_field_the_later_stays(scene: Scene) -> None:
    scene.add()

    def meanwhile(name: str) -> None:
        if name == "put_schedule":
            storage.before = lambda _name: None
            scene.schedules.edit("nightly", {"payload": "first"})

    storage = Wrapped(scene.storage, before=meanwhile)
    edited = JobQueue(scene.broker, storage).schedules.edit("nightly", {"payload": "second"})
    assert edited == stored(scene)
    assert edited.payload_json == b'"second"'


def test_an_edit_while_a_tick_fires_takes_the_tick_not_back(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)

    def meanwhile(name: str) -> None:
        if name == "put_schedule":
            storage.before = lambda _name: None
            scene.turn()

    storage = Wrapped(scene.storage, before=meanwhile)
    JobQueue(scene.broker, storage).schedules.edit("nightly", {"payload": 1})
    found = stored(scene)
    assert (found.payload_json, found.last_run, found.next_run) == (b"1", NOON + SECOND, NOON + 2 * SECOND)
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == seconds(1, 3)


@pytest.mark.parametrize("action", ["edit", "pause", "resume", "remove"])
def test_what_is_removed_meanwhile_is_not_brought_back(scene: Scene, action: str) -> None:
    scene.add(enabled=action != "resume")

    def meanwhile(name: str) -> None:
        if name in ("put_schedule", "delete_schedule"):
            storage.before = lambda _name: None
            scene.schedules.remove("nightly")

    storage = Wrapped(scene.storage, before=meanwhile)
    with pytest.raises(JobNotFound):
        getattr(JobQueue(scene.broker, storage).schedules, action)("nightly", *([{"payload": 1}] if action == "edit" else []))
    assert scene.schedules.all() == []


@pytest.mark.parametrize("action", ["edit", "pause", "resume", "run", "tick"])
def test_a_schedule_that_is_recreated_meanwhile_is_not_overwritten_by_what_it_was(scene: Scene, action: str) -> None:
    scene.add(type="old", payload="old", expression=HOURLY, enabled=action != "resume", queue="old")

    def meanwhile(name: str) -> None:
        if name in ("put_schedule", "claim_ticks"):
            storage.before = lambda _name: None
            scene.schedules.remove("nightly")
            scene.add(type="new", payload="new", expression=HOURLY, queue="new")

    storage = Wrapped(scene.storage, before=meanwhile)
    schedules = JobQueue(scene.broker, storage).schedules
    match action:
        case "edit":
            schedules.edit("nightly", {"misfire": "all"})
        case "run":
            assert schedules.run("nightly").type == "new"
        case "tick":
            # Of a clock that is set back meanwhile, so that the new one is due at the same moment.
            scene.clock.advance(HOUR)
            stop = scene.ticker(storage=storage)
            ready = storage.before
            storage.before = lambda name: (name == "claim_ticks" and scene.clock.advance(-HOUR / 2), ready(name))
            scene.turn(stop)
        case _:
            getattr(schedules, action)("nightly")
    found = stored(scene)
    assert (found.type, found.payload_json, found.queue) == ("new", b'"new"', "new")

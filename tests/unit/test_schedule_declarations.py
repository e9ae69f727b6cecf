"""Schedules that the config file declares: they are changed there only, and a start makes storage agree with the file."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Scene, Wrapped, seconds
from schedule_trials import HOUR, HOURLY, open_scene, stored

from jobqueue_core import Conflict, JobQueue
from jobqueue_core.errors import StorageUnavailable

scene = pytest.fixture(open_scene)


def declare(scene: Scene, **schedules: dict[str, Any]) -> None:
    """Start a scheduler whose config file has these."""
    scene.schedules.synchronise({name: {"expression": EACH_SECOND, "type": "t", **fields} for name, fields in schedules.items()})


# What may be done with them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_a_schedule_of_the_config_file_is_edited_and_removed_there(scene: Scene, enabled: bool) -> None:
    declare(scene, nightly={"enabled": enabled})
    before = stored(scene)
    assert before.source == "config"
    for refused in (
        lambda: scene.schedules.edit("nightly", {"payload": 1}),
        lambda: scene.schedules.edit("nightly", {"enabled": True}),
        lambda: scene.schedules.edit("nightly", {}),
        lambda: scene.schedules.edit("nightly", {"type": "unknown"}, strict=True),
        lambda: scene.schedules.remove("nightly"),
    ):
        with pytest.raises(Conflict, match="config file") as caught:
            refused()
        assert caught.value.code == "from_config"
    assert stored(scene) == before


def test_it_may_be_paused_resumed_and_run(scene: Scene) -> None:
    declare(scene, nightly={})
    assert not scene.schedules.pause("nightly").fires
    assert scene.schedules.run("nightly").type == "t"
    assert scene.schedules.resume("nightly").fires


def test_what_the_config_file_disables_cannot_be_resumed(scene: Scene) -> None:
    declare(scene, nightly={"enabled": False})
    scene.schedules.pause("nightly")
    before = stored(scene)
    with pytest.raises(Conflict) as caught:
        scene.schedules.resume("nightly")
    assert caught.value.code == "from_config"
    assert stored(scene) == before


# What a start does ---------------------------------------------------------------------------------------------------------------------


def test_a_start_adds_changes_and_removes_what_the_file_does(scene: Scene) -> None:
    scene.add("by.hand")
    declare(scene, a={}, b={}, c={"payload": 1})
    assert [(one.name, one.source) for one in scene.schedules.all()] == [("a", "config"), ("b", "config"), ("by.hand", "dynamic"), ("c", "config")]
    declare(scene, b={}, c={"payload": 2}, d={})
    assert [one.name for one in scene.schedules.all()] == ["b", "by.hand", "c", "d"]
    assert stored(scene, "c").payload_json == b"2"
    declare(scene)
    assert [one.name for one in scene.schedules.all()] == ["by.hand"]


def test_a_key_that_is_taken_out_of_the_file_has_its_default_again(scene: Scene) -> None:
    entry = {"timezone": "UTC", "payload": None, "queue": None, "misfire": "once", "jitter": None}
    declare(scene, nightly={**entry, "payload": 1, "queue": "q", "misfire": "all", "jitter": SECOND})
    declare(scene, nightly=entry)
    found = stored(scene)
    assert (found.payload_json, found.queue, found.misfire, found.jitter) == (b"null", None, "once", None)


def test_the_same_definition_changes_nothing_so_that_missed_ticks_count(scene: Scene) -> None:
    fields: dict[str, Any] = {"misfire": "all", "payload": {"b": 1, "a": [2.5]}, "timeout": MINUTE, "jitter": SECOND, "start": NOON - HOUR}
    declare(scene, nightly=fields)
    before = stored(scene)
    scene.clock.advance(10 * SECOND)
    declare(scene, nightly=fields)
    assert stored(scene) == before
    scene.turn()
    assert scene.ticks() == seconds(1, 10)


def test_a_change_of_something_else_keeps_missed_ticks_too(scene: Scene) -> None:
    declare(scene, nightly={"misfire": "all"})
    scene.clock.advance(10 * SECOND)
    declare(scene, nightly={"misfire": "all", "type": "new"})
    scene.turn()
    assert scene.ticks() == seconds(1, 10)
    assert {job.type for job in scene.jobs()} == {"new"}


@pytest.mark.parametrize("change", [{"expression": "*/2 * * * * *"}, {"timezone": "Europe/Berlin"}, {"start": NOON}], ids=str)
def test_a_change_of_the_timing_begins_with_the_next_tick(scene: Scene, change: dict[str, Any]) -> None:
    declare(scene, nightly={"misfire": "all"})
    scene.clock.advance(10 * SECOND)
    declare(scene, nightly={"misfire": "all", **change})
    scene.turn()
    assert scene.jobs() == []
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == (seconds(12, 12) if "expression" in change else seconds(11, 12))


def test_what_the_file_enables_again_is_not_due_for_the_past(scene: Scene) -> None:
    declare(scene, nightly={"misfire": "all"})
    declare(scene, nightly={"misfire": "all", "enabled": False})
    scene.pass_time(10 * SECOND)
    declare(scene, nightly={"misfire": "all", "enabled": True})
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == seconds(11, 12)


def test_what_an_operator_has_paused_stays_so_whatever_the_file_says(scene: Scene) -> None:
    declare(scene, nightly={})
    scene.schedules.pause("nightly")
    for fields in ({}, {"payload": 1}, {"expression": HOURLY}, {"enabled": False}, {"enabled": True}):
        declare(scene, nightly=fields)
        assert stored(scene).paused
    scene.pass_time(3 * SECOND)
    assert scene.jobs() == []


def test_one_added_by_hand_is_taken_over_with_a_warning(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.add(misfire="all")
    scene.schedules.pause("nightly")
    caplog.clear()
    declare(scene, nightly={"misfire": "all"})
    assert (stored(scene).source, stored(scene).paused) == ("config", True)
    assert [one.levelno for one in caplog.records if "added by hand" in one.getMessage()] == [logging.WARNING]
    caplog.clear()
    declare(scene, nightly={"misfire": "all"})
    assert not [one for one in caplog.messages if "added by hand" in one]
    declare(scene)
    assert scene.schedules.all() == []


@pytest.mark.parametrize("wrong", [{"expression": "no"}, {"timezone": "Mars/X"}, {"priority": "urgent"}], ids=str)
def test_what_cannot_be_used_is_left_as_it_was_and_does_not_stand_in_the_way(
    scene: Scene, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    declare(scene, b={})
    before = stored(scene, "b")
    declare(scene, a=wrong, b=wrong, c={})
    assert [one.name for one in scene.schedules.all()] == ["b", "c"]
    assert stored(scene, "b") == before
    assert [one.levelno for one in caplog.records if "'b'" in one.getMessage() and "cannot be used" in one.getMessage()] == [logging.ERROR]


# Several starts ------------------------------------------------------------------------------------------------------------------------


def test_schedulers_that_start_together_with_the_same_file_agree(scene: Scene) -> None:
    turns = itertools.count(1)

    def meanwhile(name: str) -> None:
        if name in ("schedule", "put_schedule", "schedules", "delete_schedule") and next(turns) < 40:
            declare(scene, a={"payload": 1}, b={})

    declare(scene, b={"payload": 0}, old={})
    storage = Wrapped(scene.storage, before=meanwhile, after=meanwhile)
    JobQueue(scene.broker, storage).schedules.synchronise(
        {"a": {"expression": EACH_SECOND, "type": "t", "payload": 1}, "b": {"expression": EACH_SECOND, "type": "t"}}
    )
    assert [one.name for one in scene.schedules.all()] == ["a", "b"]
    assert stored(scene, "a").payload_json == b"1"


def test_a_synchronisation_that_broke_off_can_be_repeated(scene: Scene) -> None:
    declare(scene, a={}, old={})
    for at in itertools.count(1):
        calls = itertools.count(1)

        def breaks(name: str, at: int = at, calls: Iterator[int] = calls) -> None:
            if next(calls) == at:
                raise StorageUnavailable("away")

        schedules = JobQueue(scene.broker, Wrapped(scene.storage, before=breaks, after=breaks)).schedules
        declared = {name: {"expression": EACH_SECOND, "type": "t", "payload": at} for name in ("a", "b")}
        try:
            schedules.synchronise(declared)
        except StorageUnavailable:
            scene.schedules.synchronise(declared)
        else:
            assert at > 5
            break
        assert [(one.name, one.payload_json) for one in scene.schedules.all()] == [("a", b"%d" % at), ("b", b"%d" % at)]

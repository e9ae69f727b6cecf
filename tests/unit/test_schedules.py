"""What can be done with schedules (``queue.schedules``): they are added, listed, previewed, paused, resumed and removed."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec.structs import replace
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds
from schedule_trials import DAY, HOUR, HOURLY, killed_at, open_scene, stored

from jobqueue_core import Conflict, JobNotFound, JobQueue, JobState
from jobqueue_core.errors import IncompatibleData, InvalidSchedule
from jobqueue_core.handlers import Registry, handler
from jobqueue_core.scheduling.definition import FIELDS
from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import type_info, worker_info

scene = pytest.fixture(open_scene)


# Add -----------------------------------------------------------------------------------------------------------------------------------


def test_a_schedule_is_stored_as_it_was_added_and_is_first_due_at_its_next_tick(scene: Scene) -> None:
    added = scene.schedules.add(
        "report.night-2_x",
        "30 3 * * mon-fri",
        "report.make",
        {"a": [1, None]},
        timezone="Europe/Berlin",
        queue="reports",
        priority="low",
        max_retries=0,
        timeout="90s",
        misfire="all",
        misfire_limit=7,
        overlap="skip",
        jitter=timedelta(seconds=5),
        start=datetime(2030, 1, 2, 0, 0, tzinfo=timezone(HOUR)),
        end=NOON + 300 * DAY,
    )
    assert added == stored(scene, "report.night-2_x") == scene.schedules.get("report.night-2_x")
    assert added.to_dict() == {
        "name": "report.night-2_x",
        "expression": "30 3 * * mon-fri",
        "timezone": "Europe/Berlin",
        "type": "report.make",
        "payload": {"a": [1, None]},
        "queue": "reports",
        "priority": "low",
        "max_retries": 0,
        "timeout": "1m30s",
        "enabled": True,
        "paused": False,
        "misfire": "all",
        "misfire_limit": 7,
        "overlap": "skip",
        "jitter": "5s",
        "start": "2030-01-01T23:00:00Z",
        "end": "2030-10-28T12:00:00Z",
        "source": "dynamic",
        "next_run": "2030-01-02T02:30:00Z",
        "last_run": None,
        "last_job_id": None,
        "version": added.version,
    }
    assert json.loads(json.dumps(added.to_dict())) == added.to_dict()


def test_what_is_not_given_has_the_defaults_of_the_contract(scene: Scene) -> None:
    shown = scene.schedules.add("nightly", HOURLY, "t").to_dict()
    assert (shown["timezone"], shown["enabled"], shown["misfire"], shown["misfire_limit"], shown["overlap"]) == ("UTC", True, "once", 100, "allow")
    unset = ("payload", "queue", "priority", "max_retries", "timeout", "jitter", "start", "end", "last_run", "last_job_id")
    assert [one for one in unset if shown[one] is not None] == []
    assert shown["next_run"] == "2030-01-01T13:00:00Z"


def test_a_tick_that_is_now_is_not_the_first(scene: Scene) -> None:
    assert scene.add(expression=HOURLY).next_run == NOON + HOUR


def test_a_name_is_given_once(scene: Scene) -> None:
    first = scene.add(expression=HOURLY)
    with pytest.raises(Conflict, match="'nightly'") as caught:
        scene.add(expression=EACH_SECOND)
    assert caught.value.code == "exists"
    assert scene.schedules.all() == [first]


def test_a_schedule_may_have_one_tick_only(scene: Scene) -> None:
    at = NOON + HOUR
    assert scene.add(expression=HOURLY, start=at, end=at).next_run == at


# Types nobody knows --------------------------------------------------------------------------------------------------------------------


def test_a_type_that_nobody_knows_is_warned_of(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.add(type="t.unknown")
    (record,) = [one for one in caplog.records if "t.unknown" in one.getMessage()]
    assert (record.levelno, "'nightly'" in record.getMessage()) == (logging.WARNING, True)


def test_who_is_strict_refuses_it(scene: Scene) -> None:
    with pytest.raises(InvalidSchedule, match=r"t\.unknown") as caught:
        scene.add(type="t.unknown", strict=True)
    assert caught.value.field == "type"
    assert scene.schedules.all() == []
    added = scene.add()
    with pytest.raises(InvalidSchedule):
        scene.schedules.edit("nightly", {"type": "t.unknown", "expression": HOURLY}, strict=True)
    assert stored(scene) == added


def test_what_a_running_worker_or_the_registry_serves_is_known(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    @handler("local.one", aliases=("local.old",))
    def local(payload: object) -> None: ...

    registry = Registry()
    registry.add(local)
    scene.broker.beat(worker_info(types=(type_info("remote.one", aliases=("remote.old",)),)))
    schedules = JobQueue(scene.broker, scene.storage, registry=registry).schedules
    for job_type in ("local.one", "local.old", "remote.one", "remote.old"):
        schedules.add(job_type, HOURLY, job_type, strict=True)
    schedules.edit("local.one", {"type": "remote.one"}, strict=True)
    schedules.edit("local.one", {"payload": 1}, strict=True)
    assert caplog.messages == []


def test_a_strict_edit_of_something_else_does_not_ask_for_the_type(scene: Scene) -> None:
    scene.add(type="t.unknown")
    assert scene.schedules.edit("nightly", {"payload": 1}, strict=True).payload_json == b"1"


# Ask -----------------------------------------------------------------------------------------------------------------------------------


def test_schedules_are_listed_by_name(scene: Scene) -> None:
    added = {name: scene.add(name) for name in ("b", "a", "c")}
    assert scene.schedules.all() == [added["a"], added["b"], added["c"]]


UNKNOWN_NAME: list[Callable[[Scene, str], object]] = [
    lambda scene, name: scene.schedules.get(name),
    lambda scene, name: scene.schedules.next_runs(name),
    lambda scene, name: scene.schedules.runs(name),
    lambda scene, name: scene.schedules.edit(name, {"payload": 1}),
    lambda scene, name: scene.schedules.edit(name, {"type": "x"}),
    lambda scene, name: scene.schedules.pause(name),
    lambda scene, name: scene.schedules.resume(name),
    lambda scene, name: scene.schedules.remove(name),
    lambda scene, name: scene.schedules.run(name),
]


@pytest.mark.parametrize("name", ["other", "", "' OR 1=1", "a\u0000", "x" * 200])
def test_what_is_not_there_is_not_found(scene: Scene, name: str) -> None:
    scene.add()
    for ask in UNKNOWN_NAME:
        with pytest.raises(JobNotFound) as caught:
            ask(scene, name)
        assert (caught.value.what, caught.value.name) == ("schedule", name)
    assert scene.broker.created == []


def test_the_next_runs_are_the_ticks_to_come(scene: Scene) -> None:
    scene.add(expression="30 3 * * *", timezone="Europe/Berlin")
    assert scene.schedules.next_runs("nightly", 3) == [datetime(2030, 1, day, 2, 30, tzinfo=UTC) for day in (2, 3, 4)]
    assert len(scene.schedules.next_runs("nightly")) == 10
    scene.clock.advance(2 * DAY)
    assert scene.schedules.next_runs("nightly", 1) == [datetime(2030, 1, 4, 2, 30, tzinfo=UTC)]


def test_next_runs_lie_between_start_and_end(scene: Scene) -> None:
    scene.add(expression=HOURLY, start=NOON + 5 * HOUR, end=NOON + 7 * HOUR)
    assert scene.schedules.next_runs("nightly") == [NOON + hours * HOUR for hours in (5, 6, 7)]
    scene.clock.advance(7 * HOUR)
    assert scene.schedules.next_runs("nightly") == []


def test_one_that_is_paused_shows_when_it_would_be_due(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    paused = scene.schedules.pause("nightly")
    assert paused.to_dict()["next_run"] is None
    assert scene.schedules.next_runs("nightly", 2) == [NOON + HOUR, NOON + 2 * HOUR]


def test_a_preview_shows_what_a_schedule_would_do_and_stores_nothing(scene: Scene) -> None:
    found = scene.schedules.preview("30 3 * * *", timezone="Asia/Kolkata", count=2, start=NOON + 5 * DAY)
    assert found == [datetime(2030, 1, day, 22, 0, tzinfo=UTC) for day in (6, 7)]
    assert scene.schedules.preview(HOURLY, end=NOON + HOUR) == [NOON + HOUR]
    assert scene.schedules.preview(HOURLY, end=NOON) == []
    assert len(scene.schedules.preview(EACH_SECOND, count=500)) == 500
    assert scene.schedules.all() == []


# Pause and resume ----------------------------------------------------------------------------------------------------------------------


def test_a_paused_schedule_fires_nothing_and_starts_again_with_the_next_tick(scene: Scene) -> None:
    scene.add(misfire="all")
    scene.pass_time(2 * SECOND)
    paused = scene.schedules.pause("nightly")
    assert (paused.fires, paused.enabled, paused.paused, paused.to_dict()["enabled"]) == (False, True, True, False)
    scene.pass_time(3 * SECOND)
    resumed = scene.schedules.resume("nightly")
    assert (resumed.fires, resumed.next_run, resumed.to_dict()["enabled"]) == (True, NOON + 6 * SECOND, True)
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == [*seconds(1, 2), *seconds(6, 7)]


def test_a_disabled_schedule_fires_nothing_until_it_is_resumed(scene: Scene) -> None:
    added = scene.add(enabled=False, misfire="all")
    assert (added.fires, added.to_dict()["next_run"]) == (False, None)
    scene.pass_time(3 * SECOND)
    assert scene.jobs() == []
    resumed = scene.schedules.resume("nightly")
    assert (resumed.enabled, resumed.fires, resumed.next_run) == (True, True, NOON + 4 * SECOND)
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == seconds(4, 5)


def test_pause_and_resume_are_harmless_when_it_is_so_already(scene: Scene) -> None:
    added = scene.add(expression=HOURLY)
    scene.clock.advance(90 * MINUTE)
    assert scene.schedules.resume("nightly") == added == stored(scene)  # the tick of one o'clock still counts
    paused = scene.schedules.pause("nightly")
    assert scene.schedules.pause("nightly") == paused == stored(scene)


@pytest.mark.parametrize("before", ["paused", "disabled", "both"])
def test_enabling_by_an_edit_fires_from_then_on_and_never_what_is_past(scene: Scene, before: str) -> None:
    scene.add(enabled=before == "paused", misfire="all")
    if before != "disabled":
        scene.schedules.pause("nightly")
    scene.clock.advance(10 * SECOND)
    edited = scene.schedules.edit("nightly", {"enabled": True})
    assert (edited.fires, edited.next_run) == (True, NOON + 11 * SECOND)
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == seconds(11, 12)


def test_an_edit_of_something_else_leaves_it_paused(scene: Scene) -> None:
    scene.add()
    scene.schedules.pause("nightly")
    assert scene.schedules.edit("nightly", {"expression": HOURLY, "payload": 1}).paused
    assert scene.schedules.edit("nightly", {"enabled": False}).paused


def test_a_schedule_that_is_over_can_be_given_a_new_end(scene: Scene) -> None:
    scene.add(end=NOON + 2 * SECOND)
    scene.pass_time(10 * SECOND)
    assert stored(scene).next_run is None
    scene.schedules.edit("nightly", {"end": None})
    scene.pass_time(SECOND)
    assert scene.ticks() == [*seconds(1, 2), *seconds(11, 11)]


# Remove --------------------------------------------------------------------------------------------------------------------------------


def test_a_removed_schedule_fires_no_more_and_its_jobs_stay(scene: Scene) -> None:
    scene.add()
    scene.pass_time(SECOND)
    scene.schedules.remove("nightly")
    scene.pass_time(3 * SECOND)
    assert scene.schedules.all() == []
    (job,) = scene.jobs()
    found = scene.queue.get(job.id)
    assert found is not None
    assert found.state == JobState.QUEUED


def test_what_was_claimed_before_it_was_removed_still_becomes_a_job(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    scene.schedules.remove("nightly")
    scene.pass_time(10 * SECOND)
    assert scene.ticks() == seconds(1, 1)


def test_a_removed_name_may_be_used_again(scene: Scene) -> None:
    scene.add()
    scene.pass_time(2 * SECOND)
    scene.schedules.remove("nightly")
    fresh = scene.add(type="new")
    assert (fresh.last_run, fresh.last_job_id, fresh.next_run) == (None, None, NOON + 3 * SECOND)
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == seconds(1, 4)


# All of them ---------------------------------------------------------------------------------------------------------------------------


def test_each_action_is_logged_with_who_did_it(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    schedules = scene.queue.operations.acting_as("cli:ada").schedules
    with caplog.at_level(logging.INFO, logger="jobqueue"):
        schedules.add("nightly", HOURLY, "t", {"secret": "no"})
        schedules.edit("nightly", {"payload": {"secret": "hush"}})
        schedules.pause("nightly")
        schedules.resume("nightly")
        schedules.run("nightly")
        schedules.remove("nightly")
    done = [(one.getMessage(), getattr(one, "fields", {})) for one in caplog.records if one.levelno == logging.INFO]
    assert [message for message, _fields in done] == [f"schedule {what}" for what in ("added", "edited", "paused", "resumed", "run", "removed")]
    assert all(fields["actor"] == "cli:ada" and fields["schedule"] == "nightly" for _message, fields in done)
    assert "no" not in str(done)
    assert "hush" not in str(done)


def test_the_fields_that_can_be_edited_are_the_arguments_of_add(scene: Scene) -> None:
    import inspect

    arguments = set(inspect.signature(scene.schedules.add).parameters) - {"name", "strict"}
    assert set(FIELDS) == arguments
    assert set(FIELDS) - {"payload"} <= set(Schedule.__struct_fields__)


# What cannot be read -------------------------------------------------------------------------------------------------------------------


def test_a_schedule_of_another_release_that_cannot_be_read_is_still_listed_and_removed(scene: Scene) -> None:
    scene.add()
    broken = replace(stored(scene), expression="no", next_run=NOON)
    assert scene.storage.put_schedule(broken, expected_version=stored(scene).version)
    assert [one.expression for one in scene.schedules.all()] == ["no"]
    with pytest.raises(InvalidSchedule):
        scene.schedules.next_runs("nightly")
    assert scene.schedules.edit("nightly", {"payload": 1}).expression == "no"
    assert scene.schedules.run("nightly").payload == 1
    scene.schedules.remove("nightly")
    assert scene.schedules.all() == []


def test_a_schedule_whose_row_is_damaged_can_be_removed(scene: Scene, tmp_path: Path) -> None:
    scene.add()
    with sqlite3.connect(tmp_path / "jobqueue.db") as connection:
        connection.execute("UPDATE schedules SET record = x'c1c1'")
    connection.close()
    with pytest.raises(IncompatibleData, match="'nightly'"):
        scene.schedules.get("nightly")
    scene.schedules.remove("nightly")
    assert scene.add().name == "nightly"

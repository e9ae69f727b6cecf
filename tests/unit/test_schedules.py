"""What can be done with schedules (``queue.schedules``): each action with its refusals, after which nothing is half done."""

from __future__ import annotations

import itertools
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds

from jobqueue_core import Conflict, InvalidJob, InvalidPayload, JobNotFound, JobQueue, JobState
from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, InvalidSchedule, QueueFull, StorageUnavailable
from jobqueue_core.handlers import Registry, handler
from jobqueue_core.job import Priority
from jobqueue_core.scheduling.definition import FIELDS
from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import type_info, worker_info

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HOURLY = "0 * * * *"
NAIVE = NOON.replace(tzinfo=None)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        yield scene


def stored(scene: Scene, name: str = "nightly") -> Schedule:
    """What stands in storage."""
    found = scene.storage.schedule(name)
    assert found is not None
    return found


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


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "x" * 100])
def test_a_legal_name(scene: Scene, name: str) -> None:
    assert scene.add(name).name == name


@pytest.mark.parametrize("name", ["", "x" * 101, ".a", "-a", "_a", "a b", "a/b", "ä", "a\n", "a\u0000", "٣", None, 7, b"a"], ids=repr)
def test_an_illegal_name_is_refused(scene: Scene, name: Any) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        scene.add(name)
    assert caught.value.field == "name"
    assert scene.schedules.all() == []


WRONG: list[tuple[str, Any, str]] = [
    ("expression", "61 * * * *", "61"),
    ("expression", "* * * *", "4 fields"),
    ("expression", "0 0 0 * * * 2031", "7 fields"),
    ("expression", "", "empty"),
    ("expression", "@reboot", "@reboot"),
    ("expression", "@every 5m", "@every"),
    ("expression", "H * * * *", "h"),
    ("expression", "R * * * *", "r"),
    ("expression", "0 0 31 2 *", "never"),
    ("expression", "0 0 30 feb *", "never"),
    ("expression", "0 0 31 4,6,9,11 *", "never"),
    ("expression", None, "text"),
    ("expression", 5, "text"),
    ("timezone", "Europe/Berln", "Europe/Berlin"),
    ("timezone", "", "''"),
    ("timezone", "../../etc/passwd", "passwd"),
    ("timezone", "/etc/localtime", "localtime"),
    ("timezone", None, "text"),
    ("type", "", ""),
    ("type", "a b", "a b"),
    ("type", None, ""),
    ("payload", ..., "ellipsis"),
    ("payload", float("nan"), ""),
    ("payload", "\ud800", ""),
    ("payload", {"a": ...}, ""),
    ("queue", "no queue!", "no queue!"),
    ("queue", "", ""),
    ("priority", "urgent", "critical, high, medium, low"),
    ("priority", 1, "critical"),
    ("max_retries", -1, "from 0"),
    ("max_retries", 1.5, "whole number"),
    ("max_retries", True, "whole number"),
    ("timeout", "0s", "longer than zero"),
    ("timeout", "soon", "soon"),
    ("timeout", -SECOND, ""),
    ("enabled", "yes", "true or false"),
    ("enabled", None, "true or false"),
    ("misfire", "twice", "once, skip, all"),
    ("misfire", None, "once, skip, all"),
    ("misfire_limit", 0, "1 to 1000"),
    ("misfire_limit", 1001, "1 to 1000"),
    ("misfire_limit", True, "1 to 1000"),
    ("misfire_limit", "5", "1 to 1000"),
    ("overlap", "wait", "allow, skip"),
    ("overlap", ["skip"], "allow, skip"),
    ("jitter", "-5s", "-5s"),
    ("jitter", "much", "much"),
    ("jitter", -SECOND, ""),
    ("start", NAIVE, "time zone"),
    ("start", "2030-01-01", "str"),
    ("end", NAIVE + 300 * DAY, "time zone"),
    ("end", NOON - SECOND, ""),
    ("end", NOON + SECOND, ""),
    ("start", datetime(9999, 12, 31, 23, tzinfo=timezone(-2 * HOUR)), "9999"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG, ids=lambda one: f"{one!r:.30}")
def test_a_wrong_value_is_refused_with_its_field_and_reason(scene: Scene, field: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        scene.schedules.add(**{"name": "nightly", "expression": HOURLY, "type": "t", field: value})
    assert caught.value.field.split(".")[0].split("[")[0] == field
    assert reason.lower() in caught.value.problem.lower()
    assert "\n" not in str(caught.value)
    assert scene.schedules.all() == []


def test_an_end_before_the_start_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidSchedule, match="before the start") as caught:
        scene.add(start=NOON + 2 * HOUR, end=NOON + HOUR)
    assert caught.value.field == "end"
    assert scene.schedules.all() == []


def test_a_schedule_may_have_one_tick_only(scene: Scene) -> None:
    at = NOON + HOUR
    assert scene.add(expression=HOURLY, start=at, end=at).next_run == at


def test_a_payload_has_the_limit_of_any_job(scene: Scene) -> None:
    queue = JobQueue(scene.broker, scene.storage, max_payload=100)
    queue.schedules.add("fits", HOURLY, "t", "x" * 98)
    with pytest.raises(InvalidSchedule) as caught:
        queue.schedules.add("too.big", HOURLY, "t", "x" * 99)
    assert caught.value.field == "payload"
    deep: Any = None
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InvalidSchedule):
        scene.add(payload=deep)


def test_refusals_are_invalid_jobs_for_who_catches_those(scene: Scene) -> None:
    assert issubclass(InvalidSchedule, InvalidJob)
    assert not issubclass(InvalidSchedule, InvalidPayload)
    with pytest.raises(ValueError, match="expression: "):
        scene.add(expression="no")


@pytest.mark.parametrize("jitter", ["1000d", timedelta.max], ids=str)
def test_a_jitter_that_cannot_be_waited_for_is_refused_or_harmless(scene: Scene, jitter: Any) -> None:
    scene.add("fine")
    try:
        scene.add(jitter=jitter)
    except InvalidSchedule as error:
        assert error.field == "jitter"
    scene.pass_time(3 * SECOND)
    assert scene.ticks("fine") == seconds(1, 3)


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


@pytest.mark.parametrize("count", [0, -1, 501, 10**9])
def test_how_many_is_limited(scene: Scene, count: int) -> None:
    scene.add(expression=HOURLY)
    for ask in (
        lambda: scene.schedules.next_runs("nightly", count),
        lambda: scene.schedules.preview(HOURLY, count=count),
        lambda: scene.schedules.runs("nightly", count),
    ):
        with pytest.raises(InvalidSchedule, match="1 to 500"):
            ask()


def test_a_preview_shows_what_a_schedule_would_do_and_stores_nothing(scene: Scene) -> None:
    found = scene.schedules.preview("30 3 * * *", timezone="Asia/Kolkata", count=2, start=NOON + 5 * DAY)
    assert found == [datetime(2030, 1, day, 22, 0, tzinfo=UTC) for day in (6, 7)]
    assert scene.schedules.preview(HOURLY, end=NOON + HOUR) == [NOON + HOUR]
    assert scene.schedules.preview(HOURLY, end=NOON) == []
    assert len(scene.schedules.preview(EACH_SECOND, count=500)) == 500
    assert scene.schedules.all() == []


@pytest.mark.parametrize(("field", "value", "reason"), [one for one in WRONG if one[0] in ("expression", "timezone", "start")], ids=repr)
def test_a_preview_is_refused_as_a_schedule_is(scene: Scene, field: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        scene.schedules.preview(**{"expression": HOURLY, field: value})
    assert caught.value.field == field
    assert reason.lower() in caught.value.problem.lower()


def test_runs_are_the_latest_jobs_and_what_became_of_them(scene: Scene) -> None:
    scene.add(expression="* * * * *")
    scene.pass_time(2 * MINUTE, step=MINUTE)
    scene.finish()
    scene.clock.advance(SECOND)
    by_hand = scene.schedules.run("nightly")
    scene.pass_time(MINUTE, step=MINUTE)
    third, hand, second, first = scene.schedules.runs("nightly")
    jobs = scene.jobs()
    assert [one.job_id for one in (first, second, hand, third)] == [one.id for one in jobs]
    assert [one.due for one in (first, second, third)] == [NOON + at * MINUTE for at in (1, 2, 3)]
    assert hand.due.replace(microsecond=0) == NOON + 2 * MINUTE + SECOND
    assert [one.manual for one in (first, second, hand, third)] == [False, False, True, False]
    assert [one.state for one in (first, second, hand, third)] == [JobState.COMPLETED, JobState.COMPLETED, JobState.QUEUED, JobState.QUEUED]
    assert (hand.job_id, hand.sent, hand.started_at) == (by_hand.id, True, None)
    assert first.to_dict() == {
        "schedule": "nightly",
        "due": "2030-01-01T12:01:00Z",
        "job_id": jobs[0].id,
        "manual": False,
        "sent": True,
        "state": "completed",
        "started_at": "2030-01-01T12:02:00Z",
        "finished_at": "2030-01-01T12:02:00Z",
        "error": None,
    }
    assert scene.schedules.runs("nightly", 2) == [third, hand]


def test_a_run_that_the_broker_has_forgotten_is_told_from_history(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression=HOURLY)
        scene.pass_time(HOUR, step=HOUR)
        scene.finish()
        scene.forget(MINUTE)
        (run,) = scene.schedules.runs("nightly")
        assert (run.state, run.finished_at) == (JobState.COMPLETED, NOON + HOUR)


def test_a_run_that_is_not_sent_yet_says_so(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at_enqueue)))
    (run,) = scene.schedules.runs("nightly")
    assert (run.due, run.sent, run.state) == (NOON + SECOND, False, None)


def killed_at_enqueue(name: str) -> None:
    if name == "enqueue":
        raise Killed


# Edit ----------------------------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [one for one in WRONG if one[:2] not in (("end", NOON - SECOND), ("end", NOON + SECOND))]
    + [
        (field, 1, "not a field")
        for field in ("name", "paused", "source", "next_run", "last_run", "last_job_id", "version", "payload_json", "x", "", "a\nb")
    ],
    ids=lambda one: f"{one!r:.30}",
)
def test_a_wrong_edit_is_refused_and_changes_nothing(scene: Scene, field: str, value: Any, reason: str) -> None:
    before = scene.add(expression=HOURLY)
    for changes in ({field: value, "misfire": "all"}, {"misfire": "all", field: value}) if field != "misfire" else ({field: value},):
        with pytest.raises(InvalidSchedule) as caught:
            scene.schedules.edit("nightly", changes)
        assert caught.value.field.split(".")[0].split("[")[0] == field
        assert reason.lower() in caught.value.problem.lower()
    assert stored(scene) == before


def test_start_and_end_must_fit_together_with_what_is_there(scene: Scene) -> None:
    before = scene.add(expression=HOURLY, end=NOON + 5 * HOUR)
    with pytest.raises(InvalidSchedule, match="before the start") as caught:
        scene.schedules.edit("nightly", {"start": NOON + 6 * HOUR})
    assert caught.value.field in ("start", "end")
    assert stored(scene) == before


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
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at_enqueue)))
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


# Run by hand ---------------------------------------------------------------------------------------------------------------------------


def test_a_run_makes_one_job_now_and_keeps_the_timetable(scene: Scene) -> None:
    added = scene.add(expression=HOURLY, payload={"a": 1}, queue="q", priority="low", timeout="9s", max_retries=2, jitter="1h")
    scene.clock.advance(10 * MINUTE)
    job = scene.schedules.run("nightly")
    assert [one.id for one in scene.jobs()] == [job.id]
    assert (job.payload, job.queue, job.priority, job.timeout, job.max_retries) == ({"a": 1}, "q", Priority.LOW, 9 * SECOND, 2)
    assert job.metadata == {"jobqueue.schedule": "nightly"}
    assert (job.state, job.scheduled_at) == (JobState.QUEUED, NOON + 10 * MINUTE)
    found = stored(scene)
    assert (found.next_run, found.last_job_id) == (added.next_run, job.id)
    assert found.last_run is not None
    assert found.last_run.replace(microsecond=0) == NOON + 10 * MINUTE
    scene.pass_time(10 * SECOND)
    assert len(scene.jobs()) == 1
    scene.pass_time(50 * MINUTE, step=10 * MINUTE)
    assert len(scene.jobs()) == 2


@pytest.mark.parametrize("how", ["paused", "disabled", "over"])
def test_a_schedule_that_does_not_fire_can_be_run(scene: Scene, how: str) -> None:
    scene.add(enabled=how != "disabled", end=NOON + SECOND if how == "over" else None)
    if how == "paused":
        scene.schedules.pause("nightly")
    if how == "over":
        scene.pass_time(2 * SECOND)
    before = stored(scene)
    job = scene.schedules.run("nightly")
    assert scene.jobs()[-1].id == job.id
    assert (stored(scene).next_run, stored(scene).fires) == (before.next_run, before.fires)


def test_each_run_makes_a_job_of_its_own(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    ids = []
    for _ in range(3):
        scene.clock.advance(SECOND / 1000)
        ids.append(scene.schedules.run("nightly").id)
    assert [one.id for one in scene.jobs()] == ids
    assert len(set(ids)) == 3


def test_two_runs_at_the_same_moment_are_two(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    assert scene.schedules.run("nightly").id != scene.schedules.run("nightly").id
    assert len(scene.jobs()) == 2


def test_a_run_at_the_very_moment_of_a_tick_does_not_take_its_place(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)
    by_hand = scene.schedules.run("nightly")
    scene.pass_time(2 * SECOND)
    assert scene.jobs()[0].id == by_hand.id
    assert [job.metadata.get("jobqueue.tick") for job in scene.jobs()] == [None, *(f"2030-01-01T12:00:0{at}Z" for at in (1, 2, 3))]


def test_a_run_while_the_last_job_has_not_ended_is_refused_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip", expression=HOURLY)
    first = scene.schedules.run("nightly")
    scene.clock.advance(MINUTE)
    before = stored(scene)
    with pytest.raises(Conflict, match=first.id) as caught:
        scene.schedules.run("nightly")
    assert caught.value.code == "still_running"
    assert (stored(scene), len(scene.jobs())) == (before, 1)
    scene.finish()
    scene.schedules.run("nightly")
    assert len(scene.jobs()) == 2


def test_a_tick_does_not_fire_beside_a_run_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.clock.advance(SECOND / 2)
    scene.schedules.run("nightly")
    scene.pass_time(3 * SECOND)
    assert len(scene.jobs()) == 1
    scene.finish()
    scene.pass_time(SECOND)
    assert len(scene.jobs()) == 2


def test_of_two_runs_at_once_one_is_refused_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip")

    def meanwhile(name: str) -> None:
        if name == "claim_ticks":
            storage.before = lambda _name: None
            scene.schedules.run("nightly")
            scene.clock.advance(SECOND / 10)

    storage = Wrapped(scene.storage, before=meanwhile)
    with pytest.raises(Conflict) as caught:
        JobQueue(scene.broker, storage).schedules.run("nightly")
    assert caught.value.code == "still_running"
    assert len(scene.jobs()) == 1


def test_a_run_beside_a_tick_makes_two_jobs(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(1.5 * SECOND)

    def meanwhile(name: str) -> None:
        if name == "claim_ticks":
            storage.before = lambda _name: None
            scene.turn()

    storage = Wrapped(scene.storage, before=meanwhile)
    JobQueue(scene.broker, storage).schedules.run("nightly")
    assert [job.metadata.get("jobqueue.tick") for job in scene.jobs()] == ["2030-01-01T12:00:01Z", None]


@pytest.mark.parametrize(
    "failure", [BrokerUnavailable("away", maybe_accepted=False), BrokerUnavailable("away"), QueueFull("full"), Killed()], ids=repr
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_was_asked_for_comes_even_if_the_broker_fails(scene: Scene, when: str, failure: BaseException) -> None:
    scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "enqueue":
            raise failure

    schedules = JobQueue(Wrapped(scene.broker, **{when: fails}), scene.storage).schedules
    with pytest.raises(Killed if isinstance(failure, Killed) else BrokerUnavailable) as caught:
        schedules.run("nightly")
    if isinstance(caught.value, BrokerUnavailable):
        assert caught.value.maybe_accepted, "who runs it again gets two"
    scene.pass_time(10 * SECOND)
    assert len(scene.jobs()) == 1
    (run,) = scene.schedules.runs("nightly")
    assert (run.job_id, run.sent, run.manual) == (scene.jobs()[0].id, True, True)


def test_a_run_whose_mark_fails_has_run_all_the_same(scene: Scene) -> None:
    scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "mark_sent":
            raise StorageUnavailable("away")

    job = JobQueue(scene.broker, Wrapped(scene.storage, before=fails)).schedules.run("nightly")
    scene.pass_time(10 * SECOND)
    assert [one.id for one in scene.jobs()] == [job.id]
    assert [one.sent for one in scene.schedules.runs("nightly")] == [True]


def test_a_run_that_could_not_be_claimed_leaves_nothing_behind(scene: Scene) -> None:
    before = scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "claim_ticks":
            raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        JobQueue(scene.broker, Wrapped(scene.storage, before=fails)).schedules.run("nightly")
    scene.pass_time(10 * SECOND)
    assert (scene.jobs(), stored(scene)) == ([], before)


def test_a_run_that_froze_and_wakes_late_makes_no_second_job(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression=HOURLY)

        def frozen(name: str) -> None:
            if name == "enqueue":
                scene.pass_time(6 * SECOND)
                scene.finish()
                scene.forget(MINUTE)

        with pytest.raises(BrokerUnavailable):
            JobQueue(Wrapped(scene.broker, before=frozen), scene.storage).schedules.run("nightly")
        scene.pass_time(10 * SECOND)
        assert len(scene.jobs()) == 1


# The config file -----------------------------------------------------------------------------------------------------------------------


def declare(scene: Scene, **schedules: dict[str, Any]) -> None:
    """Start a scheduler whose config file has these."""
    scene.schedules.synchronise({name: {"expression": EACH_SECOND, "type": "t", **fields} for name, fields in schedules.items()})


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


# The rest ------------------------------------------------------------------------------------------------------------------------------


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

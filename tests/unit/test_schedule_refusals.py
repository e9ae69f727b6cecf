"""Values that no schedule may have: each is refused with its field and the reason by add, edit and preview, after which nothing is half done."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from schedule_scene import NOON, SECOND, Scene, seconds
from schedule_trials import DAY, HOUR, HOURLY, open_scene, stored

from jobqueue_core import InvalidJob, InvalidPayload, JobQueue
from jobqueue_core.errors import InvalidSchedule

scene = pytest.fixture(open_scene)


NAIVE = NOON.replace(tzinfo=None)


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


# Names ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "x" * 100])
def test_a_legal_name(scene: Scene, name: str) -> None:
    assert scene.add(name).name == name


@pytest.mark.parametrize("name", ["", "x" * 101, ".a", "-a", "_a", "a b", "a/b", "ä", "a\n", "a\u0000", "٣", None, 7, b"a"], ids=repr)
def test_an_illegal_name_is_refused(scene: Scene, name: Any) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        scene.add(name)
    assert caught.value.field == "name"
    assert scene.schedules.all() == []


# Add -----------------------------------------------------------------------------------------------------------------------------------


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


# Edit ----------------------------------------------------------------------------------------------------------------------------------


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


# Ask -----------------------------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("field", "value", "reason"), [one for one in WRONG if one[0] in ("expression", "timezone", "start")], ids=repr)
def test_a_preview_is_refused_as_a_schedule_is(scene: Scene, field: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        scene.schedules.preview(**{"expression": HOURLY, field: value})
    assert caught.value.field == field
    assert reason.lower() in caught.value.problem.lower()

"""The tables ``[[cron]]`` of the config file: what may stand there, and every problem named with its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from schedule_scene import Scene

from jobqueue_core import ConfigError
from jobqueue_core.options import options_of
from jobqueue_core.plugins import Plugins
from jobqueue_core.scheduling.definition import FIELDS
from jobqueue_core.settings import Settings, load_settings
from jobqueue_core.storage import Schedule
from jobqueue_core.timetable import TimetablePlugin
from jobqueue_cron.entries import CronEntry

HOUR = timedelta(hours=1)


@cache
def installed() -> Plugins:
    return Plugins.load()


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Settings]:
    """Loads a config file with these lines."""

    def load(text: str) -> Settings:
        path = tmp_path / "jobqueue.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path, environ={}, overrides=None, plugins=installed())

    return load


Load = Callable[[str], Settings]


def problems(load: Load, text: str) -> list[str]:
    """What is said of a file, without its name."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert all("jobqueue.toml: " in one for one in caught.value.problems)
    return [one.partition("jobqueue.toml: ")[2] for one in caught.value.problems]


def entry(**lines: str) -> str:
    """A table in which all is right but for *lines*, which are values in TOML."""
    given = {"name": '"nightly"', "expression": '"0 3 * * *"', "type": '"report.make"', **lines}
    return "\n".join(["[[cron]]", *(f"{key} = {value}" for key, value in given.items() if value), ""])


# What may stand there ------------------------------------------------------------------------------------------------------------------


def test_a_file_without_schedules_has_none(load: Load) -> None:
    assert load("").section("cron") == []


def test_the_least_that_must_be_said_is_name_expression_and_type(load: Load) -> None:
    (found,) = load(entry()).section("cron")
    assert found == CronEntry(name="nightly", expression="0 3 * * *", type="report.make")
    fields = found.fields()
    assert {key: value for key, value in fields.items() if value is not None} == {
        "expression": "0 3 * * *",
        "type": "report.make",
        "timezone": "UTC",
        "enabled": True,
        "misfire": "once",
        "misfire_limit": 100,
        "overlap": "allow",
    }


def test_everything_that_can_be_said(load: Load) -> None:
    (found,) = load(
        entry(
            name='"report.night-2"',
            expression='"30 0 3 * * mon-fri"',
            timezone='"Europe/Berlin"',
            payload='{ to = ["a", "b"], deep = { x = 1.5, y = true } }',
            queue='"reports"',
            priority='"low"',
            max_retries="0",
            timeout='"90s"',
            enabled="false",
            misfire='"all"',
            misfire_limit="1000",
            overlap='"skip"',
            jitter='"5s"',
            start="2030-01-01T00:00:00+01:00",
            end="2031-01-01T00:00:00Z",
        )
    ).section("cron")
    assert found == CronEntry(
        name="report.night-2",
        expression="30 0 3 * * mon-fri",
        type="report.make",
        timezone="Europe/Berlin",
        payload={"to": ["a", "b"], "deep": {"x": 1.5, "y": True}},
        queue="reports",
        priority="low",
        max_retries=0,
        timeout=timedelta(seconds=90),
        enabled=False,
        misfire="all",
        misfire_limit=1000,
        overlap="skip",
        jitter=timedelta(seconds=5),
        start=datetime(2030, 1, 1, tzinfo=timezone(HOUR)),
        end=datetime(2031, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("written", "payload"),
    [
        ("", None),
        ('"text ä 😀"', "text ä 😀"),
        ("7", 7),
        ("-0.5", -0.5),
        ("true", True),
        ("[]", []),
        ("[1, [2, { a = 3 }], 'x']", [1, [2, {"a": 3}], "x"]),
        ("{}", {}),
        ("9223372036854775807", 9223372036854775807),
        ("2030-01-01T10:00:00Z", "2030-01-01T10:00:00Z"),
        ("2030-01-01T10:00:00+02:00", "2030-01-01T10:00:00+02:00"),
        ("{ day = 2030-01-01, at = 10:30:00, both = 2030-01-01T10:30:00 }", {"day": "2030-01-01", "at": "10:30:00", "both": "2030-01-01T10:30:00"}),
    ],
)
def test_a_payload_of_any_kind_reaches_storage_as_json(load: Load, tmp_path: Path, written: str, payload: Any) -> None:
    settings = load(entry(payload=written))
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        scene.schedules.synchronise({one.name: one.fields() for one in settings.section("cron")})
        before = scene.schedules.get("nightly")
        assert before.to_dict()["payload"] == payload
        scene.schedules.synchronise({one.name: one.fields() for one in load(entry(payload=written)).section("cron")})
        assert scene.schedules.get("nightly") == before


def test_a_payload_may_be_written_as_a_table_of_its_own(load: Load) -> None:
    text = entry() + '[cron.payload]\nto = "a@b.c"\n[cron.payload.deep]\nx = [1]\n' + entry(name='"other"')
    first, second = load(text).section("cron")
    assert (first.payload, second.payload) == ({"to": "a@b.c", "deep": {"x": [1]}}, None)


def test_an_expression_in_another_plugins_language_is_left_to_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugins, "timetables", lambda _self: {"solar": TimetablePlugin(name="solar", read=lambda expression, _zone: expression)})
    (found,) = load(entry(expression='"solar: sunset"')).section("cron")
    assert found.expression == "solar: sunset"


def test_an_expression_in_a_language_that_nobody_reads_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"cron\[0\].expression: no installed plugin reads expressions of 'solar'; installed: cron"):
        load(entry(expression='"solar: sunset"'))


def test_cron_settings_say_what_schedule_operations_take(load: Load) -> None:
    assert [field.name for field in attrs.fields(CronEntry) if field.name != "name"] != []
    assert set(attrs.fields_dict(CronEntry)) - {"name"} == set(FIELDS) == set(CronEntry(name="n", expression="@daily", type="t").fields())


def test_defaults_are_those_of_a_schedule_that_is_added(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        added = scene.schedules.add("nightly", "@daily", "t")
        scene.schedules.synchronise({"other": CronEntry(name="other", expression="@daily", type="t").fields()})
        declared = scene.schedules.get("other")
    differ = [field for field in Schedule.__struct_fields__ if getattr(added, field) != getattr(declared, field)]
    assert sorted(set(differ) - {"version"}) == ["name", "source"]


def test_every_key_is_explained() -> None:
    assert [one.key for one in options_of(CronEntry) if not one.help] == []


# What may not --------------------------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, str]] = [
    ("name", '"a b"', "'a b'"),
    ("name", '""', "''"),
    ("name", "7", "text"),
    ("name", "", "required"),
    ("expression", "", "required"),
    ("expression", '"61 * * * *"', "61"),
    ("expression", '"* * * *"', "4 fields"),
    ("expression", '"* * * * * * *"', "7 fields"),
    ("expression", '"0 0 31 2 *"', "never"),
    ("expression", '"@reboot"', "@reboot"),
    ("expression", "5", "text"),
    ("timezone", '"Europe/Berln"', "Europe/Berlin"),
    ("timezone", '""', "''"),
    ("type", "", "required"),
    ("type", '"a b"', "a b"),
    ("queue", '"no queue!"', "no queue!"),
    ("queue", "7", "text"),
    ("priority", '"urgent"', "critical"),
    ("max_retries", "-1", "-1"),
    ("max_retries", '"3"', "whole number"),
    ("max_retries", "1.0", "whole number"),
    ("timeout", '"0s"', "longer than zero"),
    ("timeout", '"soon"', "duration"),
    ("timeout", "30", "duration"),
    ("enabled", '"yes"', "true or false"),
    ("enabled", "1", "true or false"),
    ("misfire", '"twice"', '"once", "skip" or "all"'),
    ("misfire_limit", "0", "1 to 1000"),
    ("misfire_limit", "1001", "1 to 1000"),
    ("misfire_limit", "true", "whole number"),
    ("overlap", '"wait"', '"allow" or "skip"'),
    ("jitter", '"-5s"', "duration"),
    ("jitter", "5", "duration"),
    ("start", "2030-01-01T00:00:00", "offset"),
    ("start", "2030-01-01", "offset"),
    ("start", '"2030-01-01T00:00:00Z"', "offset"),
    ("end", "10:00:00", "offset"),
    ("payload", "nan", "nan"),
    ("payload", "[inf]", "inf"),
    ("payload", "{ a = { b = [1, -inf] } }", "inf"),
    ("schedule", '"0 3 * * *"', "unknown key"),
    ("time_zone", '"UTC"', "timezone"),
    ("paused", "true", "unknown key"),
]


@pytest.mark.parametrize(("key", "value", "reason"), WRONG, ids=repr)
def test_what_is_wrong_is_named_with_its_place_and_reason(load: Load, key: str, value: str, reason: str) -> None:
    text = entry(name='"first"') + entry(**{key: value}) + entry(name='"last"')
    (problem,) = problems(load, text)
    place, _, said = problem.partition(": ")
    assert place.split(" = ")[0].startswith(f"cron[1].{key}")
    assert reason in problem
    assert said
    assert "\n" not in problem


def test_what_is_wrong_deep_in_a_payload_is_found_there(load: Load) -> None:
    (problem,) = problems(load, entry(payload="{ a = { b = [1, nan] } }"))
    assert problem.startswith("cron[0].payload.a.b[1]")


def test_an_end_before_the_start_is_refused(load: Load) -> None:
    (problem,) = problems(load, entry(start="2031-01-01T00:00:00Z", end="2030-01-01T00:00:00Z"))
    assert problem.startswith("cron[0].end: ")
    assert "before the start" in problem


def test_every_table_that_is_wrong_is_named_at_once(load: Load) -> None:
    text = (
        entry(name='"a"', expression='"no"')
        + entry(name='"b"')
        + entry(name='"c"', timezone='"Mars/X"')
        + entry(name='"d"', misfire='"x"', extra="1")
    )
    said = problems(load, text)
    assert sorted(one.split(": ")[0].split(" = ")[0] for one in said) == [
        "cron[0].expression",
        "cron[2].timezone",
        "cron[3].extra",
        "cron[3].misfire",
    ]


def test_everything_that_is_wrong_in_one_table_is_named_at_once(load: Load) -> None:
    wrong = {"name": '"a b"', "expression": '"61 * * * *"', "timezone": '"Mars/X"', "type": '"a b"', "queue": '"no queue!"', "priority": '"urgent"'}
    said = problems(load, entry(**wrong, misfire='"x"'))
    assert sorted(one.split(": ")[0].split(" = ")[0] for one in said) == sorted(f"cron[0].{key}" for key in (*wrong, "misfire"))


def test_a_name_is_given_once(load: Load) -> None:
    said = problems(load, entry(name='"a"') + entry(name='"b"') + entry(name='"a"', expression='"@daily"'))
    assert [one for one in said if one.startswith('cron[2].name = "a": ')] == said
    assert "table 0" in said[0]


def test_names_that_differ_in_case_are_two(load: Load) -> None:
    assert [one.name for one in load(entry(name='"a"') + entry(name='"A"')).section("cron")] == ["a", "A"]


@pytest.mark.parametrize("text", ["cron = 5", "[cron]\nname = 'a'", "cron = ['* * * * *']", "cron = [5]"])
def test_what_is_no_array_of_tables_is_refused(load: Load, text: str) -> None:
    (problem,) = problems(load, text)
    assert problem.startswith("cron")


def test_check_says_every_problem_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text(entry(expression='"0 0 31 2 *"') + entry(name='"b"', timezone='"Mars/X"'), encoding="utf-8")
    answer = check(tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    lines = answer.stderr.splitlines()
    assert [line.split("jobqueue.toml: ")[1].split(": ")[0] for line in lines] == ["cron[0].expression", "cron[1].timezone"]
    assert not (tmp_path / "jobqueue.db").exists()


def test_check_is_content_with_what_is_right(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text(entry(payload="{ at = 2030-01-01 }"), encoding="utf-8")
    answer = check(tmp_path, "scheduler")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert [line for line in answer.stdout.splitlines() if line.startswith("role: role=scheduler") and line.endswith("with=cron")]
    assert answer.stdout.endswith("ok\n")


def check(folder: Path, *roles: str) -> subprocess.CompletedProcess[str]:
    """Ask ``jobqueue-run`` what it thinks of the config file in *folder*."""
    environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
    command = [sys.executable, "-m", "jobqueue_core.run", "-c", "jobqueue.toml", "--check", *roles]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=60)

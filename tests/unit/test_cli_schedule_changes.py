"""``jobqueue schedules add`` and ``edit``, on the embedded broker and storage in this process; also of what stands in the config file."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from schedule_commands import Answer, Run, add, code, make_answer, make_run, open_app, stand_in_new_york, stored

from jobqueue_core.app import App

app = pytest.fixture(open_app)
run = pytest.fixture(make_run)
answer = pytest.fixture(make_answer)
in_new_york = pytest.fixture(stand_in_new_york)


UNKNOWN_TYPE = "neither a handler package installed here nor a running worker serves the job type 'report.build'"


def declare(app: App, **names: dict[str, object]) -> None:
    """Schedules that stand in the config file."""
    app.operations.schedules.synchronise({name: {"expression": "0 3 * * *", "type": "report.build", **fields} for name, fields in names.items()})


# Add -----------------------------------------------------------------------------------------------------------------------------------


def test_every_option_of_add_is_stored(answer: Answer, app: App) -> None:
    words = (
        "--timezone Europe/Berlin --queue reports --priority high --max-retries 7 --timeout 90s --misfire all --misfire-limit 5 --overlap skip"
        " --jitter 30s --start 2126-11-25T10:00+01:00 --end 2127-11-25T10:00Z"
    )
    made = answer("add", "nightly", "30 3 * * mon-fri", "report.build", "--payload", '{"a": 1}', *words.split())
    assert made == stored(app)
    wanted = {
        "name": "nightly",
        "expression": "30 3 * * mon-fri",
        "timezone": "Europe/Berlin",
        "type": "report.build",
        "payload": {"a": 1},
        "queue": "reports",
        "priority": "high",
        "max_retries": 7,
        "timeout": "1m30s",
        "enabled": True,
        "misfire": "all",
        "misfire_limit": 5,
        "overlap": "skip",
        "jitter": "30s",
        "start": "2126-11-25T09:00:00Z",
        "end": "2127-11-25T10:00:00Z",
        "source": "dynamic",
        "next_run": "2126-11-26T02:30:00Z",
    }
    assert {name: made[name] for name in wanted} == wanted


def test_add_needs_no_more_than_name_expression_and_type(answer: Answer) -> None:
    made = answer("add", "nightly", "@daily", "report.build")
    wanted = {"timezone": "UTC", "payload": None, "queue": None, "priority": None, "misfire": "once", "overlap": "allow", "jitter": None}
    assert {name: made[name] for name in wanted} == wanted
    assert (made["enabled"], made["start"], made["end"]) == (True, None, None)


def test_a_payload_is_read_from_stdin_or_a_file(run: Run, app: App, tmp_path: Path) -> None:
    run("add", "a", "@daily", "report.build", "--payload", "-", input="[1]")
    (tmp_path / "payload.json").write_text("[2]")
    run("add", "b", "@daily", "report.build", "--payload", f"@{tmp_path / 'payload.json'}")
    assert [stored(app, name)["payload"] for name in "ab"] == [[1], [2]]


@pytest.mark.usefixtures("in_new_york")
def test_add_says_when_it_is_due_by_both_clocks(run: Run) -> None:
    result = run("add", "new-year", "0 0 1 1 *", "report.build", "--timezone", "Asia/Tokyo", "--start", "2126-12-01T00:00Z")
    assert result.stdout == "schedule new-year is added: next 2127-01-01T00:00:00+09:00 JST, here 2126-12-31T10:00:00-05:00 EST\n"


@pytest.mark.usefixtures("in_new_york")
def test_a_time_that_both_clocks_read_alike_is_said_once(run: Run) -> None:
    result = run("add", "x", "0 0 1 1 *", "report.build", "--timezone", "America/New_York", "--start", "2126-12-01T00:00Z")
    assert result.stdout == "schedule x is added: next 2127-01-01T00:00:00-05:00 EST, here the same\n"


def test_a_zone_without_abbreviations_is_told_by_its_offset_alone(run: Run) -> None:
    result = run("add", "x", "0 0 1 1 *", "report.build", "--timezone", "America/Sao_Paulo", "--start", "2126-12-01T00:00Z")
    assert "next 2127-01-01T00:00:00-03:00, here" in result.stdout


def test_one_that_is_added_disabled_says_how_to_start_it(run: Run, app: App) -> None:
    result = run("add", "nightly", "@daily", "report.build", "--disabled")
    assert result.stdout == "schedule nightly is added: it is disabled, see 'jobqueue schedules resume'\n"
    assert (stored(app)["enabled"], stored(app)["paused"]) == (False, False)


def test_a_type_that_nobody_handles_is_a_warning(run: Run, app: App) -> None:
    result = run("add", "nightly", "@daily", "report.build", "--json")
    assert (result.exit_code, result.stderr) == (0, f"warning: schedule 'nightly': {UNKNOWN_TYPE}\n")
    assert json.loads(result.stdout) == stored(app)


@pytest.mark.parametrize("words", ["add other @daily report.build --strict", "edit nightly --type report.build --strict"])
def test_a_type_that_nobody_handles_is_an_error_where_strict(run: Run, app: App, words: str) -> None:
    app.operations.schedules.add("nightly", "@daily", "another.type")
    before = [one.to_dict() for one in app.operations.schedules.all()]
    result = run(*words.split())
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: type: {UNKNOWN_TYPE}\n")
    assert [one.to_dict() for one in app.operations.schedules.all()] == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "61 3 * * *", "a"], "error: expression: "),
        (["x", "0 3 * * *", "a", "--timezone", "Europe/Berln"], "error: timezone: "),
        (["no name", "0 3 * * *", "a"], "is not a schedule name"),
        (["x", "0 3 * * *", "no type"], "is not a job type"),
        (["x", "0 3 * * *", "a", "--queue", "no queue"], "is not a queue name"),
        (["x", "0 3 * * *", "a", "--payload", "{"], "is not JSON"),
        (["x", "0 3 * * *", "a", "--misfire", "never"], "is not one of 'once', 'skip', 'all'"),
        (["x", "0 3 * * *", "a", "--misfire-limit", "0"], "error: misfire_limit: "),
        (["x", "0 3 * * *", "a", "--overlap", "wait"], "is not one of 'allow', 'skip'"),
        (["x", "0 3 * * *", "a", "--jitter", "soon"], "is not a duration"),
        (["x", "0 3 * * *", "a", "--timeout", "0s"], "longer than zero"),
        (["x", "0 3 * * *", "a", "--start", "2126-11-25 10:00"], "add 'Z' for UTC"),
        (["x", "0 3 * * *", "a", "--start", "2127-01-01T00:00Z", "--end", "2126-01-01T00:00Z"], "is before the start"),
        (["x", "0 3 * * *", "a", "--end", "2001-01-01T00:00Z"], "error: end: "),
        (["x", "0 3 * * *"], "Missing argument 'TYPE'"),
        (["x", "0", "3", "*", "*", "*", "a"], "put the expression in quotes"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_schedule_that_is_wrong_is_refused_with_status_2(run: Run, app: App, arguments: list[str], says: str) -> None:
    result = run("add", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert app.operations.schedules.all() == []


def test_a_name_that_is_taken_is_refused(run: Run, app: App) -> None:
    add(app, queue="a")
    result = run("add", "nightly", "@hourly", "report.build", "--json")
    assert (result.exit_code, result.stdout, code(result)) == (1, "", "exists")
    assert (stored(app)["expression"], stored(app)["queue"]) == ("0 3 * * *", "a")


# Edit ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("--expression @hourly", {"expression": "@hourly"}),
        ("--type another.type", {"type": "another.type"}),
        ("--payload null", {"payload": None}),
        ("--timezone Asia/Tokyo", {"timezone": "Asia/Tokyo"}),
        ("--queue mail", {"queue": "mail"}),
        ("--priority low", {"priority": "low"}),
        ("--max-retries 0", {"max_retries": 0}),
        ("--timeout 1h", {"timeout": "1h"}),
        ("--misfire skip", {"misfire": "skip"}),
        ("--misfire-limit 9", {"misfire_limit": 9}),
        ("--overlap allow", {"overlap": "allow"}),
        ("--jitter 1s", {"jitter": "1s"}),
        ("--start 2126-01-01T00:00Z", {"start": "2126-01-01T00:00:00Z"}),
        ("--end 2126-06-01T00:00Z", {"end": "2126-06-01T00:00:00Z"}),
        ("--disable", {"enabled": False}),
        ("--unset queue --unset priority", {"queue": None, "priority": None}),
        ("--unset max-retries", {"max_retries": None}),
        ("--unset timeout --jitter 2s", {"timeout": None, "jitter": "2s"}),
        ("--unset jitter", {"jitter": None}),
        ("--unset start", {"start": None}),
        ("--unset end", {"end": None}),
    ],
)
def test_edit_changes_what_is_given_and_nothing_else(answer: Answer, app: App, words: str, changed: dict[str, object]) -> None:
    soon, late = app.broker.now(), datetime.fromisoformat("2127-01-01T00:00Z")
    options = {"queue": "a", "priority": "high", "max_retries": 3, "timeout": "30s", "misfire": "all", "misfire_limit": 5}
    add(app, payload=[1], timezone="Europe/Berlin", overlap="skip", jitter="5s", start=soon, end=late, **options)
    before = stored(app)
    assert answer("edit", "nightly", *words.split()) == stored(app)
    # When it is due follows from what says so; the version counts edits.
    follows = ("next_run", "version")
    after = {name: value for name, value in stored(app).items() if name not in follows}
    assert after == {name: value for name, value in before.items() if name not in follows} | changed


def test_a_disabled_or_paused_one_is_enabled_by_edit(run: Run, app: App) -> None:
    add(app, "a", enabled=False)
    add(app, "b")
    run("pause", "b")
    for name in "ab":
        assert run("edit", name, "--enable").stdout.startswith(f"schedule {name} is changed: next ")
        assert stored(app, name)["enabled"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "nothing to change"),
        ("--strict", "nothing to change"),
        ("--queue a --unset queue", "cannot be given together"),
        ("--max-retries 0 --unset max-retries", "cannot be given together"),
        ("--unset expression", "is not one of"),
        ("--expression 1", "error: expression: "),
    ],
)
def test_an_edit_that_says_nothing_or_the_wrong_thing_is_refused_with_status_2(run: Run, app: App, words: str, says: str) -> None:
    add(app, queue="b")
    before = stored(app)
    result = run("edit", "nightly", *words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert stored(app) == before


def test_one_that_has_had_its_last_tick_says_so(run: Run, app: App) -> None:
    add(app)
    result = run("edit", "nightly", "--end", "2001-01-01T00:00Z")
    assert result.stdout == "schedule nightly is changed: it is over, and never due again\n"


# The config file -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["edit nightly --queue a", "remove nightly", "resume off"])
def test_what_stands_in_the_config_file_is_to_be_changed_there(run: Run, app: App, words: str) -> None:
    declare(app, nightly={}, off={"enabled": False})
    before = [one.to_dict() for one in app.operations.schedules.all()]
    result = run(*words.split(), "--json")
    assert (result.exit_code, result.stdout, code(result)) == (1, "", "from_config")
    assert "stands in a config file" in result.stderr
    assert [one.to_dict() for one in app.operations.schedules.all()] == before


def test_what_stands_in_the_config_file_may_be_paused_resumed_and_run(answer: Answer, app: App) -> None:
    declare(app, nightly={})
    assert answer("pause", "nightly")["paused"] is True
    assert answer("resume", "nightly")["enabled"] is True
    assert app.queue.get(answer("run", "nightly")["id"]) is not None

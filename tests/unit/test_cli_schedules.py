"""``jobqueue schedules`` on the embedded broker and storage, in this process."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_site import Site
from click.testing import CliRunner, Result
from msgspec.structs import replace

from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root
from jobqueue_cli.session import Cli
from jobqueue_core.app import App
from jobqueue_core.broker import Lease
from jobqueue_core.testing.factories import completed, died

Run = Callable[..., Result]
Answer = Callable[..., Any]

UNKNOWN_TYPE = "neither a handler package installed here nor a running worker serves the job type 'report.build'"
NAMED = ["show", "next", "edit --queue a", "pause", "resume", "run", "remove"]


class _Kept(App):
    """Each command closes the app it was given; a test looks at it after many."""

    def close(self) -> None:
        pass


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "jobqueue.toml").write_text("")
    app = _Kept.from_config(tmp_path / "jobqueue.toml", environ={})
    yield app
    App.close(app)


@pytest.fixture
def run(app: App) -> Run:
    def run(*arguments: str, **options: Any) -> Result:
        root = Root({one.name: one for one in jobqueue_commands()}, cli=Cli(open_app=lambda _path: app))
        return CliRunner().invoke(root, ["schedules", *arguments], prog_name="jobqueue", **options)

    return run


@pytest.fixture
def answer(run: Run) -> Answer:
    """The JSON that a command answers with, once it has succeeded."""

    def answer(*arguments: str) -> Any:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return answer


@pytest.fixture
def in_new_york() -> Iterator[None]:
    """This terminal stands in New York."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def add(app: App, name: str = "nightly", expression: str = "0 3 * * *", **options: Any) -> None:
    app.operations.schedules.add(name, expression, "report.build", **options)


def declare(app: App, **names: dict[str, object]) -> None:
    """Schedules that stand in the config file."""
    app.operations.schedules.synchronise({name: {"expression": "0 3 * * *", "type": "report.build", **fields} for name, fields in names.items()})


def take(app: App, wait: timedelta = timedelta(0)) -> Lease:
    (lease,) = app.broker.lease(["default"], 1, worker_id="w", lease_for=timedelta(seconds=30), wait=wait, suspects=1)
    return lease


def stored(app: App, name: str = "nightly") -> dict[str, Any]:
    return app.operations.schedules.get(name).to_dict()


def code(result: Result) -> str:
    return str(json.loads(result.stderr.splitlines()[-1])["code"])


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


# List and show -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(app: App) -> App:
    """Of each state one."""
    add(app, "active", queue="a")
    add(app, "disabled", enabled=False)
    add(app, "over")
    app.operations.schedules.edit("over", {"end": datetime.fromisoformat("2001-01-01T00:00Z")})
    app.operations.schedules.add("paused", "@hourly", "another.type", queue="a")
    app.operations.schedules.pause("paused")
    return app


def test_list_gives_all_by_name(answer: Answer, four: App) -> None:
    assert answer("list") == [stored(four, name) for name in ("active", "disabled", "over", "paused")]


def test_a_line_of_the_list_says_what_when_and_in_which_state(run: Run, app: App) -> None:
    add(app, timezone="Asia/Tokyo", start=datetime.fromisoformat("2126-12-01T00:00Z"))
    assert run("list").stdout == (
        "nightly\t0 3 * * *\tAsia/Tokyo\treport.build\tactive\t2126-12-01T18:00:00Z\t2126-12-02T03:00:00+09:00 JST\t-\tdynamic\n"
    )


def test_plain_lines_have_as_many_cells_each(run: Run, four: App) -> None:
    run("run", "paused")
    lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert {len(line) for line in lines} == {9}
    assert [line[4] for line in lines] == ["active", "disabled", "over", "paused"] == [line[0] for line in lines]
    assert [line[7] for line in lines] == ["-", "-", "-", stored(four, "paused")["last_run"]]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--state active", ["active"]),
        ("--state paused", ["paused"]),
        ("--state disabled", ["disabled"]),
        ("--state over", ["over"]),
        ("--type another.type", ["paused"]),
        ("--queue a", ["active", "paused"]),
        ("--queue a --state paused", ["paused"]),
        ("--queue b", []),
    ],
)
@pytest.mark.usefixtures("four")
def test_the_list_is_narrowed(answer: Answer, words: str, names: list[str]) -> None:
    assert [one["name"] for one in answer("list", *words.split())] == names


def test_show_gives_the_schedule_its_next_ticks_and_its_latest_runs(answer: Answer, app: App) -> None:
    add(app, timezone="Asia/Tokyo", start=datetime.fromisoformat("2126-12-01T00:00Z"))
    first, second = (answer("run", "nightly")["id"] for _ in range(2))
    app.broker.settle([died(take(app))], worker_id="w")
    shown = answer("show", "nightly")
    next_runs, runs = shown.pop("next_runs"), shown.pop("runs")
    assert shown == stored(app)
    assert next_runs == [{"at": f"2126-12-0{day}T18:00:00Z", "local": f"2126-12-0{day + 1}T03:00:00+09:00"} for day in (1, 2, 3)]
    assert [(one["job_id"], one["state"], one["error"]) for one in runs] == [(second, "queued", None), (first, "dead", "ValueError: no")]


@pytest.mark.usefixtures("in_new_york")
def test_show_is_a_line_for_each_field(run: Run, app: App) -> None:
    add(app, timezone="Asia/Tokyo", start=datetime.fromisoformat("2126-12-01T00:00Z"))
    job = app.operations.schedules.run("nightly")
    fields = dict(line.split("\t") for line in run("show", "nightly").stdout.splitlines())
    assert (fields["name"], fields["state"], fields["timezone"], fields["last_job_id"]) == ("nightly", "active", "Asia/Tokyo", job.id)
    assert fields["next_runs.3"] == "2126-12-04T03:00:00+09:00 JST, here 2126-12-03T13:00:00-05:00 EST"
    assert "next_runs.4" not in fields
    assert fields["runs.1"] == f"{stored(app)['last_run']}  {job.id}  queued  by hand"


def test_one_that_is_not_due_any_more_has_no_next_runs(answer: Answer, run: Run, four: App) -> None:
    assert four.operations.schedules.next_runs("over") == answer("show", "over")["next_runs"] == answer("next", "over") == []
    assert "next_runs\t-\n" in run("show", "over").stdout


@pytest.mark.parametrize("broken", [{"timezone": "Mars/Olympus"}, {"expression": "whenever"}], ids=["zone", "expression"])
def test_one_that_cannot_be_read_any_more_is_listed_and_shown_all_the_same(run: Run, app: App, broken: dict[str, str]) -> None:
    add(app)
    stored = app.operations.schedules.get("nightly")
    assert app.storage.put_schedule(replace(stored, **broken), expected_version=stored.version)
    assert run("list", "--json").exit_code == run("list").exit_code == 0
    shown = run("show", "nightly", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["next_runs"]) == (0, [])
    assert shown.stderr.startswith(f"warning: {next(iter(broken))}: ")
    assert run("next", "nightly").exit_code == 2


# Next ----------------------------------------------------------------------------------------------------------------------------------


def preview(run: Run, expression: str, timezone: str, start: str, count: int) -> list[list[str]]:
    """The lines of ``next``, by cell."""
    result = run("next", "--expression", expression, "--timezone", timezone, "--start", start, "-n", str(count))
    assert result.exit_code == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.mark.parametrize("words", ["next --expression @daily --end 2020-01-01T00:00Z", "next over"])
def test_next_says_where_nothing_is_due_any_more(run: Run, four: App, words: str) -> None:
    result = run(*words.split())
    assert (result.exit_code, result.stdout, "not due any more" in result.stderr) == (0, "", True)


@pytest.mark.usefixtures("in_new_york")
def test_next_shows_how_clocks_are_put_forward(run: Run) -> None:
    assert preview(run, "30 3 * * *", "Europe/Berlin", "2027-03-27T00:00Z", 3) == [
        ["2027-03-27T02:30:00Z", "2027-03-27T03:30:00+01:00 CET", "2027-03-26T22:30:00-04:00 EDT", "-"],
        ["2027-03-28T01:30:00Z", "2027-03-28T03:30:00+02:00 CEST", "2027-03-27T21:30:00-04:00 EDT", "forward 1h: +01:00 -> +02:00"],
        ["2027-03-29T01:30:00Z", "2027-03-29T03:30:00+02:00 CEST", "2027-03-28T21:30:00-04:00 EDT", "-"],
    ]


@pytest.mark.usefixtures("in_new_york")
def test_next_shows_how_clocks_are_put_back_there_and_here(run: Run) -> None:
    assert [line[1:] for line in preview(run, "30 12 * * sun", "Europe/Berlin", "2027-10-24T00:00Z", 3)] == [
        ["2027-10-24T12:30:00+02:00 CEST", "2027-10-24T06:30:00-04:00 EDT", "-"],
        ["2027-10-31T12:30:00+01:00 CET", "2027-10-31T07:30:00-04:00 EDT", "back 1h: +02:00 -> +01:00"],
        ["2027-11-07T12:30:00+01:00 CET", "2027-11-07T06:30:00-05:00 EST", "back 1h: -04:00 -> -05:00 here"],
    ]


@pytest.mark.usefixtures("in_new_york")
def test_clocks_that_are_changed_here_and_there_alike_are_told_once(run: Run) -> None:
    lines = preview(run, "0 12 * * *", "America/New_York", "2027-03-13T00:00Z", 2)
    assert [line[3] for line in lines] == ["-", "forward 1h: -05:00 -> -04:00"]


def test_next_gives_each_tick_in_utc_and_in_the_zone_of_the_schedule(answer: Answer, app: App) -> None:
    add(app, timezone="Europe/Berlin", start=datetime.fromisoformat("2027-03-27T12:00Z"))
    assert answer("next", "nightly", "-n", "2") == [
        {"at": "2027-03-28T01:00:00Z", "local": "2027-03-28T03:00:00+02:00"},
        {"at": "2027-03-29T01:00:00Z", "local": "2027-03-29T03:00:00+02:00"},
    ]


def test_next_gives_ten_ticks_unless_told_otherwise_and_fewer_where_it_ends(answer: Answer, app: App) -> None:
    add(app, "a", start=datetime.fromisoformat("2126-01-01T00:00Z"))
    add(app, "b", start=datetime.fromisoformat("2126-01-01T00:00Z"), end=datetime.fromisoformat("2126-01-03T03:00Z"))
    assert (len(answer("next", "a")), len(answer("next", "b")), len(answer("next", "a", "-n", "500"))) == (10, 3, 500)
    assert [one["at"][:10] for one in answer("next", "b")] == ["2126-01-01", "2126-01-02", "2126-01-03"]


def test_next_of_an_expression_stores_nothing(answer: Answer, app: App) -> None:
    ticks = answer("next", "--expression", "@yearly", "--start", "2126-06-01T00:00Z", "--end", "2127-06-01T00:00Z")
    assert ticks == [{"at": "2127-01-01T00:00:00Z", "local": "2127-01-01T00:00:00+00:00"}]
    assert app.operations.schedules.all() == []


def test_next_of_a_paused_one_says_when_it_would_be_due(answer: Answer, four: App) -> None:
    four.operations.schedules.edit("paused", {"start": datetime.fromisoformat("2126-01-01T00:00Z")})
    assert answer("next", "paused", "-n", "1") == [{"at": "2126-01-01T00:00:00Z", "local": "2126-01-01T00:00:00+00:00"}]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give the name of a schedule, or --expression"),
        (["nightly", "--expression", "@daily"], "give the name of a schedule, or --expression"),
        (["nightly", "--timezone", "UTC"], "go with --expression"),
        (["nightly", "--start", "2126-01-01T00:00Z"], "go with --expression"),
        (["nightly", "-n", "0"], "is not in the range"),
        (["--expression", "whenever"], "error: expression: "),
        (["--expression", "@daily", "--timezone", "Mars/Olympus"], "error: timezone: "),
    ],
)
def test_next_of_what_is_not_clear_is_refused_with_status_2(run: Run, app: App, words: list[str], says: str) -> None:
    add(app)
    result = run("next", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


# Pause, resume, run, remove ------------------------------------------------------------------------------------------------------------


def test_one_is_paused_and_resumed(run: Run, answer: Answer, app: App) -> None:
    add(app)
    assert run("pause", "nightly").stdout == "schedule nightly is paused\n"
    assert (stored(app)["paused"], stored(app)["enabled"], stored(app)["next_run"]) == (True, False, None)
    assert run("resume", "nightly").stdout.startswith("schedule nightly is resumed: next ")
    assert (stored(app)["paused"], stored(app)["enabled"]) == (False, True)
    assert answer("pause", "nightly") == stored(app)
    assert answer("resume", "nightly") == stored(app)


def test_resume_starts_one_that_was_added_disabled(answer: Answer, app: App) -> None:
    add(app, enabled=False)
    assert answer("resume", "nightly")["enabled"] is True


@pytest.mark.parametrize("verb", ["pause", "resume", "remove"])
def test_several_are_acted_on_even_when_one_is_unknown(run: Run, app: App, verb: str) -> None:
    add(app, "a")
    add(app, "b")
    both = run(verb, "a", "b", "--json")
    assert (both.exit_code, [one["name"] for one in json.loads(both.stdout)]) == (0, ["a", "b"])
    if verb == "remove":
        add(app, "b")
    some = run(verb, "no-such-thing", "b", "--json")
    assert (some.exit_code, [one["name"] for one in json.loads(some.stdout)], code(some)) == (1, ["b"], "not_found")
    assert some.stderr.startswith("error: no schedule 'no-such-thing'\n")


def test_run_makes_a_job_now_also_of_a_paused_one(run: Run, app: App) -> None:
    add(app, payload={"a": 1}, priority="high")
    app.operations.schedules.pause("nightly")
    result = run("run", "nightly")
    job = app.queue.get(result.stdout.strip())
    assert job is not None
    assert (job.type, job.payload, job.state, job.priority) == ("report.build", {"a": 1}, "queued", "high")
    assert job.metadata == {"jobqueue.schedule": "nightly"}
    assert (result.exit_code, result.stderr) == (0, "")


def test_run_answers_with_the_job_as_json(answer: Answer, app: App) -> None:
    add(app)
    made = answer("run", "nightly")
    job = app.queue.get(made["id"])
    assert job is not None
    assert made == job.to_dict()


@pytest.mark.parametrize(("settle", "status", "state"), [(completed, 0, "completed"), (died, 1, "dead")])
def test_waiting_shows_the_finished_job_and_fails_unless_it_completed(
    run: Run, app: App, settle: Callable[..., Any], status: int, state: str
) -> None:
    add(app)

    def work() -> None:
        app.broker.settle([settle(take(app, timedelta(seconds=20)))], worker_id="w")

    worker = threading.Thread(target=work)
    worker.start()
    result = run("run", "nightly", "--wait", "--json")
    worker.join()
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (status, state)


def test_waiting_in_vain_fails_and_the_job_goes_on(run: Run, app: App) -> None:
    add(app)
    result = run("run", "nightly", "--wait-timeout", "20ms")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: job {stored(app)['last_job_id']} is still queued")


def test_one_that_must_not_overlap_is_not_run_beside_its_last_job(run: Run, app: App) -> None:
    add(app, overlap="skip")
    first = run("run", "nightly").stdout.strip()
    again = run("run", "nightly", "--json")
    assert (again.exit_code, again.stdout, code(again)) == (1, "", "still_running")
    assert first in again.stderr


def test_remove_does_not_ask_where_nobody_can_answer_and_leaves_jobs_alone(run: Run, app: App) -> None:
    add(app)
    job = app.operations.schedules.run("nightly")
    result = run("remove", "nightly")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "schedule nightly is removed\n", "")
    assert app.operations.schedules.all() == []
    assert app.queue.get(job.id) is not None


def test_remove_answers_with_the_name_as_json(answer: Answer, app: App) -> None:
    add(app)
    assert answer("remove", "nightly") == {"name": "nightly", "removed": True}


@pytest.mark.parametrize(
    ("reply", "words", "removed"), [("y\n", [], True), ("n\n", [], False), ("", [], False), ("", ["--yes"], True)], ids=["y", "n", "end", "--yes"]
)
def test_remove_asks_at_a_terminal(  # noqa: PLR0917 - fixtures and parameters
    run: Run, app: App, monkeypatch: pytest.MonkeyPatch, reply: str, words: list[str], removed: bool
) -> None:
    monkeypatch.setattr(Cli, "confirm", _confirming_as_at_a_terminal)
    add(app, "a")
    add(app, "b")
    result = run("remove", "a", "b", *words, input=reply)
    assert (result.exit_code, app.operations.schedules.all() == []) == ((0, True) if removed else (1, False))
    assert ("Remove 2 schedules?" in result.stderr) is not bool(words)
    assert "Remove" not in result.stdout


def _confirming_as_at_a_terminal(self: Cli, question: str, *, yes: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True)
        CONFIRM(self, question, yes=yes)


CONFIRM = Cli.confirm


# All of them ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", NAMED)
def test_a_name_that_nobody_knows_is_not_found(run: Run, words: str) -> None:
    verb, *options = words.split()
    result = run(verb, "nightly", *options, "--json")
    assert (result.exit_code, result.stdout, code(result)) == (1, "", "not_found")
    assert result.stderr.splitlines()[0] == "error: no schedule 'nightly'"


@pytest.mark.parametrize("words", NAMED)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(run: Run, app: App, words: str) -> None:
    add(app)
    add(app, "weekly")
    verb, *options = words.split()
    result = run(verb, "nigthly", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: no schedule 'nigthly': did you mean 'nightly'?\n")


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "run", "remove"])
def test_a_command_without_a_name_is_refused_with_status_2(run: Run, verb: str) -> None:
    result = run(verb)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing argument 'NAME" in result.stderr


def test_what_is_done_is_logged_under_the_users_name(run: Run, app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    add(app)
    with caplog.at_level("INFO", logger="jobqueue.operations"):
        run("pause", "nightly")
    done = [record for record in caplog.records if record.name == "jobqueue.operations"]
    assert [(one.getMessage(), one.fields["actor"]) for one in done] == [("schedule paused", "cli:ada")]  # type: ignore[attr-defined]  # an extra


def test_it_works_in_an_empty_folder_and_config_and_json_may_stand_anywhere(tmp_path: Path) -> None:
    here, there = Site(tmp_path / "here"), tmp_path / "there"
    here.folder.mkdir()
    there.mkdir()
    (there / "jobqueue.toml").write_text("")
    config = str(there / "jobqueue.toml")
    assert here.json("schedules", "add", "a", "@daily", "x.y")["name"] == "a"
    for before, between, after in ((["--json", "-c", config], [], []), ([], ["-c", config, "--json"], []), ([], [], ["--json", "-c", config])):
        done = here.call(*before, "schedules", *between, "list", *after)
        assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.call("schedules", "add", "nightly", "0 3 1 1 *", "x.y")
    status, shown = site.at_a_terminal("schedules", "list")
    assert (status, shown.split()[:4]) == (0, ["NAME", "EXPRESSION", "ZONE", "TYPE"])
    assert " in " in shown.splitlines()[1]
    site.call("schedules", "pause", "nightly")
    status, shown = site.at_a_terminal("schedules", "next", "nightly", "-n", "1")
    assert shown.splitlines()[0] == "schedule nightly is paused: this is when it would be due"

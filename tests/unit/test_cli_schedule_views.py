"""``jobqueue schedules list``, ``show`` and ``next``, on the embedded broker and storage in this process."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from msgspec.structs import replace
from schedule_commands import Answer, Run, add, make_answer, make_run, open_app, stand_in_new_york, stored, take

from jobqueue_core.app import App
from jobqueue_core.testing.factories import died

app = pytest.fixture(open_app)
run = pytest.fixture(make_run)
answer = pytest.fixture(make_answer)
in_new_york = pytest.fixture(stand_in_new_york)


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


# List and show -------------------------------------------------------------------------------------------------------------------------


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

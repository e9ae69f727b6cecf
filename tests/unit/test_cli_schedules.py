"""``jobqueue schedules pause``, ``resume``, ``run`` and ``remove``, and what all its commands share, mostly in this process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_site import Site
from schedule_commands import Answer, Run, add, code, make_answer, make_run, open_app, stored, take

from jobqueue_cli.session import Cli
from jobqueue_core.app import App
from jobqueue_core.testing.factories import completed, died

app = pytest.fixture(open_app)
run = pytest.fixture(make_run)
answer = pytest.fixture(make_answer)


NAMED = ["show", "next", "edit --queue a", "pause", "resume", "run", "remove"]


# Pause and resume ----------------------------------------------------------------------------------------------------------------------


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


# Run -----------------------------------------------------------------------------------------------------------------------------------


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


# Remove --------------------------------------------------------------------------------------------------------------------------------


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

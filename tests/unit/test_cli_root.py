"""The command ``jobqueue`` as a whole: what it lists, where its options may stand, and what it says when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from jobqueue_cli import main as script
from jobqueue_cli.plugin import jobqueue_commands
from jobqueue_cli.root import Root, share_options
from jobqueue_cli.session import Cli
from jobqueue_core import (
    BrokerUnavailable,
    ConfigError,
    InvalidJob,
    JobNotFound,
    JobQueueError,
    PluginError,
    QueueFull,
    StorageUnavailable,
    WaitTimeout,
)
from jobqueue_core.errors import Conflict
from jobqueue_core.service import CommandPlugin

DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

Run = Callable[..., Result]


@click.group()
def outside() -> None:
    """A command of another plugin."""


@outside.command()
@click.pass_obj
def echo(cli: Cli) -> None:
    cli.answer({"config": str(cli._config)}, f"config {cli._config}")


@outside.command()
@click.option("--with", "kind", required=True)
def fail(kind: str) -> None:
    raise ERRORS[kind][0]


ERRORS: Mapping[str, tuple[BaseException, int, str]] = {
    "config": (ConfigError(["a.toml: one", "a.toml: two"]), 2, "config"),
    "plugin": (PluginError("is broken", plugin="p"), 2, "plugin"),
    "job": (InvalidJob("limit", "is too high"), 2, "invalid_job"),
    "not found": (JobNotFound("job", "x"), 1, "not_found"),
    "conflict": (Conflict("it has finished", code="finished"), 1, "finished"),
    "wait": (WaitTimeout("it goes on"), 1, "timeout"),
    "broker": (BrokerUnavailable("no answer"), 1, "broker_unavailable"),
    "full": (QueueFull("no room"), 1, "queue_full"),
    "storage": (StorageUnavailable("no answer"), 1, "storage_unavailable"),
    "other": (JobQueueError("whatever"), 1, "failed"),
    "abort": (click.Abort(), 1, "aborted"),
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("outside_commands")
    module.__dict__.update(outside=outside, nothing=7)
    monkeypatch.setitem(sys.modules, "outside_commands", module)


@pytest.fixture
def run(modules: None) -> Run:
    def plugin(name: str, target: str) -> CommandPlugin:
        return CommandPlugin(name=name, help=f"What {name} does.", target=target)

    offered = [
        plugin("outside", "outside_commands:outside"),
        plugin("absent", "no_such_module_anywhere:command"),
        plugin("number", "outside_commands:nothing"),
        *jobqueue_commands(),
    ]

    def run(*arguments: str, **options: Any) -> Result:
        root = Root({one.name: one for one in offered}, **options)
        return CliRunner().invoke(root, arguments, prog_name="jobqueue")

    return run


def test_help_lists_every_command_without_importing_any(run: Run) -> None:
    answer = run("--help")
    assert answer.exit_code == 0
    assert "What absent does." in answer.stdout
    assert "Enqueue one job." in answer.stdout


def test_no_command_shows_the_help_on_stderr_and_is_a_usage_error(run: Run) -> None:
    answer = run()
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert "Commands:" in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "a.toml", "--json", "outside", "echo"],
        ["outside", "-c", "a.toml", "--json", "echo"],
        ["outside", "echo", "-c", "a.toml", "--json"],
        ["--json", "outside", "--config", "b.toml", "echo", "--config=a.toml"],
    ],
    ids=" ".join,
)
def test_the_shared_options_may_stand_before_and_after_every_word_of_another_plugins_command(run: Run, arguments: list[str]) -> None:
    answer = run(*arguments)
    assert json.loads(answer.stdout) == {"config": "a.toml"}


def test_a_command_with_a_c_option_of_its_own_keeps_it() -> None:
    command = click.Command("own", params=[click.Option(["-c", "--count"])])
    share_options(command)
    assert [one.opts for one in command.params] == [["-c", "--count"], ["--json"]]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_one_line_for_each_problem_and_as_json_an_object_with_its_code(run: Run, kind: str) -> None:
    error, status, code = ERRORS[kind]
    answer = run("outside", "fail", "--with", kind, "--json")
    *lines, last = answer.stderr.splitlines()
    assert answer.exit_code == status
    assert answer.stdout == ""
    assert [line[:7] for line in lines] == ["error: "] * len(getattr(error, "problems", [error]))
    assert json.loads(last)["code"] == code


def test_an_error_in_plain_text_is_no_json(run: Run) -> None:
    assert run("outside", "fail", "--with", "not found").stderr == "error: no job 'x'\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["outside", "nonsense"], "No such command 'nonsense'"),
        (["outside", "echo", "--nonsense"], "No such option"),
        (["outside", "fail"], "Missing option '--with'"),
        (["jobs", "--state", "asleep"], "'asleep' is not one of"),
        (["jobs", "--limit", "0"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_that_names_the_help_and_exits_with_2(run: Run, arguments: list[str], says: str) -> None:
    answer = run(*arguments, "--json")
    line, as_json = answer.stderr.splitlines()
    assert answer.exit_code == 2
    assert line.startswith("error: ")
    assert says in line
    assert "--help'" in line
    assert json.loads(as_json)["code"] == "usage"


def test_an_unknown_command_may_belong_to_a_broken_plugin(run: Run) -> None:
    assert "jobqueue plugins" in run("nonsense", faults=lambda: ["plugin 'x': broken"]).stderr
    assert "jobqueue plugins" not in run("nonsense").stderr


@pytest.mark.parametrize(("name", "says"), [("absent", "no_such_module_anywhere"), ("number", "is no click command")])
def test_a_command_that_cannot_be_imported_names_its_target(run: Run, name: str, says: str) -> None:
    answer = run(name)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: plugin '{name}'")
    assert says in answer.stderr


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = ZeroDivisionError("a bug")
    monkeypatch.setattr(Cli, "answer", lambda *_: (_ for _ in ()).throw(bug))
    assert run("outside", "echo").exception is bug


def test_without_click_the_script_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    for module in [name for name in sys.modules if name.startswith("jobqueue_cli.") and name != "jobqueue_cli.main"]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit) as exit_:
        script.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "the command 'jobqueue' needs the extra 'cli': pip install 'jobqueue[cli]'\n"


def test_the_page_about_the_command_names_every_command_and_option(run: Run) -> None:
    text = DOCS.read_text()
    root = Root({one.name: one for one in jobqueue_commands()})
    missing = [f"{path} {word}" for path, command in commands(root) for word in words(path, command) if word not in text]
    assert missing == []


def commands(group: click.Group, path: str = "jobqueue") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def words(path: str, command: click.Command) -> Iterator[str]:
    yield path
    for parameter in command.params:
        yield from (text for text in parameter.opts if text.startswith("--"))

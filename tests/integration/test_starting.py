"""What keeps ``jobqueue-run`` from starting, and what ``--check`` says."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
TERM = signal.SIGTERM


def test_a_role_that_cannot_be_used_stops_everything_with_status_2(start: Start, home: Path) -> None:
    (home / "plain").write_text("unusable")
    command = start("busy", "plain")

    assert command.exit_status() == 2
    assert "jobqueue-run: plugin 'dummy': it lacks its driver; install jobqueue[dummy]\n" in command.errors
    assert all(not command.alive(note["pid"]) for note in command.notes("up"))


def test_a_broken_handler_package_keeps_a_role_with_handlers_from_starting(start: Start, home: Path) -> None:
    with (home / "site" / "dummy-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("[jobqueue.handlers]\nshop = no_such_module\n")
    command = start("busy")

    assert command.exit_status() == 2
    assert re.search(r"^jobqueue-run: .*no_such_module", command.errors, re.MULTILINE)
    assert not command.notes("up")


def test_a_broken_handler_package_is_nothing_to_a_role_without_handlers(start: Start, home: Path) -> None:
    with (home / "site" / "dummy-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("[jobqueue.handlers]\nshop = no_such_module\n")
    command = start("plain")
    command.up("plain")

    command.signal(TERM, role="plain")

    assert command.exit_status() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plian"], r"unknown role 'plian'; did you mean 'plain'\?"),
        (["inner"], r"role 'inner' runs by itself"),
        (["front", "plain"], r"role 'front' needs the terminal and runs alone"),
        (["--set", "worker.concurrency"], r"--set 'worker.concurrency': must be SECTION.KEY=VALUE"),
        (["--concurrency", "many"], r"worker.concurrency = \"many\": must be a whole number"),
        (["--set", "broker.plugin=nosuch"], r"broker.plugin = \"nosuch\": no installed plugin"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_is_wrong_is_said_on_a_line_of_its_own_with_status_2(start: Start, arguments: list[str], message: str, check: bool) -> None:
    command = start(*arguments, *(["--check"] if check else []))

    assert command.exit_status() == 2
    assert re.search(f"^jobqueue-run: .*{message}", command.errors, re.MULTILINE)
    assert not command.output


def test_check_says_what_would_run_and_starts_nothing(start: Start) -> None:
    command = start("busy", "plain", "--check", "--concurrency", "3", "--queues", "mail, default", "--processes", "2")

    assert command.exit_status() == 0
    assert "role: role=busy processes=2 queues=mail,default concurrency=3\n" in command.output
    assert "role: role=plain processes=1\n" in command.output
    assert command.output.endswith("ok\n")
    assert "secret" not in command.output
    assert not command.notes("up")


def test_check_refuses_a_broken_handler_package_once(start: Start, home: Path) -> None:
    with (home / "site" / "dummy-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("[jobqueue.handlers]\nshop = no_such_module\n")
    command = start("busy", "--check")

    assert command.exit_status() == 2
    assert command.errors.count("no_such_module cannot be imported") == 1

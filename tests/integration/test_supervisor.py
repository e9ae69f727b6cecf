"""How children are stopped, replaced and spoken to, with real processes and signals. conftest.py says what runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
TERM, INT = signal.SIGTERM, signal.SIGINT
JOB = "0192f0c4-7a3b-7def-8abc-000000000001"

SUPERVISOR = """
import ctypes, signal, sys
from datetime import timedelta
from pathlib import Path
from jobqueue_core import logs
from jobqueue_core.app import App
from jobqueue_core.supervision.signalpipe import SignalPipe
from jobqueue_core.service import Patience
from jobqueue_core.supervision import supervisor as module
from jobqueue_core.supervision.supervisor import Supervisor

PR_SET_CHILD_SUBREAPER = 36  # as if this were the first process of a container
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
app = App.from_config(Path("jobqueue.toml"))
logs.configure(app.settings.log)
patience = timedelta(seconds={patience})
module._LAST_DELAY, module._STEADY = {last_delay}, {steady}
supervisor = Supervisor(
    app,
    [app.plugins.service(name) for name in sys.argv[1:]],
    arguments=["--config=jobqueue.toml"],
    signals=SignalPipe([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD]),
    patience=Patience(beyond_grace=patience, at_once=patience),
)
sys.exit(supervisor.run())
"""


def supervisor(*, patience: float = 20, last_delay: float = 5, steady: float = 60) -> tuple[str, str]:
    """The command that supervises the roles named, with other times; by default with the product's own."""
    return "-c", SUPERVISOR.format(patience=patience, last_delay=last_delay, steady=steady)


IMPATIENT = supervisor(patience=0.2)


# Stopping ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [TERM, INT])
def test_one_signal_stops_gracefully_with_status_0(start: Start, number: signal.Signals) -> None:
    command = start("plain", "busy")
    command.up("plain")
    command.up("busy")

    command.signal(number, role="plain")

    assert command.exit_status() == 0
    assert [note["level"] for note in command.notes("level", role="plain")] == [1]
    assert len(command.notes("down")) == 2
    assert not command.notes("reclaim")


@pytest.mark.parametrize("numbers", [(TERM, TERM), (INT, INT), (TERM, INT), (INT, TERM)])
def test_two_signals_of_either_kind_stop_at_once_with_status_4(start: Start, home: Path, numbers: tuple[signal.Signals, ...]) -> None:
    (home / "plain").write_text("patient")
    command = start("plain")
    command.up("plain")

    command.signal(*numbers, role="plain")

    assert command.exit_status() == 4
    assert [note["level"] for note in command.notes("level", role="plain")] == [1, 2]


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_to_the_whole_group_is_one_graceful_stop(start: Start, number: signal.Signals) -> None:
    command = start("plain", "busy")
    command.up("plain")
    command.up("busy")

    os.killpg(command.process.pid, number)

    assert command.exit_status() == 0
    assert {note["level"] for note in command.notes("level")} == {1}
    assert not command.events("process died")


def test_a_signal_to_the_group_while_children_start_leaves_nothing_behind(start: Start) -> None:
    command = start("plain")
    pid = command.wait_for(lambda: command.events("process started", role="plain"), "a child")[0]["pid"]

    os.killpg(command.process.pid, INT)

    assert command.exit_status() == 0
    assert not command.alive(pid)
    assert "Traceback" not in command.errors


def test_a_signal_while_the_command_itself_starts_is_not_lost(start: Start) -> None:
    command = start("plain")
    blocked = 1 << (TERM - 1)
    status = Path(f"/proc/{command.process.pid}/status")
    command.wait_for(
        lambda: any(int(line.split()[1], 16) & blocked for line in status.read_text().splitlines() if line.startswith(("SigBlk", "SigCgt"))),
        "it to care",
    )

    command.process.send_signal(TERM)

    assert command.exit_status() == 0


def test_abandoned_handlers_make_status_3(start: Start, home: Path) -> None:
    (home / "plain").write_text("abandons")
    command = start("plain")
    command.up("plain")

    command.signal(TERM, role="plain")

    assert command.exit_status() == 3


@pytest.mark.parametrize(("numbers", "status"), [((TERM,), 3), ((TERM, TERM), 4)])
def test_children_that_hang_are_killed(start: Start, home: Path, numbers: tuple[signal.Signals, ...], status: int) -> None:
    (home / "busy").write_text("hangs")
    command = start("busy", command=IMPATIENT)
    pid = command.up("busy")[0]["pid"]

    command.signal(*numbers, role="busy")

    assert command.exit_status() == status
    assert not command.alive(pid)
    assert command.events("process killed", pid=pid)
    (reclaim,) = command.notes("reclaim")
    assert (reclaim["started"], reclaim["error"]) == ([JOB], "worker lost: killed by jobqueue-run: it did not stop in time")


def test_an_internal_service_stops_after_the_others(start: Start) -> None:
    command = start("plain", "inner", command=supervisor())
    command.up("plain")
    command.up("inner")

    command.signal(TERM, role="plain")

    assert command.exit_status() == 0
    notes = [json.loads(line) for line in (command.home / "notes").read_text().splitlines()]
    order = [(note["role"], note["event"]) for note in notes if note["event"] != "up"]
    assert order == [("plain", "level"), ("plain", "down"), ("inner", "level"), ("inner", "down")]


def test_an_internal_service_has_time_of_its_own_when_the_others_have_used_up_theirs(start: Start, home: Path) -> None:
    (home / "busy").write_text("hangs")
    command = start("busy", "inner", command=supervisor(patience=2))
    busy = command.up("busy")[0]["pid"]
    inner = command.up("inner")[0]["pid"]

    command.signal(TERM, role="busy")

    assert command.exit_status() == 3
    assert [line["pid"] for line in command.events("process killed")] == [busy]
    assert command.notes("down", pid=inner)


def test_children_stop_by_themselves_when_the_supervisor_is_killed(start: Start) -> None:
    command = start("plain")
    pid = command.up("plain")[0]["pid"]

    command.process.kill()

    command.wait_for(lambda: not command.alive(pid), "the child's end")
    assert [note["level"] for note in command.notes("level")] == [1]
    assert command.notes("down", pid=pid)


def test_a_child_ignores_sigint_and_takes_several_sigterms_for_one(start: Start, home: Path) -> None:
    (home / "plain").write_text("patient")
    command = start("plain")
    pid = command.up("plain")[0]["pid"]

    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    command.wait_for(lambda: command.notes("level", level=1), "the graceful stop")
    os.kill(pid, signal.SIGTERM)
    command.process.send_signal(TERM)
    command.wait_for(lambda: command.events("stopping"), "the supervisor's stop")
    command.process.send_signal(INT)

    assert command.exit_status() == 4
    assert [note["level"] for note in command.notes("level")] == [1, 2]


# Dying ---------------------------------------------------------------------------------------------------------------------------------


def test_a_child_that_is_killed_is_replaced_and_what_it_held_is_taken_back(start: Start) -> None:
    command = start("busy")
    first = command.up("busy")[0]

    os.kill(first["pid"], signal.SIGKILL)

    second = command.up("busy", 2)[1]
    assert second["worker"] != first["worker"]
    (died,) = command.events("process died", pid=first["pid"])
    assert died["reason"].startswith("killed by SIGKILL: ")
    (reclaim,) = command.wait_for(lambda: command.notes("reclaim"), "the reclaim")
    assert (reclaim["worker"], reclaim["started"], reclaim["max_crashes"]) == (first["worker"], [JOB], 7)
    assert reclaim["error"] == f"worker lost: {died['reason']}"


def test_a_role_without_handlers_has_nothing_to_take_back(start: Start) -> None:
    command = start("plain")
    first = command.up("plain")[0]

    os.kill(first["pid"], signal.SIGSEGV)
    command.up("plain", 2)
    command.signal(TERM, role="plain")

    assert command.exit_status() == 0
    assert command.events("process died", reason="killed by SIGSEGV")
    assert not command.notes("reclaim")


def test_taking_back_is_tried_again_while_the_broker_is_away(start: Start, home: Path) -> None:
    (home / "away").touch()
    command = start("busy")
    first = command.up("busy")[0]

    os.kill(first["pid"], signal.SIGKILL)

    command.wait_for(lambda: command.events("reclaimed", worker=first["worker"], requeued=1), "the reclaim")
    assert len(command.notes("reclaim")) == 2


@pytest.mark.parametrize("status", [0, 2, 3, 75])
def test_a_handler_that_exits_the_process_cannot_pass_for_an_orderly_end(start: Start, home: Path, status: int) -> None:
    (home / "busy").write_text("exits")
    (home / "status").write_text(str(status))
    command = start("busy")

    command.up("busy", 2)

    assert command.wait_for(lambda: command.notes("reclaim"), "the reclaim")[0]["started"] == [JOB]
    (died,) = command.events("process died")
    assert f"exited with status {status}" in died["reason"]


def test_a_service_that_asks_for_a_fresh_process_gets_one_without_counting_as_a_failure(start: Start, home: Path) -> None:
    (home / "busy").write_text("recycles")
    command = start("busy")

    command.up("busy", 2)
    command.signal(TERM, role="busy")

    assert command.exit_status() == 0
    assert command.events("process replaced", role="busy")
    assert not command.events("process died")
    assert not command.notes("reclaim")


def test_a_service_that_keeps_breaking_is_started_again_later_each_time(start: Start, home: Path) -> None:
    (home / "plain").write_text("breaks")
    command = start("plain", "busy")

    died = command.wait_for(lambda: found if len(found := command.events("process died")) >= 3 else [], "three deaths")

    assert [line["again_in"] for line in died[:3]] == [0.1, 0.2, 0.4]
    assert [line["reason"] for line in died[:3]] == ["broke: RuntimeError: the service broke"] * 3
    (broke,) = command.events("broke")
    assert broke["error"].endswith("RuntimeError: the service broke"), "the traceback, once"
    assert len(command.notes("up", role="busy")) == 1
    command.signal(TERM, role="busy")
    assert command.exit_status() == 0


@pytest.mark.slow
def test_the_time_to_the_next_start_has_an_end_and_begins_anew_when_one_has_lived_long(start: Start, home: Path) -> None:
    (home / "plain").write_text("breaks")
    command = start("plain", command=supervisor(last_delay=0.2, steady=4))

    died = command.wait_for(lambda: found if len(found := command.events("process died")) >= 5 else [], "five deaths")
    assert [line["again_in"] for line in died[:5]] == [0.1, 0.2, 0.2, 0.2, 0.2]

    (home / "plain").unlink()
    count = len(command.notes("up"))
    steady = command.up("plain", count + 1)[-1]
    seen = time.monotonic()
    command.wait_for(lambda: time.monotonic() - seen > 4, "its being steady")
    os.kill(steady["pid"], signal.SIGKILL)
    assert command.wait_for(lambda: command.events("process died", pid=steady["pid"]), "its death")[0]["again_in"] == 0.1


def test_each_of_several_children_is_replaced_by_itself_and_waits_for_its_own_deaths_only(start: Start) -> None:
    command = start("busy", "plain", "--processes", "3")
    plain = command.up("plain")[0]["pid"]
    first, second, third = (note["pid"] for note in command.up("busy", 3))

    pid, again_in = first, []
    for round_number in range(3):
        os.kill(pid, signal.SIGSEGV)
        again_in.append(command.wait_for(lambda pid=pid: command.events("process died", pid=pid), "its death")[0]["again_in"])
        pid = command.up("busy", 4 + round_number)[-1]["pid"]
    os.kill(second, signal.SIGSEGV)
    other = command.wait_for(lambda: command.events("process died", pid=second), "another's death")[0]
    command.up("busy", 7)

    assert (again_in, other["again_in"]) == ([0.1, 0.2, 0.4], 0.1)
    assert command.alive(third)
    assert command.alive(plain)
    assert not command.notes("level")
    command.signal(TERM, role="plain")
    assert command.exit_status() == 0
    assert len(command.notes("down", role="busy")) == 3


def test_one_of_several_children_that_asks_for_a_fresh_process_leaves_the_others_alone(start: Start, home: Path) -> None:
    (home / "busy").write_text("recycles")
    command = start("busy", "--processes", "2")

    command.up("busy", 3)
    (replaced,) = command.wait_for(lambda: command.events("process replaced", role="busy"), "the replacement")

    running = [note["pid"] for note in command.notes("up") if note["pid"] != replaced["pid"]]
    assert [command.alive(pid) for pid in running] == [True, True]
    assert not command.events("process died")
    command.signal(TERM, role="busy")
    assert command.exit_status() == 0


def test_a_service_whose_broker_is_away_waits_for_it_and_can_be_stopped_meanwhile(start: Start, home: Path) -> None:
    (home / "plain").write_text("away")
    command = start("plain")
    command.wait_for(lambda: command.events("waiting"), "the service")

    command.signal(TERM, role="plain")

    assert command.exit_status() == 0
    assert not command.events("process died")


def test_a_crash_while_stopping_is_taken_back_and_told_by_the_status(start: Start, home: Path) -> None:
    (home / "busy").write_text("patient")
    command = start("busy")
    pid = command.up("busy")[0]["pid"]
    command.signal(TERM, role="busy")
    command.wait_for(lambda: command.notes("level"), "the stop")

    os.kill(pid, signal.SIGKILL)

    assert command.exit_status() == 1
    assert len(command.notes("up")) == 1
    assert command.notes("reclaim")


def test_the_first_process_of_a_container_buries_what_children_left_behind(start: Start, home: Path) -> None:
    (home / "plain").write_text("orphans")
    command = start("plain", command=IMPATIENT)
    command.up("plain")

    pid = command.wait_for(lambda: command.notes("orphan"), "an orphan")[0]["orphan"]

    command.wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its burial")
    assert command.process.poll() is None


# Running -------------------------------------------------------------------------------------------------------------------------------


def test_children_get_the_settings_of_the_command_line(start: Start, environ: dict[str, str]) -> None:
    environ["WORKER_CONCURRENCY"] = "5"
    command = start("busy", "--processes", "2", "--set", "worker.concurrency=3")

    ups = command.up("busy", 2)

    assert {note["concurrency"] for note in ups} == {3}
    assert len({note["worker"] for note in ups}) == 2


def test_the_log_begins_with_what_runs_and_holds_no_secrets(start: Start) -> None:
    command = start("busy")
    command.up("busy")

    (starting,) = command.events("starting")
    assert starting["broker"] == "noted noted://***@here"
    assert starting["config"] == "jobqueue.toml"
    assert starting["pid"] == command.process.pid
    assert command.events("role", role="busy", processes=1, concurrency=10)
    assert "secret" not in command.errors


def test_sighup_reloads_those_that_reload_and_stops_nobody(start: Start) -> None:
    command = start("plain", "reloading")
    command.up("plain")
    pid = command.up("reloading")[0]["pid"]

    os.killpg(command.process.pid, signal.SIGHUP)

    command.wait_for(lambda: command.notes("reload", pid=pid), "the reload")
    command.signal(TERM, role="plain")
    assert command.exit_status() == 0
    assert len(command.notes("reload")) == 1
    assert len(command.notes("up")) == 2


def test_a_role_for_the_terminal_runs_in_this_process_and_has_stdout_to_itself(start: Start, home: Path) -> None:
    (home / "front").write_text("speaks")
    command = start("front")

    assert command.up("front")[0]["pid"] == command.process.pid
    command.signal(TERM, role="front")

    assert command.exit_status() == 0
    assert command.output == "protocol\n"


def test_a_second_signal_stops_a_role_for_the_terminal_at_once(start: Start, home: Path) -> None:
    (home / "front").write_text("patient")
    command = start("front")
    command.up("front")

    command.signal(INT, TERM, role="front")

    assert command.exit_status() == 4

"""Starts ``jobqueue-run`` as a process, in a folder of its own, with a small distribution installed that offers dummy roles."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

CONFIG = """
[broker]
plugin = "noted"
url = "noted://user:secret@here"
[storage]
url = "sqlite:///history.db"
[worker]
shutdown_timeout = "0s"
[job]
max_crashes = 7
"""


class Command:
    """A running ``jobqueue-run`` in a process group of its own."""

    def __init__(self, home: Path, command: list[str], environ: dict[str, str]) -> None:
        self.home = home
        self._log = home / "log"
        with self._log.open("wb") as stderr, (home / "out").open("wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, *command], cwd=home, env=environ, stderr=stderr, stdout=stdout, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def output(self) -> str:
        return (self.home / "out").read_text()

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def events(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """The lines of its log with this event and these facts."""
        lines = [json.loads(line) for line in self.errors.split("\n")[:-1] if line.startswith("{")]
        return [line for line in lines if line["event"] == event and facts.items() <= line.items()]

    def notes(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """What its services and broker have noted."""
        file = self.home / "notes"
        lines = [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []
        return [line for line in lines if line["event"] == event and facts.items() <= line.items()]

    def up(self, role: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until *count* processes of *role* have come up; says who they are."""
        return self.wait_for(lambda: found if len(found := self.notes("up", role=role)) >= count else [], f"{count} of {role}: {self.errors}")

    def signal(self, *numbers: signal.Signals, role: str) -> None:
        """Send signals, each when *role* has noticed the one before, and too late to be an echo of it."""
        for level, number in enumerate(numbers, 1):
            self.process.send_signal(number)
            sent = time.monotonic()
            if level < len(numbers):
                self.wait_for(lambda level=level: self.notes("level", role=role, level=level), f"level {level}")
                self.wait_for(lambda sent=sent: time.monotonic() - sent > 0.1, "the echo's end")

    def exit_status(self) -> int:
        return self.process.wait(20)

    def wait_for(self, look: Callable[[], T], what: str, timeout: float = 20.0) -> T:
        """What *look* gives as soon as it is true."""
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not (found := look()):
            assert time.monotonic() < deadline, f"waited {timeout} s for {what}; log:\n{self.errors}"
            pause.wait(0.01)
        return found

    @staticmethod
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


Start = Callable[..., Command]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a config file, and a distribution on the path that offers the dummy roles."""
    site = tmp_path / "site"
    metadata = site / "dummy-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dummy\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[jobqueue.plugins]\ndummy = dummy_plugin\n")
    shutil.copy(Path(__file__).with_name("dummy_plugin.py"), site)
    (tmp_path / "jobqueue.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_FILE"}}
    path = os.pathsep.join([str(home / "site"), *(entry for entry in sys.path if entry)])
    return {**kept, "PYTHONPATH": path, "DUMMY_HOME": str(home)}


@pytest.fixture
def start(home: Path, environ: dict[str, str]) -> Iterator[Start]:
    running: list[Command] = []

    def start(*arguments: str, command: tuple[str, ...] = ("-m", "jobqueue_core.run", "-c", "jobqueue.toml")) -> Command:
        running.append(Command(home, [*command, *arguments], environ))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
        for note in one.notes("up"):
            if one.alive(note["pid"]):
                os.kill(note["pid"], signal.SIGKILL)

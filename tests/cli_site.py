"""A folder with a config file, the command ``jobqueue`` as someone in it would call it, and workers that run there."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from jobqueue_core import JobQueue

__all__ = ["Site", "eventually", "make_site", "worker", "write_distribution"]


@attrs.frozen
class Site:
    """A folder with a config file, and the command as someone in that folder would call it."""

    folder: Path
    path: tuple[Path, ...] = ()
    config: str | None = None

    @property
    def environ(self) -> dict[str, str]:
        """As little as a process needs: no setting of whoever runs the tests counts."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LANG") or name.startswith("COVERAGE")}
        chosen = {"JOBQUEUE_CONFIG": self.config} if self.config else {}
        path = os.pathsep.join([*map(str, self.path), os.environ.get("PYTHONPATH", "")])
        return {**kept, **chosen, "PYTHONPATH": path, "COLUMNS": "200", "TERM": "dumb"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobqueue_cli.main", *words]

    def call(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environ, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def json(self, *words: str, status: int = 0) -> Any:
        done = self.call(*words, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def at_a_terminal(self, *words: str, types: str = "") -> tuple[int, str]:
        """Call the command with a terminal as stdin, stdout and stderr; its exit status and all that the terminal showed."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(self.command(*words), cwd=self.folder, env=self.environ, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, types.encode())
        shown = b""
        # Linux answers with an error, not with nothing, once the other side has closed.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65_536):
                shown += part
        os.close(ours)
        return process.wait(timeout=60), shown.decode()


def make_site(folder: Path, broker: str = "") -> Site:
    """A folder whose config file chooses a broker, by default the embedded one."""
    folder.mkdir(exist_ok=True)
    (folder / "jobqueue.toml").write_text(broker + '[worker]\nqueues = ["default", "low"]\nlease = "5s"\n')
    return Site(folder, config="jobqueue.toml")


@contextlib.contextmanager
def worker(site: Site, *words: str, processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """``jobqueue-run worker``, from the moment at which its workers have come up until it has stopped."""
    command = [sys.executable, "-m", "jobqueue_core.run", "-c", "jobqueue.toml", "worker", *words]
    with (site.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=site.folder, env=site.environ, stdout=log, stderr=log)
    try:
        with JobQueue.from_config(site.folder / "jobqueue.toml") as queue:
            eventually(lambda: len(queue.operations.workers()) >= processes or process.poll() is not None)
        assert process.poll() is None, (site.folder / "worker.log").read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.05)


def write_distribution(folder: Path, name: str, group: str, entry: str, modules: dict[str, str]) -> Path:
    """What an installed distribution looks like on the path."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder

"""``jobqueue-run`` as a child process that never outlives the demonstration."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import attrs

MARK: Final = "# Written by `python -m handlers_example.demo`."
CONFIG: Final = f"""\
{MARK} Yours to change: the next demonstration in this folder uses it.

[run]
roles = ["worker"]

[broker]
plugin = "sqlite"
url = "sqlite:///jobqueue.db"

[storage]
plugin = "sqlite"

[worker]
concurrency = 4

[log]
format = "console"
"""
FOREIGN: Final = ("SMTP_URL", "MAIL_FROM", "JOBQUEUE_CONFIG", "REDIS_URL", "DATABASE_URL", "WORKER_", "SCHEDULER_", "JOB_", "LOG_")
"""Beginnings of variables that would change what is demonstrated, or send real e-mail."""
GRACE: Final = 40.0
"""Seconds; jobqueue-run gives its jobs 30 to finish."""
TAIL: Final = 20
"""Lines of the log to show when something went wrong."""


class ServiceError(Exception):
    """jobqueue-run cannot be started, or ended by itself."""


def write_config(folder: Path) -> Path:
    """The config file in *folder*, written if there is none.

    Raises:
        ServiceError: The folder has a config file of somebody else's; the demonstration would put its jobs into their queue.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "jobqueue.toml"
    if not path.exists():
        path.write_text(CONFIG, encoding="utf-8")
    elif not path.read_text(encoding="utf-8").startswith(MARK):
        raise ServiceError(f"{path} is not from a demonstration; choose another folder with --folder")
    return path


@attrs.define
class Service:
    """A context manager: jobqueue-run runs inside, and has ended after it."""

    config: Path
    environ: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self.config.with_name("jobqueue-run.log")

    def __enter__(self) -> Self:
        folder = self.config.parent
        command = [find_command("jobqueue-run"), "-c", str(self.config)]
        environ = {name: value for name, value in self.environ.items() if not name.startswith(FOREIGN)} | {"MAILDIR": str(folder / "maildir")}
        with self.log.open("wb") as log:
            self._process = start(command, environ, log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def check(self) -> None:
        """Raise if it has ended by itself.

        Raises:
            ServiceError: It has; with the end of its log.
        """
        if self._process is not None and (status := self._process.poll()) is not None:
            raise ServiceError(f"jobqueue-run ended by itself with status {status}; {self.log} ends:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])

    def stop(self) -> int:
        """Ask it to stop and wait until it has; returns its exit status."""
        process = self._process
        if process is None:
            return 0
        try:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            # It did not stop in time, or the user pressed Ctrl-C again: its workers are in its process group.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return process.returncode


def start(command: list[str], environ: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start *command* in a session of its own, so that Ctrl-C reaches it through us only, as one SIGTERM."""
    return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603 - our own command


def find_command(name: str) -> str:
    """The console script *name* beside this Python, else on the PATH.

    Raises:
        ServiceError: It is not installed.
    """
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        raise ServiceError(f"{name} is not installed beside {sys.executable}: pip install jobqueue")
    return found

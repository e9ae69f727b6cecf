"""One child of the supervisor: starting it, talking to it, and finding out how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Final, Literal

import attrs

from jobqueue_core.service import Exit
from jobqueue_core.supervision.started import StartedTable

__all__ = ["Ending", "Process", "Word"]

Word = Literal[b"G", b"A", b"R"]
"""What a supervisor says to a child: stop gracefully, stop at once, reload. The pipe's end says as much as the first."""

_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.frozen(kw_only=True)
class Ending:
    """How a child ended."""

    returncode: int
    """As ``subprocess`` has it: the exit status, or a signal's number, negative."""
    finished: bool
    """It ended in order: its service returned, or said that it cannot start."""
    started: frozenset[str]
    """The ids of jobs whose handlers were running."""
    lived: float
    """Seconds."""
    killed: bool = False
    """We killed it."""

    @property
    def status(self) -> Exit | None:
        """What it wanted to say by its exit status; None when it did not end in order."""
        if not self.finished or self.returncode not in list(Exit):
            return None
        return Exit(self.returncode)

    @property
    def reason(self) -> str:
        """Why it ended, for people."""
        if self.killed:
            return "killed by jobqueue-run: it did not stop in time"
        if self.returncode == -signal.SIGKILL:
            return "killed by SIGKILL: perhaps out of memory"
        if self.returncode < 0:
            return f"killed by {_signal_name(-self.returncode)}"
        if self.finished:
            return f"ended by itself with exit status {self.returncode}"
        if self.returncode == Exit.FAILED:
            return "broke, with exit status 1"
        return f"exited with status {self.returncode} in the middle of its work: perhaps a handler called os._exit"


class Process:
    """A running child. *arguments* are those of ``jobqueue_core.supervision.child`` that say what to run and with which settings.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, arguments: Sequence[str], *, capacity: int) -> None:
        self.worker_id = str(uuid.uuid4())
        self._killed = False
        self._started_at = time.monotonic()
        self._table = StartedTable.create(capacity)
        try:
            reader, self._control = os.pipe()
        except OSError:
            self._table.close()
            raise
        os.set_blocking(self._control, False)
        handed = ["--control", str(reader), "--table", str(self._table.fd), "--worker-id", self.worker_id]
        # Inherited blocked, a signal to the whole group waits until the child has decided what to do with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [sys.executable, *_path_flags(), "-m", "jobqueue_core.supervision.child", *handed, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(reader, self._table.fd),
            )
        except OSError:
            self._close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(reader)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def tell(self, word: Word) -> None:
        """Say *word* to it; a child that is gone does not hear it."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._control, word)

    def kill(self) -> None:
        """Kill it."""
        self._killed = True
        self._popen.kill()

    def ending(self) -> Ending | None:
        """How it ended; None while it runs. To be asked no more after that."""
        returncode = self._popen.poll()
        if returncode is None:
            return None
        ending = Ending(
            returncode=returncode,
            finished=self._table.finished and returncode >= 0,
            started=frozenset(self._table.started()),
            lived=time.monotonic() - self._started_at,
            killed=self._killed and returncode == -signal.SIGKILL,
        )
        self._close()
        return ending

    def _close(self) -> None:
        os.close(self._control)
        self._table.close()


def _path_flags() -> list[str]:
    """``-m`` would put the current folder first on the path; that is right only where it is on ours."""
    here = {"", os.getcwd()}  # noqa: PTH109 - compared with texts
    return [] if here & set(sys.path) else ["-P"]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""One child of the supervisor: starting it, talking to it, and finding out how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from typing import Final, Literal

import attrs

from jobqueue_core.python import module_command
from jobqueue_core.service import Exit
from jobqueue_core.supervision.oomkills import OomKills, killed_by
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
    words: str = ""
    """What it said itself of its end."""
    killed: bool = False
    """We killed it."""
    core_dumped: bool = False
    out_of_memory: bool | None = None
    """Whether the kernel killed it for want of memory; None when nobody can tell."""

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
        if self.returncode < 0:
            return killed_by(-self.returncode, core_dumped=self.core_dumped, out_of_memory=self.out_of_memory)
        if self.finished:
            return f"ended by itself with exit status {self.returncode}"
        if self.words:
            return f"broke: {self.words}"
        if self.returncode == Exit.FAILED:
            return "broke, with exit status 1"
        return f"exited with status {self.returncode} in the middle of its work: perhaps a handler called os._exit"


class Process:
    """A running child.

    Args:
        arguments: Those of ``jobqueue_core.supervision.child`` that say what to run and with which settings.
        capacity: Most jobs that it can say to have started.
        before: The last words of the child whose place it takes.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, arguments: Sequence[str], *, capacity: int, before: str = "") -> None:
        self.worker_id = str(uuid.uuid4())
        self._killed = False
        self._started_at = time.monotonic()
        self._table = StartedTable.create(capacity, before=before)
        try:
            reader, self._control = os.pipe()
        except OSError:
            self._table.close()
            raise
        os.set_blocking(self._control, False)
        handed = ["--control", str(reader), "--table", str(self._table.fd), "--worker-id", self.worker_id]
        # Inherited blocked, a signal to the whole group waits until the child has decided what to do with it.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                [*module_command("jobqueue_core.supervision.child"), *handed, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(reader, self._table.fd),
            )
        except OSError:
            self._close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
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

    def ending(self, oom_kills: OomKills) -> Ending | None:
        """How it ended; None while it runs. To be asked no more after that."""
        dead = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        returncode = self._popen.poll()
        if returncode is None:
            return None
        killed = self._killed and returncode == -signal.SIGKILL
        ending = Ending(
            returncode=returncode,
            finished=self._table.finished and returncode >= 0,
            started=frozenset(self._table.started()),
            lived=time.monotonic() - self._started_at,
            words=self._table.words,
            killed=killed,
            core_dumped=dead is not None and dead.si_code == os.CLD_DUMPED,
            out_of_memory=oom_kills.explain() if returncode == -signal.SIGKILL and not killed else None,
        )
        self._close()
        return ending

    def _close(self) -> None:
        os.close(self._control)
        self._table.close()

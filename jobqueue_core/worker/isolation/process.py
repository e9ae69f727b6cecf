"""One handler process, as the worker sees it: starting it, giving it runs, ending it, and finding out how it died."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from jobqueue_core.durations import format_size
from jobqueue_core.job import encode_job
from jobqueue_core.python import module_command
from jobqueue_core.supervision.oomkills import killed_by
from jobqueue_core.worker.isolation.faults import CannotStart, MemoryExceeded, ProcessDied, Stopped
from jobqueue_core.worker.isolation.messages import Ask, Channel, Ended, Ready, Said, Start, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext, StopReason
    from jobqueue_core.supervision.oomkills import OomKills
    from jobqueue_core.worker.executor import Plan
from jobqueue_core.worker.isolation.messages import Setup

__all__ = ["HandlerProcess"]

_MEASURE: Final = 0.05
"""How often a run's memory is measured that has a cap, in seconds."""
_LOOK_ALIVE: Final = 0.5
"""How often to look whether a silent process lives, in seconds."""
_LOOK_WANTED: Final = 0.1
_REAP: Final = 5.0
_LOOK: Final = 0.005


class HandlerProcess:
    """A child of the worker that runs one handler at a time, in a process group of its own.

    Args:
        setup: What it needs to know.
        patience: Seconds in which it has to be ready.
        given_up: Asked now and then whether it is not wanted any more, before it is ready.
        oom_kills: Tells whether it was killed for want of memory.

    Raises:
        CannotStart: It cannot be started, or says that it cannot run handlers.
        Stopped: It was given up.
    """

    def __init__(self, setup: Setup, *, patience: float, given_up: Callable[[], object], oom_kills: OomKills) -> None:
        self._oom_kills = oom_kills
        self.runs = 0
        """How many runs it has been given."""
        self.idle_since = monotonic()
        self._ending = threading.Lock()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        try:
            with theirs:
                self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    [*module_command("jobqueue_core.worker.isolation.main"), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
        except OSError as error:
            self._channel.close()
            msg = f"a handler process cannot be started: {error}"
            raise CannotStart(msg) from error
        try:
            self._prepare(setup, patience, given_up)
        except BaseException:
            self.kill()
            self._reap()
            raise

    def _prepare(self, setup: Setup, patience: float, given_up: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):  # it has died, and its silence says so
            self._channel.send_bytes(msgspec.msgpack.encode((sys.path, pickle.dumps(setup))))
        deadline = monotonic() + patience
        while not self._readable(_LOOK_WANTED):
            if given_up():
                raise Stopped
            if monotonic() >= deadline:
                msg = f"a handler process was not ready within {patience:.0f} s: an import or a lifespan takes too long"
                raise CannotStart(msg)
        match self._channel.receive():
            case Ready():
                return
            case Unusable(why=why):
                raise CannotStart(why)
            case _:
                msg = f"a handler process died before it was ready: {self._reap()}"
                raise CannotStart(msg)

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._popen.pid

    def run(self, plan: Plan, context: JobContext) -> Outcome:
        """Run a handler in it and wait for the end.

        Raises:
            ProcessDied: It died first.
            MemoryExceeded: It was killed because it took more than the plan's memory.
        """
        self.runs += 1
        start = Start(encode_job(context.job), plan.timeout_of(context.job), plan.grace, plan.memory)
        with contextlib.suppress(OSError):  # it has died, and its silence says so
            self._channel.send(start)
            if context.stop_reason is not None:
                # Asked to stop before it had begun.
                self._channel.send(Ask(context.stop_reason))
        while True:
            self._await_word(plan.memory)
            match self._channel.receive() if self._readable(0.0) else None:
                case Said(progress=progress, lines=lines):
                    context.hear(progress, lines)
                case Ended() as ended:
                    return ended.outcome()
                case _:
                    raise ProcessDied(self._reap())

    def ask(self, reason: StopReason) -> None:
        """Ask its handler to end."""
        with contextlib.suppress(OSError):  # it has died
            self._channel.send(Ask(reason))

    def kill(self) -> None:
        """Kill it and all it has started."""
        with self._ending:
            self._kill_group()

    def _kill_group(self) -> None:
        # Until it is reaped its number is its own: also when it has died itself, and left behind what it had started.
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def memory(self) -> int:
        """How many bytes of memory it takes; 0 where that cannot be known."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def alive(self) -> bool:
        """Whether it could be given another run."""
        return not self._dead_within(0.0)

    def leave(self) -> None:
        """Let it leave its lifespans and end; returns at once."""
        self._channel.finish()

    def ended(self, patience: float) -> bool:
        """Wait up to *patience* seconds for its end, and forget it then."""
        if not self._dead_within(patience):
            return False
        self._reap()
        return True

    def _await_word(self, most: int | None) -> None:
        """Wait until it says something or has died; by its closed connection alone that is not seen when something it has forked keeps it open."""
        while not self._readable(_LOOK_ALIVE if most is None else _MEASURE):
            if most is not None and (size := self.memory()) > most:
                self.kill()
                self._reap()
                msg = f"its process took {size / (1 << 20):.1f} MiB, more than its memory cap of {format_size(most)}"
                raise MemoryExceeded(msg)
            if not self.alive:
                return

    def _readable(self, patience: float) -> bool:
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return bool(poller.poll(patience * 1000))

    def _reap(self) -> str:
        """Wait for its end and say how it came; what it had started is killed."""
        if not self._dead_within(_REAP):
            self.kill()
        with self._ending:
            self._kill_group()
            returncode = self._popen.wait()
        self._channel.close()
        if returncode >= 0:
            return f"handler process exited with status {returncode}"
        out_of_memory = self._oom_kills.explain() if -returncode == signal.SIGKILL else None
        return f"handler process {killed_by(-returncode, out_of_memory=out_of_memory)}"

    def _dead_within(self, patience: float) -> bool:
        """Whether it has died, or does so within *patience* seconds; it is not reaped yet."""
        deadline = monotonic() + patience
        while self._popen.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

"""One handler process, as the worker sees it: starting it, giving it runs, ending it, and finding out how it died."""

from __future__ import annotations

import contextlib
import logging
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
from jobqueue_core.worker.isolation.descendants import descendants
from jobqueue_core.worker.isolation.endings import CannotStart, Elsewhere, MemoryExceeded, NotBegun, ProcessDied, Stopped
from jobqueue_core.worker.isolation.messages import Ask, Began, Channel, Ended, Message, Ready, Said, Start, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobqueue_core.attempt import Outcome
    from jobqueue_core.context import JobContext, StopReason
    from jobqueue_core.supervision.oomkills import OomKills
    from jobqueue_core.worker.isolation.messages import Setup
    from jobqueue_core.worker.plan import Plan

__all__ = ["HandlerProcess"]

_log = logging.getLogger("jobqueue.worker")
_SLOW: Final = 5.0
"""Seconds after which it is said that a process is not ready yet."""
_MEASURE: Final = 0.05
"""How often a run's memory is measured that has a cap, in seconds."""
_LOOK_ALIVE: Final = 0.5
"""How often to look whether a silent process lives, in seconds."""
_LOOK_WANTED: Final = 0.1
"""How often to look whether one that is not ready is still wanted, in seconds."""
_REAP: Final = 5.0
"""How long one that has closed its connection may take to die, in seconds; then it is killed."""
_LOOK: Final = 0.005
"""How often to look for its death meanwhile, in seconds."""


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
        self.killed = False
        """Whether it is being killed: it may still seem to live."""
        self.idle_since = monotonic()
        """Since when it has had nothing to do, by the monotonic clock."""
        self._ending = threading.Lock()
        self._ended_how: str | None = None
        self._cut_off = False
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        tied, self._lifeline = os.pipe()
        try:
            with theirs:
                self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    [*module_command("jobqueue_core.worker.isolation.main"), str(theirs.fileno()), str(tied)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), tied),
                    process_group=0,
                )
        except OSError as error:
            self._channel.close()
            os.close(self._lifeline)
            msg = f"a handler process cannot be started: {error}"
            raise CannotStart(msg) from error
        finally:
            os.close(tied)
        try:
            self._prepare(setup, patience, given_up)
        except BaseException:
            self.kill()
            self._reap()
            raise

    def _prepare(self, setup: Setup, patience: float, given_up: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):  # it has died, and its silence says so
            self._channel.send_bytes(msgspec.msgpack.encode((sys.path, pickle.dumps(setup))))
        began, warn_after = monotonic(), _SLOW
        while not self._readable(_LOOK_WANTED):
            waited = monotonic() - began
            if given_up():
                raise Stopped
            if waited >= warn_after:
                warn_after *= 3
                facts = {"pid": self.pid, "seconds": round(waited)}
                _log.warning("a handler process is not ready yet: an import or a lifespan takes long", extra={"fields": facts})
            if waited >= patience:
                msg = f"a handler process was not ready within {patience:.0f} s: an import or a lifespan takes too long"
                raise CannotStart(msg)
        match self._channel.receive():
            case Ready():
                return
            case Unusable(why=why, traceback=trace):
                raise CannotStart(why) from Elsewhere(trace)
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
            NotBegun: It died before it had begun with the handler.
            ProcessDied: It died while the handler ran.
            MemoryExceeded: It was killed because it took more than the plan's memory.
        """
        self.runs += 1
        number = self.runs
        start = Start(number, encode_job(context.job), plan.memory)
        with contextlib.suppress(OSError):  # it has died, and its silence says so
            self._channel.send(start)
        if context.stop_reason is not None:
            # Asked to stop before it could be told.
            self.ask(context.stop_reason)
        begun = False
        while True:
            match self._next_word(plan.memory):
                case Began(number=n) if n == number:
                    begun = True
                case Said(number=n, progress=progress, lines=lines) if n == number:
                    context.hear(progress, lines)
                case Ended(number=n) as ended if n == number:
                    return ended.outcome()
                case Began() | Said() | Ended():
                    pass  # of a copy of it that a former handler has forked
                case _:
                    raise ProcessDied(self._reap()) if begun else NotBegun(self._reap())

    def _next_word(self, memory: int | None) -> Message | None:
        """The next message; None when there will be none."""
        self._await_word(memory)
        if not self._readable(0.0):
            return None
        try:
            return self._channel.receive()
        except ValueError:
            # A handler has written into the connection: from here on nothing can be understood.
            self.kill()
            return None

    def ask(self, reason: StopReason) -> None:
        """Ask the handler that runs to end. Does not wait: one that cannot be told now will be killed."""
        self._channel.send_soon(Ask(self.runs, reason))

    def kill(self) -> None:
        """Kill it and all it has started."""
        with self._ending:
            self.killed = True
            self._kill_group()

    def _kill_group(self) -> None:
        # Until it is reaped its number is its own: also when it has died itself, and left behind what it had started.
        if self._popen.returncode is None:
            started = descendants(self.pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            for pid in started:
                # What has a group of its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

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
        return not self.killed and not self._dead_within(0.0)

    def leave(self) -> None:
        """Let it leave its lifespans and end; returns at once."""
        self._channel.finish()

    @property
    def in_order(self) -> bool:
        """Whether it has ended, and nothing had gone wrong with it."""
        return self._popen.returncode == 0

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
            if self._dead_within(0.0):
                return

    def _readable(self, patience: float) -> bool:
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return bool(poller.poll(patience * 1000))

    def _reap(self) -> str:
        """Wait for its end and say how it came; what it had started is killed."""
        if not self._dead_within(_REAP):
            self._cut_off = True
            self.kill()
        with self._ending:
            if self._ended_how is None:
                self._kill_group()
                self._ended_how = self._told_by(self._popen.wait())
                self._channel.close()
                os.close(self._lifeline)
            return self._ended_how

    def _told_by(self, returncode: int) -> str:
        if self._cut_off:
            return "handler process closed its connection to the worker"
        if returncode >= 0:
            return f"handler process exited with status {returncode}"
        out_of_memory = self._oom_kills.explain() if -returncode == signal.SIGKILL else None
        return f"handler process {killed_by(-returncode, out_of_memory=out_of_memory)}"

    def _dead_within(self, patience: float) -> bool:
        """Whether it has died, or does so within *patience* seconds; it is not reaped yet."""
        deadline = monotonic() + patience
        while self._lives():
            if monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def _lives(self) -> bool:
        if self._popen.returncode is not None:
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            # A handler in the worker's own process has waited for any child, and got this one.
            return False

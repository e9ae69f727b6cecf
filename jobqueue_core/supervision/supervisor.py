"""The supervisor: runs each role in child processes, starts anew what dies, and passes on when to stop (CONTRACT 4)."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.app import App
from jobqueue_core.service import Exit, Patience, ServicePlugin, StopLevel
from jobqueue_core.supervision.childprocess import Ending, Process, Word
from jobqueue_core.supervision.lostworkers import LostWorker, LostWorkers
from jobqueue_core.supervision.oomkills import OomKills
from jobqueue_core.supervision.started import capacity_for

if TYPE_CHECKING:
    from datetime import timedelta

    from jobqueue_core.supervision.signalpipe import SignalPipe

__all__ = ["Supervisor"]

_log = logging.getLogger("jobqueue.supervisor")

_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 5.0
_STEADY: Final = 60.0
_ECHO: Final = 0.05
"""A child that has lived so long, in seconds, has not failed to start."""


@attrs.define(eq=False, kw_only=True)
class _Place:
    """A place for one child of a role, which its successors take one after the other."""

    plugin: ServicePlugin
    process: Process | None = None
    starts: int = 0
    due: float | None = 0.0
    """When to start one, by the monotonic clock; None while one runs."""
    delay: float = _FIRST_DELAY
    words: str = ""
    """The last words of the child that was here before."""


class Supervisor:
    """Runs roles in child processes until signals tell it to stop.

    Args:
        app: For its settings and plugins; nothing of it is opened here.
        roles: What to run.
        arguments: The command line arguments that give children the same settings.
        signals: SIGTERM, SIGINT, SIGHUP and SIGCHLD.
        patience: How long to wait for children to stop.
    """

    def __init__(
        self, app: App, roles: Sequence[ServicePlugin], *, arguments: Sequence[str], signals: SignalPipe, patience: Patience | None = None
    ) -> None:
        self._settings = app.settings
        self._arguments = tuple(arguments)
        self._signals = signals
        self._patience = patience or Patience()
        self._places = [_Place(plugin=plugin) for plugin in roles for _ in range(plugin.processes(app.settings))]
        self._lost = LostWorkers(
            lambda: App(app.settings, app.plugins),
            observers=lambda: app.observers,
            lease=app.settings.worker.lease,
            max_crashes=app.settings.job.max_crashes,
        )
        self._oom_kills = OomKills()
        self._level = StopLevel.RUN
        self._internal_told = False
        self._kill_at: float | None = None
        self._last_told: signal.Signals | None = None
        self._last_told_at = 0.0
        self._worst = Exit.OK

    def run(self) -> Exit:
        """Supervise until everything has stopped; returns the exit status."""
        poller = select.poll()
        poller.register(self._signals.fd, select.POLLIN)
        while True:
            # Signals before deaths: what dies of a signal to the whole group has not died unexpectedly.
            self._hear()
            self._reap()
            self._bury_strangers()
            self._tell_internal()
            if self._level and not any(self._running()):
                break
            self._start_due()
            self._kill_overdue()
            self._oom_kills.look()
            poller.poll(self._milliseconds_to_wait())
        self._lost.join((self._patience.at_once / 5 if self._level is StopLevel.AT_ONCE else self._patience.at_once).total_seconds())
        return Exit.AT_ONCE if self._level is StopLevel.AT_ONCE else self._worst

    # Signals ---------------------------------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        for number in self._signals.take():
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    self._told_to_stop(signal.Signals(number))
                case signal.SIGHUP:
                    self._reload()
                case _:
                    pass  # SIGCHLD has done its part: it woke the loop

    def _told_to_stop(self, number: signal.Signals) -> None:
        # timeout(1) and others signal a process and then its whole group: that is one request, not two.
        echo = number is self._last_told and time.monotonic() - self._last_told_at < _ECHO
        self._last_told, self._last_told_at = number, time.monotonic()
        if not echo:
            self._raise_level(number.name)

    def _raise_level(self, why: str) -> None:
        if self._level is StopLevel.AT_ONCE:
            return
        self._level = StopLevel(self._level + 1)
        at_once = self._level is StopLevel.AT_ONCE
        patience = self._patience.at_once if at_once else self._settings.worker.shutdown_timeout + self._patience.beyond_grace
        self._kill_after(patience)
        _log.info("stopping at once" if at_once else "stopping", extra={"fields": {"reason": why}})
        for place, process in self._running():
            if at_once or not place.plugin.internal:
                process.tell(b"A" if at_once else b"G")

    def _kill_after(self, patience: timedelta) -> None:
        self._kill_at = time.monotonic() + patience.total_seconds()

    def _tell_internal(self) -> None:
        """The recorder stops when the workers have: it takes what they leave behind into storage."""
        if self._level and not self._internal_told and all(place.plugin.internal for place, _process in self._running()):
            self._internal_told = True
            for _place, process in self._running():
                process.tell(b"G")
            if self._level is StopLevel.GRACEFUL:
                # Time of its own: the others may have needed all of theirs.
                self._kill_after(self._patience.beyond_grace)

    def _reload(self) -> None:
        reloading = [(place, process) for place, process in self._running() if place.plugin.reloads]
        _log.info("reloading", extra={"fields": {"roles": sorted({place.plugin.name for place, _process in reloading})}})
        word: Word = b"R"
        for _place, process in reloading:
            process.tell(word)

    # Children --------------------------------------------------------------------------------------------------------------------------

    def _running(self) -> Iterator[tuple[_Place, Process]]:
        for place in self._places:
            if place.process is not None:
                yield place, place.process

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if not self._level and place.due is not None and place.due <= now:
                self._start(place)

    def _start(self, place: _Place) -> None:
        plugin = place.plugin
        place.starts += 1
        try:
            capacity = capacity_for(self._settings.worker.concurrency) if plugin.runs_handlers else 0
            place.process = Process([*self._arguments, plugin.name], capacity=capacity, before=place.words)
        except OSError as error:
            self._put_off(place)
            _log.error("process cannot start", extra={"fields": {"role": plugin.name, "error": str(error), "again_in": place.delay}})
            return
        place.due = None
        _log.info("process started", extra={"fields": {"role": plugin.name, "pid": place.process.pid, **self._identity(place, place.process)}})

    def _reap(self) -> None:
        for place, process in self._running():
            ending = process.ending(self._oom_kills)
            if ending is None:
                continue
            place.process, place.words = None, ending.words
            if place.plugin.runs_handlers and not ending.finished:
                self._lost.take_back(LostWorker(worker_id=process.worker_id, started=ending.started, error=f"worker lost: {ending.reason}"))
            facts = {"role": place.plugin.name, "pid": process.pid, **self._identity(place, process), "reason": ending.reason}
            if self._level:
                self._note(ending, facts)
            else:
                self._replace(place, ending, facts)

    def _bury_strangers(self) -> None:
        """As the first process of a container we inherit what dead children leave behind, and nobody else would ever bury it."""
        own = {process.pid for _place, process in self._running()}
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None and dead.si_pid not in own:
                os.waitpid(dead.si_pid, 0)

    def _note(self, ending: Ending, facts: dict[str, object]) -> None:
        """Remember how a child ended that was told to stop."""
        match ending.status:
            case Exit.OK | Exit.AT_ONCE | Exit.RECYCLE:
                return
            case Exit.ABANDONED:
                _log.warning("work left behind", extra={"fields": facts})
                self._blame(Exit.ABANDONED)
            case _:
                _log.warning("process died while stopping", extra={"fields": facts})
                self._blame(Exit.FAILED)

    def _replace(self, place: _Place, ending: Ending, facts: dict[str, object]) -> None:
        match ending.status:
            case Exit.USAGE if place.starts == 1 and ending.lived < _STEADY:
                _log.error("cannot run", extra={"fields": {**facts, "reason": "its settings or plugins are wrong"}})
                self._blame(Exit.USAGE)
                if not self._level:
                    self._raise_level(f"role {place.plugin.name!r} cannot run")
            case Exit.RECYCLE | Exit.ABANDONED:
                place.due = time.monotonic()
                why = "it asked for a fresh process" if ending.status is Exit.RECYCLE else "it could not end in order"
                _log.info("process replaced", extra={"fields": {**facts, "reason": why}})
            case Exit.OK:
                _log.warning("process stopped", extra={"fields": {**facts, "reason": "somebody else told it to", "again_in": place.delay}})
                self._put_off(place)
            case _:
                if ending.lived >= _STEADY:
                    place.delay = _FIRST_DELAY
                _log.warning("process died", extra={"fields": {**facts, "lived": round(ending.lived, 3), "again_in": place.delay}})
                self._put_off(place)

    def _put_off(self, place: _Place) -> None:
        place.due = time.monotonic() + place.delay
        place.delay = min(place.delay * 2, _LAST_DELAY)

    def _kill_overdue(self) -> None:
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        self._kill_at = None
        for place, process in self._running():
            if place.plugin.internal and not self._internal_told and self._level is StopLevel.GRACEFUL:
                continue  # its turn comes when these are gone
            _log.error("process killed", extra={"fields": {"role": place.plugin.name, "pid": process.pid, **self._identity(place, process)}})
            self._blame(Exit.ABANDONED)
            process.kill()

    def _blame(self, status: Exit) -> None:
        """Exit with the worst of what happened: what keeps a role from running, then abandoned handlers, then what broke."""
        order = (Exit.OK, Exit.FAILED, Exit.ABANDONED, Exit.USAGE)
        self._worst = max(self._worst, status, key=order.index)

    def _milliseconds_to_wait(self) -> int | None:
        """Until the next start or kill; None when only a signal can bring news."""
        moments = [place.due for place in self._places if place.due is not None and not self._level]
        moments += [moment for moment in (self._kill_at, self._oom_kills.next_look) if moment is not None]
        return None if not moments else max(0, int((min(moments) - time.monotonic()) * 1000) + 1)

    @staticmethod
    def _identity(place: _Place, process: Process) -> dict[str, str]:
        return {"worker": process.worker_id} if place.plugin.runs_handlers else {}

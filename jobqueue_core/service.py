"""Services: what ``jobqueue-run`` runs. A role on its command line names one."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from jobqueue_core.supervision.started import StartedTable

if TYPE_CHECKING:
    # Nothing resolves the annotations below, and these imports would go round in a circle.
    from jobqueue_core.app import App  # noqa: TC004 - see above
    from jobqueue_core.settings import Settings  # noqa: TC004 - see above

__all__ = ["CommandPlugin", "Exit", "Patience", "ReloadableService", "Service", "ServicePlugin", "Stop", "StopLevel", "Supervision"]


class Exit(enum.IntEnum):
    """Exit statuses of ``jobqueue-run`` and its children."""

    OK = 0
    FAILED = 1
    """It could not start or broke; or stopped in order but for a lifespan that raised when it was left."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    ABANDONED = 3
    """Stopped, and something was left behind: handlers or a lifespan that did not end, or outcomes and jobs that the broker, away or locked, did
    not take. Such jobs are taken back when their leases end, and run again."""
    AT_ONCE = 4
    """Stopped at once, after a second signal."""
    RECYCLE = 75
    """A child that wants a fresh process in its place; the supervisor starts one without counting it as a failure. (EX_TEMPFAIL)"""


class StopLevel(enum.IntEnum):
    """How urgently a service is to stop."""

    RUN = 0
    GRACEFUL = 1
    """Take nothing new, finish what runs within the grace, give the rest back."""
    AT_ONCE = 2
    """Give everything back now."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long to wait for a service that was told to stop before its process is ended."""

    beyond_grace: timedelta = timedelta(seconds=15)
    """On top of ``[worker] shutdown_timeout``: for giving back and flushing."""
    at_once: timedelta = timedelta(seconds=5)


class Stop:
    """Tells a service when to stop. The level only ever rises; any thread may raise it or wait for it."""

    def __init__(self) -> None:
        self._level = StopLevel.RUN
        self._changed = threading.Condition()
        self._listeners: list[Callable[[StopLevel], None]] = []

    @property
    def level(self) -> StopLevel:
        """The level now."""
        return self._level

    def request(self, level: StopLevel = StopLevel.GRACEFUL) -> None:
        """Raise the level to *level*; does nothing if it is there already. Safe in any thread, not in a signal handler."""
        with self._changed:
            if level <= self._level:
                return
            self._level = level
            listeners = list(self._listeners)
            self._changed.notify_all()
        for listener in listeners:
            listener(level)

    def wait(self, timeout: float | None = None, *, level: StopLevel = StopLevel.GRACEFUL) -> bool:
        """Wait up to *timeout* seconds for the level to reach *level*; True when it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._level >= level, timeout)

    def listen(self, listener: Callable[[StopLevel], None]) -> None:
        """Call *listener* with each new level, in the thread that raised it; at once if it has risen already."""
        with self._changed:
            self._listeners.append(listener)
            level = self._level
        if level:
            listener(level)


class Service(Protocol):
    """Something that runs until it is told to stop."""

    def run(self, stop: Stop) -> Exit:
        """Run in the calling thread until *stop* rises; return the process's exit status.

        An exception means that it broke: the supervisor logs it and starts another.
        """


@attrs.frozen(kw_only=True)
class Supervision:
    """What a supervisor gives each of its children (``App.process``); a process that has none is on its own."""

    worker_id: str | None = None
    """As whom to hold leases: what the supervisor reclaims when the process dies. None: the service chooses."""
    table: StartedTable | None = None
    """Where to write which handlers are running."""


@runtime_checkable
class ReloadableService(Service, Protocol):
    """A service that can read its configuration anew without stopping (``ServicePlugin.reloads``)."""

    def reload(self) -> None:
        """Do so. Called in another thread than ``run``, once for each SIGHUP that ``jobqueue-run`` gets."""


@attrs.frozen(kw_only=True)
class ServicePlugin:
    """What the hook ``jobqueue_services`` returns: one role of ``jobqueue-run``."""

    name: str
    """The role's name on the command line."""
    summary: str
    """One line for ``jobqueue-run --help``."""
    open: Callable[[App], Service]
    """Makes the service, in the process that will run it."""
    processes: Callable[[Settings], int] = lambda _settings: 1
    """How many processes of it to run."""
    records: bool = False
    """True: a recorder process runs beside it (once for all roles)."""
    by_default: bool = False
    """True: it runs when neither the command line nor ``[run] roles`` names any role."""
    foreground: Callable[[Settings], bool] = lambda _settings: False
    """True: it needs the terminal's stdin and stdout, runs alone and in the foreground, and nothing else may be printed."""
    reloads: bool = False
    """True: its service is a :class:`ReloadableService`, and SIGHUP reloads it; otherwise a child ignores it."""
    runs_handlers: bool = False
    """True: it runs handlers, and holds leases as its :class:`Supervision` says. Then a broken handler package keeps it from starting, and what
    it held is reclaimed when it crashes."""
    internal: bool = False
    """True: it runs when others need it (the recorder), stops after them, and nobody can ask for it."""
    within: str | None = None
    """The role in whose process it runs, in a thread of its own, whenever that role does; for one that is *internal*."""


@attrs.frozen(kw_only=True)
class CommandPlugin:
    """What the hook ``jobqueue_commands`` returns: one command of ``jobqueue``.

    Only its name and help are needed to list it: the command itself, a click command, is imported when it is called.
    """

    name: str
    help: str
    target: str
    """``"package.module:attribute"`` of a ``click.Command`` or ``click.Group``; it finds the ``Cli`` object in ``click.Context.obj``."""

"""What a child of ``jobqueue-run`` executes: one service, told by its supervisor when to stop.

A child ignores SIGINT and SIGHUP, and takes any number of SIGTERMs for one: only the supervisor counts signals (CONTRACT 4). When the supervisor
dies the pipe between them ends, and the child stops as after one SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from jobqueue_core import logs
from jobqueue_core.app import App
from jobqueue_core.errors import BrokerUnavailable, ConfigError, HandlerError, IncompatibleData, JobQueueError, PluginError, StorageUnavailable
from jobqueue_core.service import Exit, Patience, ReloadableService, Service, ServicePlugin, Stop, StopLevel, Supervision
from jobqueue_core.settings.overrides import read_overrides
from jobqueue_core.supervision import breakage
from jobqueue_core.supervision.descriptors import Descriptors
from jobqueue_core.supervision.sidebyside import Companion, run_with
from jobqueue_core.supervision.signalpipe import SignalPipe
from jobqueue_core.supervision.started import StartedTable

if TYPE_CHECKING:
    from jobqueue_core.handlers import Registry

__all__ = ["UNUSABLE", "check_handlers", "close", "end", "main", "open_service", "report"]

_log = logging.getLogger("jobqueue.child")

UNUSABLE: Final = (ConfigError, PluginError, HandlerError, IncompatibleData)
"""What no restart mends: exit status 2."""
_PAUSE: Final = 1.0
_REMIND: Final = 60
"""After how many pauses to say again that nobody answers."""
_GLANCE: Final = 1.0
"""How often to look after the descriptors, in seconds."""
_LINGER: Final = 2.0
"""How long threads that handlers have started may take to end when all else has, in seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one service. Returns the exit status, or ends the process at once where threads of handlers are still busy."""
    given = _parser().parse_args(arguments)
    stop = Stop()
    table = StartedTable.attach(given.table)
    control = _Control(stop, given.control, table)
    control.start()
    try:
        app = App.from_config(given.config, overrides=read_overrides(given.set))
        logs.configure(app.settings.log)
        app.process = Supervision(worker_id=given.worker_id, table=table)
        control.patience = app.settings.worker.shutdown_timeout + Patience().beyond_grace
        status = _run(app, app.plugins.service(given.role), stop, control)
        table.finish()
        close(app)
    except UNUSABLE as error:
        report(error)
        table.finish()
        return Exit.USAGE
    except Exception as error:  # noqa: BLE001 - a service is a third party's code
        breakage.tell(error, table, role=given.role)
        return end(Exit.FAILED)
    # The interpreter is about to put the default back, and a signal to the whole group may still be on its way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return end(status)


def _run(app: App, plugin: ServicePlugin, stop: Stop, control: _Control) -> Exit:
    if plugin.runs_handlers:
        check_handlers(app)
    service = open_service(app, plugin, stop)
    if service is None:
        return Exit.OK
    if isinstance(service, ReloadableService):
        control.reloadable = service
    within = [one for one in app.plugins.services().values() if one.within == plugin.name]
    companions = [Companion(one.name, partial(open_service, app, one, stop), stop) for one in within]
    return run_with(companions, partial(service.run, stop), stop)


def check_handlers(app: App) -> Registry:
    """Import the handler packages.

    Raises:
        ConfigError: Some cannot be used; with every fault.
    """
    registry = app.registry
    if app.handler_faults:
        raise ConfigError([str(fault) for fault in app.handler_faults])
    return registry


def open_service(app: App, plugin: ServicePlugin, stop: Stop) -> Service | None:
    """Make the service. While broker or storage do not answer, wait for them; None when told to stop meanwhile."""
    pauses = 0
    while True:
        try:
            return plugin.open(app)
        except (BrokerUnavailable, StorageUnavailable) as error:
            if pauses % _REMIND == 0:
                _log.warning("waiting", extra={"fields": {"role": plugin.name, "error": str(error)}})
        pauses += 1
        if stop.wait(_PAUSE):
            return None


def close(app: App) -> None:
    """Close *app*; what its parts raise then is only worth a line."""
    try:
        app.close()
    except Exception:  # noqa: BLE001 - brokers and storages are a third party's code
        _log.warning("cannot close", exc_info=True)


def report(error: JobQueueError) -> None:
    """Write what is wrong to stderr, each problem on a line of its own."""
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        sys.stderr.write(f"jobqueue-run: {' '.join(problem.split())}\n")
    sys.stderr.flush()


def end(status: Exit) -> int:
    """Return *status* for the interpreter to end with, in order; where it would wait for what does not end, end the process here or soon."""
    if status in {Exit.ABANDONED, Exit.AT_ONCE}:
        _end_here(status)
    # The interpreter waits for threads: such as asyncio.to_thread runs in, which no cancel reaches.
    last = threading.Timer(_LINGER, _end_late, args=(status,))
    last.daemon = True
    last.start()
    _flush()
    return status


def _end_late(status: Exit) -> None:
    main = threading.main_thread()
    names = sorted(
        one.name for one in threading.enumerate() if one not in {main, threading.current_thread()} and not one.name.startswith("jobqueue-")
    )
    _log.warning("threads do not end", extra={"fields": {"threads": ", ".join(names)}})
    _end_here(Exit.ABANDONED if status is Exit.OK else status)


def _end_here(status: Exit) -> NoReturn:
    logging.shutdown()
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A handler may have closed them; with output left the interpreter would end with a status of its own.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jobqueue_core.supervision.child", description="For jobqueue-run only.")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--table", type=int, required=True)
    parser.add_argument("--worker-id", required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("role")
    return parser


class _Control(threading.Thread):
    """Listens to the supervisor and to signals, and passes on what they say, whatever the main thread is doing."""

    def __init__(self, stop: Stop, fd: int, table: StartedTable) -> None:
        super().__init__(name="jobqueue-control", daemon=True)
        self.reloadable: ReloadableService | None = None
        self.patience = Patience().beyond_grace
        """How long the service may take to stop once nobody is left who would kill this process."""
        self._stop_request = stop
        self._fd = fd
        self._table = table
        # What this process starts must not keep the pipe, nor learn of the supervisor's end.
        os.set_inheritable(fd, False)  # noqa: FBT003 - its parameter has no name
        self._signals = SignalPipe(heard=[signal.SIGTERM], ignored=[signal.SIGINT, signal.SIGHUP])
        self._descriptors = Descriptors(fd, self._signals.fd)

    def run(self) -> None:
        """Listen until the process ends."""
        poller = select.poll()
        for fd in (self._fd, self._signals.fd, self._descriptors.alarm):
            poller.register(fd, select.POLLIN)
        while True:
            events = poller.poll(_GLANCE * 1000)
            if self._descriptors.gone():
                self._give_up()
            self._descriptors.mend()
            for fd, _event in events:
                if fd == self._signals.fd:
                    if signal.SIGTERM in self._signals.take():
                        self._stop_request.request(StopLevel.GRACEFUL)
                elif fd != self._fd:
                    continue
                elif words := os.read(self._fd, 64):
                    self._hear(words)
                else:
                    poller.unregister(self._fd)
                    self._stop_request.request(StopLevel.GRACEFUL)
                    last = threading.Timer(self.patience.total_seconds(), end, args=(Exit.ABANDONED,))
                    last.daemon = True
                    last.start()

    def _give_up(self) -> None:
        """End this process: it can hear its supervisor no more, and soon broker and files would have each other's descriptors."""
        self._table.say("its file descriptors were closed, by a handler perhaps (os.close, os.closerange)")
        os._exit(Exit.FAILED)

    def _hear(self, words: bytes) -> None:
        if b"A" in words:
            self._stop_request.request(StopLevel.AT_ONCE)
        elif b"G" in words:
            self._stop_request.request(StopLevel.GRACEFUL)
        if b"R" in words and self.reloadable is not None:
            try:
                self.reloadable.reload()
            except Exception:  # noqa: BLE001 - a service is a third party's code
                _log.exception("cannot reload")


if __name__ == "__main__":
    sys.exit(main())

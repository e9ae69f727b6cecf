"""What a child of ``jobqueue-run`` executes: one service, told by its supervisor when to stop.

A child ignores SIGINT and SIGHUP, and takes any number of SIGTERMs for one: only the supervisor counts signals (CONTRACT 4). When the supervisor
dies the pipe between them ends, and the child stops as after one SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobqueue_core import logs
from jobqueue_core.app import App
from jobqueue_core.errors import BrokerUnavailable, ConfigError, HandlerError, IncompatibleData, JobQueueError, PluginError, StorageUnavailable
from jobqueue_core.service import Exit, Patience, ReloadableService, Service, ServicePlugin, Stop, StopLevel, Supervision
from jobqueue_core.settings.overrides import read_overrides
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one service. Returns the exit status, or ends the process at once where threads of handlers are still busy."""
    given = _parser().parse_args(arguments)
    stop = Stop()
    control = _Control(stop, given.control)
    control.start()
    table = StartedTable.attach(given.table)
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
    except Exception:  # noqa: BLE001 - a service is a third party's code
        _log.exception("broke", extra={"fields": {"role": given.role, "pid": os.getpid()}})
        return Exit.FAILED
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
    return service.run(stop)


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
    """Return *status* where the interpreter can end in order; where it would wait for handlers that do not end, end the process here."""
    if status in {Exit.ABANDONED, Exit.AT_ONCE}:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


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

    def __init__(self, stop: Stop, fd: int) -> None:
        super().__init__(name="jobqueue-control", daemon=True)
        self.reloadable: ReloadableService | None = None
        self.patience = Patience().beyond_grace
        """How long the service may take to stop once nobody is left who would kill this process."""
        self._stop_request = stop
        self._fd = fd
        # What this process starts must not keep the pipe, nor learn of the supervisor's end.
        os.set_inheritable(fd, False)  # noqa: FBT003 - its parameter has no name
        self._signals = SignalPipe(heard=[signal.SIGTERM], ignored=[signal.SIGINT, signal.SIGHUP])

    def run(self) -> None:
        """Listen until the process ends."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._signals.fd, select.POLLIN)
        while True:
            for fd, _event in poller.poll():
                if fd == self._signals.fd:
                    if signal.SIGTERM in self._signals.take():
                        self._stop_request.request(StopLevel.GRACEFUL)
                elif words := os.read(self._fd, 64):
                    self._hear(words)
                else:
                    poller.unregister(self._fd)
                    self._stop_request.request(StopLevel.GRACEFUL)
                    last = threading.Timer(self.patience.total_seconds(), end, args=(Exit.ABANDONED,))
                    last.daemon = True
                    last.start()

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

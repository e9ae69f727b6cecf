"""From a command line to running roles: what is wanted is checked whole, then announced, then run."""

from __future__ import annotations

import logging
import os
import platform
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core import logs
from jobqueue_core._version import __version__
from jobqueue_core.app import App
from jobqueue_core.errors import ConfigError, PluginError, StorageError
from jobqueue_core.service import Exit, Patience, ServicePlugin, Stop, StopLevel
from jobqueue_core.settings.overrides import read_overrides
from jobqueue_core.settings.structuring import did_you_mean
from jobqueue_core.supervision.child import UNUSABLE, check_handlers, close, end, open_service, report
from jobqueue_core.supervision.signalpipe import SignalPipe
from jobqueue_core.supervision.supervisor import Supervisor
from jobqueue_core.urls import redact

if TYPE_CHECKING:
    from jobqueue_core.plugins import Plugins
    from jobqueue_core.settings import Settings

__all__ = ["Wanted", "check", "choose_roles", "start"]

_log = logging.getLogger("jobqueue.supervisor")
_RECORDER: Final = "recorder"


@attrs.frozen(kw_only=True)
class Wanted:
    """What the command line asks for."""

    roles: tuple[str, ...] = ()
    """Empty: what the settings say, else what is there by default."""
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    """As ``worker.concurrency=4``."""

    @property
    def arguments(self) -> list[str]:
        """The arguments with which a child comes to the same settings."""
        config = [] if self.config is None else [f"--config={self.config}"]
        return [*config, *(f"--set={text}" for text in self.overrides)]


def start(wanted: Wanted) -> int:
    """Run what is wanted until signals end it; returns the exit status."""
    signals = SignalPipe(heard=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD])
    try:
        app, roles = _assemble(wanted)
        away = _storage_away(app)
    except UNUSABLE as error:
        report(error)
        return Exit.USAGE
    logs.configure(app.settings.log)
    _announce(app, roles, away)
    if roles[0].foreground(app.settings):
        return end(_in_foreground(app, roles[0], signals))
    return Supervisor(app, roles, arguments=wanted.arguments, signals=signals).run()


def check(wanted: Wanted) -> int:
    """Check what is wanted, handler packages too, and print what would run; returns the exit status."""
    # What is wrong is printed below, once.
    logging.getLogger("jobqueue").addHandler(logging.NullHandler())
    try:
        app, roles = _assemble(wanted)
        handlers = _check_work(app) if any(role.runs_handlers for role in roles) else None
        away = _storage_away(app)
    except UNUSABLE as error:
        report(error)
        return Exit.USAGE
    for warning in (*_warnings(app), *away):
        sys.stderr.write(f"jobqueue-run: warning: {warning}\n")
    lines = [f"{name}: {value}" for name, value in _facts(app).items() if name != "pid"]
    lines += [f"role: {' '.join(f'{name}={value}' for name, value in facts.items())}" for facts in _role_facts(app, roles)]
    if handlers is not None:
        lines.append(f"handlers: {len(handlers)}{': ' if handlers else ''}{', '.join(sorted(handlers))}")
    sys.stdout.write("\n".join([*lines, "ok\n"]))
    return Exit.OK


def _check_work(app: App) -> list[str]:
    """The types that a worker would serve. Raises what keeps it from serving them."""
    app.middleware()
    return [spec.type for spec in check_handlers(app)]


# Checking ------------------------------------------------------------------------------------------------------------------------------


def _assemble(wanted: Wanted) -> tuple[App, list[ServicePlugin]]:
    app = App.from_config(wanted.config, overrides=read_overrides(wanted.overrides))
    problems = []
    for choose, name in ((app.plugins.broker, app.settings.broker.plugin), (app.plugins.storage, app.settings.storage.plugin)):
        try:
            choose(name)
        except PluginError as error:
            problems.append(str(error))
    roles: list[ServicePlugin] = []
    try:
        roles = choose_roles(wanted.roles, app.settings, app.plugins)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return app, roles


def _storage_away(app: App) -> list[str]:
    """A warning when storage does not answer: roles start all the same, for jobs are run without it.

    Raises:
        IncompatibleData: Its schema is not for this release, which no waiting mends.
    """
    name = app.settings.storage.plugin
    try:
        app.plugins.storage(name).probe(app.settings)
    except StorageError as error:
        return [f"storage cannot be used yet, and what happens waits in the broker: {error}"]
    return []


def choose_roles(named: tuple[str, ...], settings: Settings, plugins: Plugins) -> list[ServicePlugin]:
    """The roles to run: those *named*, else those of ``[run] roles``, else those that are there by default; and the recorder, if one needs it.

    Raises:
        ConfigError: Some role is not there, broken, or cannot run beside the others; with every problem.
    """
    services = plugins.services()
    public = [one.name for one in services.values() if not one.internal]
    names = tuple(dict.fromkeys(named or settings.run.roles or (one.name for one in services.values() if one.by_default)))
    problems = [problem for name in names if (problem := _problem(name, public, plugins)) is not None]
    roles = [services[name] for name in names if name in public]
    problems += [
        f"role {role.name!r} needs the terminal and runs alone: start it, or the others, by a command of its own"
        for role in roles
        if len(roles) > 1 and role.foreground(settings)
    ]
    if not names:
        problems.append(f"no role to run; name some: {', '.join(public) or 'none is installed'}")
    if problems:
        raise ConfigError(problems)
    if any(role.records for role in roles) and not roles[0].foreground(settings):
        roles += [services[name] for name in (_RECORDER,) if name in services]
    return roles


def _problem(name: str, public: list[str], plugins: Plugins) -> str | None:
    if name in public:
        return None
    error = plugins.unusable("role", name)
    if error is None:
        return f"role {name!r} runs by itself beside those that need it; roles: {', '.join(public)}"
    hint = did_you_mean(name, public)
    # A url that was meant for an option ends here as a role.
    shown = redact(name)
    return f"unknown role {shown!r}{hint}; roles: {', '.join(public)}" if hint else f"unknown role {shown!r}: {error.replace(name, shown)}"


# Saying what runs ----------------------------------------------------------------------------------------------------------------------


def _announce(app: App, roles: list[ServicePlugin], away: list[str]) -> None:
    _log.info("starting", extra={"fields": _facts(app)})
    for facts in _role_facts(app, roles):
        _log.info("role", extra={"fields": facts})
    for warning in (*_warnings(app), *away):
        _log.warning("%s", warning)


def _facts(app: App) -> dict[str, object]:
    settings = app.settings
    return {
        "jobqueue": __version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
        "config": "embedded default" if settings.source is None else str(settings.source),
        "broker": f"{settings.broker.plugin} {redact(settings.broker.url)}",
        "storage": f"{settings.storage.plugin} {redact(settings.storage.url)}",
    }


def _role_facts(app: App, roles: list[ServicePlugin]) -> Iterator[dict[str, object]]:
    settings = app.settings
    for role in roles:
        facts: dict[str, object] = {"role": role.name, "processes": role.processes(settings)}
        if role.runs_handlers:
            facts |= {"queues": ",".join(settings.worker.queues), "concurrency": settings.worker.concurrency}
        within = [one.name for one in app.plugins.services().values() if one.within == role.name]
        if within:
            facts["with"] = ",".join(within)
        yield facts


def _warnings(app: App) -> Iterator[str]:
    yield from app.settings.warnings
    for fault in app.plugins.faults:
        yield str(fault)


# In the foreground ---------------------------------------------------------------------------------------------------------------------


def _in_foreground(app: App, plugin: ServicePlugin, signals: SignalPipe) -> Exit:
    """Run one service in this process: stdin and stdout are its own."""
    stop = Stop()
    threading.Thread(target=_count, args=(signals, stop, app.settings), name="jobqueue-signals", daemon=True).start()
    try:
        if plugin.runs_handlers:
            check_handlers(app)
        service = open_service(app, plugin, stop)
        status = Exit.OK if service is None else service.run(stop)
    except UNUSABLE as error:
        report(error)
        return Exit.USAGE
    except Exception:  # noqa: BLE001 - a service is a third party's code
        _log.exception("broke", extra={"fields": {"role": plugin.name}})
        return Exit.FAILED
    close(app)
    return Exit.AT_ONCE if stop.level is StopLevel.AT_ONCE else status


def _count(signals: SignalPipe, stop: Stop, settings: Settings) -> None:
    """One signal stops gracefully, a second one at once; a service that does not stop in time is not waited for."""
    patience = Patience()
    waits = {
        StopLevel.GRACEFUL: (settings.worker.shutdown_timeout + patience.beyond_grace, Exit.ABANDONED),
        StopLevel.AT_ONCE: (patience.at_once, Exit.AT_ONCE),
    }
    poller = select.poll()
    poller.register(signals.fd, select.POLLIN)
    while True:
        poller.poll()
        for number in signals.take():
            if number == signal.SIGCHLD or stop.level is StopLevel.AT_ONCE:
                continue
            stop.request(StopLevel(stop.level + 1))
            wait, status = waits[stop.level]
            timer = threading.Timer(wait.total_seconds(), end, args=(status,))
            timer.daemon = True
            timer.start()

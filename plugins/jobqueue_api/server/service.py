"""The role ``api`` of ``jobqueue-run``."""

from __future__ import annotations

import errno
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from jobqueue_api.section import is_loopback
from jobqueue_core import ConfigError, PluginError, logs
from jobqueue_core.keys import KeyRing
from jobqueue_core.service import Exit, Stop

from .arbiter import Arbiter, Served
from .listening import listen

if TYPE_CHECKING:
    from jobqueue_api.section import ApiSection
    from jobqueue_core.app import App

__all__ = ["ApiService"]

_log = logging.getLogger("jobqueue.api")

_IN_USE: Final = 1.5
"""How long to wait for an address that is in use, in seconds: whoever was here before is perhaps about to let go of it."""
_PAUSE: Final = 0.1


class ApiService:
    """Serves the API by gunicorn, whose arbiter runs in this process.

    Args:
        app: Settings and plugins; nothing of it is opened here.

    Raises:
        ConfigError: A key file cannot be read.
        PluginError: What is chosen cannot be used.
    """

    def __init__(self, app: App) -> None:
        _check(app)
        self._app = app
        self._address = _address(app)
        """Where it listens: what a reload cannot change."""
        self._arbiter: Arbiter | None = None
        self._reload_wanted = False

    def run(self, stop: Stop) -> Exit:
        """Serve until *stop* rises.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        listeners = self._listen(stop)
        if not listeners:
            return Exit.OK
        arbiter = self._arbiter = Arbiter(Served(self._app), listeners, reread=self._reread)
        if self._reload_wanted:
            arbiter.reload_soon()
        stop.listen(arbiter.stop_soon)
        return arbiter.serve()

    def reload(self) -> None:
        """Read the configuration anew, and serve that; where it is wrong, say why and go on as before."""
        self._reload_wanted = True
        if self._arbiter is not None:
            self._arbiter.reload_soon()

    def _reread(self) -> App | None:
        try:
            app = self._app.reread()
            _check(app)
        except (ConfigError, PluginError) as error:
            for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
                _log.error("cannot reload", extra={"fields": {"problem": problem}})
            return None
        if _address(app) != self._address and not self._may_stay(app):
            return None
        logs.configure(app.settings.log)
        self._app = app
        return app

    def _may_stay(self, app: App) -> bool:
        """Whether *app*, which would listen elsewhere, may be served where we listen: not without keys where others reach it."""
        section: ApiSection = app.settings.section("api")
        wanted = {"host": section.host, "port": section.port}
        if section.keys or section.allow_anonymous or is_loopback(self._address[0]):
            _log.warning("needs a restart to listen elsewhere", extra={"fields": wanted})
            return True
        problem = f"there are no keys any more, and {self._address[0]} can be reached from other machines; restart to listen on {section.host}"
        _log.error("cannot reload", extra={"fields": {"problem": problem}})
        return False

    def _listen(self, stop: Stop) -> list[socket.socket]:
        """Listen; none when told to stop meanwhile."""
        host, port = self._address
        until = time.monotonic() + _IN_USE
        while True:
            try:
                return listen(host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= until:
                    raise ConfigError([f"api.host, api.port: cannot listen on {_shown(host, port)}: {error.strerror}"]) from error
            if stop.wait(_PAUSE):
                return []


def _address(app: App) -> tuple[str, int]:
    section: ApiSection = app.settings.section("api")
    return section.host, section.port


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host.strip("[]") and not host.startswith("[") else f"{host}:{port}"


def _check(app: App) -> None:
    """Raise what would keep each process from serving."""
    section: ApiSection = app.settings.section("api")
    KeyRing(section.keys, app.settings.folder)
    app.plugins.broker(app.settings.broker.plugin)
    app.plugins.storage(app.settings.storage.plugin)

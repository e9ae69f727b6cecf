"""The assembled whole: settings + plugins -> a queue, handlers, middleware and observers, each made when first asked for."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

from jobqueue_core.client import JobQueue
from jobqueue_core.errors import BrokerUnavailable, HandlerError, JobQueueError, PluginError, StorageUnavailable
from jobqueue_core.handlers import Registry, unrunnable
from jobqueue_core.observers import Observers
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import Settings, load_settings
from jobqueue_core.timetable import Timetables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jobqueue_core.broker import Broker
    from jobqueue_core.middleware import Middleware
    from jobqueue_core.operations import Operations
    from jobqueue_core.service import Supervision
    from jobqueue_core.storage import Storage

__all__ = ["App"]

_log = logging.getLogger("jobqueue")


class App:
    """Everything a process needs, assembled from settings and plugins. Parts are opened lazily and closed together."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.handler_faults: list[JobQueueError] = []
        """What was wrong with handler packages, once :attr:`registry` has been read."""
        self.process: Supervision | None = None
        """What a supervisor wants of the service in this process; None where there is none."""
        # Apart, so that one is not waited for while the other does not answer.
        self._opening_broker = _Opening()
        self._opening_storage = _Opening()
        self._broker: Broker | None = None
        self._storage: Storage | None = None
        self._reread: Callable[[], App] | None = None

    @classmethod
    def from_config(cls, path: Path | None = None, *, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None) -> App:
        """Read the configuration and find the plugins.

        Args:
            path: The config file; None for ``JOBQUEUE_CONFIG``, else the embedded default.
            environ: The environment; None for the process's own.
            overrides: Key path -> value from the command line: ``{"worker.concurrency": 4}``.

        Raises:
            ConfigError: With every problem found.
        """
        plugins = Plugins.load()
        settings = load_settings(path, environ=os.environ if environ is None else environ, overrides=overrides, plugins=plugins)
        app = cls(settings, plugins)
        app._reread = partial(cls.from_config, settings.source, environ=environ, overrides=overrides)
        return app

    def reread(self) -> App:
        """Another app, from the configuration as it is now. For an app that was made from parts: of the same parts.

        Raises:
            ConfigError: With every problem found.
        """
        return App(self.settings, self.plugins) if self._reread is None else self._reread()

    @property
    def broker(self) -> Broker:
        """The chosen broker, opened.

        Raises:
            PluginError: It is broken, or lacks its driver.
            BrokerError: It cannot be reached.
        """
        with self._opening_broker.attempt():
            if self._broker is None:
                name = self.settings.broker.plugin
                self._broker = self.plugins.broker(name).open(self.settings)
            return self._broker

    @property
    def storage(self) -> Storage:
        """The chosen storage, opened.

        Raises:
            PluginError: It is broken, or lacks its driver.
            StorageError: It cannot be reached.
        """
        with self._opening_storage.attempt():
            if self._storage is None:
                name = self.settings.storage.plugin
                self._storage = self.plugins.storage(name).open(self.settings)
            return self._storage

    @cached_property
    def queue(self) -> JobQueue:
        """The client on broker and storage."""
        return self.queue_on(self.broker, self.storage)

    def queue_on(self, broker: Broker, storage: Storage) -> JobQueue:
        """A client on another broker and storage, or on ours with something around them; all else is as this app has it."""
        return JobQueue(
            broker,
            storage,
            registry=lambda: self.registry,
            observers=self.observers,
            max_payload=self.settings.job.max_payload,
            timetables=Timetables(self.plugins.timetables()),
        )

    @cached_property
    def operations(self) -> Operations:
        """The service layer on the queue."""
        return self.queue.operations

    @cached_property
    def registry(self) -> Registry:
        """All installed handlers that can be used; the faults of the others are in :attr:`handler_faults` and logged as warnings."""
        registry = Registry()
        for source in self.plugins.handler_modules():
            try:
                # A package counts as a whole: half of it served would be worse than none.
                trial = Registry()
                module = source.load()
                trial.add(module, origin=source.origin)
                registry.add(module, origin=source.origin)
                # Producers still learn from it where its jobs go.
                reasons = [reason for spec in trial if (reason := unrunnable(spec)) is not None]
                self.handler_faults += [PluginError(reason, plugin=source.name, distribution=source.distribution) for reason in reasons]
            except PluginError as error:
                self.handler_faults.append(error)
            except HandlerError as error:
                refused = PluginError(str(error), plugin=source.name, distribution=source.distribution)
                refused.__cause__ = error
                self.handler_faults.append(refused)
        for fault in self.handler_faults:
            _log.warning("%s", fault)
        return registry

    @cached_property
    def observers(self) -> Observers:
        """All observers as one."""
        return Observers(self.plugins.observers(self.settings))

    def middleware(self) -> list[Middleware]:
        """The middleware of plugins, outermost first."""
        return self.plugins.middleware(self.settings)

    def close(self) -> None:
        """Close what was opened."""
        with self._opening_broker.lock, self._opening_storage.lock:
            if "queue" in self.__dict__:
                self.queue.close()
                return
            if self._broker is not None:
                self._broker.close()
            if self._storage is not None:
                self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class _Opening:
    """One part being opened, by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._failure: BrokerUnavailable | StorageUnavailable | None = None
        self._failed_at = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Open it in the block. Who has waited while somebody else failed to fails likewise: an attempt may take seconds."""
        asked_at = time.monotonic()
        with self.lock:
            if self._failure is not None and self._failed_at >= asked_at:
                raise self._failure.again() from self._failure
            try:
                yield
            except (BrokerUnavailable, StorageUnavailable) as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise


def installed_middleware(settings: Settings) -> list[Middleware]:
    """The middleware of the plugins installed, outermost first: for a process that needs nothing else of an app."""
    plugins = Plugins.load()
    plugins.disable(settings.plugins.disable)
    return plugins.middleware(settings)

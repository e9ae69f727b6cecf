"""What a plugin may offer: the questions the core asks, once, at start-up.

A plugin is a module under the entry point group ``jobqueue.plugins`` that implements some of these hooks with ``@hookimpl``. Hooks assemble,
protocols run: an answer is a part (a class, a factory, a list), and from then on the part is called directly. Every hook is asked of every
plugin, and all answers count; none stops the asking. Answer quickly and import lazily: a plugin is loaded by every process, also by one that
will not use what it offers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from jobqueue_core.broker import BrokerPlugin
    from jobqueue_core.checks import Check
    from jobqueue_core.middleware import Middleware
    from jobqueue_core.observers import Observer
    from jobqueue_core.service import CommandPlugin, ServicePlugin
    from jobqueue_core.settings import Settings
    from jobqueue_core.storage import StoragePlugin
    from jobqueue_core.timetable import TimetablePlugin

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT: Final = "jobqueue"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# Configuration -------------------------------------------------------------------------------------------------------------------------


@hookspec
def jobqueue_settings() -> Mapping[str, type]:  # type: ignore[empty-body]  # a specification has no body
    """Offer sections of the config file.

    Asked before the config file is checked, so that it can be checked whole.

    Returns:
        Table name -> a frozen attrs class whose fields are its keys, each with a default (or a list of such classes' instances for an array of
        tables: ``{"cron": list[CronEntry]}``). ``settings.section("name")`` gives the instance.
    """


# Parts that are chosen by name ---------------------------------------------------------------------------------------------------------


@hookspec
def jobqueue_brokers() -> Iterable[BrokerPlugin]:  # type: ignore[empty-body]
    """Offer brokers, to be chosen by ``[broker] plugin``. Nothing is opened or imported until one is chosen."""


@hookspec
def jobqueue_storages() -> Iterable[StoragePlugin]:  # type: ignore[empty-body]
    """Offer storages, to be chosen by ``[storage] plugin``. Nothing is opened or imported until one is chosen."""


@hookspec
def jobqueue_timetables() -> Iterable[TimetablePlugin]:  # type: ignore[empty-body]
    """Offer languages in which schedules say when they are due, to be chosen by how an expression begins. Nothing is imported until one is read."""


@hookspec
def jobqueue_services() -> Iterable[ServicePlugin]:  # type: ignore[empty-body]
    """Offer roles of ``jobqueue-run``."""


@hookspec
def jobqueue_commands() -> Iterable[CommandPlugin]:  # type: ignore[empty-body]
    """Offer commands of ``jobqueue``."""


# Parts that are active once installed --------------------------------------------------------------------------------------------------


@hookspec
def jobqueue_handlers() -> Iterable[ModuleType | Callable[..., object]]:  # type: ignore[empty-body]
    """Offer job handlers: modules (every ``@handler`` in them is found) or decorated functions.

    Asked by processes that run handlers or look them up. A package that offers nothing but handlers needs no plugin: the entry point group
    ``jobqueue.handlers`` names its modules.
    """


@hookspec
def jobqueue_middleware(settings: Settings) -> Iterable[Middleware]:  # type: ignore[empty-body]
    """Offer middleware: functions wrapped round every run.

    Asked when a worker, or a process of its handlers, starts, and by ``jobqueue plugins``. The first is outermost. Bundled ones come before
    those of plugins, and plugins' come in the order of the plugins' names; use ``@hookimpl(tryfirst=True)`` or ``trylast=True`` to be outside or
    inside the others. A worker does not start when this hook raises, or answers with what cannot be called as middleware.

    Args:
        settings: The settings, so that middleware can be configured by a section of its plugin.
    """


@hookspec
def jobqueue_observers(settings: Settings) -> Iterable[Observer]:  # type: ignore[empty-body]
    """Offer observers: told of what has happened (enqueued, started, finished, retried, dead, worker up and down), unable to change it.

    Asked when a client or worker is assembled, and by ``jobqueue plugins``. An observer that raises changes nothing: its errors are counted, and
    each of its methods' logged once a minute. When this hook raises, a warning says so.

    Args:
        settings: The settings.
    """


@hookspec
def jobqueue_checks(settings: Settings) -> Iterable[Check]:  # type: ignore[empty-body]
    """Offer checks for ``jobqueue doctor``.

    Args:
        settings: The settings.
    """

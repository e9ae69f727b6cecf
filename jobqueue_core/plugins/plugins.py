"""Plugins: find them, check them, and give each hook a typed method.

What is wrong with one plugin never stops another: it becomes a :class:`PluginFault`. Faults are warnings until someone chooses what is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from jobqueue_core._version import __version__
from jobqueue_core.broker import PROTOCOL, BrokerPlugin
from jobqueue_core.errors import JobQueueError, PluginError
from jobqueue_core.middleware import name_of
from jobqueue_core.plugins.catalogue import CORE, Catalogue, Kind, PluginFault
from jobqueue_core.plugins.discovery import Offered, Origin, describe, discover
from jobqueue_core.settings.sections import CORE_SECTIONS

if TYPE_CHECKING:
    from jobqueue_core.checks import Check
    from jobqueue_core.middleware import Middleware
    from jobqueue_core.observers import Observer
    from jobqueue_core.service import CommandPlugin, ServicePlugin
    from jobqueue_core.settings import Settings
    from jobqueue_core.storage import StoragePlugin
    from jobqueue_core.timetable import TimetablePlugin

__all__ = ["HandlerSource", "PluginFault", "Plugins"]

_log = logging.getLogger("jobqueue")


@attrs.frozen(kw_only=True)
class HandlerSource:
    """Something that offers handlers, by entry point or by hook."""

    source: Origin
    value: str
    """What is offered, as ``handlers_example.handlers``."""
    get: Callable[[], object]

    @property
    def name(self) -> str:
        """The entry point's or plugin's name: what ``[plugins] disable`` takes."""
        return self.source.name

    @property
    def distribution(self) -> str | None:
        """The distribution it came with."""
        return self.source.distribution

    @property
    def version(self) -> str | None:
        """That distribution's version."""
        return self.source.version

    @property
    def origin(self) -> str:
        """Where it comes from, for people: ``handlers-example 0.1.0``."""
        return self.source.release or self.name

    def load(self) -> ModuleType | Callable[..., object]:
        """Import it, if that has not been done.

        Raises:
            PluginError: It cannot be imported, or is neither a module nor a function.
        """
        found = self.get()
        if isinstance(found, ModuleType) or callable(found):
            return found
        raise self.source.error(f"{self.value} is neither a module nor a function but {found!r:.100}")


class Plugins:
    """All installed plugins, as what they offer."""

    def __init__(self, catalogue: Catalogue, handlers: Iterable[Offered] = ()) -> None:
        """A face for *catalogue* and the handler packages *handlers*; see :meth:`load`."""
        self._catalogue = catalogue
        self._handlers = tuple(handlers)

    @classmethod
    def load(cls, disable: Iterable[str] = (), extra: Iterable[tuple[str, object]] = (), *, installed: bool = True) -> Plugins:
        """Find and import all installed plugins. None of them can make this fail: see :attr:`faults`.

        Args:
            disable: As :meth:`disable`.
            extra: More plugins, as (name, module or object), for tests.
            installed: False: only the core and *extra*, for tests.
        """
        offered, handlers = discover() if installed else ([], [])
        candidates: list[tuple[Origin, Callable[[], object]]] = [(one.origin, one.load) for one in offered]
        candidates += [(Origin(name=name), partial(_same, part)) for name, part in extra]
        rivals: dict[str, list[str]] = {CORE: ["the core itself"]}
        for origin, _load in candidates:
            rivals.setdefault(origin.name, []).append(str(origin))
        catalogue = Catalogue()
        # pluggy asks the last one registered first, and plugins are to be asked by name, after the core.
        for origin, load in sorted(candidates, key=lambda candidate: candidate[0].name, reverse=True):
            if len(rivals[origin.name]) > 1:
                catalogue.refuse(origin, f"its name is taken more than once, by {' and '.join(rivals[origin.name])}; uninstall all but one")
                continue
            try:
                catalogue.add(origin, load())
            except PluginError as error:
                catalogue.refuse(origin, f"it cannot be imported: {describe(error.__cause__ or error)}", error.__cause__)
        # By name, because the core's parts need what this module defines.
        catalogue.add(Origin(name=CORE, distribution="jobqueue", version=__version__), import_module("jobqueue_core.builtin"))
        plugins = cls(catalogue, handlers)
        plugins.disable(disable)
        return plugins

    def disable(self, names: Iterable[str]) -> list[str]:
        """Leave out plugins and handler packages by name, or one middleware as ``plugin.function``.

        The sections of a disabled plugin stay known, so that its table may remain in the config file.

        Returns:
            A complaint for each name that leaves nothing out.
        """
        loaded, known = self._catalogue.origins, self._known()
        complaints = []
        for name in names:
            if name.partition(".")[0] == CORE:
                complaints.append(f"{name!r}: the core cannot be disabled")
            elif name in known or name.rpartition(".")[0] in loaded:
                self._catalogue.disabled.add(name)
            else:
                complaints.append(f"nothing is installed under the name {name!r}; there are {_listed(known)}")
        return complaints

    def _known(self) -> set[str]:
        return {*self._catalogue.origins, *self.refused(), *(one.origin.name for one in self._handlers)}

    def disabled(self, name: str) -> bool:
        """Whether *name* has been disabled."""
        return name in self._catalogue.disabled

    # What is chosen by name ----------------------------------------------------------------------------------------------------------------

    def brokers(self) -> Mapping[str, BrokerPlugin]:
        """The brokers that can be chosen."""
        return self._catalogue.parts("broker")

    def storages(self) -> Mapping[str, StoragePlugin]:
        """The storages that can be chosen."""
        return self._catalogue.parts("storage")

    def timetables(self) -> Mapping[str, TimetablePlugin]:
        """The languages in which schedules may say when they are due."""
        return self._catalogue.parts("timetable")

    def services(self) -> Mapping[str, ServicePlugin]:
        """The roles of ``jobqueue-run``."""
        return self._catalogue.parts("role")

    def commands(self) -> Mapping[str, CommandPlugin]:
        """The commands of ``jobqueue``."""
        return self._catalogue.parts("command")

    def sections(self) -> Mapping[str, Any]:
        """The tables of the config file: name -> section class, or ``list`` of one for an array of tables."""
        return {**CORE_SECTIONS, **self._catalogue.parts("section")}

    def broker(self, name: str) -> BrokerPlugin:
        """The broker *name*. Opening it checks its protocol, and names the plugin in errors that are not the framework's own.

        Raises:
            PluginError: It is not installed, disabled, broken, or offered twice.
        """
        part: BrokerPlugin = self._choose("broker", name)
        return attrs.evolve(part, open=self._guarded("broker", part))

    def storage(self, name: str) -> StoragePlugin:
        """The storage *name*; as :meth:`broker`."""
        part: StoragePlugin = self._choose("storage", name)
        return attrs.evolve(part, open=self._guarded("storage", part))

    def service(self, name: str) -> ServicePlugin:
        """The role *name*; raises as :meth:`broker`."""
        part: ServicePlugin = self._choose("role", name)
        return part

    def command(self, name: str) -> CommandPlugin:
        """The command *name*; raises as :meth:`broker`."""
        part: CommandPlugin = self._choose("command", name)
        return part

    def origin(self, kind: Kind, name: str) -> Origin:
        """Who offers the *kind* called *name*.

        Raises:
            PluginError: As :meth:`broker`.
        """
        self._choose(kind, name)
        return self._catalogue.origin_of(kind, name)

    def unusable(self, kind: Kind, name: str) -> str | None:
        """Why the *kind* called *name* cannot be chosen, naming the plugin at fault; None when it can."""
        parts = self._catalogue.parts(kind)
        if name in parts:
            return None
        fault = self._catalogue.fault_of(kind, name)
        if fault is not None:
            return str(fault)
        broken = "".join(f"; broken: {one}" for one in self.faults)
        public = [one for one, part in parts.items() if not getattr(part, "internal", False)]
        return f"no installed plugin offers a {kind} of this name; installed: {_listed(public)}{broken}"

    def _choose(self, kind: Kind, name: str) -> Any:
        problem = self.unusable(kind, name)
        if problem is None:
            return self._catalogue.parts(kind)[name]
        fault = self._catalogue.fault_of(kind, name)
        if fault is None:
            raise PluginError(problem, plugin=name)
        raise fault.origin.error(fault.cause) from fault.error

    def _guarded(self, kind: Kind, part: BrokerPlugin | StoragePlugin) -> Callable[[Settings], object]:
        origin = self.origin(kind, part.name)

        def open_part(settings: Settings) -> object:
            try:
                opened = part.open(settings)
            except JobQueueError:
                raise
            except Exception as error:  # a third party's code
                raise origin.error(f"its {kind} {part.name!r} cannot be opened: {describe(error)}") from error
            found = getattr(opened, "PROTOCOL", None)
            if found != PROTOCOL:
                problem = f"its {kind} {part.name!r} implements protocol {found!r}, and this jobqueue {PROTOCOL}: install releases that match"
                raise origin.error(problem)
            return opened

        return open_part

    # What is active once installed ---------------------------------------------------------------------------------------------------------

    def middleware(self, settings: Settings) -> list[Middleware]:
        """All middleware, outermost first.

        Raises:
            PluginError: A plugin's cannot be used: no job is to run without what somebody has installed to be round it.
        """
        found = self._catalogue.ask_active("jobqueue_middleware", settings=settings)
        for fault in self._catalogue.fault_in("jobqueue_middleware"):
            raise fault.origin.error(fault.cause) from fault.error
        for name in sorted(self._catalogue.disabled - self._known() - self._catalogue.left_out):
            if (plugin := name.rpartition(".")[0]) not in self._catalogue.disabled:
                _log.warning("[plugins] disable: plugin %r offers no middleware %r", plugin, name)
        return [part for _origin, part in found]

    def observers(self, settings: Settings) -> list[Observer]:
        """All observers; those of a plugin that is at fault are left out, which is logged."""
        found = self._catalogue.ask_active("jobqueue_observers", settings=settings)
        for fault in self._catalogue.fault_in("jobqueue_observers"):
            _log.warning("%s; its observers are told nothing", fault)
        return [part for _origin, part in found]

    def checks(self, settings: Settings) -> list[Check]:
        """All checks of ``jobqueue doctor``."""
        return [part for _origin, part in self._catalogue.ask_active("jobqueue_checks", settings=settings)]

    def probe(self, settings: Settings) -> list[str]:
        """Ask what is asked late, so that :attr:`faults` is complete.

        Returns:
            The middleware, outermost first, by the names that ``[plugins] disable`` takes.
        """
        for hook in ("jobqueue_observers", "jobqueue_checks"):
            self._catalogue.ask_active(hook, settings=settings)
        return [f"{origin.name}.{name_of(part)}" for origin, part in self._catalogue.ask_active("jobqueue_middleware", settings=settings)]

    def handler_modules(self, *, disabled: bool = False) -> list[HandlerSource]:
        """All that offers handlers: packages with an entry point by name, then plugins; *disabled* ones too if asked for."""
        sources = [HandlerSource(source=one.origin, value=one.value, get=one.load) for one in self._handlers]
        for origin, part in self._catalogue.ask("jobqueue_handlers"):
            sources.append(HandlerSource(source=origin, value=getattr(part, "__name__", repr(part)), get=partial(_same, part)))
        return [source for source in sources if disabled or not self.disabled(source.name)]

    # What there is, and what is wrong with it ----------------------------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[PluginFault, ...]:
        """What is wrong with plugins that are not disabled, as far as they have been asked."""
        return tuple(fault for fault in self._catalogue.faults() if not self.disabled(fault.origin.name))

    def installed(self) -> Mapping[str, Origin]:
        """The plugins that are loaded, disabled ones too, by name."""
        return dict(sorted(self._catalogue.origins.items()))

    def refused(self) -> Mapping[str, Origin]:
        """The plugins that could not be loaded, disabled ones too, by name; :attr:`faults` says why."""
        return {fault.origin.name: fault.origin for fault in self._catalogue.refused}

    def offers(self, plugin: str) -> list[tuple[str, str | None]]:
        """What one plugin offers: (``broker``, its name) and the like, and (``middleware``, None) for what has no name."""
        unnamed = ("jobqueue_handlers", "jobqueue_middleware", "jobqueue_observers", "jobqueue_checks")
        hooks = self._catalogue.implemented(plugin)
        return [*self._catalogue.offered_by(plugin), *((hook.removeprefix("jobqueue_"), None) for hook in hooks if hook in unnamed)]


def _same(part: object) -> object:
    return part


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"

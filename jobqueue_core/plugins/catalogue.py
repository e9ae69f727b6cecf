"""What loaded plugins offer: their answers to the hooks, who gave which, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs
import pluggy

from jobqueue_core import hookspecs
from jobqueue_core.middleware import name_of
from jobqueue_core.plugins.discovery import Origin, describe
from jobqueue_core.plugins.hookcheck import implemented, misfits, wrong_answer
from jobqueue_core.settings.sections import CORE_SECTIONS

__all__ = ["CORE", "Catalogue", "Kind", "PluginFault"]

CORE: Final = "core"
"""The name under which the core offers its own parts, by the same hooks."""

Kind = Literal["broker", "storage", "timetable", "role", "command", "section"]
"""What is offered under a name, which is why two plugins may clash over it."""

_NAMED: Final[Mapping[Kind, str]] = {
    "broker": "jobqueue_brokers",
    "storage": "jobqueue_storages",
    "timetable": "jobqueue_timetables",
    "role": "jobqueue_services",
    "command": "jobqueue_commands",
    "section": "jobqueue_settings",
}


@attrs.frozen(kw_only=True)
class PluginFault:
    """Something wrong with a plugin. *error* is the exception behind it, if there was one."""

    origin: Origin
    cause: str
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"{self.origin}: {self.cause}"


@attrs.frozen
class _Offer:
    origin: Origin
    name: str
    part: Any


class Catalogue:
    """The parts that plugins offer, by kind and name."""

    def __init__(self) -> None:
        self.disabled: set[str] = set()
        """Names of plugins, of handler packages, and ``plugin.function`` of single middleware."""
        self.left_out: set[str] = set()
        """Which of the single middleware have been met, and left out."""
        self.origins: dict[str, Origin] = {}
        """The plugins that are loaded, disabled ones too, by name."""
        self.refused: list[PluginFault] = []
        """Why others are not."""
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._at_fault: dict[tuple[str, str], PluginFault] = {}
        self._answers: dict[str, list[_Offer]] = {}

    def add(self, origin: Origin, plugin: object) -> None:
        """Take in a plugin, or refuse it."""
        try:
            self._manager.register(plugin, origin.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.refuse(origin, " ".join(str(error).split()), error)
            return
        problems = list(misfits(self._manager, plugin))
        if problems:
            self._manager.unregister(plugin)
            self.refuse(origin, "; ".join(problems))
            return
        self.origins[origin.name] = origin

    def refuse(self, origin: Origin, cause: str, error: BaseException | None = None) -> None:
        """Note why a plugin cannot be used."""
        self.refused.append(PluginFault(origin=origin, cause=cause, error=error))

    # Asking --------------------------------------------------------------------------------------------------------------------------------

    def ask(self, hook: str, **arguments: object) -> list[tuple[Origin, Any]]:
        """Every plugin's answers to *hook*, disabled ones too. One that raises or answers with something else is left out, and at fault.

        Those marked ``tryfirst`` come first and those marked ``trylast`` last, and among their like they come by the plugins' names.
        """
        return [part for implementation in self._in_order(hook) for part in self._answer(hook, implementation, arguments)]

    def ask_active(self, hook: str, **arguments: object) -> list[tuple[Origin, Any]]:
        """As :meth:`ask`, but what is disabled is not even asked."""
        active = [one for one in self._in_order(hook) if one.plugin_name not in self.disabled]
        return [part for implementation in active for part in self._answer(hook, implementation, arguments)]

    def fault_in(self, hook: str) -> list[PluginFault]:
        """The faults of those that are not disabled in their last answers to *hook*, in no particular order."""
        return [fault for (plugin, asked), fault in self._at_fault.items() if asked == hook and plugin not in self.disabled]

    def _in_order(self, hook: str) -> list[pluggy.HookImpl]:
        # Not pluggy's own order, in which the last of several that want to be last is the first by name.
        found: list[pluggy.HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        return sorted(found, key=lambda one: (one.trylast - one.tryfirst, one.plugin_name))

    def _answer(self, hook: str, implementation: pluggy.HookImpl, arguments: Mapping[str, object]) -> list[tuple[Origin, Any]]:
        """One plugin's answer. Each is called for itself: only so can one that raises be named, and the others still count."""
        origin = self.origins[implementation.plugin_name]
        self._at_fault.pop((origin.name, hook), None)
        try:
            answer: Any = implementation.function(*(arguments[name] for name in implementation.argnames))
            answers = list(answer.items() if isinstance(answer, Mapping) else answer)
            if hook == "jobqueue_middleware":
                answers = self._without_disabled(origin, answers)
            cause = next(filter(None, (wrong_answer(hook, one) for one in answers)), None)
            error: Exception | None = None
        except Exception as raised:  # noqa: BLE001 - a third party's code
            cause, error, answers = f"hook {hook} raised {describe(raised)}", raised, []
        if cause is not None:
            self._at_fault[origin.name, hook] = PluginFault(origin=origin, cause=cause, error=error)
            return []
        return [(origin, one) for one in answers]

    def _without_disabled(self, origin: Origin, middleware: Sequence[object]) -> list[object]:
        names = [f"{origin.name}.{name_of(one)}" for one in middleware]
        self.left_out.update(self.disabled.intersection(names))
        return [one for one, name in zip(middleware, names, strict=True) if name not in self.disabled]

    def parts(self, kind: Kind) -> dict[str, Any]:
        """What can be chosen, by name."""
        return {name: offers[0].part for name, offers in self._offers(kind).items() if len(offers) == 1}

    def origin_of(self, kind: Kind, name: str) -> Origin:
        """Who offers what can be chosen."""
        return self._offers(kind)[name][0].origin

    def implemented(self, plugin: str) -> list[str]:
        """The hooks that a plugin implements."""
        return implemented(self._manager, self._manager.get_plugin(plugin)) if plugin in self.origins else []

    def offered_by(self, plugin: str) -> list[tuple[Kind, str]]:
        """What a plugin offers by name, clashing or not."""
        return [(kind, offer.name) for kind in _NAMED for offer in self._all(kind) if offer.origin.name == plugin]

    def _offers(self, kind: Kind) -> dict[str, list[_Offer]]:
        offers: dict[str, list[_Offer]] = {}
        for offer in self._all(kind):
            # A disabled plugin's table may stay in the config file, so it must stay known.
            if offer.name not in CORE_SECTIONS if kind == "section" else offer.origin.name not in self.disabled:
                offers.setdefault(offer.name, []).append(offer)
        return dict(sorted(offers.items()))

    def _all(self, kind: Kind) -> list[_Offer]:
        hook = _NAMED[kind]
        if hook not in self._answers:
            answers = self.ask(hook)
            self._answers[hook] = [_Offer(origin, *part) if kind == "section" else _Offer(origin, part.name, part) for origin, part in answers]
        return self._answers[hook]

    # What is wrong -------------------------------------------------------------------------------------------------------------------------

    def faults(self) -> list[PluginFault]:
        """Everything that is wrong with any plugin, as far as it has been asked."""
        clashes = []
        for kind in _NAMED:
            for name, offers in self._offers(kind).items():
                rivals = [offer.origin for offer in offers]
                if len(rivals) > 1:
                    clashes += [_clash(origin, kind, name, rivals) for origin in rivals]
        reserved = [
            PluginFault(origin=offer.origin, cause=f"offers the section {offer.name!r}, which is the core's own")
            for offer in self._all("section")
            if offer.name in CORE_SECTIONS
        ]
        return [*self.refused, *self._at_fault.values(), *clashes, *reserved]

    def fault_of(self, kind: Kind, name: str) -> PluginFault | None:
        """Whose fault it is that the *kind* called *name* cannot be chosen; None when nobody offers it."""
        rivals = [offer.origin for offer in self._offers(kind).get(name, [])]
        if len(rivals) > 1:
            return _clash(rivals[0], kind, name, rivals)
        for fault in self.faults():
            if fault.origin.name == name:
                return fault
        for offer in self._all(kind):
            if offer.name == name:
                return PluginFault(origin=offer.origin, cause=f"offers the {kind} {name!r}, but [plugins] disable names it")
        return None


def _clash(culprit: Origin, kind: Kind, name: str, rivals: Iterable[Origin]) -> PluginFault:
    cause = f"the {kind} {name!r} is offered more than once, by {' and '.join(map(str, rivals))}; uninstall or disable all but one"
    return PluginFault(origin=culprit, cause=cause)

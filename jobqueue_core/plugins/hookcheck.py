"""Check plugins against the hookspecs: what they implement, and what they answer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

import attrs

from jobqueue_core import hookspecs, middleware, observers
from jobqueue_core.broker import BrokerPlugin
from jobqueue_core.checks import Check
from jobqueue_core.service import CommandPlugin, ServicePlugin
from jobqueue_core.storage import StoragePlugin
from jobqueue_core.timetable import TimetablePlugin

if TYPE_CHECKING:
    import pluggy

__all__ = ["HOOKS", "implemented", "misfits", "wrong_answer"]

HOOKS: Final = tuple(name for name in vars(hookspecs) if name.startswith("jobqueue_"))
"""The names of all hooks, in the order of the specification."""


def implemented(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """The hooks that a registered plugin implements."""
    callers = manager.get_hookcallers(plugin) or []
    return [name for name in HOOKS if any(caller.name == name for caller in callers)]


def misfits(manager: pluggy.PluginManager, plugin: object) -> Iterator[str]:
    """What is wrong with a plugin that pluggy has accepted: hooks that do not exist, are not marked, or are wrappers; or no hook at all."""
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec():
            close = difflib.get_close_matches(caller.name, HOOKS, n=1)
            yield f"there is no hook {caller.name!r}" + (f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(HOOKS)}")
        if any(one.plugin is plugin and (one.wrapper or one.hookwrapper) for one in caller.get_hookimpls()):
            yield f"{caller.name} is a hook wrapper, and each plugin is asked for itself: nothing is there to wrap"
    marked = {caller.name for caller in callers}
    unmarked = [name for name in HOOKS if name not in marked and callable(getattr(plugin, name, None))]
    for name in unmarked:
        yield f"{name} is not marked with @hookimpl"
    if not callers and not unmarked:
        yield "it implements no hook (functions named as hooks and marked with @hookimpl)"


def _is_section(item: object) -> bool:
    match item:
        case (str(), kind):
            return attrs.has(_element(kind))
        case _:
            return False


def _element(kind: Any) -> Any:
    """The class of a section, or of one table in an array of tables."""
    return get_args(kind)[0] if get_origin(kind) is list else kind


_ANSWERS: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "jobqueue_settings": ("a mapping of table names to attrs classes", _is_section),
    "jobqueue_brokers": ("BrokerPlugin objects", lambda part: isinstance(part, BrokerPlugin)),
    "jobqueue_storages": ("StoragePlugin objects", lambda part: isinstance(part, StoragePlugin)),
    "jobqueue_timetables": ("TimetablePlugin objects", lambda part: isinstance(part, TimetablePlugin)),
    "jobqueue_services": ("ServicePlugin objects", lambda part: isinstance(part, ServicePlugin)),
    "jobqueue_commands": ("CommandPlugin objects", lambda part: isinstance(part, CommandPlugin)),
    "jobqueue_handlers": ("modules or functions", lambda part: isinstance(part, ModuleType) or callable(part)),
    "jobqueue_middleware": ("functions", callable),
    "jobqueue_observers": ("Observer objects", lambda part: isinstance(part, observers.Observer)),
    "jobqueue_checks": ("Check objects", lambda part: isinstance(part, Check)),
}


_LOOK_CLOSER: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "jobqueue_middleware": middleware.misfit,
    "jobqueue_observers": observers.misfit,
}
"""What is called only by a running worker, and whose mistakes are to be known before."""


def wrong_answer(hook: str, answer: object) -> str | None:
    """What is wrong with one part of a plugin's answer to *hook*; None when it is right."""
    expected, accepts = _ANSWERS[hook]
    if not accepts(answer):
        return f"hook {hook} must return {expected}, and returned {answer!r:.100}"
    return _LOOK_CLOSER[hook](answer) if hook in _LOOK_CLOSER else None

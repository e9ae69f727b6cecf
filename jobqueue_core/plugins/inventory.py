"""The list of what is installed, for ``jobqueue plugins``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from jobqueue_core.errors import PluginError
from jobqueue_core.plugins import HandlerSource, PluginFault, Plugins
from jobqueue_core.plugins.discovery import Origin, describe

if TYPE_CHECKING:
    from jobqueue_core.settings import Settings

__all__ = ["PluginInfo", "Status", "inventory"]

Status = Literal["active", "available", "disabled", "broken"]
"""``available``: installed, but nothing that the settings choose."""


@attrs.frozen(kw_only=True)
class PluginInfo:
    """One plugin or handler package."""

    kind: Literal["plugin", "handlers"]
    name: str
    distribution: str | None
    version: str | None
    offers: tuple[str, ...]
    """As ``broker sqlite``, ``role worker``, ``checks``; for handlers what is imported.

    Middleware as ``middleware 2: acme.tenant``: its place among those of plugins, of which 1 is outermost, and the name that disables it.
    """
    status: Status
    why: str | None = None
    """What is broken, or who disabled it."""

    def to_dict(self) -> dict[str, Any]:
        """The plugin as ``--json`` shows it."""
        return {**attrs.asdict(self), "offers": list(self.offers)}


def inventory(plugins: Plugins, settings: Settings) -> list[PluginInfo]:
    """Everything that is installed, by name; asks plugins what they offer, and imports handler packages to see whether that works."""
    middleware = plugins.probe(settings)
    faults: dict[str, list[PluginFault]] = {}
    for fault in plugins.faults:
        faults.setdefault(fault.origin.name, []).append(fault)
    origins = {**{name: group[0].origin for name, group in faults.items()}, **plugins.installed(), **plugins.refused()}
    found = [_plugin(plugins, settings, origin, middleware, faults.get(name, [])) for name, origin in sorted(origins.items())]
    sources = plugins.handler_modules(disabled=True)
    return found + [_handlers(plugins, source) for source in sources if source.name not in origins]


def _plugin(plugins: Plugins, settings: Settings, origin: Origin, middleware: Sequence[str], faults: Sequence[PluginFault]) -> PluginInfo:
    offers = plugins.offers(origin.name)
    status, why = _status(plugins, origin.name, faults)
    if status == "active" and not any(_chosen(kind, name, settings) for kind, name in offers):
        status = "available"
    return PluginInfo(
        kind="plugin",
        name=origin.name,
        distribution=origin.distribution,
        version=origin.version,
        offers=tuple(_shown(origin.name, offers, middleware)),
        status=status,
        why=why,
    )


def _shown(plugin: str, offers: Sequence[tuple[str, str | None]], middleware: Sequence[str]) -> Iterator[str]:
    layers = [f"middleware {place}: {name}" for place, name in enumerate(middleware, 1) if name.rpartition(".")[0] == plugin]
    for kind, name in offers:
        if kind == "middleware" and layers:
            yield from layers
        else:
            yield kind if name is None else f"{kind} {name}"


def _handlers(plugins: Plugins, source: HandlerSource) -> PluginInfo:
    faults = []
    if not plugins.disabled(source.name):
        try:
            source.load()
        except PluginError as error:
            faults = [PluginFault(origin=source.source, cause=describe(error.__cause__ or error))]
    status, why = _status(plugins, source.name, faults)
    return PluginInfo(
        kind="handlers",
        name=source.name,
        distribution=source.distribution,
        version=source.version,
        offers=(f"handlers {source.value}",),
        status=status,
        why=why,
    )


def _status(plugins: Plugins, name: str, faults: Sequence[PluginFault]) -> tuple[Status, str | None]:
    if plugins.disabled(name):
        return "disabled", "[plugins] disable names it"
    if faults:
        return "broken", "; ".join(dict.fromkeys(fault.cause for fault in faults))
    return "active", None


def _chosen(kind: str, name: str | None, settings: Settings) -> bool:
    """Whether what a plugin offers is in use under these settings; what has no name, and every command, is as soon as it is installed."""
    match kind:
        case "broker":
            return name == settings.broker.plugin
        case "storage":
            return name == settings.storage.plugin
        case "role":
            return not settings.run.roles or name in settings.run.roles
        case "section":
            return False
        case _:
            return True

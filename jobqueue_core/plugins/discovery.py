"""Find what installed distributions offer: their entry points, read once, nothing imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any, Final

import attrs

from jobqueue_core.errors import PluginError

__all__ = ["HANDLER_GROUP", "PLUGIN_GROUP", "Offered", "Origin", "discover"]

PLUGIN_GROUP: Final = "jobqueue.plugins"
HANDLER_GROUP: Final = "jobqueue.handlers"


@attrs.frozen(kw_only=True)
class Origin:
    """Who offers something: a plugin's name and the distribution it came with; None when it came with none."""

    name: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"plugin {self.name!r} ({self.release})" if self.distribution else f"plugin {self.name!r}"

    @property
    def release(self) -> str:
        """Distribution and version, as ``jobqueue 0.1.0``; empty when there is none."""
        return " ".join(part for part in (self.distribution, self.version) if part)

    def error(self, problem: str) -> PluginError:
        """An error that names this origin as the culprit."""
        return PluginError(problem, plugin=self.name, distribution=self.release or None)


@attrs.frozen(kw_only=True)
class Offered:
    """One entry point."""

    origin: Origin
    entry_point: metadata.EntryPoint

    @property
    def value(self) -> str:
        """What it names: ``jobqueue_sqlite.plugin``."""
        return self.entry_point.value

    def load(self) -> Any:
        """Import what it names.

        Raises:
            PluginError: It cannot be imported; the reason is in the message and the cause.
        """
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:  # a third party's module runs here
            raise self.origin.error(f"{self.value} cannot be imported: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one line: its type and text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def discover() -> tuple[list[Offered], list[Offered]]:
    """The entry points of plugins and of handler packages, each by name, then by distribution."""
    found = metadata.entry_points()
    return _offered(found.select(group=PLUGIN_GROUP)), _offered(found.select(group=HANDLER_GROUP))


def _offered(entry_points: Iterable[metadata.EntryPoint]) -> list[Offered]:
    offers = [Offered(origin=_origin(entry_point), entry_point=entry_point) for entry_point in entry_points]
    return sorted(offers, key=lambda one: (one.origin.name, one.origin.distribution or ""))


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    distribution = entry_point.dist
    if distribution is None:
        return Origin(name=entry_point.name)
    # One reading of the metadata gives both.
    read = distribution.metadata
    return Origin(name=entry_point.name, distribution=read["Name"], version=read["Version"])

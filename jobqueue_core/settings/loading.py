"""Put settings together: config file, environment, command line and plugins, in that order, then into sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_origin

from jobqueue_core.options import options_of
from jobqueue_core.settings.connections import choose_connections
from jobqueue_core.settings.draft import COMMAND_LINE, Draft
from jobqueue_core.settings.environment import from_environment
from jobqueue_core.settings.sections import CORE_SECTIONS
from jobqueue_core.settings.structuring import Problem, did_you_mean, make_converter, structure

if TYPE_CHECKING:
    from jobqueue_core.plugins import Plugins
    from jobqueue_core.settings.configfile import ConfigFile

__all__ = ["Loader"]


class Loader:
    """Fills a :class:`Draft` and makes sections of it. Call the methods in the order in which they stand here."""

    def __init__(self, file: ConfigFile, plugins: Plugins) -> None:
        self.draft = Draft(file)
        self._plugins = plugins
        self._sections = plugins.sections()

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Let environment variables replace what stands in the file."""
        for name, option, value in from_environment(self._sections, environ):
            self.draft.set(name, option.key, value, source=f"environment variable {option.env}")

    def read_overrides(self, overrides: Mapping[str, object]) -> None:
        """Let the command line replace what stands in file and environment."""
        for dotted, value in overrides.items():
            name, _, key = dotted.partition(".")
            known = [f"{one}.{option}" for one, section in self._sections.items() if get_origin(section) is not list for option in _keys(section)]
            if dotted in known:
                self.draft.set(name, key, value, source=COMMAND_LINE)
            else:
                self.draft.problems.append(f"{COMMAND_LINE}: {dotted}: there is no such key{did_you_mean(dotted, known)}")

    def values(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """Check everything and make the sections; what is wrong is in the draft's problems, and then the sections are of no use."""
        self._disable()
        self._check_tables()
        choose_connections(self.draft, self._plugins, environ)
        converter = make_converter()
        values: dict[str, Any] = {}
        for name, section in self._sections.items():
            table = self.draft.tables.get(name, [] if get_origin(section) is list else {})
            values[name], problems = structure(table, section, (name,), converter)
            for problem in problems:
                self.draft.complain(problem)
        self._check_roles()
        return values

    def _disable(self) -> None:
        names = self.draft.table("plugins").get("disable", [])
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            self.draft.warnings += [f"{self.draft.source('plugins', 'disable')}: plugins.disable: {one}" for one in self._plugins.disable(names)]

    def _check_tables(self) -> None:
        for name, table in self.draft.tables.items():
            if name in self._sections:
                continue
            self.draft.complain(Problem(path=(name,), text=self._unknown(name, table), shows_value=False))

    def _unknown(self, name: str, table: object) -> str:
        if not isinstance(table, dict | list):
            homes = [f"[{one}]" for one, section in self._sections.items() if get_origin(section) is not list and name in _keys(section)]
            return f"this key stands outside of any table{'; it belongs into ' + ' or '.join(homes) if homes else ''}"
        reason = f"{self._plugins.unusable('section', name)}; the core's own: {', '.join(CORE_SECTIONS)}"
        return f"unknown table{did_you_mean(name, self._sections)}; {reason}"

    def _check_roles(self) -> None:
        roles = self.draft.table("run").get("roles", [])
        internal = {name for name, service in self._plugins.services().items() if service.internal}
        for index, role in enumerate(roles if isinstance(roles, list | tuple) else []):
            if not isinstance(role, str):
                continue  # the section says so
            problem = "runs by itself where it is needed; leave it out" if role in internal else self._plugins.unusable("role", role)
            if problem is not None:
                self.draft.complain(Problem(path=("run", "roles", index), text=problem))


def _keys(section: type) -> set[str]:
    return {option.key for option in options_of(section)}

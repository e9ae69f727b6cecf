"""Settings while they are being put together: raw tables, where each value came from, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from jobqueue_core.durations import format_duration
from jobqueue_core.settings.structuring import KeyPath, Problem, value_at
from jobqueue_core.urls import redact

if TYPE_CHECKING:
    from jobqueue_core.settings.configfile import ConfigFile

__all__ = ["COMMAND_LINE", "Draft"]

COMMAND_LINE: Final = "command line"
_LONGEST: Final = 100


class Draft:
    """Raw values, by table and key. What is set later replaces what was there, and errors name where it came from."""

    def __init__(self, file: ConfigFile) -> None:
        self.file = file
        self.tables: dict[str, Any] = {name: dict(table) if isinstance(table, dict) else table for name, table in file.tables.items()}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._sources: dict[tuple[str, str], str] = {}

    def table(self, name: str) -> Mapping[str, Any]:
        """A table as far as it is one; empty when it is missing or something else stands there."""
        table = self.tables.get(name)
        return table if isinstance(table, dict) else {}

    def set(self, name: str, key: str, value: object, *, source: str | None = None) -> None:
        """Set a value; *source* is who says so, None for a default, or a value that is only spelt out."""
        if isinstance(self.tables.setdefault(name, {}), dict):
            self.tables[name][key] = value
            if source is not None:
                self._sources[name, key] = source

    def source(self, name: str, key: str) -> str:
        """Where a value came from, as errors name it; of a value that is not given, where the rest of its table came from."""
        table = self.table(name)
        keys = [key] if key in table else sorted(table)
        return " and ".join(dict.fromkeys(self._sources.get((name, one), self.file.label) for one in keys)) or self.file.label

    def complain(self, problem: Problem) -> None:
        """Add a problem in its final form: who says it, where it stands, what stands there, what is allowed."""
        path = problem.path
        source = self.source(str(path[0]), str(path[1])) if len(path) > 1 else self.file.label
        value = value_at(self.tables, path)
        found = f" = {written(value)}" if problem.shows_value and value is not None else ""
        self.problems.append(f"{source}: {_dotted(path)}{found}: {problem.text}")

    def refuse(self, name: str, key: str, text: str) -> None:
        """Complain about one key."""
        self.complain(Problem(path=(name, key), text=text))


def written(value: object) -> str:
    """A value as it may be printed: as in the config file, shortened, without what may be a secret."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            shown = redact(value)
            return '"' + (shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "...").encode("unicode_escape").decode() + '"'
        case timedelta():
            return f'"{format_duration(value)}"'
        case dict():
            return "a table"
        case list() | tuple():
            return "tables" if any(isinstance(one, dict) for one in value) else f"[{', '.join(written(one) for one in value[:20])}]"
        case _:
            return str(value)


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

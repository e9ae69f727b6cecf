"""The migrations that this release brings: ``NNNN_name.up.sql`` and ``.down.sql`` in the package ``jobqueue_postgres.migrations``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Migration", "bundled", "read_migrations", "runs_in_transaction", "statements_of"]

_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.(up|down)\.sql")
_HEADER: Final = re.compile(r"^-- migrate: *(?P<word>[a-z-]+)(?: +(?P<value>\d+))? *$", re.MULTILINE)
_WORDS: Final = ("no-transaction", "readable-from")
_TOKEN: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<end> ; )
    | '(?:[^']|'')*' | "(?:[^"]|"")*"             # a text, a quoted name
    | \$(?P<tag>\w*)\$ .*? \$(?P=tag)\$             # the body of a function
    | \w+ | .                                       # a word, so that the "$1" of a$1 is no tag; anything else
    """,
    re.VERBOSE | re.DOTALL,
)


@attrs.frozen(kw_only=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    up: str
    down: str | None
    readable_from: int
    """The oldest schema version whose release can still work on what this step makes."""

    @property
    def label(self) -> str:
        """As its files are called."""
        return f"{self.version:04}_{self.name}"

    @property
    def checksum(self) -> str:
        """Tells whether the file is the one that was applied."""
        return hashlib.sha256(self.up.encode()).hexdigest()[:16]


@cache
def bundled() -> Mapping[int, Migration]:
    """The migrations of this release, by version."""
    return read_migrations(files(f"{__package__}.migrations"))


def read_migrations(folder: Traversable) -> Mapping[int, Migration]:
    """The migrations in *folder*, by version, in order.

    Raises:
        ValueError: The files are not as they must be.
    """
    found: dict[tuple[int, str], dict[str, str]] = {}
    for file in folder.iterdir():
        if match := _FILE.fullmatch(file.name):
            found.setdefault((int(match[1]), match[2]), {})[match[3]] = file.read_text(encoding="utf-8")
    migrations: dict[int, Migration] = {}
    for (version, name), texts in sorted(found.items()):
        label = f"{version:04}_{name}"
        if version != len(migrations) + 1:
            raise ValueError(f"{label}: expected number {len(migrations) + 1:04}: they count from 0001 without gaps, each once")
        if "up" not in texts:
            raise ValueError(f"{label}.up.sql is missing")
        _check_headers(f"{label}.down.sql", texts.get("down", ""), words=_WORDS[:1])
        readable_from = _readable_from(f"{label}.up.sql", version, texts["up"])
        if version > 1 and readable_from < migrations[version - 1].readable_from:
            raise ValueError(f"{label}.up.sql: readable-from is lower than that of the migration before it, which it contains")
        migrations[version] = Migration(version=version, name=name, up=texts["up"], down=texts.get("down"), readable_from=readable_from)
    return migrations


def runs_in_transaction(text: str) -> bool:
    """Whether a file may run in a transaction, as all do but those that say ``-- migrate: no-transaction``."""
    return all(match["word"] != "no-transaction" for match in _HEADER.finditer(text))


def statements_of(text: str) -> list[str]:
    """The statements of a file one by one, without comments between them."""
    statements = [""]
    for match in _TOKEN.finditer(text):
        if match["end"]:
            statements.append("")
        elif not match["comment"]:
            statements[-1] += match[0]
        else:
            statements[-1] += " "
    return [one.strip() for one in statements if one.strip()]


def _readable_from(file: str, version: int, text: str) -> int:
    readable_from = version
    for value in _check_headers(file, text, words=_WORDS):
        readable_from = value
        if not 1 <= readable_from <= version:
            raise ValueError(f"{file}: readable-from {value:04} must be from 0001 to {version:04}")
    return readable_from


def _check_headers(file: str, text: str, *, words: Sequence[str]) -> list[int]:
    """Refuse headers that are none of *words*; gives the numbers in them."""
    for match in _HEADER.finditer(text):
        word, value = match["word"], match["value"]
        if word not in words or (word == "readable-from") != (value is not None):
            known = " or ".join(repr(f"-- migrate: {word}{' 0001' if word == 'readable-from' else ''}") for word in words)
            raise ValueError(f"{file}: {match[0]!r} is no header: it is {known}")
    return [int(match["value"]) for match in _HEADER.finditer(text) if match["value"]]

"""The migrations that this release brings: ``NNNN_name.up.sql`` and ``.down.sql`` in the package ``jobqueue_postgres.migrations``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Migration", "bundled", "read_migrations", "runs_in_transaction"]

_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.(up|down)\.sql")
_HEADER: Final = re.compile(r"^-- migrate: *(?P<word>[a-z-]+)(?: +(?P<value>\d+))? *$", re.MULTILINE)
_WORDS: Final = ("no-transaction", "readable-from")


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
        migrations[version] = Migration(
            version=version, name=name, up=texts["up"], down=texts.get("down"), readable_from=_readable_from(label, version, texts["up"])
        )
    return migrations


def runs_in_transaction(text: str) -> bool:
    """Whether a file may run in a transaction, as all do but those that say ``-- migrate: no-transaction``."""
    return all(match["word"] != "no-transaction" for match in _HEADER.finditer(text))


def _readable_from(label: str, version: int, text: str) -> int:
    readable_from = version
    for match in _HEADER.finditer(text):
        word, value = match["word"], match["value"]
        if word not in _WORDS or (word == "readable-from") != (value is not None):
            raise ValueError(f"{label}.up.sql: {match[0]!r} is no header: it is '-- migrate: no-transaction' or '-- migrate: readable-from 0001'")
        if value is not None:
            readable_from = int(value)
            if not 1 <= readable_from <= version:
                raise ValueError(f"{label}.up.sql: readable-from {value} must be from 0001 to {version:04}")
    return readable_from

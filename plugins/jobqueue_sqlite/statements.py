"""The SQL of this package: one statement a file in ``sql/``, the schema in ``migrations/``."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files
from typing import Final

import attrs

__all__ = ["Migration", "migrations", "statement"]

_MIGRATION: Final = re.compile(r"(\d{4})_(\w+)\.sql")


@cache
def statement(name: str) -> str:
    """The text of ``sql/<name>.sql`` without its comment."""
    text = files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


@attrs.frozen(kw_only=True)
class Migration:
    """One step of the schema: after it ``PRAGMA user_version`` is *version*."""

    version: int
    name: str
    statements: tuple[str, ...]


@cache
def migrations() -> tuple[Migration, ...]:
    """All steps, in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        match = _MIGRATION.fullmatch(file.name)
        if match:
            found.append(Migration(version=int(match[1]), name=match[2], statements=_split(file.read_text(encoding="utf-8"))))
    return tuple(sorted(found, key=lambda migration: migration.version))


def _split(script: str) -> tuple[str, ...]:
    """The single statements of *script*: ``executescript`` would commit the transaction that they belong to."""
    statements = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    return tuple(statements)

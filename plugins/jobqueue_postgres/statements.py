"""The SQL of this package: one statement a file in ``sql/``; the schema stands in the package ``jobqueue_postgres.migrations``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["statement"]


@cache
def statement(name: str) -> str:
    """The text of ``sql/<name>.sql`` without its comment."""
    text = files(__package__).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))

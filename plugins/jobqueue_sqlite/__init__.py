"""The embedded default: broker and storage in one SQLite file, with nothing to install or run.

Several processes on one machine may share the file; it must lie on a local disk. ``SqliteBroker`` and ``SqliteStorage`` may use one file or two.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .broker import SqliteBroker
    from .storage import SqliteStorage

__all__ = ["SqliteBroker", "SqliteStorage"]

_HOMES: Final = {"SqliteBroker": "broker", "SqliteStorage": "storage"}


def __getattr__(name: str) -> object:
    """Import what is asked for, and only then: every process loads this package, also one that uses another broker."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
